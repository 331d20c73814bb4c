"""The stages of pairing: the pairs, and the prompts without a pair, each with its reason."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from selfreward.pairing.rules import Selector
from selfreward.parts import ExtraPairs, PairingInputs
from selfreward.records import DroppedPrompt, PreferencePair, Response
from selfreward.steps import Read, Reading, Stage
from selfreward.tables import DROPPED_PROMPTS, JUDGMENTS, PAIRS, PROMPTS, Table
from selfreward.workload import Lengths, PairBound, ResponseBound, Workload

OptionalTables = Sequence[Table[Any]]
"""The tables in `selector.reads` that this iteration makes."""

CandidateTables = Mapping[Table[Response], ResponseBound]
"""The workload of the judged responses, by table."""


def pairs(
    selector: Selector, candidates: CandidateTables, optional: OptionalTables = (), *, more: ExtraPairs | None = None
) -> Stage[PreferencePair]:
    """Return the stage of the pairs of responses, followed by the pairs of `more`."""

    def make(reading: Reading) -> list[PreferencePair]:
        made = list(selector.select(pairing_inputs(reading, candidates, optional)).pairs)
        return [*made, *(more.make(reading, len(made)) if more else ())]

    return Stage(PAIRS, make, reads=(*_reads(candidates, optional), *(more.reads if more else ())), tally=_count_pairs)


def dropped_prompts(
    selector: Selector, candidates: CandidateTables, optional: OptionalTables = ()
) -> Stage[DroppedPrompt]:
    """Return the stage of the prompts without a pair of responses."""
    return Stage(
        DROPPED_PROMPTS,
        lambda reading: selector.select(pairing_inputs(reading, candidates, optional)).dropped,
        reads=_reads(candidates, optional),
        tally=_count_dropped,
    )


def pairing_inputs(reading: Reading, candidates: CandidateTables, optional: OptionalTables = ()) -> PairingInputs:
    """Return the pairing inputs of a shard. The tables `optional` are passed separately, and not as the policy's
    responses."""
    own = [response for table in candidates if table not in optional for response in reading.rows(table)]
    optional_by_name = {
        table.name: list(reading.rows(table)) for table in optional
    }  # named like the fields of `PairingInputs`
    judgments = list(reading.rows(JUDGMENTS, tokens=False))
    return PairingInputs(list(reading.rows(PROMPTS)), own, judgments, **optional_by_name)


def bounds(
    selector: Selector, candidates: CandidateTables, optional: OptionalTables = (), *, work: Workload
) -> Callable[[Lengths], list[PairBound]]:
    """Return an upper bound on the pairs of the candidates, with both sides as long as allowed."""
    num_pairs = selector.max_pairs(
        sum(each.num_responses for table, each in candidates.items() if table not in optional)
    )
    longest = max(each.max_tokens for each in candidates.values())
    return lambda lengths: [
        PairBound("response", lengths.prompt(prompt), longest) for prompt in work.prompts for _ in range(num_pairs)
    ]


def _reads(candidates: CandidateTables, optional: OptionalTables) -> tuple[Read, ...]:
    tables: tuple[Table[Any], ...] = (PROMPTS, *candidates, JUDGMENTS, *optional)
    return tuple(map(Read, dict.fromkeys(tables)))


def _count_pairs(pairs: Iterable[PreferencePair]) -> dict[str, int]:
    kinds = [pair.kind for pair in pairs]
    return {"num_pairs": len(kinds), "num_judgment_pairs": kinds.count("judgment")}


def _count_dropped(dropped: Iterable[DroppedPrompt]) -> dict[str, int]:
    counts = Counter(f"num_dropped_prompts:{prompt.reason}" for prompt in dropped)
    return {"num_dropped_prompts": counts.total(), **counts}
