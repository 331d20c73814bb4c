"""The meta-judge: matchups, its prompt, the parsing of its verdicts, and the resulting pairs."""

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward import meta_judging, recipe
from selfreward.errors import RecipeError
from selfreward.meta_judging.meta_judge import SAME_TEXT, MetaJudge
from selfreward.records import Battle, Checkpoint, Judgment, Message, PreferencePair, Prompt, Response
from selfreward.requests import ChatRequest, Reply

MODELS = {"policy": Checkpoint("m1", Path("nowhere"), 1)}
FIRST, SECOND = "The better judgment is Judgment A", "The better judgment is Judgment B"


class FakeChat:
    """A model whose replies are made by `say`. It records its requests."""

    by = "policy"

    def __init__(self, say: Callable[[ChatRequest], Reply]) -> None:
        self.say = say
        self.calls: list[list[ChatRequest]] = []

    def model_id(self, models: Mapping[str, Checkpoint]) -> str:
        return models[self.by].id

    def reply(self, requests: Sequence[ChatRequest], *, models: Mapping[str, Checkpoint]) -> list[list[Reply]]:
        self.calls.append(list(requests))
        return [[self.say(request)] * request.n for request in requests]


def shown(request: ChatRequest, field: str) -> str:
    """The text of one block of the question."""
    (found,) = re.findall(rf"^<{field}-(\w{{6}})>\n(.*?)\n</{field}-\1>$", request.messages[-1].content, re.S | re.M)
    return str(found[1])


def prefers(first_wins: Callable[[str, str], bool]) -> Callable[[ChatRequest], Reply]:
    """`first_wins` of the texts of judgment A and B."""

    def say(request: ChatRequest) -> Reply:
        texts = shown(request, "judgment_a"), shown(request, "judgment_b")
        return Reply(text=f"I looked.\n{FIRST if first_wins(*texts) else SECOND}", finish_reason="stop")

    return say


def quality(text: str) -> int:
    return int(re.findall(r"quality (\d+)", text)[0])


BY_QUALITY = prefers(lambda a, b: quality(a) > quality(b))


JUDGE = recipe.AdditiveSection(kind="additive")


def meta_judge(
    say: Callable[[ChatRequest], Reply] = BY_QUALITY, *, seed: int = 0, **settings: Any
) -> tuple[MetaJudge, FakeChat]:
    chat = FakeChat(say)
    section = recipe.MetaJudgingSection(**settings)
    return meta_judging.build(section, judge=JUDGE, chats={"policy": chat}, seed=seed), chat


def pairs_of(
    judge: MetaJudge, said: Sequence[Judgment], battles: Sequence[Battle], *, num_response_pairs: int
) -> tuple[PreferencePair, ...]:
    """Of a run of one shard."""
    return judge.pairs(said, battles, all_battles=battles, num_response_pairs=num_response_pairs, num_judgment_pairs=0)


def prompt(name: str = "p0") -> Prompt:
    return Prompt(name, (Message("user", f"Name a sea ({name})."),))


def response(name: str = "p0#0", text: str = "The North Sea.") -> Response:
    return Response(name, name.split("#")[0], (1, 2), (3, 4), None, text, "stop", 0, "m1")


def judgment(index: int, score: float | None, *, of: str = "p0#0", **changes: Any) -> Judgment:
    """Its quality is its index."""
    made = Judgment(
        id=f"{of}/additive/{index}",
        prompt_id=of.split("#")[0],
        response_id=of,
        judge="additive",
        draw=index,
        score=score,
        unscored="no_verdict" if score is None else None,
        text=f"Of quality {index}.\nScore: {score}",
        prompt_token_ids=(7, 8, 9),
        token_ids=(100 + index, 2),
        token_logprobs=(-0.1, -0.2),
        finish_reason="stop",
        checkpoint_id="m1",
    )
    return replace(made, **changes)


def judgments(*scores: float | None, of: str = "p0#0") -> list[Judgment]:
    return [judgment(index, score, of=of) for index, score in enumerate(scores)]


def compared_pairs(
    said: Sequence[Judgment],
    judge: MetaJudge,
    *,
    prompts: Sequence[Prompt] = (prompt(),),
    responses: Sequence[Response] = (response(),),
    iteration: int = 1,
) -> list[Battle]:
    return judge.battles(prompts, responses, said, models=MODELS, iteration=iteration)


def ends(pairs: Iterable[PreferencePair]) -> list[tuple[str, str]]:
    return [(pair.chosen_id.rpartition("/")[2], pair.rejected_id.rpartition("/")[2]) for pair in pairs]


def made(said: Sequence[Judgment], *, say: Callable[[ChatRequest], Reply] = BY_QUALITY, **settings: Any) -> list[Any]:
    """Battles and pairs of one response, with as many pairs of responses as one needs."""
    judge, _ = meta_judge(say, **settings)
    return list(pairs_of(judge, said, compared_pairs(said, judge), num_response_pairs=100))


def compared_responses(battles: Iterable[Battle]) -> set[str]:
    return {battle.response_id for battle in battles}


# --- Matchups ------------------------------------------------------------------------------------------------------


def test_the_response_with_the_highest_variance_is_selected() -> None:
    judge, _ = meta_judge()
    responses = [response(f"p0#{index}") for index in range(3)]
    said = [*judgments(3, 4, of="p0#0"), *judgments(1, 5, of="p0#1"), *judgments(2, 4, 3, of="p0#2")]
    assert compared_responses(compared_pairs(said, judge, responses=responses)) == {"p0#1"}
    alike = [*judgments(1, 3, of="p0#2"), *judgments(2, 4, of="p0#1"), *judgments(5, 5, of="p0#0")]
    assert compared_responses(compared_pairs(alike, judge, responses=responses[::-1])) == {"p0#1"}


def test_one_response_of_each_prompt_is_selected_and_other_judgments_are_ignored() -> None:
    judge, chat = meta_judge()
    said = [j for name in ("p0#0", "p1#0", "p0#initial0") for j in judgments(1, 4, of=name)]
    responses = [response("p1#0"), response("p0#0")]
    battles = compared_pairs(said, judge, prompts=[prompt("p0"), prompt("p1")], responses=responses)
    assert [battle.response_id for battle in battles] == ["p0#0", "p0#0", "p1#0", "p1#0"]
    assert len(chat.calls) == 1


def test_no_battles_without_two_scores_that_differ() -> None:
    judge, chat = meta_judge()
    assert compared_pairs([], judge) == []
    assert compared_pairs(judgments(4, None, None), judge) == []
    assert compared_pairs(judgments(4, 4, 4), judge) == []
    assert not chat.calls


@pytest.mark.parametrize(
    "changes",
    [
        {"score": None, "unscored": "truncated"},
        {"part": "style"},
        {"other_id": "p0#1"},
        {"text": " "},
        {"text": "<think>Hm.</think>"},
        {"token_ids": ()},
    ],
)
def test_ineligible_judgments_are_not_compared(changes: dict[str, Any]) -> None:
    judge, _ = meta_judge()
    said = [*judgments(1, 4), replace(judgment(2, 5.0), **changes)]
    assert {battle.first_id for battle in compared_pairs(said, judge)} == {said[0].id, said[1].id}


def test_all_judgments_are_compared_in_both_orders_in_one_call() -> None:
    judge, chat = meta_judge()
    said = judgments(1, 3, 4, 5)
    battles = compared_pairs(said, judge)
    assert {(b.first_id, b.second_id) for b in battles} == set(permutations([j.id for j in said], 2))
    assert len(battles) == len({b.id for b in battles}) == 12
    (asked,) = chat.calls
    assert len(asked) == 12 and all(request.n == 1 for request in asked)


def test_of_too_many_judgments_a_subset_spread_over_the_scores_is_compared() -> None:
    judge, _ = meta_judge(max_judgments=3)
    said = judgments(2, 5, 2, 1, 2, 2, 3)
    battles = compared_pairs(said, judge)
    assert len(battles) == 6
    assert {by_id.score for by_id in said if by_id.id in {b.first_id for b in battles}} == {1, 2, 5}
    assert {b.first_id for b in compared_pairs(said[::-1], judge)} == {b.first_id for b in battles}


def test_unused_share_of_a_small_shard_is_available_to_the_next() -> None:
    judge, _ = meta_judge(max_share=0.15)
    said = [judgment(draw, score) for draw, score in ((0, 1.0), (1, 4.0))]
    compared = compared_pairs(said, judge)
    for num_response_pairs, num_judgment_pairs, num in ((5, 0, 0), (6, 0, 1), (10, 1, 0), (12, 1, 1)):
        pairs = judge.pairs(
            said,
            compared,
            all_battles=compared,
            num_response_pairs=num_response_pairs,
            num_judgment_pairs=num_judgment_pairs,
        )
        assert len(pairs) == num


def test_a_win_is_weighted_by_all_battles_of_the_iteration_at_its_position() -> None:
    """In this shard the first position won only once; in the iteration it always wins."""
    judge, _ = meta_judge()
    said = [judgment(draw, score) for draw, score in ((0, 1.0), (1, 4.0))]
    compared = compared_pairs(said, judge)
    biased = [replace(battle, winner_id=battle.first_id) for battle in compared for _ in range(9)]
    assert pairs_of(judge, said, compared, num_response_pairs=100)
    assert not judge.pairs(said, biased[:2], all_battles=biased, num_response_pairs=100, num_judgment_pairs=0)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=16), st.integers(2, 12))
@settings(max_examples=40)
def test_at_most_max_judgments_are_compared_including_both_ends_of_the_scores(scores: list[int], most: int) -> None:
    judge, _ = meta_judge(max_judgments=most)
    said = judgments(*scores)
    eligible = {battle.first_id for battle in compared_pairs(said, judge)}
    if len(set(scores)) == 1:
        assert not eligible
    else:
        assert len(eligible) == min(most, len(scores))
        kept = [j.score for j in said if j.id in eligible]
        assert {min(scores), max(scores)} <= set(kept)


# --- The prompt and the parsing of verdicts -------------------------------------------------------------------------


def test_what_the_meta_judge_is_shown() -> None:
    judge, chat = meta_judge(temperature=0.3, top_p=0.8, max_tokens=77)
    said = [judgment(0, 1, text="<think>quietly</think>Of quality 0. Score: 1"), judgment(1, 4)]
    thinking = response(text="<think>Which one?</think>The Black Sea.")
    battles = compared_pairs(said, judge, responses=[thinking])
    (asked,) = chat.calls
    for battle, request in zip(battles, asked, strict=True):
        texts = {said[0].id: "Of quality 0. Score: 1", said[1].id: said[1].text}
        assert shown(request, "user") == "Name a sea (p0)."
        assert shown(request, "response") == "The Black Sea."
        assert shown(request, "judgment_a") == texts[battle.first_id]
        assert shown(request, "judgment_b") == texts[battle.second_id]
        assert (request.temperature, request.top_p, request.max_tokens) == (0.3, 0.8, 77)
        assert not request.choices and not request.opening


def test_the_winner_is_the_judgment_at_the_named_position() -> None:
    judge, _ = meta_judge()
    said = judgments(1, 4, 2)
    for battle in compared_pairs(said, judge):
        assert battle.winner_id == max(battle.first_id, battle.second_id)  # of higher index, that is quality
        assert battle.unscored is None
        assert battle.checkpoint_id == "m1" and len(battle.template_sha256) == 64


def test_two_judgments_with_the_same_text_tie_without_a_query() -> None:
    judge, chat = meta_judge(prefers(lambda a, b: True))
    said = [judgment(0, 3), judgment(1, 3, text="<think>so</think>Of quality 0.\nScore: 3"), judgment(2, 1)]
    ties = [b for b in compared_pairs(said, judge) if {b.first_id, b.second_id} == {said[0].id, said[1].id}]
    assert [(b.winner_id, b.unscored, b.text) for b in ties] == [("", None, SAME_TEXT)] * 2
    assert len(chat.calls[0]) == 4
    all_alike = [replace(judgment(index, score), text="Good.") for index, score in enumerate((1, 2))]
    assert len(compared_pairs(all_alike, judge)) == 2 and len(chat.calls) == 1


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(text="Both have their points.", finish_reason="stop"), "no_verdict"),
        (Reply(text="Both have", finish_reason="length"), "truncated"),
        (Reply(skipped="too_long"), "too_long"),
        (Reply(text="", finish_reason="stop"), "empty_verdict"),
    ],
)
def test_a_battle_without_a_verdict_keeps_its_reason_and_counts_nothing(reply: Reply, reason: str) -> None:
    said = judgments(1, 4, 2)

    def say(request: ChatRequest) -> Reply:
        """Nothing on judgment 2; judgment 0 beats judgment 1 in both positions."""
        texts = [shown(request, name) for name in ("judgment_a", "judgment_b")]
        if any(quality(text) == 2 for text in texts):
            return reply
        return Reply(text=FIRST if quality(texts[0]) == 0 else SECOND, finish_reason="stop")

    judge, _ = meta_judge(say)
    battles = compared_pairs(said, judge)
    unread = [b for b in battles if said[2].id in (b.first_id, b.second_id)]
    assert [(b.winner_id, b.unscored, b.text) for b in unread] == [("", reason, reply.text)] * 4
    (pair,) = pairs_of(judge, said, battles, num_response_pairs=100)
    (alone,) = pairs_of(judge, said, [b for b in battles if b not in unread], num_response_pairs=100)
    assert pair == alone
    assert ends([pair]) == [("0", "1")]


def test_each_battle_has_its_own_seed_independent_of_other_battles() -> None:
    def seeds(said: Sequence[Judgment], *, seed: int = 0, iteration: int = 1) -> dict[str, int]:
        judge, chat = meta_judge(seed=seed)
        battles = compared_pairs(said, judge, iteration=iteration)
        return {b.id: request.seed for b, request in zip(battles, chat.calls[0], strict=True)}

    said = judgments(1, 3, 4, 5)
    here = seeds(said)
    assert len(set(here.values())) == 12
    assert here == seeds(said[::-1])
    fewer = seeds(said[:2])
    assert fewer == {name: here[name] for name in fewer}
    assert not set(here.values()) & {*seeds(said, seed=1).values(), *seeds(said, iteration=2).values()}


# --- Pairs -----------------------------------------------------------------------------------------------------------


def test_best_against_worst_with_the_sampled_tokens_untouched() -> None:
    said = judgments(3, 1, 4, 5)
    (pair,) = made(said)
    best, worst = said[3], said[0]
    assert (pair.id, pair.prompt_id, pair.kind) == ("p0#judgments", "p0", "judgment")
    assert (pair.chosen_id, pair.rejected_id) == (best.id, worst.id)
    assert pair.prompt_token_ids == best.prompt_token_ids
    assert (pair.chosen_token_ids, pair.rejected_token_ids) == (best.token_ids, worst.token_ids)
    assert (pair.chosen_text, pair.rejected_text) == (best.text, worst.text)
    assert pair.margin == pair.chosen_score - pair.rejected_score > 0
    assert (pair.weight, pair.label) == (1.0, 1.0)


@pytest.mark.parametrize("first", [True, False])
def test_a_meta_judge_that_always_names_the_same_position_makes_no_pairs(first: bool) -> None:
    said = judgments(1, 3, 4, 5)
    by_position = prefers(lambda a, b: first)
    assert made(said, say=by_position) == []

    def sometimes_unreadable(request: ChatRequest) -> Reply:
        texts = shown(request, "judgment_a"), shown(request, "judgment_b")
        return Reply(text="Hm.", finish_reason="stop") if quality(texts[0]) == 2 else by_position(request)

    assert made(said, say=sometimes_unreadable) == []  # a judgment shown first less often did not win less


def test_a_meta_judge_that_always_calls_a_tie_or_says_nothing_makes_no_pairs() -> None:
    said = judgments(1, 3, 4)
    judge, _ = meta_judge()
    for unscored in (None, "no_verdict"):
        compared = [replace(b, winner_id="", unscored=unscored) for b in compared_pairs(said, judge)]
        assert pairs_of(judge, said, compared, num_response_pairs=100) == ()
        truncated = [replace(said[0], finish_reason="length"), *said[1:]]
        assert pairs_of(judge, truncated, compared, num_response_pairs=100) == ()
    assert pairs_of(judge, said, [], num_response_pairs=100) == ()


@given(st.floats(0, 1), st.integers(3, 6), st.integers(0, 1000))
@settings(max_examples=40)
def test_the_clearly_best_and_the_clearly_worst_are_the_pair_for_any_bias(bias: float, num: int, seed: int) -> None:
    """Between the others the position decides: the first wins with probability `bias`."""
    generator = random.Random(seed)

    def first_wins(a: str, b: str) -> bool:
        for text, wins in ((a, True), (b, False)):
            if quality(text) in (0, num - 1):
                return wins == (quality(text) == num - 1)
        return generator.random() < bias

    assert ends(made(judgments(*range(num)), say=prefers(first_wins))) == [(str(num - 1), "0")]


def test_a_truncated_judgment_is_never_chosen_and_may_be_rejected() -> None:
    said = judgments(1, 3, 4, 5)
    said[0], said[3] = (replace(j, finish_reason="length") for j in (said[0], said[3]))
    assert ends(made(said)) == [("2", "0")]
    assert made([replace(j, finish_reason="length") for j in said]) == []
    only_the_worst = [replace(j, finish_reason="stop" if j.draw == 0 else "length") for j in said]
    assert made(only_the_worst) == []


def test_a_long_chosen_judgment_drops_its_pair() -> None:
    said = judgments(1, 3, 4)
    said[2] = replace(said[2], text="Of quality 2." + " a" * 50)
    length = len(said[2].text)
    assert made(said, max_chosen_chars=length - 1) == []
    assert ends(made(said, max_chosen_chars=length)) == ends(made(said, max_chosen_chars=None)) == [("2", "0")]
    long_rejected = [replace(said[0], text="Of quality 0." + " a" * 50), *judgments(1, 3, 4)[1:]]
    assert ends(made(long_rejected, max_chosen_chars=30)) == [("2", "0")]


def test_the_same_text_or_the_same_tokens_never_form_a_pair() -> None:
    said = judgments(1, 3)
    judge, _ = meta_judge()
    compared = compared_pairs(said, judge)
    for changes in ({"text": f"<think>Hm.</think>\n{said[0].text} "}, {"token_ids": said[0].token_ids}):
        assert pairs_of(judge, [said[0], replace(said[1], **changes)], compared, num_response_pairs=100) == ()
    assert len(pairs_of(judge, said, compared, num_response_pairs=100)) == 1


def test_what_cannot_be_a_pair_is_an_error() -> None:
    said = judgments(1, 3)
    judge, _ = meta_judge()
    compared = compared_pairs(said, judge)
    with pytest.raises(ValueError, match="not among the judgments"):
        pairs_of(judge, said[:1], compared, num_response_pairs=100)
    with pytest.raises(ValueError, match="different prompt tokens"):
        pairs_of(judge, [said[0], replace(said[1], prompt_token_ids=(7,))], compared, num_response_pairs=100)


def many(num: int) -> tuple[list[Judgment], list[Battle], MetaJudge]:
    """A prompt each; the more of its battles judgment 1 wins, the higher the prompt's number."""
    judge, _ = meta_judge()
    said = [j for index in range(num) for j in judgments(1, 4, of=f"p{index}#0")]
    names = [f"p{index}" for index in range(num)]
    compared = compared_pairs(
        said, judge, prompts=[prompt(name) for name in names], responses=[response(f"{n}#0") for n in names]
    )
    more = [b for b in compared for _ in range(1 + int(b.prompt_id[1:]))]
    return said, more, judge


def test_the_largest_margins_stay_within_the_cap() -> None:
    said, compared, judge = many(6)
    all_pairs = pairs_of(judge, said, compared, num_response_pairs=1000)
    assert [pair.id for pair in all_pairs] == [f"p{index}#judgments" for index in range(6)]
    margins = [pair.margin for pair in all_pairs]
    assert margins == sorted(margins) and len(set(margins)) == 6
    # max_share is 0.15: exactly 3 of 20.
    assert [p.prompt_id for p in pairs_of(judge, said, compared, num_response_pairs=17)] == ["p3", "p4", "p5"]
    assert [p.prompt_id for p in pairs_of(judge, said, compared, num_response_pairs=16)] == ["p4", "p5"]
    assert (
        pairs_of(judge, said, compared, num_response_pairs=5)
        == pairs_of(judge, said, compared, num_response_pairs=0)
        == ()
    )


def test_a_share_is_the_decimal_number_that_was_written() -> None:
    said, compared, _ = many(7)
    judge, _ = meta_judge(max_share=0.7)
    assert (
        len(pairs_of(judge, said, compared, num_response_pairs=3)) == 7
    )  # and not 6, as 0.7 / (1 - 0.7) * 3 would have it


@given(st.integers(0, 60), st.sampled_from([0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7]))
def test_the_share_of_judgment_pairs_is_bounded_and_used_up(num_response_pairs: int, max_share: float) -> None:
    said, compared, _ = many(4)
    judge, _ = meta_judge(max_share=max_share)
    num = len(pairs_of(judge, said, compared, num_response_pairs=num_response_pairs))
    per_cent = round(100 * max_share)
    assert 100 * num <= per_cent * (num + num_response_pairs)
    assert num == 4 or 100 * (num + 1) > per_cent * (num + 1 + num_response_pairs)


@given(st.randoms(use_true_random=False))
@settings(max_examples=20)
def test_pairs_do_not_depend_on_the_order_of_the_inputs(order: random.Random) -> None:
    names = ["p0#0", "p1#0", "p1#1", "p2#0"]
    said = [j for name in names for j in judgments(1, 4, 3, 4, of=name)]
    responses, prompts = [response(name) for name in names], [prompt(name) for name in ("p0", "p1", "p2")]

    def coin(a: str, b: str) -> bool:
        return (quality(a) * 7 + quality(b) * 3) % 5 < 3

    def all_pairs() -> tuple[PreferencePair, ...]:
        judge, _ = meta_judge(prefers(coin))
        compared = compared_pairs(said, judge, prompts=prompts, responses=responses)
        order.shuffle(compared)
        return pairs_of(judge, said, compared, num_response_pairs=12)

    before = all_pairs()
    assert len(before) == 2
    for things in (said, responses, prompts):
        order.shuffle(things)  # type: ignore[arg-type]
    assert all_pairs() == before


# --- The section -----------------------------------------------------------------------------------------------------


def test_a_missing_model() -> None:
    chats = {"policy": FakeChat(BY_QUALITY), "initial": FakeChat(BY_QUALITY)}
    with pytest.raises(RecipeError, match=r"meta_judging.by: .*'polcy'.*did you mean 'policy'"):
        meta_judging.build(recipe.MetaJudgingSection(by="polcy"), judge=JUDGE, chats=chats, seed=0)
