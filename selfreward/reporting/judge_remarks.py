"""What the judge's numbers do not say by themselves, in words: each remark once, with the iterations it is about."""

from collections.abc import Callable, Sequence

from selfreward.recipe import EnsembleSection, JudgingSection
from selfreward.records import Interval, IterationSummary
from selfreward.reporting.formatting import amount, bounds, span
from selfreward.reporting.remarks import about

RELIABILITY, LENGTH = "judge_reliability", "judge_length_correlation"
# Where people would rather look: below, a simulated judge of 4 responses in 3 draws orders 14 pairs of 100 wrongly and
# more, while hardly any of them tie.
LOW_RELIABILITY = 0.4
# Cohen's "large"; a quarter of the variance of the scores.
LARGE_CORRELATION = 0.5
# Judges that draw: with one draw nothing is repeated. Others always say the same, or repeat themselves in two orders.
_DRAWING = ("additive", "expected_score", "rubric")

_NOISE = (
    "pairs are mostly noise: of the differences between the scores of a prompt's responses the judge would give only "
    f"the share r again, and r is {{values}}, its whole interval below {LOW_RELIABILITY}. Ties and margins do not show "
    "this. Raise judging.num_draws where the judge draws, or use expected_score or a stronger judge; "
    "pairing.min_reliability keeps such pairs out of training."
)
_LONG = (
    "longer responses get higher scores: score and length correlate at {values} within a prompt. So length is trained "
    "as well, deserved or not: set pairing.kind to length_controlled, or use a judge that looks at something else."
)
_SHORT = (
    "shorter responses get higher scores: score and length correlate at {values} within a prompt. So brevity is "
    "trained as well: look at the sample pairs, and use another judge if the longer ones are better."
)
_DRAWN_ONCE = (
    "each response was judged once, so nobody knows which of the differences between scores the judge would give "
    "again: one that answers at random would look the same. Set judging.num_draws to 2 or more to see its reliability."
)


def judge_remarks(history: Sequence[IterationSummary], *, judging: JudgingSection) -> list[str]:
    """Sentences for people about the judge of these iterations; usually none or one."""
    draws_once = _draws_once(judging)
    conditions: dict[str, tuple[str, Callable[[IterationSummary], bool]]] = {
        _NOISE: (RELIABILITY, lambda s: _interval(s, RELIABILITY, "high") < LOW_RELIABILITY),
        _DRAWN_ONCE: (RELIABILITY, lambda s: draws_once and bool(s.judging and RELIABILITY in s.judging.not_measured)),
        _LONG: (LENGTH, lambda s: _interval(s, LENGTH, "low") > LARGE_CORRELATION),
        _SHORT: (LENGTH, lambda s: _interval(s, LENGTH, "high") < -LARGE_CORRELATION),
    }
    said = []
    for text, (name, holds) in conditions.items():
        if found := [summary for summary in history if holds(summary)]:
            said.append(about(found, text.format(values=_values(found, name))))
    return said


def _interval(summary: IterationSummary, name: str, end: str) -> float:
    """NaN, with which every comparison is false, where there is none."""
    value = summary.judging.metrics.get(name) if summary.judging else None
    return float(getattr(value, end)) if isinstance(value, Interval) else float("nan")


def _values(summaries: Sequence[IterationSummary], name: str) -> str:
    """One value with its interval, or the range of several."""
    found = [v for s in summaries if s.judging and isinstance(v := s.judging.metrics.get(name), Interval)]
    if len(found) == 1:
        return f"{amount(name, found[0].mean)} ({bounds(name, found[0])})"
    return span([value.mean for value in found], lambda value: amount(name, value)) if found else ""


def _draws_once(judging: JudgingSection) -> bool:
    """Whether the recipe's judge, or all members of an ensemble that could draw more often, draw once."""
    judges = judging.members if isinstance(judging, EnsembleSection) else [judging]
    draws = [getattr(judge, "num_draws", 0) for judge in judges if judge.kind in _DRAWING]
    return bool(draws) and set(draws) == {1}
