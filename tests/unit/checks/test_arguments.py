"""Validation of checks, shares, loose forms, and that no text makes a check raise."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.checks import KINDS, from_ifeval, pass_all, passes, share_passed, validate, variants
from selfreward.errors import RecipeError

# One example of the published arguments of each kind, as in the published data.
EXAMPLES = {
    "change_case:capital_word_frequency": {"capital_frequency": 5, "capital_relation": "at least"},
    "change_case:english_capital": {},
    "change_case:english_lowercase": {},
    "combination:repeat_prompt": {"prompt_to_repeat": "Write a limerick about a fox."},
    "combination:two_responses": {},
    "detectable_content:number_placeholders": {"num_placeholders": 3},
    "detectable_content:postscript": {"postscript_marker": "P.P.S"},
    "detectable_format:constrained_response": {},
    "detectable_format:json_format": {},
    "detectable_format:multiple_sections": {"num_sections": 4, "section_spliter": "SECTION"},
    "detectable_format:number_bullet_lists": {"num_bullets": 3},
    "detectable_format:number_highlighted_sections": {"num_highlights": 2},
    "detectable_format:title": {},
    "keywords:existence": {"keywords": ["mom", "mother"]},
    "keywords:forbidden_words": {"forbidden_words": ["rock"]},
    "keywords:frequency": {"frequency": 2, "keyword": "story", "relation": "less than"},
    "keywords:letter_frequency": {"let_frequency": 6, "let_relation": "at least", "letter": "!"},
    "language:response_language": {"language": "kn"},
    "length_constraints:nth_paragraph_first_word": {"first_word": "elm", "num_paragraphs": 4, "nth_paragraph": 4},
    "length_constraints:number_paragraphs": {"num_paragraphs": 3},
    "length_constraints:number_sentences": {"num_sentences": 20, "relation": "less than"},
    "length_constraints:number_words": {"num_words": 300, "relation": "at least"},
    "punctuation:no_comma": {},
    "startend:end_checker": {"end_phrase": "Is there anything else I can help with?"},
    "startend:quotation": {},
    # Our own.
    "exact": {"expected": "yes", "normalised": True},
    "math": {"expected": r"\frac{7}{2}"},
    "numeric": {"expected": 3.5, "tolerance": 0, "marker": "="},
    "regex": {"pattern": "a+", "must_match": True, "full": False},
}
ANY_TEXT = st.text(alphabet=st.characters(codec=None, exclude_categories=[]))
MARKS = """* ** *** ****** - << >> [ ] { } " ' P.S. . ? ! , 1 Section a A é"""
MARKUP = st.lists(st.sampled_from([*re.split(" ", MARKS), "\n", "\n\n", " "]))


def test_all_kinds_have_an_example_and_validate():
    assert set(EXAMPLES) == set(KINDS)
    for kind, arguments in EXAMPLES.items():
        validate({"kind": kind, **arguments})


def test_published_rows_with_null_arguments_become_checks():
    published = {kind: arguments for kind, arguments in EXAMPLES.items() if ":" in kind}
    assert len(published) == 25
    columns = {name for arguments in published.values() for name in arguments}
    padded = [{**dict.fromkeys(columns), **arguments} for arguments in published.values()]
    checks = from_ifeval(list(published), padded)
    assert list(checks) == [{"kind": kind, **arguments} for kind, arguments in published.items()]
    with pytest.raises(RecipeError, match="2 instructions but 1"):
        from_ifeval(["startend:quotation"] * 2, [{}])


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ("no_comma", "found str; a check is a mapping"),
        ({}, "unknown kind None"),
        ({"kind": "punctuation:no_commas"}, "did you mean 'punctuation:no_comma'"),
        ({"kind": ["exact"]}, "unknown kind"),
        ({"kind": "punctuation:no_comma", "count": 1}, "unknown argument 'count'.*no arguments"),
        ({"kind": "keywords:existence", "keyword": "a"}, "did you mean 'keywords'"),
        ({"kind": "keywords:existence"}, "keywords is missing; give a list"),
        ({"kind": "keywords:existence", "keywords": []}, "keywords is .*list of one or more"),
        ({"kind": "keywords:existence", "keywords": "mom"}, "keywords is 'mom'"),
        ({"kind": "keywords:existence", "keywords": ["a", " "]}, "texts that are not blank"),
        (
            {"kind": "keywords:letter_frequency", "letter": "ab", "let_frequency": 1, "let_relation": "at least"},
            "one char",
        ),
        ({"kind": "length_constraints:number_words", "num_words": 3, "relation": "at most"}, "less than, at least"),
        ({"kind": "length_constraints:number_words", "num_words": -1, "relation": "at least"}, "num_words is -1"),
        ({"kind": "length_constraints:number_words", "num_words": True, "relation": "at least"}, "num_words is True"),
        (
            {"kind": "length_constraints:number_words", "num_words": 3.0, "relation": "at least"},
            "an integer of at least",
        ),
        ({"kind": "language:response_language", "language": "english"}, "one of af, ar"),
        ({"kind": "regex", "pattern": "a("}, "pattern 'a\\(' is invalid"),
        ({"kind": "regex", "pattern": "a" * 5000}, "5000 characters"),
        ({"kind": "regex", "pattern": "a", "full": "yes"}, "full is 'yes'; allowed is true or false"),
        ({"kind": "exact", "expected": "?!"}, "which is empty when normalised"),
        ({"kind": "numeric", "expected": "42"}, "expected is '42'; allowed is a number"),
        ({"kind": "numeric", "expected": float("nan")}, "expected is nan"),
        ({"kind": "numeric", "expected": 10**50}, "expected is 1000"),
        ({"kind": "numeric", "expected": 1, "tolerance": -1}, "tolerance is -1; allowed is a number from 0"),
    ],
)
def test_invalid_checks_are_refused(check, message):
    for call in (validate, lambda check: passes(check, "text")):
        with pytest.raises(RecipeError, match=message):
            call(check)


def test_paragraph_beyond_the_last_is_refused():
    check = {"kind": "length_constraints:nth_paragraph_first_word", "num_paragraphs": 2, "nth_paragraph": 3}
    with pytest.raises(RecipeError, match="nth_paragraph is 3; allowed is at most num_paragraphs, 2"):
        validate({**check, "first_word": "a"})


def test_the_location_of_an_invalid_check_is_named():
    with pytest.raises(RecipeError, match=r"prompts\.jsonl line 7: unknown kind"):
        validate({"kind": "x"}, where="prompts.jsonl line 7")


def test_shares():
    checks = [{"kind": "punctuation:no_comma"}, {"kind": "detectable_format:title"}, {"kind": "startend:quotation"}]
    assert share_passed(checks, "plain") == pytest.approx(1 / 3)
    assert not pass_all(checks, "plain")
    assert share_passed(checks, '"<<a>>"') == 1
    assert pass_all(checks, '"<<a>>"')
    assert share_passed(checks, "") == 0
    for call in (share_passed, pass_all):
        with pytest.raises(RecipeError, match="none given"):
            call([], "text")


def test_variants_drop_lines_and_asterisks():
    assert variants("Sure:\n*a* b\n\nBye") == (
        "Sure:\n*a* b\n\nBye",
        "*a* b\n\nBye",
        "Sure:\n*a* b",
        "*a* b",
        "Sure:\na b\n\nBye",
        "a b\n\nBye",
        "Sure:\na b",
        "a b",
    )


def test_loose_tolerates_an_extra_line_and_emphasis_but_not_more():
    check = {"kind": "startend:quotation"}
    for text in ('Sure:\n"a"', '"a"\nBye', 'Sure:\n"a"\nBye', '**"a"**', 'Sure:\n*"a"*'):
        assert not passes(check, text)
        assert passes(check, text, loose=True)
    assert not passes(check, 'Sure:\nOf course:\n"a"', loose=True)
    # Emptied by the cuts: a variant without text passes nothing.
    assert not passes({"kind": "punctuation:no_comma"}, "a, b", loose=True)
    # Each check may be met by another variant.
    checks = [check, {"kind": "detectable_format:number_highlighted_sections", "num_highlights": 1}]
    assert pass_all(checks, '*"a"*', loose=True)
    assert share_passed(checks, '*"a"*') == 0.5


@settings(max_examples=150, deadline=None)
@given(text=ANY_TEXT | MARKUP.map("".join) | st.tuples(MARKUP, ANY_TEXT).map(lambda two: "".join(two[0]) + two[1]))
def test_no_text_makes_a_check_raise(text):
    for kind, arguments in EXAMPLES.items():
        strict = passes({"kind": kind, **arguments}, text)
        assert strict in (True, False)
        assert passes({"kind": kind, **arguments}, text, loose=True) >= strict


@settings(max_examples=300, deadline=None)
@given(
    number=st.integers(-(10**15), 10**15) | st.floats(-1e15, 1e15), grouped=st.booleans(), behind=MARKUP.map("".join)
)
def test_a_printed_number_is_read_back(number, grouped, behind):
    printed = f"{number:,}" if grouped else repr(number)
    text = f"1 2 3 it is {printed} " + "".join(mark for mark in behind if not mark.isdigit())
    assert passes({"kind": "numeric", "expected": number}, text)


@pytest.mark.parametrize("unit", ["<", "[", "*", "\n", " ", "!", ".", "9", "a", "A", "{", "p. ", "1,", "'", "-", "a@"])
@pytest.mark.timeout(60)
def test_long_repetitions_take_no_quadratic_time(unit):
    """A model that repeats one token must not hold up a run: linear is seconds here, quadratic would be minutes."""
    for kind, arguments in EXAMPLES.items():
        passes({"kind": kind, **arguments}, unit * 120_000)
