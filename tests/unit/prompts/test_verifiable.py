"""The verifiable prompts: distinct, stable, split by topic, satisfiable, and not passed by a constant response."""

import json
import re
from collections import Counter
from dataclasses import replace
from itertools import chain

import pytest

from selfreward.checks import KINDS, pass_all, passes, validate
from selfreward.errors import RecipeError
from selfreward.prompts import verifiable
from selfreward.prompts.contamination import check_overlap
from selfreward.prompts.verifiable import PARTS, VerifiableGenerator, boilerplate, topics
from selfreward.records import Message


def normal(text):
    return " ".join(re.findall(r"\w+", text.lower()))


def asked(prompt):
    return prompt.messages[-1].content


def topic_of(prompt):
    (found,) = (topic.text for part in PARTS for topic in topics(part) if topic.text in asked(prompt))
    return found


@pytest.fixture(scope="module")
def generator():
    return VerifiableGenerator(0)


# --- distinct, stable, split ---


def test_all_prompts_of_a_seed_are_distinct(generator):
    # Two complete parts, and the beginning of the others.
    sizes = {part: generator.available(part) if part in ("test", "second_validation") else 3000 for part in PARTS}
    prompts = list(chain.from_iterable(generator.prompts(part, 0, size) for part, size in sizes.items()))
    assert len(prompts) > 20_000
    assert len({normal(asked(prompt)) for prompt in prompts}) == len(prompts)
    assert len({prompt.id for prompt in prompts}) == len(prompts)


@pytest.mark.parametrize("num_checks", [2, 3])
def test_prompts_with_more_checks_are_distinct_and_have_them(num_checks):
    prompts = VerifiableGenerator(3, num_checks=num_checks).prompts("train", 0, 4000)
    assert len({normal(asked(prompt)) for prompt in prompts}) == len(prompts)
    assert {len(prompt.checks) for prompt in prompts} == {num_checks}


def test_there_are_thousands_in_every_part(generator):
    assert generator.available("train") >= 5000
    assert min(map(generator.available, PARTS)) >= 2000


def test_prompts_do_not_depend_on_how_they_are_asked_for(generator):
    whole = generator.prompts("train", 0, 300)
    assert VerifiableGenerator(0).prompts("train", 120, 80) == whole[120:200]
    assert generator.prompts("train", 300, 0) == []
    assert whole[123].id == "verifiable/train/000123"
    assert {prompt.source for prompt in whole} == {"verifiable"}


def test_another_seed_gives_other_prompts_of_the_same_topics(generator):
    other = VerifiableGenerator(1).prompts("train", 0, 2000)
    ours = generator.prompts("train", 0, 2000)
    assert len({asked(prompt) for prompt in ours} & {asked(prompt) for prompt in other}) < 400
    assert {topic_of(prompt) for prompt in other} == {topic.text for topic in topics("train")}


def test_every_topic_is_in_one_part_in_sensible_shares():
    by_part = {part: {topic.text for topic in topics(part)} for part in PARTS}
    num_topics = sum(map(len, by_part.values()))
    assert num_topics == len(set().union(*by_part.values())) >= 240
    for part, percent in PARTS.items():
        assert abs(len(by_part[part]) / num_topics - percent / 100) < 0.05


def test_topics_stay_in_their_parts():
    # A changed hash or share would turn topics that old runs held out into training topics.
    known = {
        "keeping bees in a small garden": "train",
        "how volcanoes shape the land": "verifiable",
        "baking bread for the first time": "verifiable",
        "how ants find food": "train",
    }
    assert {topic: verifiable.part_of(topic) for topic in known} == known


def test_topics_are_distinguishable_and_have_no_commas():
    everything = [topic for part in PARTS for topic in topics(part)]
    for topic in everything:
        words = (*topic.words, topic.avoided)
        assert re.fullmatch(r"[a-z -]+", topic.text)
        assert all(re.fullmatch(r"[a-z]{3,}", word) for word in words)
        assert not any(one != other and one in other for one in words for other in words)
        assert len(set(words)) == 3
        assert not any(topic.text in other.text for other in everything if other is not topic)


def test_held_out_prompts_do_not_overlap_with_training(generator):
    training = generator.prompts("train", 0, 2000)
    held_out = [prompt for part in PARTS if part != "train" for prompt in generator.prompts(part, 0, 150)]
    assert check_overlap(training, held_out, boilerplate=boilerplate()).pairs == ()
    # The boilerplate must not hide real overlap.
    again = [replace(prompt, id="again", messages=(Message("user", "Well. " + asked(prompt)),)) for prompt in training]
    assert len(check_overlap(training[:100], again[:100], boilerplate=boilerplate()).pairs) >= 90


@pytest.mark.parametrize("part", PARTS)
def test_prompts_keep_to_the_topics_of_their_part(generator, part):
    allowed = {topic.text for topic in topics(part)}
    assert {topic_of(prompt) for prompt in generator.prompts(part, 0, 500)} <= allowed


# --- what may be asked for ---


def test_too_many_prompts_are_refused_with_the_number_there_is(generator):
    available = generator.available("test")
    assert len(generator.prompts("test", available - 1, 1)) == 1
    with pytest.raises(RecipeError, match=f"{available} are available"):
        generator.prompts("test", available - 1, 2)


def test_unknown_part_and_kind_are_refused(generator):
    with pytest.raises(RecipeError, match="found 'tset'; allowed are train, validation"):
        generator.prompts("tset", 0, 1)
    with pytest.raises(RecipeError, match="did you mean 'punctuation:no_comma'"):
        VerifiableGenerator(0, check_kinds=["punctuation:no_commas"])
    with pytest.raises(RecipeError, match="no 2 instructions are compatible"):
        VerifiableGenerator(0, num_checks=2, check_kinds=["punctuation:no_comma"])
    with pytest.raises(RecipeError, match="no kinds"):
        VerifiableGenerator(0, check_kinds=[])


def test_only_the_kinds_asked_for_in_equal_shares():
    kinds = ["punctuation:no_comma", "change_case:english_lowercase", "startend:quotation"]
    prompts = VerifiableGenerator(0, check_kinds=kinds).prompts("train", 0, 300)
    assert Counter(prompt.checks[0]["kind"] for prompt in prompts) == dict.fromkeys(kinds, 100)


def test_every_instruction_is_asked_for_equally_often(generator):
    num_instructions = len(verifiable.instructions())
    prompts = generator.prompts("train", 0, 3 * num_instructions)
    counts = Counter(prompt.checks[0]["kind"] for prompt in prompts)
    assert counts == Counter({i.kind: 0 for i in verifiable.instructions()}) + Counter(
        chain.from_iterable([i.kind] * 3 for i in verifiable.instructions())
    )
    missing = set(KINDS) - set(counts)
    assert missing == {"detectable_format:constrained_response", "language:response_language", "math"}


def test_system_prompt_comes_first():
    (prompt,) = VerifiableGenerator(0, system_prompt="Be brief.").prompts("train", 0, 1)
    assert [message.role for message in prompt.messages] == ["system", "user"]
    assert prompt.messages[0].content == "Be brief."


@pytest.mark.parametrize("num_checks", [1, 2, 3])
def test_checks_validate_and_their_parameters_stand_in_the_text(num_checks):
    for prompt in VerifiableGenerator(5, num_checks=num_checks).prompts("verifiable", 0, 1500):
        text = asked(prompt)
        assert "{" not in text
        for check in prompt.checks:
            validate(check)
            for key, value in check.items():
                if key in ("kind", "relation", "let_relation", "capital_relation", "expected", "pattern"):
                    continue
                for part in value if isinstance(value, list) else [value]:
                    assert str(part) in text
            if check["kind"] == "numeric":
                numbers = [int(number) for number in re.findall(r"\d+", text)]
                assert any(one + other == check["expected"] for one in numbers for other in numbers)


# --- satisfiable: a solver that writes a text for any set of checks ---

PLAIN = (
    "we walk up a hill by day and look at a bird",
    "our friend had good fun with the old dog",
    "i think so too",
    "the dog and his friend go out by the river",
    "",
)
ALL_LETTERS = (  # ten of each letter that is asked for, in 15 words of English
    "the international organisations intentionally arrange entertaining operations and other interesting "
    "demonstrations at our sunniest restaurants"
)
FILLER = "we look out for them"


def solve(checks):
    """A text that passes: pieces in the order start, title, body, end, then wrapped."""
    need = {}
    for check in checks:
        name = check["kind"] if check["kind"] != "regex" else regex_use(check["pattern"])
        need[name] = check
    for body in (*PLAIN, " ".join(PLAIN)):
        for letters in ("", f" {ALL_LETTERS}"):
            text = write(need, body + letters)
            if pass_all(checks, text):
                return text
    return None


def regex_use(pattern):
    for use, form in {"start": r"\(\?i\)\^", "bold": r"\(\?i\)\\\*", "title": r"\(\?i\)<<"}.items():
        if re.match(form, pattern):
            return f"regex:{use}"
    if pattern.endswith("$"):
        return "regex:end"
    return "regex:number" if re.search(r"\d", pattern) else "regex:capitals"


def literal(check):
    """The words that a generated pattern requires."""
    return re.search(r"[A-Za-z0-9][A-Za-z0-9 ]*", re.sub(r"\(\?i\)|\\[bWn]", "", check["pattern"])).group()


def write(need, body):
    def get(kind, argument):
        return need[kind][argument] if kind in need else None

    if "exact" in need:
        return need["exact"]["expected"]
    front, back = [], []
    if "combination:repeat_prompt" in need:
        front.append(get("combination:repeat_prompt", "prompt_to_repeat"))
    if "regex:start" in need:
        front.append(literal(need["regex:start"]))
    if "regex:title" in need:
        front.append(f"<<{literal(need['regex:title'])}>>")
    if "detectable_format:title" in need:
        front.append("<<dogs>>")
    if "regex:bold" in need:
        front.append(f"**{literal(need['regex:bold'])}**")
    front += [literal(need[use]) for use in ("regex:number", "regex:capitals") if use in need]
    front += get("keywords:existence", "keywords") or []
    front += [get("keywords:frequency", "keyword")] * 3 if "keywords:frequency" in need else []
    front += ["[my]"] * (get("detectable_content:number_placeholders", "num_placeholders") or 0)
    front += ["*my*"] * (get("detectable_format:number_highlighted_sections", "num_highlights") or 0)
    capitals = need.get("change_case:capital_word_frequency")
    if capitals and capitals["capital_relation"] == "at least":
        front += ["UK"] * capitals["capital_frequency"]
    sections = need.get("detectable_format:multiple_sections")
    if sections:
        front += [f"{sections['section_spliter']} {i + 1}" for i in range(sections["num_sections"])]
    if relation(need, "length_constraints:number_sentences") == "at least":
        front += ["so.", "it is.", "yes.", "ok."]
    if relation(need, "length_constraints:number_words") == "at least":
        front += [FILLER] * 7
    back += (
        [get("detectable_content:postscript", "postscript_marker")] if "detectable_content:postscript" in need else []
    )
    back += [get("startend:end_checker", "end_phrase")] if "startend:end_checker" in need else []
    back += [str(get("numeric", "expected"))] if "numeric" in need else []
    back += [literal(need["regex:end"])] if "regex:end" in need else []
    return wrap(need, " ".join([*front, body]), " ".join(back))


def relation(need, kind):
    return need.get(kind, {}).get("relation")


def wrap(need, text, back):
    if "detectable_format:number_bullet_lists" in need:
        text = "\n* my".join([text, *[""] * need["detectable_format:number_bullet_lists"]["num_bullets"]])
    if "length_constraints:number_paragraphs" in need:
        text += "\n***\nb" * (need["length_constraints:number_paragraphs"]["num_paragraphs"] - 1)
    if "combination:two_responses" in need:
        text += "\n******\nb"
    if nth := need.get("length_constraints:nth_paragraph_first_word"):
        paragraphs = ["a"] * nth["num_paragraphs"]
        paragraphs[-1] += " " + text
        paragraphs[nth["nth_paragraph"] - 1] = f"{nth['first_word']} {paragraphs[nth['nth_paragraph'] - 1]}"
        text = "\n\n".join(paragraphs)
    text = f"{text} {back}" if back else text
    if "detectable_format:json_format" in need:
        text = json.dumps({"a": text})
    if "startend:quotation" in need:
        text = f'"{text}"'
    return text.upper() if "change_case:english_capital" in need else text


@pytest.mark.parametrize(("num_checks", "count"), [(1, 740), (2, 1000), (3, 4000)])
def test_every_combination_can_be_satisfied(num_checks, count):
    """The first round through the order contains every combination of instructions once."""
    generator = VerifiableGenerator(11, num_checks=num_checks)
    prompts = generator.prompts("train", 0, count)
    unsolved = [prompt for prompt in prompts if solve(prompt.checks) is None]
    assert [(asked(prompt), prompt.checks) for prompt in unsolved] == []


# --- nothing lazy passes ---

AVOIDING = {  # kinds that a text may pass by not doing something
    "punctuation:no_comma",
    "change_case:english_lowercase",
    "change_case:capital_word_frequency",
    "keywords:forbidden_words",
    "keywords:letter_frequency",
    "length_constraints:number_words",
    "length_constraints:number_sentences",
}
# All kinds of mark-up in one text, which no honest response would contain.
STUFFED = (
    "<<a title>> [a] [b] [c] [d] p.s. p.p.s *a* *b* *c* a ****** b that is all i can say and the house is on the hill. "
    "go go go go go go go go go go go go go go eeeeeeee aaaaaaaaaa iiiiiiiiii nnnnnnnnnn oooooooo rrrrrrrrrr ssssssss"
    "\n* a\n* b\n* c water leaves light eggs 20 22 33"
)


@pytest.mark.parametrize("text", ["", "ok", "Ok.", "I am happy to help.", "{}", '"[x]"'])
def test_lazy_text_passes_only_by_avoiding(generator, text):
    prompts = generator.prompts("verifiable", 0, 37 * 30)
    passed = [prompt.checks[0] for prompt in prompts if pass_all(prompt.checks, text)]
    by_doing = [check for check in passed if check["kind"] not in AVOIDING or "at least" in check.values()]
    allowed = {"{}": "detectable_format:json_format", '"[x]"': None}.get(text, "")
    if allowed is None:  # a text of marks alone may meet what asks for marks alone
        assert len(passed) < 0.25 * len(prompts)
    else:
        assert {check["kind"] for check in by_doing} <= {allowed}
        assert len(passed) < 0.2 * len(prompts)


@pytest.mark.parametrize("num_checks", [1, 2, 3])
@pytest.mark.parametrize("text", [STUFFED, STUFFED.upper(), f'"{STUFFED}"'])
def test_no_constant_passes_half(num_checks, text):
    prompts = VerifiableGenerator(0, num_checks=num_checks).prompts("verifiable", 0, 1500)
    assert sum(pass_all(prompt.checks, text) for prompt in prompts) < 0.4 * len(prompts)
    outcomes = [passes(check, text) for prompt in prompts for check in prompt.checks]
    assert sum(outcomes) < 0.5 * len(outcomes)


@pytest.mark.parametrize("num_checks", [1, 2])
def test_repeating_the_prompt_does_not_pass_half(num_checks):
    prompts = VerifiableGenerator(0, num_checks=num_checks).prompts("verifiable", 0, 1500)
    assert sum(pass_all(prompt.checks, asked(prompt)) for prompt in prompts) < 0.45 * len(prompts)
