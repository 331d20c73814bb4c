"""The constitution: selection of principles, clamping, and files that are refused."""

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases.judging import FakeChat, build, by_length, chosen, judged, principles_file, question, response, shown

from selfreward.errors import RecipeError
from selfreward.judging.constitution import read_principles
from selfreward.records import Judgment
from selfreward.requests import ChatRequest, Reply
from selfreward.statistics.scores import mean_scores
from selfreward.templates import Template

SEAS = [response(number, text) for number, text in enumerate(["Black.", "Red.", "Whitest.", "Yellow."])]


def principle_of(request: ChatRequest) -> str:
    """Return the text between the question and the next paragraph."""
    return question(request).split("\n\n")[1]


PRINCIPLES = [f"Be kind to sailors, in way {n}." for n in range(20)]


def constitution(chat: FakeChat, folder: Path, **settings: Any) -> list[Judgment]:
    settings = {"principles": principles_file(folder, *PRINCIPLES), **settings}
    return judged(chat, "constitution", SEAS, **settings)


def test_one_principle_is_drawn_for_two_responses_and_both_orders_get_it(tmp_path: Path) -> None:
    chat = FakeChat(by_length)
    given = constitution(chat, tmp_path)
    (call,) = chat.calls
    asked: defaultdict[frozenset[str | None], list[str]] = defaultdict(list)
    for request in call:
        asked[frozenset((shown(request, "response_a"), shown(request, "response_b")))].append(principle_of(request))
    assert len(asked) == 6 and all(len(two) == 2 and len(set(two)) == 1 for two in asked.values())
    drawn = {two[0] for two in asked.values()}
    assert drawn <= set(PRINCIPLES) and len(drawn) > 2
    numbers = {j.id.split("/principle-")[1].split("/")[0] for j in given}
    assert {PRINCIPLES[int(number) - 1] for number in numbers} == drawn
    assert {j.judge for j in given} == {"constitution"}
    assert {j.template_sha256 for j in given} == {Template.load("constitution").sha256}


def test_the_drawing_depends_on_run_and_iteration_and_on_nothing_else(tmp_path: Path) -> None:
    def drawn(**settings: Any) -> list[str]:
        chat = FakeChat(by_length)
        constitution(chat, tmp_path, **settings)
        return [principle_of(request) for request in chat.calls[0]]

    usual = drawn()
    assert drawn() == usual and drawn(reasoning={}) == usual
    assert drawn(iteration=2) != usual and drawn(seed=12) != usual


def test_all_principles_are_used_and_averaged(tmp_path: Path) -> None:
    def say(request: ChatRequest, draw: int) -> Reply:
        """By the first principle the red sea is better, by the others the black one."""
        red_first = shown(request, "response_a") == "Red."
        red = 0.9 if principle_of(request) == PRINCIPLES[0] else 0.4
        first = red if red_first else 1 - red
        return chosen(request, {"A": first / 2, "B": (1 - first) / 2})

    chat = FakeChat(say)
    path = principles_file(tmp_path, *PRINCIPLES[:3])
    given = judged(chat, "constitution", SEAS[:2], principles=path, each_judgment="all")
    assert len(chat.calls) == 1
    assert Counter(map(principle_of, chat.calls[0])) == dict.fromkeys(PRINCIPLES[:3], 2)
    mean = (0.9 + 0.4 + 0.4) / 3
    assert mean_scores(given) == {"p/0": pytest.approx(1 - mean), "p/1": pytest.approx(mean)}


@pytest.mark.parametrize(
    ("settings", "scores"),
    [
        ({}, {0.1, 0.9}),
        ({"reasoning": {}}, {0.4, 0.6}),  # the paper's
        ({"reasoning": {}, "clamp": [0.2, 0.8]}, {0.2, 0.8}),
        ({"reasoning": {}, "clamp": [0.0, 1.0]}, {0.1, 0.9}),
    ],
)
def test_probabilities_are_clamped_after_reasoning(
    tmp_path: Path, settings: dict[str, Any], scores: set[float]
) -> None:
    chat = FakeChat(lambda request, draw: chosen(request, {"A": 0.09, "B": 0.81}))
    given = constitution(chat, tmp_path, **settings)
    assert {round(j.score or 0, 12) for j in given} == scores
    # The judge's text is stored unchanged.
    assert all("A: 0.0900, B: 0.8100" in j.text for j in given)


def test_a_clamp_changes_neither_values_within_it_nor_equal_texts(tmp_path: Path) -> None:
    chat = FakeChat(lambda request, draw: chosen(request, {"A": 0.45, "B": 0.55}))
    path = principles_file(tmp_path, *PRINCIPLES)
    twins = [SEAS[0], replace(SEAS[0], id="p/7"), SEAS[1]]
    given = judged(chat, "constitution", twins, principles=path, reasoning={})
    assert {round(j.score or 0, 12) for j in given} == {0.45, 0.5, 0.55}


def test_a_principle_is_one_line_and_verbatim_in_the_prompt(tmp_path: Path) -> None:
    path = tmp_path / "constitution.yaml"
    path.write_text("- |\n  Be kind,\n  {{prompt}}   and brief.\n- 'Truth: always.'\n- Ёж — да.\n", encoding="utf-8")
    assert read_principles(path) == ["Be kind, {{prompt}} and brief.", "Truth: always.", "Ёж — да."]
    chat = FakeChat(by_length)
    judged(chat, "constitution", SEAS[:2], principles=str(path), each_judgment="all")
    assert principle_of(chat.calls[0][0]) == "Be kind, {{prompt}} and brief."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"- Be kind.\n- [a\n", "expected"),
        (b"- Be kind.\n---\n- Be brief.\n", "but found another document"),
        (b"- &a [x, x]\n- &b [*a, *a]\n- [*b, *b]\n", r"the alias \*a"),
        (b"- " + b"[" * 3000, "values nested more than 50 deep"),
        (b"- !!python/object:os.system x\n", "the tag !!python/object:os.system"),
        (b"- " + b"9" * 100_000, "a number of 100,000 digits"),
        (b"- Be kind.\n" * 20_000, "it has more than 131,072 bytes"),
        (b"- Be kind.\n- \0\n", "unacceptable character"),
        (b"\xff\xfe\x00", r"cannot be read \(.*utf-8.*\)"),
        (b"", "it contains None"),
        (b"[]\n", r"it contains \[\]"),
        (b"principles:\n- Be kind.\n", r"it contains \{'principles'"),
        (b"Be kind.\n", "it contains 'Be kind.'"),
        (b"- Be kind.\n- Truth: always.\n", r"entry 2 is \{'Truth': 'always\.'\}"),
        (b"- Be kind.\n- 3\n", "entry 2 is 3"),
        (b"- ' '\n", "entry 1 is ' '"),
        (b"- Be kind.\n-\n", "entry 2 is None"),
    ],
)
def test_a_file_that_is_not_a_list_of_sentences_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "constitution.yaml"
    if content is not None:
        path.write_bytes(content)
    expected = rf"^judging\.principles: .*constitution\.yaml(:[123])?: {message}.*; .*; write one sentence per line"
    with pytest.raises(RecipeError, match=expected) as caught:
        build(FakeChat(by_length), "constitution", principles=str(path))
    assert "\n" not in str(caught.value)
