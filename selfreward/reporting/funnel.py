"""From prompts to pairs: the report accounts for every prompt and every judgment, or prints that counts differ."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from selfreward.records import IterationSummary
from selfreward.reporting.formatting import ABSENT, in_words

_MAX_REASONS = 8
_OTHER = "other reasons"
_KNOWN = frozenset({
    "num_prompts", "num_responses", "num_judgments", "num_unscored_judgments", "num_pairs", "num_dropped_prompts",
    "num_truncated_responses", "num_judgment_pairs", "num_overlapping_prompts",
})  # fmt: skip


@dataclass(frozen=True)
class Segment:
    """A part of a bar: `share` of all prompts, `series` its colour (0: the neutral colour)."""

    label: str
    count: int
    share: float
    series: int


@dataclass(frozen=True)
class IterationFunnel:
    """Counts of one iteration. `problems` describes counts that do not add up."""

    iteration: int
    counts: Mapping[str, int]
    num_with_pair: int
    num_scored: int
    dropped: Mapping[str, int]
    unscored: Mapping[str, int]
    num_trained: int | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """A row of the table: one count in every iteration; `depth` 1 is part of the row above."""

    label: str
    name: str
    cells: tuple[str, ...]
    depth: int = 0


def funnel_of(summary: IterationSummary) -> IterationFunnel:
    counts = summary.counts
    dropped, unscored = reasons(counts, "num_dropped_prompts"), reasons(counts, "num_unscored_judgments")
    trained = summary.training.get("num_pairs")
    return IterationFunnel(
        iteration=summary.iteration,
        counts=counts,
        num_with_pair=counts.get("num_prompts", 0) - counts.get("num_dropped_prompts", 0),
        num_scored=counts.get("num_judgments", 0) - counts.get("num_unscored_judgments", 0),
        dropped=dropped,
        unscored=unscored,
        num_trained=trained if isinstance(trained, int) else None,
        problems=tuple(_problems(counts, dropped, unscored)),
    )


def num_response_pairs(counts: Mapping[str, int]) -> int:
    """Return the number of pairs of responses, without the meta-judge's pairs of judgments."""
    return counts.get("num_pairs", 0) - counts.get("num_judgment_pairs", 0)


def reasons(counts: Mapping[str, int], name: str) -> dict[str, int]:
    """Return the counts under `name:REASON`, most frequent first."""
    found = {key.partition(":")[2]: count for key, count in counts.items() if key.startswith(f"{name}:")}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _problems(counts: Mapping[str, int], dropped: Mapping[str, int], unscored: Mapping[str, int]) -> Iterable[str]:
    num_dropped, num_unscored = counts.get("num_dropped_prompts", 0), counts.get("num_unscored_judgments", 0)
    # Pairs of judgments are not expected of every prompt, so they are left out of this check.
    num_prompts, num_pairs = counts.get("num_prompts", 0), num_response_pairs(counts)
    if sum(dropped.values()) != num_dropped:
        yield f"{num_dropped} prompts without a pair, but their reasons add up to {sum(dropped.values())}"
    if sum(unscored.values()) != num_unscored:
        yield f"{num_unscored} unscored judgments, but their reasons add up to {sum(unscored.values())}"
    # A prompt may give several pairs of responses; a prompt without one must have a reason.
    if num_pairs < num_prompts - num_dropped or (num_pairs and num_prompts <= num_dropped):
        yield f"{num_prompts} prompts, {num_dropped} of them without a pair, but {num_pairs} pairs of responses"


def bars(funnels: Sequence[IterationFunnel]) -> list[tuple[int, int, list[Segment]]]:
    """Return (iteration, number of prompts, segments) per iteration; each reason has the same colour in all of them."""
    totals: Counter[str] = Counter()
    for funnel in funnels:
        totals.update(funnel.dropped)
    named = _named(totals)
    made = []
    for funnel in funnels:
        num_prompts = funnel.counts.get("num_prompts", 0)
        parts = [("with a pair", max(funnel.num_with_pair, 0), 1)]
        parts += [(in_words(reason), funnel.dropped.get(reason, 0), 2 + index) for index, reason in enumerate(named)]
        parts.append((_OTHER, sum(n for reason, n in funnel.dropped.items() if reason not in named), 0))
        total = max(1, sum(count for _, count, _ in parts))
        segments = [Segment(label, count, count / total, series) for label, count, series in parts if count]
        made.append((funnel.iteration, num_prompts, segments))
    return made


def legend(all_bars: Sequence[tuple[int, int, Sequence[Segment]]]) -> list[Segment]:
    """Return one segment for each label, in order of colour."""
    seen = {segment.label: segment for _, _, segments in all_bars for segment in segments}
    return sorted(seen.values(), key=lambda segment: segment.series or 99)


def table(funnels: Sequence[IterationFunnel]) -> list[Line]:
    """Return all counts in pipeline order, iterations as columns."""

    def line(label: str, name: str, counts: Iterable[int | None], depth: int = 0) -> Line:
        return Line(label, name, tuple(ABSENT if n is None else f"{n:,}" for n in counts), depth)

    def counted(label: str, name: str, depth: int = 0) -> Line:
        return line(label, name, (f.counts.get(name) for f in funnels), depth)

    lines = [counted("Prompts", "num_prompts")]
    if any("num_overlapping_prompts" in f.counts for f in funnels):
        lines.append(counted("overlapping held-out prompts", "num_overlapping_prompts", 1))
    lines.append(counted("Responses", "num_responses"))
    if any("num_truncated_responses" in f.counts for f in funnels):
        lines.append(counted("truncated at the token limit", "num_truncated_responses", 1))
    lines += [
        counted("Judgments", "num_judgments"),
        line("with a score", "num_scored_judgments", (f.num_scored for f in funnels), 1),
        counted("unscored", "num_unscored_judgments", 1),
        *(line(label, "", counts, 2) for label, counts in _by_reason([f.unscored for f in funnels])),
        line("Prompts with a pair", "num_prompts_with_pair", (f.num_with_pair for f in funnels)),
        counted("Prompts without a pair", "num_dropped_prompts"),
        *(line(label, "", counts, 1) for label, counts in _by_reason([f.dropped for f in funnels])),
        counted("Pairs", "num_pairs"),
    ]
    if any(f.counts.get("num_judgment_pairs") for f in funnels):
        judgments = (f.counts.get("num_judgment_pairs", 0) for f in funnels)
        lines += [
            line("of responses", "num_pairs", (num_response_pairs(f.counts) for f in funnels), 1),
            line("of judgments", "num_judgment_pairs", judgments, 1),
        ]
    lines.append(line("trained on", "training.num_pairs", (f.num_trained for f in funnels), 1))
    others = sorted({key for f in funnels for key in f.counts if ":" not in key} - _KNOWN)
    return lines + [counted(name, name) for name in others]


def _by_reason(found: Sequence[Mapping[str, int]]) -> list[tuple[str, list[int]]]:
    totals: Counter[str] = Counter()
    for counts in found:
        totals.update(counts)
    named = _named(totals)
    rows = [(in_words(reason), [counts.get(reason, 0) for counts in found]) for reason in named]
    if len(totals) > len(named):
        rows.append((_OTHER, [sum(n for r, n in counts.items() if r not in named) for counts in found]))
    return rows


def _named(totals: Counter[str]) -> list[str]:
    """Return the most frequent reasons; the table sums the others in one row."""
    ordered = sorted(totals, key=lambda reason: (-totals[reason], reason))
    return ordered if len(ordered) <= _MAX_REASONS else ordered[: _MAX_REASONS - 1]
