"""Time by stage, and the tokens per second of each stage."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfreward.records import IterationSummary
from selfreward.tables import JUDGE, TRAINING

_SMALL_SHARE = 0.005
_MAX_COLOURED = 7
_LABELS = {JUDGE: "measuring the judge"}
OTHER = "other"
OTHER_SERIES = 9


@dataclass(frozen=True)
class StageCost:
    """The cost of one stage or of a group of stages, over one or all iterations.

    `series` is its colour. Stages of a group have `depth` 1 and are part of the row above.
    """

    stage: str
    seconds: float
    share: float
    usage: Mapping[str, float]
    series: int
    depth: int = 0
    group: str = ""

    @property
    def label(self) -> str:
        """The displayed name; within a group, the part after the group's name."""
        inside = self.stage.removeprefix(f"{self.group}_") if self.stage != self.group else "the rest"
        return (inside if self.depth else _LABELS.get(self.stage, self.stage)).replace("_", " ")

    def per_second(self, name: str) -> float | None:
        """Return a counter of the engine divided by the stage's seconds; None without the counter."""
        value = self.usage.get(name)
        return value / self.seconds if value and self.seconds > 0 else None


def costs(history: Sequence[IterationSummary]) -> list[StageCost]:
    """Return the cost of each stage, summed over the given iterations, in the order of the stages.

    The stages of a group are summed in one row, such as all evaluation or all measurement of the judge. Stages that
    took almost no time are one row at the end.
    """
    seconds, usage = _sums(history)
    groups = _groups(history)
    total = sum(seconds.values()) or 1.0
    spent: defaultdict[str, float] = defaultdict(float)
    for stage, time in seconds.items():
        spent[groups[stage]] += time
    order = list(spent)  # as the stages ran
    kept = sorted((g for g in spent if spent[g] >= _SMALL_SHARE * total), key=lambda g: (-spent[g], g))
    kept = sorted(kept[:_MAX_COLOURED], key=order.index)
    rows = []
    for series, group in enumerate(kept, start=1):
        stages = sorted(stage for stage in seconds if groups[stage] == group)
        rows.append(_row(group, stages, seconds, usage, total, series))
        if len(stages) > 1:
            rows += [_row(stage, [stage], seconds, usage, total, series, depth=1, group=group) for stage in stages]
    rest = [stage for stage in seconds if groups[stage] not in kept]
    return rows + ([_row(OTHER, rest, seconds, usage, total, OTHER_SERIES)] if rest else [])


def bars(history: Sequence[IterationSummary], rows: Sequence[StageCost]) -> list[dict[str, float]]:
    """Return the seconds of each iteration by coloured row; all other rows are summed under OTHER."""
    coloured, groups = colours(rows), _groups(history)
    made = []
    for summary in history:
        bar: defaultdict[str, float] = defaultdict(float)
        for stage, spent in summary.seconds_by_stage.items():
            bar[groups[stage] if groups[stage] in coloured else OTHER] += spent
        made.append(dict(bar))
    return made


def colours(rows: Sequence[StageCost]) -> dict[str, int]:
    """Map each row to its series, in order, OTHER last."""
    return {**{row.stage: row.series for row in rows if row.depth == 0}, OTHER: OTHER_SERIES}


def _groups(history: Sequence[IterationSummary]) -> dict[str, str]:
    """Map each stage to its group, or to its own name without one."""
    return {stage: summary.groups.get(stage, stage) for summary in history for stage in summary.seconds_by_stage}


Sums = defaultdict[str, float]


def _sums(history: Sequence[IterationSummary]) -> tuple[Sums, dict[str, Sums]]:
    seconds: Sums = defaultdict(float)
    usage: dict[str, Sums] = defaultdict(lambda: defaultdict(float))
    for summary in history:
        _add(seconds, summary.seconds_by_stage)
        for stage, counters in summary.usage_by_stage.items():
            _add(usage[stage], counters)
        trained = summary.training.get("num_tokens")
        if isinstance(trained, int | float) and TRAINING in summary.seconds_by_stage:
            usage[TRAINING]["num_trained_tokens"] += trained
    return seconds, usage


def _add(sums: Sums, values: Mapping[str, float]) -> None:
    for key, value in values.items():
        sums[key] += value


def _row(
    name: str,
    stages: Sequence[str],
    seconds: Sums,
    usage: Mapping[str, Sums],
    total: float,
    series: int,
    depth: int = 0,
    group: str = "",
) -> StageCost:
    spent = sum(seconds[stage] for stage in stages)
    counters: Sums = defaultdict(float)
    for stage in stages:
        _add(counters, usage.get(stage, {}))
    return StageCost(name, spent, spent / total, dict(counters), series, depth, group)
