"""Remarks that interpret the judge's numbers, each printed once with the iterations that it applies to."""

from collections.abc import Callable, Sequence

from selfreward.recipe import EnsembleSection, JudgingSection
from selfreward.records import Interval, IterationSummary
from selfreward.reporting.formatting import amount, bounds, span
from selfreward.reporting.remarks import with_iterations

RELIABILITY, LENGTH = "judge_reliability", "judge_length_correlation"
# Below this value a simulated judge of 4 responses in 3 draws orders at least 14 pairs of 100 wrongly, while hardly any
# of them tie.
LOW_RELIABILITY = 0.4
# Cohen's "large"; a quarter of the variance of the scores.
LARGE_CORRELATION = 0.5
# Judges whose reliability is measured over draws, which takes two. Other judges are deterministic, or are measured over
# the two orders.
_DRAWING = ("additive", "expected_score", "rubric")

_NOISE = (
    "pairs are mostly noise: the judge's reliability r, the share of the score differences that it would give again, "
    f"is {{values}}, with the whole interval below {LOW_RELIABILITY}. Ties and margins do not show this. Raise "
    "judging.num_draws for a judge that samples its scores, or use expected_score or a stronger judge; "
    "pairing.min_reliability drops such pairs."
)
_LONG = (
    "longer responses get higher scores: score and length correlate at {values} within a prompt. Training therefore "
    "also teaches length, deserved or not: set pairing.kind to length_controlled, or use another judge."
)
_SHORT = (
    "shorter responses get higher scores: score and length correlate at {values} within a prompt. Training therefore "
    "also teaches brevity: read the sample pairs, and use another judge if the longer responses are better."
)
_DRAWN_ONCE = (
    "each response was judged once, so the judge's reliability is unknown: a judge that scores at random would look "
    "the same. Set judging.num_draws to 2 or more to measure it."
)


def judge_remarks(history: Sequence[IterationSummary], *, judging: JudgingSection) -> list[str]:
    """Return remarks about the judge of these iterations; usually none or one."""
    draws_once = _draws_once(judging)
    conditions: dict[str, tuple[str, Callable[[IterationSummary], bool]]] = {
        _NOISE: (RELIABILITY, lambda s: _interval(s, RELIABILITY, "high") < LOW_RELIABILITY),
        _DRAWN_ONCE: (RELIABILITY, lambda s: draws_once and bool(s.judging and RELIABILITY in s.judging.not_measured)),
        _LONG: (LENGTH, lambda s: _interval(s, LENGTH, "low") > LARGE_CORRELATION),
        _SHORT: (LENGTH, lambda s: _interval(s, LENGTH, "high") < -LARGE_CORRELATION),
    }
    made = []
    for text, (name, applies) in conditions.items():
        if found := [summary for summary in history if applies(summary)]:
            made.append(with_iterations(found, text.format(values=_values(found, name))))
    return made


def _interval(summary: IterationSummary, name: str, end: str) -> float:
    """Return an end of the interval; NaN without one, so that every comparison is false."""
    value = summary.judging.metrics.get(name) if summary.judging else None
    return float(getattr(value, end)) if isinstance(value, Interval) else float("nan")


def _values(summaries: Sequence[IterationSummary], name: str) -> str:
    """Format one value with its interval, or the range of several values."""
    found = [v for s in summaries if s.judging and isinstance(v := s.judging.metrics.get(name), Interval)]
    if len(found) == 1:
        return f"{amount(name, found[0].mean)} ({bounds(name, found[0])})"
    return span([value.mean for value in found], lambda value: amount(name, value)) if found else ""


def _draws_once(judging: JudgingSection) -> bool:
    """Return whether the recipe's judge, or every ensemble member that samples its scores, has a single draw."""
    judges = judging.members if isinstance(judging, EnsembleSection) else [judging]
    draws = [getattr(judge, "num_draws", 0) for judge in judges if judge.kind in _DRAWING]
    return bool(draws) and set(draws) == {1}
