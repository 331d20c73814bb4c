"""What no input and no setting may break, over random shards, kinds and options."""

import itertools
import random
from dataclasses import fields, replace
from typing import Any

import pytest
from cases.pairing import Scores, judged, judgments, prompt, response
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward import pairing, recipe
from selfreward.pairing import DropReason
from selfreward.parts import PairingInputs
from selfreward.records import Response

_SHARED: dict[str, Any] = {
    "min_scored": st.sampled_from([2, 2, 4]),
    "allow_truncated_chosen": st.booleans(),
    "min_margin": st.sampled_from([0.0, 0.0, 0.5, 2.0]),
    "min_reliability": st.sampled_from([None, None, 0.0, 0.4]),
    "label": st.sampled_from(["hard", "preference", "consistency"]),
}
SECTIONS = st.one_of(
    st.builds(recipe.BestVsWorst, kind=st.just("best_vs_worst"), **_SHARED),
    st.builds(recipe.LengthControlled, kind=st.just("length_controlled"), rho=st.floats(0, 0.499), **_SHARED),
    st.builds(recipe.TopK, kind=st.just("top_k"), k=st.integers(1, 4), **_SHARED),
    st.builds(recipe.InitialRejected, kind=st.just("initial_rejected"), **_SHARED),
)
_SCORES = st.none() | st.integers(0, 5).map(float) | st.floats(0, 5) | st.sampled_from([3.0, 3.0000000000000004])
_DRAWN = st.tuples(
    st.integers(2, 6),
    st.sampled_from([False, False, False, True]),
    st.sampled_from([None, None, None, None, "", "a", "b"]),
    st.lists(_SCORES, max_size=3) | st.lists(st.integers(0, 5), min_size=1, max_size=3),
)


@st.composite
def shards(draw: st.DrawFn) -> PairingInputs:
    """Scored by a judge that scores or by one that compares; with and without a judge before."""

    def responses(to: str, by: str, *, most: int) -> list[tuple[Response, Scores]]:
        drawn = draw(st.lists(_DRAWN, min_size=draw(st.sampled_from([0, most // 2, most])), max_size=most))
        return [
            (response(index, tokens=tokens, truncated=truncated, text=text, to=to, by=by), scores)
            for index, (tokens, truncated, text, scores) in enumerate(drawn)
        ]

    names = [f"p{index}" for index in range(draw(st.integers(1, 3)))]
    policy = [item for name in names for item in responses(name, "m", most=6)]
    initial = [item for name in names for item in responses(name, "i", most=2)]
    previous = [(item, draw(st.lists(_SCORES, max_size=2))) for item, _ in policy] if draw(st.booleans()) else []
    comparisons = []
    if draw(st.booleans()):
        policy, initial = ([(item, []) for item, _ in items] for items in (policy, initial))
        for one, other in itertools.combinations([item for item, _ in (*policy, *initial)], 2):
            if one.prompt_id == other.prompt_id:
                preference = draw(st.none() | st.floats(0, 1) | st.sampled_from([0.0, 0.3, 0.5, 1.0]))
                comparisons += judgments(one, preference, other=other.id)
                comparisons += judgments(other, None if preference is None else 1 - preference, other=one.id)
    return judged(policy, initial=initial, previous=previous, more=comparisons, prompts=[prompt(n) for n in names])


@settings(max_examples=200, deadline=None)
@given(section=SECTIONS, shard=shards(), rng=st.randoms())
def test_whatever_comes_in(section: Any, shard: PairingInputs, rng: random.Random) -> None:
    selector = pairing.build(section)
    selection = selector.select(shard)

    # Counts add up: every prompt has pairs or one reason, in the order of the prompts.
    names = [item.id for item in shard.prompts]
    paired = list(dict.fromkeys(pair.prompt_id for pair in selection.pairs))
    dropped = [item.prompt_id for item in selection.dropped]
    assert sorted(paired + dropped) == names
    assert paired == sorted(paired) and dropped == sorted(dropped)
    assert {item.reason for item in selection.dropped} <= {str(reason) for reason in DropReason}
    assert len({pair.id for pair in selection.pairs}) == len(selection.pairs)
    assert len(selection.pairs) <= (section.k if section.kind == "top_k" else 1) * len(paired)

    policy = {item.id: item for item in shard.responses}
    initial = {item.id: item for item in shard.initial_responses} if section.kind == "initial_rejected" else {}
    draws: dict[str, list[float]] = {}
    for judgment in shard.judgments:
        if judgment.score is not None:
            draws.setdefault(judgment.response_id, []).append(judgment.score)
    for pair in selection.pairs:
        chosen, rejected = policy[pair.chosen_id], (policy | initial)[pair.rejected_id]
        means = [sum(draws[item.id]) / len(draws[item.id]) for item in (chosen, rejected)]
        assert [pair.chosen_score, pair.rejected_score] == pytest.approx(means)
        assert pair.margin == pair.chosen_score - pair.rejected_score > section.min_margin >= 0
        assert chosen.prompt_id == rejected.prompt_id == pair.prompt_id
        assert section.allow_truncated_chosen or chosen.finish_reason == "stop"
        assert sum(item.id in draws for item in shard.responses if item.prompt_id == pair.prompt_id) >= (
            section.min_scored
        )
        assert 0.5 < pair.label <= 1 and (pair.label == 1 or section.label != "hard")
        assert pair.weight == 1

    # Nothing stands on both sides of a prompt, and no response in two pairs.
    for name in paired:
        of_prompt = [pair for pair in selection.pairs if pair.prompt_id == name]
        assert not {p.chosen_text.strip() for p in of_prompt} & {p.rejected_text.strip() for p in of_prompt}
        assert not {p.chosen_token_ids for p in of_prompt} & {p.rejected_token_ids for p in of_prompt}
        assert len({side for p in of_prompt for side in (p.chosen_id, p.rejected_id)}) == 2 * len(of_prompt)

    # The order of responses and judgments does not matter, and neither does that of prompts but for the order of pairs.
    again = selector.select(_shuffled(shard, rng))
    assert set(again.pairs) == set(selection.pairs) and set(again.dropped) == set(selection.dropped)


def _shuffled(shard: PairingInputs, rng: random.Random) -> PairingInputs:
    items = {field.name: list(getattr(shard, field.name)) for field in fields(shard)}
    return PairingInputs(**{name: rng.sample(values, len(values)) for name, values in items.items()})


@settings(deadline=None)
@given(section=SECTIONS, score=st.floats(0, 5), lengths=st.lists(st.integers(1, 9), min_size=4, max_size=6))
def test_a_tie_never_becomes_a_pair(section: Any, score: float, lengths: list[int]) -> None:
    tied = judged([(response(index, tokens=tokens), [score]) for index, tokens in enumerate(lengths)])
    assert [item.reason for item in pairing.build(section).select(tied).dropped] == ["tie"]


@settings(max_examples=100, deadline=None)
@given(section=SECTIONS, shard=shards())
def test_the_reliability_asked_for_only_takes_prompts_away(section: Any, shard: PairingInputs) -> None:
    """And says so in its own reasons: the other prompts keep their pairs, or the reason they had."""
    trusting, wary = (
        pairing.build(section.model_copy(update={"min_reliability": least})).select(shard) for least in (None, 0.4)
    )
    lost = {item.prompt_id for item in wary.dropped if "reliability" in item.reason}
    assert wary.pairs == tuple(pair for pair in trusting.pairs if pair.prompt_id not in lost)
    assert lost <= {pair.prompt_id for pair in trusting.pairs}
    assert {item for item in wary.dropped if item.prompt_id not in lost} == set(trusting.dropped)


@settings(max_examples=100, deadline=None)
@given(section=SECTIONS, shard=shards())
def test_in_the_first_iteration_the_initial_models_rejected_is_the_policys_own(
    section: Any, shard: PairingInputs
) -> None:
    first = replace(shard, initial_responses=[], previous_judgments=[])
    shared = {name: getattr(section, name) for name in recipe.Pairing.model_fields}
    anchored = pairing.build(recipe.InitialRejected(kind="initial_rejected", **shared)).select(first)
    assert anchored == pairing.build(recipe.BestVsWorst(kind="best_vs_worst", **shared)).select(first)
