"""The summary of a judge's work that `selfreward judge` prints: counts and judge quality."""

import textwrap
from collections.abc import Mapping

from selfreward.records import Evaluation, Interval
from selfreward.reporting.formatting import against, amount, bounds, centre, reason_not_measured
from selfreward.reporting.glossary import label_of
from selfreward.reporting.judge_remarks import LENGTH, LOW_RELIABILITY, RELIABILITY
from selfreward.reporting.measurements import in_glossary_order
from selfreward.reporting.text import one_line

_COLUMNS = 80
_LABEL, _VALUE = 36, 8
_MAX_REASON = 400
_LONGER = {"above": "longer responses", "below": "shorter responses"}


def summary(
    *,
    num_responses: int,
    num_judgments: int,
    unscored: Mapping[str, int],
    evaluation: Evaluation,
    cost: float | None,
    dtype: str | None = None,
) -> str:
    """Return lines of at most 80 columns; the arguments are those of `JudgeResult`."""
    names = [*in_glossary_order(evaluation.metrics), *in_glossary_order(evaluation.not_measured)]
    levels = sorted({f"{v.level * 100:g} %" for v in evaluation.metrics.values() if isinstance(v, Interval)})
    head = f"{'Judge quality':{_LABEL}}{'value':>{_VALUE}}"
    measured = [head + (f"   {' and '.join(levels)} interval" if levels else "")]
    measured += [line for name in names for line in _lines(evaluation, name)]
    explained = [_wrapped(text) for text in _explanations(evaluation)]
    paid = [] if cost is None else [f"Cost of new replies: {cost:,.6g}"]
    facts = [_counted(num_responses, num_judgments, unscored), *([_wrapped(f"Judged in {dtype}")] if dtype else [])]
    return "\n\n".join([*facts, *paid, "\n".join(measured), *explained])


def _counted(num_responses: int, num_judgments: int, unscored: Mapping[str, int]) -> str:
    lines = [f"{_plural(num_responses, 'response')}, {_plural(num_judgments, 'judgment')} of them"]
    num_unscored = sum(unscored.values())
    if not num_unscored:
        return lines[0] + ", all with a score" * bool(num_judgments)
    share = f" ({num_unscored / num_judgments:.0%})" if num_judgments else ""
    lines.append(f"{num_unscored:,}{share} unscored:")
    lines += [f"{count:10,}  {one_line(reason, 60).replace('_', ' ')}" for reason, count in unscored.items()]
    return "\n".join(lines)


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _lines(evaluation: Evaluation, name: str) -> list[str]:
    """Return a metric with its interval, or the reason why it was not measured, wrapped to the width."""
    label = f"{one_line(label_of(name), _LABEL - 2):{_LABEL}}"
    value = evaluation.metrics.get(name)
    if value is None:
        reason = f"not measured: {one_line(reason_not_measured(evaluation, name), _MAX_REASON)}"
        return textwrap.wrap(reason, _COLUMNS, initial_indent=label + "  ", subsequent_indent=" " * (_LABEL + 2))
    line = f"{label}{amount(name, centre(value)):>{_VALUE}}"
    return [f"{line}   {bounds(name, value)}" if isinstance(value, Interval) else line]


def _explanations(evaluation: Evaluation) -> list[str]:
    """Return explanations for readers who do not know these metrics."""
    found = []
    r, length = (evaluation.metrics.get(name) for name in (RELIABILITY, LENGTH))
    if centre(r) is not None:
        found.append(
            "r is the judge's reliability: the share of the score differences between a prompt's responses that the "
            "judge would give again. A high r shows that the judge is consistent, not that it is right."
        )
    if isinstance(r, Interval) and r.high < LOW_RELIABILITY:
        found[0] += (
            f" Below {LOW_RELIABILITY}, as here, the scores are mostly noise: use more draws or a stronger judge."
        )
    elif isinstance(r, Interval) and r.low < LOW_RELIABILITY:
        found[0] += (
            f" Below {LOW_RELIABILITY} the scores are mostly noise: the interval does not exclude it, so judge more "
            "prompts to decide."
        )
    side = against(length, 0.0)
    if side in _LONGER and isinstance(length, Interval):
        found.append(f"Score and length correlate ({amount(LENGTH, length.mean)}): {_LONGER[side]} score higher.")
    return [*found, "docs/metrics.md explains each number and what to do about it."]


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _COLUMNS, break_on_hyphens=False)
