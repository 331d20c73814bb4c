"""What the reports take from the records of one iteration, in one pass over each stage.

Memory does not grow with the run: counts of lengths (at most as many as there are lengths), counts of scores on a grid
of 0.01, and a few sampled pairs are all that is kept.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from selfreward.records import Judgment, PreferencePair, Prompt
from selfreward.reporting.text import Clipped, clip
from selfreward.seeding import seed_of
from selfreward.statistics.scores import reliability

NUM_SAMPLES = 4
SCORE_GRID = 0.01
_MAX_PROMPT = 1200
_MAX_TURNS = 6
_MAX_RESPONSE = 2000
_MAX_JUDGMENT = 600
_MAX_DRAWS = 3

if TYPE_CHECKING:
    from selfreward.store import Store

RecordT = TypeVar("RecordT")


@dataclass(frozen=True)
class JudgedDraw:
    """One draw of a judge on a sampled response; exactly one of `score` and `unscored` is set."""

    judge: str
    score: float | None
    unscored: str | None
    text: Clipped


@dataclass(frozen=True)
class SampledText:
    """One side of a pair. `draws` are the first few judgments; `num_draws` counts all of them."""

    text: Clipped
    score: float
    num_tokens: int
    draws: tuple[JudgedDraw, ...] = ()
    num_draws: int = 0


@dataclass(frozen=True)
class SamplePair:
    """A preference pair as it is shown to people; `turns` are (role, text) of the last turns of its prompt."""

    id: str
    kind: str
    turns: tuple[tuple[str, Clipped], ...]
    num_turns_left_out: int
    chosen: SampledText
    rejected: SampledText
    margin: float


@dataclass(frozen=True)
class Digest:
    """`scores` counts judgments by score on a grid of 0.01; the length counters count pairs by number of tokens.

    `judge_reliability` is None where no response has two scored judgments.
    """

    scores: Mapping[float, int] = field(default_factory=dict)
    judge_reliability: float | None = None
    chosen_tokens: Mapping[int, int] = field(default_factory=dict)
    rejected_tokens: Mapping[int, int] = field(default_factory=dict)
    num_pairs: int = 0
    num_chosen_longer: int = 0
    margin_sum: float = 0.0
    samples: tuple[SamplePair, ...] = ()


def digest(store: "Store", iteration: int) -> Digest:
    """Reads the stages of an iteration; a stage that is not there gives nothing."""
    lengths, drawn = _read_pairs(_stage(store, iteration, "pairs", PreferencePair), iteration)
    wanted_prompts = {pair.prompt_id for pair in drawn}
    prompts = {p.id: p for p in _stage(store, iteration, "prompts", Prompt) if p.id in wanted_prompts}
    wanted_samples = {sample_id for pair in drawn for sample_id in (pair.chosen_id, pair.rejected_id)}
    scores, judged = _read_judgments(_stage(store, iteration, "judgments", Judgment), wanted_samples)
    samples = tuple(_sample(pair, prompts.get(pair.prompt_id), judged) for pair in drawn)
    finite = (j for j in _stage(store, iteration, "judgments", Judgment) if math.isfinite(j.score or 0.0))
    return replace(lengths, scores=dict(sorted(scores.items())), judge_reliability=reliability(finite), samples=samples)


def _stage(store: "Store", iteration: int, stage: str, record_type: type[RecordT]) -> Iterable[RecordT]:
    return store.read(iteration, stage, record_type) if store.has(iteration, stage) else ()


def _read_pairs(pairs: Iterable[PreferencePair], iteration: int) -> tuple[Digest, list[PreferencePair]]:
    chosen: Counter[int] = Counter()
    rejected: Counter[int] = Counter()
    num_chosen_longer = 0
    margin_sum = 0.0
    # The pairs with the smallest hashes are a random sample, the same one however the pairs are ordered or sharded.
    drawn: list[tuple[int, int, PreferencePair]] = []
    for position, pair in enumerate(pairs):
        num_chosen, num_rejected = len(pair.chosen_token_ids), len(pair.rejected_token_ids)
        chosen[num_chosen] += 1
        rejected[num_rejected] += 1
        num_chosen_longer += num_chosen > num_rejected
        margin_sum += pair.margin
        # `position` differs always, so that two pairs are never compared.
        heapq.heappush(drawn, (-seed_of(0, iteration, "report", pair.id), position, pair))
        if len(drawn) > NUM_SAMPLES:
            heapq.heappop(drawn)
    in_order = [pair for _, _, pair in sorted(drawn, reverse=True)]
    counted = Digest(
        chosen_tokens=chosen,
        rejected_tokens=rejected,
        num_pairs=chosen.total(),
        num_chosen_longer=num_chosen_longer,
        margin_sum=margin_sum,
    )
    return counted, in_order


def _read_judgments(
    judgments: Iterable[Judgment], wanted: set[str]
) -> tuple[Counter[float], dict[str, list[Judgment]]]:
    scores: Counter[float] = Counter()
    judged: dict[str, list[Judgment]] = {}
    for judgment in judgments:
        if judgment.score is not None and math.isfinite(judgment.score):
            scores[round(round(judgment.score / SCORE_GRID) * SCORE_GRID, 2)] += 1
        if judgment.response_id in wanted:
            judged.setdefault(judgment.response_id, []).append(judgment)
    return scores, judged


def _sample(pair: PreferencePair, prompt: Prompt | None, judged: Mapping[str, list[Judgment]]) -> SamplePair:
    messages = prompt.messages if prompt is not None else ()
    last = messages[-_MAX_TURNS:]
    max_shown = _MAX_PROMPT // max(1, len(last))
    return SamplePair(
        id=pair.id,
        kind=pair.kind,
        # Of a long conversation the last turns are shown: they are what was responded to.
        turns=tuple((message.role, clip(message.content, max_shown)) for message in last),
        num_turns_left_out=len(messages) - len(last),
        chosen=_side(pair.chosen_text, pair.chosen_score, len(pair.chosen_token_ids), judged.get(pair.chosen_id, [])),
        rejected=_side(
            pair.rejected_text, pair.rejected_score, len(pair.rejected_token_ids), judged.get(pair.rejected_id, [])
        ),
        margin=pair.margin,
    )


def _side(text: str, score: float, num_tokens: int, judgments: list[Judgment]) -> SampledText:
    draws = tuple(
        JudgedDraw(judge=j.judge, score=j.score, unscored=j.unscored, text=clip(j.text, _MAX_JUDGMENT))
        for j in sorted(judgments, key=lambda j: j.draw)[:_MAX_DRAWS]
    )
    return SampledText(
        text=clip(text, _MAX_RESPONSE), score=score, num_tokens=num_tokens, draws=draws, num_draws=len(judgments)
    )


def quantile(counts: Mapping[int, int], share: float) -> float:
    """The smallest length that at least `share` of the counted items do not exceed; NaN for no items."""
    total = sum(counts.values())
    seen = 0
    for length in sorted(counts):
        seen += counts[length]
        if seen >= share * total:
            return float(length)
    return float("nan")


def mean(counts: Mapping[float, int] | Mapping[int, int]) -> float:
    """The mean of counted values; NaN for no items."""
    total = sum(counts.values())
    return sum(value * count for value, count in counts.items()) / total if total else float("nan")
