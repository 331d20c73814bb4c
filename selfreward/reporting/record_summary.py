"""The summary of one iteration's records for the reports, read in one pass over each stage.

Memory does not grow with the run. A summary contains counts by length, counts by rounded score and a few sampled pairs;
while reading, also the ids of M_0's responses.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from selfreward.records import Judgment, PreferencePair
from selfreward.reporting.samples import RandomPairSample, SamplePair, Sources, wanted_ids
from selfreward.tables import INITIAL_RESPONSES, JUDGMENTS, PAIRS, PROMPTS, RESPONSES, R, Table

if TYPE_CHECKING:
    from selfreward.store import Store


@dataclass(frozen=True)
class RecordSummary:
    """`scores` counts the judge's own judgments of the policy's responses by score (see `rounded_score`).

    The length counters count pairs of responses by number of tokens. Of pairs of judgments only the number is stored.
    """

    scores: Mapping[float, int] = field(default_factory=dict)
    chosen_tokens: Mapping[int, int] = field(default_factory=dict)
    rejected_tokens: Mapping[int, int] = field(default_factory=dict)
    num_response_pairs: int = 0
    num_judgment_pairs: int = 0
    num_chosen_longer: int = 0
    margin_sum: float = 0.0
    samples: tuple[SamplePair, ...] = ()

    @property
    def num_pairs(self) -> int:
        return self.num_response_pairs + self.num_judgment_pairs


def summarise_records(store: "Store", iteration: int) -> RecordSummary:
    """Read the stages of an iteration; a missing stage counts as empty."""
    counted, sampled = _read_pairs(_rows(store, iteration, PAIRS, tokens=True), iteration)
    initial_ids = frozenset(response.id for response in _rows(store, iteration, INITIAL_RESPONSES))
    scores, judgments = _read_judgments(
        _rows(store, iteration, JUDGMENTS),
        of_responses=wanted_ids(sampled, "response"),
        wanted=wanted_ids(sampled, "judgment"),
        initial_ids=initial_ids,
    )
    sources = _sources(store, iteration, sampled, judgments, initial_ids)
    return replace(counted, scores=dict(sorted(scores.items())), samples=tuple(map(sources.sample, sampled)))


def _rows(store: "Store", iteration: int, table: Table[R], *, tokens: bool = False) -> Iterable[R]:
    return store.read(iteration, table, tokens=tokens) if store.has(iteration, table) else ()


def _read_pairs(pairs: Iterable[PreferencePair], iteration: int) -> tuple[RecordSummary, list[PreferencePair]]:
    chosen: Counter[int] = Counter()
    rejected: Counter[int] = Counter()
    num_judgment_pairs = num_chosen_longer = 0
    margin_sum = 0.0
    sample = RandomPairSample(iteration)
    for pair in pairs:
        sample.add(pair)
        if pair.kind == "judgment":  # texts are judgments and scores are Elo, which must not mix with responses
            num_judgment_pairs += 1
            continue
        num_chosen, num_rejected = len(pair.chosen_token_ids), len(pair.rejected_token_ids)
        chosen[num_chosen] += 1
        rejected[num_rejected] += 1
        num_chosen_longer += num_chosen > num_rejected
        margin_sum += pair.margin
    counted = RecordSummary(
        chosen_tokens=chosen,
        rejected_tokens=rejected,
        num_response_pairs=chosen.total(),
        num_judgment_pairs=num_judgment_pairs,
        num_chosen_longer=num_chosen_longer,
        margin_sum=margin_sum,
    )
    return counted, sample.pairs()


def _read_judgments(
    judgments: Iterable[Judgment], *, of_responses: set[str], wanted: set[str], initial_ids: frozenset[str]
) -> tuple[Counter[float], list[Judgment]]:
    """Return the counts of scores, and the judgments whose id is in `wanted` or whose response is in `of_responses`."""
    scores: Counter[float] = Counter()
    kept: list[Judgment] = []
    for judgment in judgments:
        is_own = not judgment.part and judgment.response_id not in initial_ids
        if is_own and judgment.score is not None and math.isfinite(judgment.score):
            scores[rounded_score(judgment.score)] += 1
        if judgment.response_id in of_responses or judgment.id in wanted:
            kept.append(judgment)
    return scores, kept


def _sources(
    store: "Store",
    iteration: int,
    sampled: Sequence[PreferencePair],
    judgments: Sequence[Judgment],
    initial_ids: frozenset[str],
) -> Sources:
    prompt_ids = {pair.prompt_id for pair in sampled}
    judgments_of: dict[str, list[Judgment]] = {}
    for judgment in judgments:
        judgments_of.setdefault(judgment.response_id, []).append(judgment)
    by_id = {judgment.id: judgment for judgment in judgments}
    judged_ids = {by_id[name].response_id for name in wanted_ids(sampled, "judgment") & by_id.keys()}
    responses = _rows(store, iteration, RESPONSES) if judged_ids else ()
    return Sources(
        prompts={p.id: p for p in _rows(store, iteration, PROMPTS) if p.id in prompt_ids},
        judgments_of=judgments_of,
        judgments=by_id,
        response_texts={response.id: response.text for response in responses if response.id in judged_ids},
        initial_ids=initial_ids,
    )


def rounded_score(score: float) -> float:
    """Return the nearest multiple of 0.01, or three significant digits at 10 or above: unbounded scores stay few."""
    return round(score, 2 if abs(score) < 10 else 2 - math.floor(math.log10(abs(score)))) + 0.0


def quantile(counts: Mapping[int, int], share: float) -> float:
    """Return the smallest length that at least `share` of the counted items do not exceed; NaN without items."""
    total = sum(counts.values())
    seen = 0
    for length in sorted(counts):
        seen += counts[length]
        if seen >= share * total:
            return float(length)
    return float("nan")
