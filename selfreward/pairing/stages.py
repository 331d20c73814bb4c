"""The stages of pairing: judgments to pairs, and the prompts that gave none, each with its reason."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from selfreward.pairing.rules import Selector
from selfreward.parts import Judged, MorePairs
from selfreward.records import DroppedPrompt, PreferencePair
from selfreward.steps import Read, Reading, Stage
from selfreward.tables import DROPPED_PROMPTS, JUDGMENTS, PAIRS, PROMPTS, RESPONSES, Table
from selfreward.workload import Lengths, PairBound, Workload

Also = Sequence[Table[Any]]
"""The tables of `selector.reads` that this iteration has."""


def pairs(selector: Selector, also: Also = (), *, more: MorePairs | None = None) -> Stage[PreferencePair]:
    """Of responses, and `more` behind them."""

    def make(reading: Reading) -> list[PreferencePair]:
        made = list(selector.select(judged(reading, also)).pairs)
        return [*made, *(more.make(reading, len(made)) if more else ())]

    return Stage(PAIRS, make, reads=(*_reads(also), *(more.reads if more else ())), tally=_count_pairs)


def dropped_prompts(selector: Selector, also: Also = ()) -> Stage[DroppedPrompt]:
    """The prompts without a pair of responses."""
    return Stage(
        DROPPED_PROMPTS,
        lambda reading: selector.select(judged(reading, also)).dropped,
        reads=_reads(also),
        tally=_count_dropped,
    )


def judged(reading: Reading, also: Also = ()) -> Judged:
    """What the pairs of a shard are made of."""
    tables: tuple[Table[Any], ...] = (PROMPTS, RESPONSES, JUDGMENTS, *also)
    return Judged(**{table.name: list(reading.rows(table)) for table in tables})


def bounds(selector: Selector, work: Workload) -> Callable[[Lengths], list[PairBound]]:
    """The pairs that so many responses may give, both sides as long as allowed."""
    return lambda lengths: [
        PairBound("response", lengths.prompt(prompt), work.max_tokens)
        for prompt in work.prompts
        for _ in range(selector.most(work.num_responses))
    ]


def _reads(also: Also) -> tuple[Read, ...]:
    return (Read(PROMPTS), Read(RESPONSES), Read(JUDGMENTS), *map(Read, also))


def _count_pairs(pairs: Iterable[PreferencePair]) -> dict[str, int]:
    kinds = [pair.kind for pair in pairs]
    return {"num_pairs": len(kinds), "num_judgment_pairs": kinds.count("judgment")}


def _count_dropped(dropped: Iterable[DroppedPrompt]) -> dict[str, int]:
    counts = Counter(f"num_dropped_prompts:{prompt.reason}" for prompt in dropped)
    return {"num_dropped_prompts": counts.total(), **counts}
