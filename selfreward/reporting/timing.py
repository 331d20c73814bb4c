"""Where the time went, stage by stage, and how many tokens a second each stage moved."""

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
    """One stage, or several that belong together, over one or all iterations.

    `series` is its colour; the stages inside a group have `depth` 1 and are part of the row above.
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
        """Its name for people; inside a group, what it adds to the group's name."""
        inside = self.stage.removeprefix(f"{self.group}_") if self.stage != self.group else "the rest"
        return (inside if self.depth else _LABELS.get(self.stage, self.stage)).replace("_", " ")

    def per_second(self, name: str) -> float | None:
        """A counter of the engine over the stage's seconds; None without the counter."""
        value = self.usage.get(name)
        return value / self.seconds if value and self.seconds > 0 else None


def costs(history: Sequence[IterationSummary]) -> list[StageCost]:
    """Sums over the given iterations in the order of the stages; what took almost no time is one row at the end.

    Stages of one group are one block of time: all that held-out prompts cost, all that measuring the judge cost.
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
    """Seconds of each iteration by the rows that have a colour of their own; all others together under OTHER."""
    coloured, groups = colours(rows), _groups(history)
    made = []
    for summary in history:
        bar: defaultdict[str, float] = defaultdict(float)
        for stage, spent in summary.seconds_by_stage.items():
            bar[groups[stage] if groups[stage] in coloured else OTHER] += spent
        made.append(dict(bar))
    return made


def colours(rows: Sequence[StageCost]) -> dict[str, int]:
    """Row -> series, in order, OTHER last."""
    return {**{row.stage: row.series for row in rows if row.depth == 0}, OTHER: OTHER_SERIES}


def _groups(history: Sequence[IterationSummary]) -> dict[str, str]:
    """The group of each stage: its own name where it has none."""
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
