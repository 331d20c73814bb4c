"""Texts that each kind of check accepts and refuses."""

import pytest

from selfreward.checks import KINDS, passes

# kind, arguments, texts that pass, texts that do not.
CASES = [
    ("punctuation:no_comma", {}, ["One; two.", "Ein Komma, nein".replace(",", "\uff0c")], ["one, two", ","]),
    (
        "change_case:english_lowercase",
        {},
        ["the bees live in a hive near the old house.", "p.s. we saw 3 of them in the garden!"],
        ["The bees live in a hive.", "die bienen leben in einem garten hinter dem haus", "123 456"],
    ),
    (
        "change_case:english_capital",
        {},
        ["THE BEES LIVE IN A HIVE.", "THERE ARE 3 OF THEM."],
        ["THE BEES LIVE IN A hIVE", "123 456", "ПЧЕЛЫ ЖИВУТ В УЛЬЕ ЗА СТАРЫМ ДОМОМ"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["I saw NASA", "DON'T", "A BIG-TIME fan", "**YES** and (NO)", "U.S. and U.K."],
        ["I saw Nasa", "BIG-TIME", "GoOD news", "AND/OR", "12 34"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "less than"},
        ["only ONE", "none at all"],
        ["ONE,TWO", "I CANNOT"],
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Write a haiku. "},
        ["Write a haiku. Frogs leap.", "  write A haiku.\n\nFrogs."],
        ["Sure! Write a haiku.", "Write a  haiku.", "Write a haik"],
    ),
    (
        "combination:two_responses",
        {},
        ["one ****** two", "******\none\n******\ntwo\n******", "one******two"],
        ["one", "same ****** same ", "a ****** b ****** c", "a ****** ****** b", "****** a", "a ***** b"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[name] lives at [address]", "[a][b]", "[] and []", "[a [b] c] and [d]"],
        ["[name]", "[a [b]]", "[a\nb] [c]", "name] [address"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["Bye.\n\nP.S. Call me", "bye p. s. call me", "P.S.", "P.P.S. found inside"],
        ["Bye.\nPS call me", "P.S call me"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        ["P.P.S call me", "p. p. s. call me"],
        ["P.S. call me", "PPS call me"],
    ),
    ("detectable_content:postscript", {"postscript_marker": "N.B. (1)"}, ["so n.b. (1) it"], ["nxbx 1", "N.B. 1"]),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is yes.", "Well. My answer is maybe. Sorry."],
        ["my answer is yes.", "My answer is yes", "yes"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "Here:\n  * a\n\n\n\t- b\nend", "-a\n-b", "*a\n*b"],
        ["* a\n* b\n* c", "* a", "**a**\n**b**", "a * b\nc * d", "1. a\n2. b"],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and *b*", "**a** and *b*", "**a** **b**", "*a*\n*b c*"],
        ["*a*", "** ** and * *", "*a\nb* c", "**a**", "****"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1\na\nSection 2\nb", "Section1 and Section\n2", "Subsection Section 1 Section 12 Section 3"],
        ["Section 1", "SECTION 1 SECTION 2", "Section one Section two", "Section  1 Section  2"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": [1, 2]}', '```json\n{"a": 1}\n```', "```\n[]\n```", "42", '  "text"  '],
        ['Here: {"a": 1}', "{'a': 1}", '{"a": 1', "```json\n```", '{"a": 1} {"b": 2}', "[" * 100_000],
    ),
    (
        "detectable_format:title",
        {},
        ["<<Bees>>", "Text\n<<On Bees>> more", "<<<a>>>", "<< a\n<<b>>"],
        ["<<>>", "<< >>", "<Bees>", "<<Bees\n>>", ">>a<<", "<<<>>>"],
    ),
    (
        "keywords:existence",
        {"keywords": ["bee", "honey pot"]},
        ["Bees! HONEY POT.", "beer in a honey pot"],
        ["bee and honey", "b.ee honey pot", "honey pot"],
    ),
    ("keywords:existence", {"keywords": ["C++ (new)"]}, ["the c++ (NEW) way"], ["C new", "CCC new"]),
    (
        "keywords:frequency",
        {"keyword": " bee ", "frequency": 2, "relation": "at least"},
        ["bee bee", "Bees and BEER"],
        ["a bee", "be e bee"],
    ),
    (
        "keywords:frequency",
        {"keyword": "bee", "frequency": 1, "relation": "less than"},
        ["none of them"],
        ["a bee", "frisbee"],
    ),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["bee", "honey"]},
        ["beer and honeydew", "wasps"],
        ["a Bee.", "some HONEY", "honey-like"],
    ),
    ("keywords:forbidden_words", {"forbidden_words": ["a.b"]}, ["aXb"], ["see a.b here"]),
    (
        "keywords:letter_frequency",
        {"letter": "E", "let_frequency": 3, "let_relation": "at least"},
        ["Eee", "even bees"],
        ["ee", "xxx"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "#", "let_frequency": 2, "let_relation": "less than"},
        ["#one", "none"],
        ["#one #two"],
    ),
    (
        "language:response_language",
        {"language": "de"},
        ["Die Bienen leben in einem Garten hinter dem alten Haus.", "1234"],
        ["The bees live in a garden behind the old house.", "Les abeilles vivent dans un jardin derrière la maison."],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 5, "relation": "less than"},
        ["one two three four", "a b c - d", "well-known don't"],
        ["one two three four five", "well-known don't go"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 5, "relation": "at least"},
        ["one two three four five", "one, two; three. four-five", "3.5 4.5 x"],
        ["one two three four", "* - * - *"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "at least"},
        ["One. Two.", "One! Two", "Really?\nYes", 'He said "Go." Then he left.', "It was 1999. They won.", "One. two."],
        [
            "One",
            "Mr. Smith, e.g. J. R. Smith of 3.5 Main St., won.",
            "One...two",
            "A list\n- of\n- things.",
            "Ph.D. work",
        ],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "less than"},
        ["I live in the U.S. I like it.", "Wait... what? Yes", "See fig. 3 on vol. 2. Then go."],
        ["I am. You are. We are.", "1. One\n2. Two", "So? So! So."],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "***\na\n***\nb\n***", "a *** b"],
        ["a\n\nb", "a", "a\n***\nb\n***\nc", "a\n***\n***\nb", "a ****** b"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Bees"},
        ["Hello.\n\nbees, they fly", "Hello.\n\n'BEES' fly", 'Hello\n\n"Bees" fly\n\n  '],
        ["Hello.\n\nThe bees", "Bees.\n\nHello", "a\n\nbees\n\nc", "a\nbees", "bees", "a\n\n\n\nbees", "a\n\nbeeswax"],
    ),
    (
        "startend:end_checker",
        {"end_phrase": "Any questions? "},
        ["So. ANY questions?", 'So. "Any questions?"', "Any questions?\n "],
        ["Any questions? Ask.", "Any question?", "Any questions"],
    ),
    ("startend:quotation", {}, ['"Hello."', ' "a" and "b" \n'], ['"', "'a'", '"a', "\u201ca\u201d", 'a "b"']),
    ("regex", {"pattern": r"b\d+"}, ["ab12c", "b1"], ["b", "c1"]),
    ("regex", {"pattern": r"b\d+", "must_match": False}, ["b", "c1"], ["ab12c"]),
    ("regex", {"pattern": r"b\d+", "full": True}, ["b12", "  b12\n"], ["ab12", "b12c"]),
    ("regex", {"pattern": r"(?i)yes|no", "full": True}, ["YES", "no"], ["yes no", "maybe"]),
    (
        "exact",
        {"expected": "Bees and honey"},
        ["bees  AND\nhoney.", '"Bees and honey!"'],
        ["bees honey", "bees and honey too"],
    ),
    ("exact", {"expected": "Bees.", "normalised": False}, ["Bees."], ["bees.", "Bees", "Bees. "]),
    (
        "numeric",
        {"expected": 42},
        ["42", "It is 41, no: 42.", "= 42.0", "$42", "(42)", "84/2", "+42", "4.2e1", "42%"],
        ["forty-two", "42 or 43", "-42", "4 2", "142", "42.5", "H42", "1.2.42", "1/42"],
    ),
    ("numeric", {"expected": -1234.5}, ["-1,234.5", "\u22121234.50", "-$1,234.5"], ["1,234.5", "-1234,5", "-1.2345"]),
    ("numeric", {"expected": 0.1}, ["0.1", ".1", "1/10", "1e-1"], ["0.1000001", "1"]),
    ("numeric", {"expected": 10, "tolerance": 0.5}, ["10.5", "9.5", "19/2"], ["10.51", "9.49"]),
    ("math", {"expected": "3/4"}, ["It is 0.75.", r"\boxed{\frac{6}{8}}"], ["4/3", "three quarters"]),
    (
        "numeric",
        {"expected": 7, "marker": "Answer:"},
        ["9. Answer: 7 (of 8)", "answer: 1 or ANSWER: 7"],
        ["7", "Answer: 8, not 7", "Answer: none"],
    ),
]


@pytest.mark.parametrize(
    ("kind", "arguments", "accepted", "text"),
    [(kind, arguments, True, text) for kind, arguments, good, _ in CASES for text in good]
    + [(kind, arguments, False, text) for kind, arguments, _, bad in CASES for text in bad],
)
def test_verdict(kind, arguments, accepted, text):
    assert passes({"kind": kind, **arguments}, text) is accepted


def test_every_kind_has_cases_of_both_sorts():
    assert {kind for kind, _, good, bad in CASES if good and bad} == set(KINDS)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("text", ["", "   ", "\n\t "])
def test_blank_text_passes_nothing(kind, text):
    arguments = next(arguments for name, arguments, *_ in CASES if name == kind)
    assert not passes({"kind": kind, **arguments}, text)


def test_catastrophic_pattern_ends_and_does_not_pass():
    check = {"kind": "regex", "pattern": r"(a+)+$", "must_match": False}
    assert not passes(check, "a" * 5000 + "b")
    assert passes(check, "b")


def test_language_does_not_change_from_call_to_call():
    check = {"kind": "change_case:english_lowercase"}
    doubtful = "la casa de papel is on tv no"
    assert len({passes(check, doubtful) for _ in range(20)}) == 1
