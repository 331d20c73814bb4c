"""Judges that compare: matchups, both orders, and the resulting judgments."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from cases.judging import (
    MODELS,
    PROMPT,
    FakeChat,
    by_length,
    chosen,
    judged,
    principles_file,
    question,
    response,
    shown,
)
from hypothesis import strategies as st

from selfreward import recipe
from selfreward.judging.pairwise import PairwiseAnchor
from selfreward.records import Judgment, Message, Prompt, Response
from selfreward.requests import ChatRequest, Reply
from selfreward.statistics.scores import mean_scores
from selfreward.templates import Template

SEAS = [response(number, text) for number, text in enumerate(["Black.", "Red.", "Whitest.", "Yellow."])]


def count_pairs(judgments: Sequence[Judgment]) -> Counter[tuple[str, str, str]]:
    return Counter((j.response_id, j.other_id, j.shown_first) for j in judgments)


# --- matchups --------------------------------------------------------------------------------------------------------


def test_every_pair_of_responses_is_compared_once_in_both_orders_in_one_call() -> None:
    chat = FakeChat(by_length)
    given = judged(chat, "pairwise", SEAS)
    (call,) = chat.calls
    seen = [(shown(request, "response_a"), shown(request, "response_b")) for request in call]
    assert sorted(seen) == sorted(itertools.permutations([r.text for r in SEAS], 2))
    assert {(r.choices, r.opening, r.max_tokens, r.n) for r in call} == {
        (("A", "B"), "The better response is Response ", 0, 1)
    }
    ids = [r.id for r in SEAS]
    assert count_pairs(given) == Counter((a, b, first) for a, b in itertools.permutations(ids, 2) for first in (a, b))
    assert [j.response_id for j in given] == [r.id for r in SEAS for _ in range(6)]
    assert {(j.judge, j.draw, j.part, j.checkpoint_id) for j in given} == {("pairwise", 0, "", "m1")}
    assert {j.template_sha256 for j in given} == {Template.load("pairwise").sha256}


def test_a_score_is_the_probability_of_being_the_better_one() -> None:
    chat = FakeChat(by_length)
    means = mean_scores(judged(chat, "pairwise", [response(0, "x"), response(1, "xx")]))
    better = 1 / (1 + math.exp(-1))
    assert means == {"p/0": pytest.approx(1 - better), "p/1": pytest.approx(better)}


def test_the_two_judgments_of_a_comparison_sum_to_one() -> None:
    of_comparison: defaultdict[str, list[Judgment]] = defaultdict(list)
    for judgment in judged(FakeChat(by_length), "pairwise", SEAS):
        of_comparison[judgment.id.rpartition("/")[0]].append(judgment)
    assert len(of_comparison) == 12
    for one, other in of_comparison.values():
        assert (one.score or 0) + (other.score or 0) == pytest.approx(1.0, abs=1e-15)
        assert (one.response_id, one.other_id, one.shown_first) == (other.other_id, other.response_id, one.shown_first)
        assert one.text == other.text and one.score != other.score


@pytest.mark.parametrize("first", [0.0, 0.03, 0.6, 1.0])
def test_a_judge_with_only_position_bias_distinguishes_no_responses(first: float) -> None:
    chat = FakeChat(lambda request, draw: chosen(request, {"A": first, "B": 1 - first}))
    given = judged(chat, "pairwise", SEAS)
    assert mean_scores(given) == {r.id: pytest.approx(0.5, abs=1e-12) for r in SEAS}
    assert all(j.score == pytest.approx(first if j.shown_first == j.response_id else 1 - first) for j in given)


def test_the_same_text_twice_is_a_half_without_a_query() -> None:
    chat = FakeChat(by_length)
    twins = [response(0, "Black."), response(1, "<think>Hm.</think>Black."), response(2, "Red.")]
    given = judged(chat, "pairwise", twins)
    assert len(chat.calls[0]) == 4  # the third against either of them, in both orders
    assert [j.score for j in given if {j.response_id, j.other_id} == {"p/0", "p/1"}] == [0.5] * 4
    chat = FakeChat(by_length)
    assert {j.score for j in judged(chat, "pairwise", twins[:2])} == {0.5} and chat.calls == []


def test_a_response_without_an_opponent_is_unscored_with_the_reason() -> None:
    chat = FakeChat(by_length)
    other = Prompt("q", (Message("user", "Name a lake."),))
    responses = [SEAS[0], response(0, "Ladoga.", prompt_id="q"), response(8, " "), SEAS[1], response(9, "<think>Hm.")]
    given = judged(chat, "pairwise", responses, PROMPT, other)
    assert count_pairs(given)["p/0", "p/1", "p/0"] == 1 and len(chat.calls[0]) == 2
    alone = {j.response_id: j for j in given if j.score is None}
    assert {name: j.unscored for name, j in alone.items()} == {
        "q/0": "no_opponent",
        "p/8": "empty_response",
        "p/9": "empty_response",
    }
    assert {(j.judge, j.other_id, j.checkpoint_id) for j in alone.values()} == {("pairwise", "", "m1")}
    assert {j.template_sha256 for j in alone.values()} == {Template.load("pairwise").sha256}
    assert not any({j.response_id, j.other_id} & {"p/8", "p/9"} for j in given if j.score is not None)


def test_responses_to_different_prompts_are_never_compared() -> None:
    other = Prompt("q", (Message("user", "Name a lake."),))
    lakes = [response(number, f"Lake {number}.", prompt_id="q") for number in range(2)]
    chat = FakeChat(by_length)
    given = judged(chat, "pairwise", [lakes[0], SEAS[0], SEAS[1], lakes[1]], other, PROMPT)
    assert {j.response_id[0] + j.other_id[0] for j in given} == {"pp", "qq"}
    assert all(("lake" in question(r)) == ("Lake" in (shown(r, "response_a") or "")) for r in chat.calls[0])


def test_nothing_to_judge_makes_no_call() -> None:
    chat = FakeChat(by_length)
    assert judged(chat, "pairwise", []) == [] and chat.calls == []


# --- parsing ---------------------------------------------------------------------------------------------------------


def test_with_reasoning_each_order_has_separate_draws() -> None:
    def say(request: ChatRequest, draw: int) -> Reply:
        return chosen(request, {"A": 0.2 + 0.1 * draw, "B": 0.8 - 0.1 * draw}, text=f"Because {draw}.")

    chat = FakeChat(say)
    reasoning = {"max_tokens": 77, "temperature": 0.6, "top_p": 0.8}
    given = judged(chat, "pairwise", SEAS[:2], reasoning=reasoning, num_draws=3)
    (call,) = chat.calls
    assert {(r.n, r.max_tokens, r.temperature, r.top_p) for r in call} == {(3, 77, 0.6, 0.8)}
    assert all("First explain" in question(r) and "Reply with" not in question(r) for r in call)
    assert abs(call[0].seed - call[1].seed) > 3
    mine = [j for j in given if j.response_id == "p/0"]
    assert [(j.draw, j.shown_first, j.score) for j in mine] == [
        (draw, first, pytest.approx(0.2 + 0.1 * draw if first == "p/0" else 0.8 - 0.1 * draw))
        for first in ("p/0", "p/1")
        for draw in range(3)
    ]
    assert mine[1].text == "Because 1.\n\nA: 0.3000, B: 0.7000"


def test_without_reasoning_nothing_is_random() -> None:
    chat = FakeChat(by_length)
    judged(chat, "pairwise", SEAS[:2])
    assert {(r.seed, r.temperature, r.max_tokens) for r in chat.calls[0]} == {(0, 0.0, 0)}
    assert all("Reply with" in question(r) and "First explain" not in question(r) for r in chat.calls[0])


VERDICTS = [
    ("The better response is Response A", "stop", 1.0, None),
    ("Both have merits.\n\n**The better response is Response B**", "stop", 0.0, None),
    ("A", "stop", 1.0, None),
    ("Both are equally good.", "stop", 0.5, None),
    ("I cannot say.", "stop", None, "no_verdict"),
    ("Response A brings", "length", None, "truncated"),
    ("", "stop", None, "empty_verdict"),
    ("The better response is Response C", "stop", None, "out_of_range"),
]


@pytest.mark.parametrize(("text", "finish_reason", "first", "unscored"), VERDICTS)
@pytest.mark.parametrize("reasoning", [None, {}])
def test_a_server_without_probabilities_is_parsed_as_text(
    text: str, finish_reason: Any, first: float | None, unscored: str | None, reasoning: dict[str, Any] | None
) -> None:
    chat = FakeChat(lambda request, draw: Reply(text=text, finish_reason=finish_reason))
    given = judged(chat, "pairwise", SEAS[:2], reasoning=reasoning)
    for judgment in given:
        is_first = judgment.shown_first == judgment.response_id
        score = None if first is None else first if is_first else 1 - first
        assert (judgment.score, judgment.unscored, judgment.text) == (score, unscored, text)


def test_one_order_alone_is_unscored_unless_another_draw_of_the_other_order_is_scored() -> None:
    """A judge that always prefers the first position, and whose text in the other order cannot be parsed."""

    def say(request: ChatRequest, draw: int) -> str:
        readable = shown(request, "response_a") == "Black Sea" or draw == 1 == request.n - 1
        return "The better response is Response A" if readable else "Hard to say."

    responses = [response(0, "Black Sea"), response(1, "Red Sea")]
    judgments = judged(FakeChat(say), "pairwise", responses)
    assert sorted(j.unscored or "" for j in judgments) == ["no_verdict"] * 2 + ["one_order"] * 2
    judgments = judged(FakeChat(say), "pairwise", responses, reasoning={"max_tokens": 9}, num_draws=2)
    assert sorted(j.unscored or "" for j in judgments) == [""] * 6 + ["no_verdict"] * 2


def test_letters_without_probability_are_unscored() -> None:
    given = judged(FakeChat(lambda request, draw: chosen(request, {})), "pairwise", SEAS[:2])
    assert {(j.score, j.unscored) for j in given} == {(None, "low_score_mass")}


# --- ids, seeds, order -----------------------------------------------------------------------------------------------


@hypothesis.given(
    num_responses=st.integers(0, 5),
    num_draws=st.integers(1, 3),
    num_principles=st.integers(1, 3),
    each_judgment=st.sampled_from(["one", "all"]),
)
def test_ids_and_seeds_differ_over_all_that_a_prompt_can_give(
    tmp_path_factory: pytest.TempPathFactory,
    num_responses: int,
    num_draws: int,
    num_principles: int,
    each_judgment: str,
) -> None:
    path = principles_file(tmp_path_factory.mktemp("c"), *(f"Principle {n}." for n in range(num_principles)))
    # M_0's responses to the same prompt are judged too, one without text among them.
    responses = [response(n, f"Sea {n}.") for n in range(num_responses)]
    responses += [response(f"initial/{n}", f"Lake {n}." if n else "") for n in range(3)]
    chat = FakeChat(by_length)
    drawn = {"reasoning": {}, "num_draws": num_draws}
    given = [
        *judged(chat, "pairwise", responses, **drawn),
        *judged(chat, "constitution", responses, principles=path, each_judgment=each_judgment, **drawn),
        *judged(chat, "additive", responses, num_draws=num_draws, temperature=0.1),
        *judged(chat, "expected_score", responses, num_draws=num_draws),
        *judged(chat, "rubric", responses, criteria=[{"name": "0", "description": "x"}], num_draws=num_draws),
    ]
    assert len({j.id for j in given}) == len(given)
    assert {j.response_id for j in given} == {r.id for r in responses}
    seeds = [r.seed + draw for call in chat.calls for r in call if r.temperature > 0 for draw in range(r.n)]
    assert len(set(seeds)) == len(seeds)


KINDS: dict[str, dict[str, Any]] = {
    "additive": {"num_draws": 2},
    "expected_score": {"num_draws": 2},
    "pairwise": {"reasoning": {}, "num_draws": 2},
    "constitution": {"reasoning": {}, "num_draws": 2},
    "rubric": {"num_draws": 2, "criteria": [{"name": "A", "description": "x"}, {"name": "B", "description": "y"}]},
    "rubric normalised": {"normalise": True},
}


def noisy(request: ChatRequest, draw: int) -> Reply | str:
    """A model whose reply depends on the complete request."""
    key = sum(map(ord, question(request))) * 31 + request.seed + draw
    if request.choices:
        return chosen(
            request, {choice: 1 / (2 + (key + place) % 13) / 6 for place, choice in enumerate(request.choices)}
        )
    return f"Score: {key % 6}"


@pytest.mark.parametrize("kind", KINDS)
def test_neither_the_order_of_responses_nor_that_of_prompts_changes_a_judgment(kind: str, tmp_path: Path) -> None:
    settings = dict(KINDS[kind])
    if kind == "constitution":
        settings["principles"] = principles_file(tmp_path, *(f"Principle {n}." for n in range(9)))
    if kind == "rubric normalised":
        kind, settings = "rubric", {**KINDS["rubric"], **settings}
    other = Prompt("q", (Message("user", "Name a lake."),))
    responses = [
        *SEAS,
        response(10, "Dead."),
        response(9, ""),
        *(response(n, f"Lake {n}.", prompt_id="q") for n in "ab"),
    ]
    usual = judged(FakeChat(noisy), kind, responses, PROMPT, other, **settings)
    turned = judged(FakeChat(noisy), kind, responses[::-1], other, PROMPT, **settings)
    assert {j.id: j for j in turned} == {j.id: j for j in usual}
    assert list(dict.fromkeys(j.response_id for j in turned)) == [r.id for r in responses[::-1]]
    assert len({j.score for j in usual}) > 3


# --- measuring -------------------------------------------------------------------------------------------------------


def anchor(chat: FakeChat, **settings: Any) -> PairwiseAnchor:
    return PairwiseAnchor(recipe.PairwiseAnchorSection(by="initial", **settings), chat=chat, seed=0)


def compared(chat: FakeChat, pairs: Sequence[tuple[Response, Response]], **settings: Any) -> Any:
    responses, others = zip(*pairs, strict=True)
    return anchor(chat, **settings).compare([PROMPT] * len(pairs), responses, others, models=MODELS, iteration=1)


def test_an_anchor_keeps_the_given_sides() -> None:
    chat = FakeChat(by_length)
    comparisons = compared(chat, [(SEAS[3], SEAS[1]), (SEAS[1], SEAS[3])])
    assert [(c.response_id, c.other_id, c.shown_first) for c in comparisons] == [
        ("p/3", "p/1", "p/3"),
        ("p/3", "p/1", "p/1"),
        ("p/1", "p/3", "p/1"),
        ("p/1", "p/3", "p/3"),
    ]
    assert comparisons[0].preference > 0.9 and comparisons[3].preference < 0.1
    assert len({c.id for c in comparisons}) == 4


def test_an_anchor_with_draws_gives_each_order_its_draws() -> None:
    chat = FakeChat(lambda request, draw: chosen(request, {"A": 0.1 + 0.2 * draw, "B": 0.9 - 0.2 * draw}))
    comparisons = compared(
        chat, [(SEAS[0], SEAS[1]), (SEAS[0], SEAS[0]), (SEAS[2], SEAS[0])], reasoning={}, num_draws=2
    )
    expected = [0.1, 0.3, 0.9, 0.7]
    assert [c.preference for c in comparisons] == [pytest.approx(p) for p in (*expected, *[0.5] * 4, *expected)]
    assert len({c.id for c in comparisons}) == len(comparisons) and len(chat.calls) == 1


def test_an_anchor_without_a_reference_does_not_compare() -> None:
    chat = FakeChat(by_length)
    bare = replace(PROMPT, reference="")
    comparisons = anchor(chat, reference_answer=True).compare([bare], [SEAS[0]], [SEAS[1]], models=MODELS, iteration=1)
    assert [(c.preference, c.unscored) for c in comparisons] == [(None, "no_reference")] * 2 and chat.calls == []
