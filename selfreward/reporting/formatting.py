"""Formatting of numbers for people: meaningful digits only, by the unit of the number's name."""

import math
from collections.abc import Callable, Mapping, Sequence

from selfreward.records import Evaluation, Interval
from selfreward.reporting.glossary import numbers

ABSENT = "–"


def amount(name: str, value: float | None) -> str:
    """Format a number; its unit in the glossary sets the digits. ABSENT for None, NaN and infinities."""
    if value is None or not math.isfinite(value):
        return ABSENT
    number = numbers().get(name)
    unit = number.unit if number else ""
    if unit.startswith("points"):
        text = f"{value:.2f}"
        return _minus(text.removesuffix("0").removesuffix(".0") if name == "score" else text)
    if unit.startswith("difference"):
        return _minus(f"{value:+.3f}")
    if unit.startswith("correlation"):
        return _minus(f"{value:.2f}")
    if unit.startswith("rate"):
        return _minus(f"{value:.3f}" if value and abs(value) < 0.1 else f"{value:.2f}")
    if name.startswith("num_") or ".num_" in name or isinstance(value, int):
        return _minus(f"{value:,.0f}")
    return _minus(_significant(value, sign="+" if name.startswith("response_tokens_vs") else ""))


def _significant(value: float, *, sign: str = "") -> str:
    """Format three significant digits, in positional notation where that is short."""
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if not -4 <= exponent <= 8:
        return f"{value:{sign}.2e}"
    return f"{value:{sign},.{max(0, 2 - exponent)}f}"


def _minus(text: str) -> str:
    if text.startswith("-") and not text.strip("-0."):
        return text[1:]  # rounded to zero
    return text.replace("-", "\u2212", 1) if text.startswith("-") else text


def bounds(name: str, interval: Interval) -> str:
    """Format the interval's ends."""
    return f"{amount(name, interval.low)} to {amount(name, interval.high)}"


def with_interval(name: str, value: Interval | float | None) -> str:
    """Format a measurement in one line: 0.62 [0.55 to 0.69]."""
    if isinstance(value, Interval):
        return f"{amount(name, value.mean)} [{bounds(name, value)}]"
    return amount(name, value)


def duration(seconds: float) -> str:
    """Format a duration: 48 s, 3 min 05 s, 2 h 07 min."""
    if not math.isfinite(seconds):
        return ABSENT
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def model_name(iteration: int) -> str:
    """Return M₀, M₁, ..., as text that needs no markup."""
    return "M" + str(iteration).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def iterations(numbers: Sequence[int]) -> str:
    """Return "iteration 3", "iterations 1 and 3" or "iterations 2 to 5"; `numbers` must be sorted."""
    if len(numbers) == 1:
        return f"iteration {numbers[0]}"
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"iterations {numbers[0]} to {numbers[-1]}"
    return f"iterations {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def span(values: Sequence[float], shown: Callable[[float], str]) -> str:
    """Format the range of some values; a single value when both ends are formatted the same."""
    low, high = shown(min(values)), shown(max(values))
    return low if low == high else f"{low} to {high}"


def centre(value: Interval | float | None) -> float | None:
    """Return the point estimate; None when it is missing or not finite."""
    plain = value.mean if isinstance(value, Interval) else value
    return plain if plain is not None and math.isfinite(plain) else None


def in_words(reason: str) -> str:
    """Return a recorded reason, such as `no_verdict`, as it is shown to people."""
    return reason.replace("_", " ")


def reason_not_measured(evaluation: Evaluation, name: str) -> str:
    """Return the reason for a missing metric as `evaluation/` recorded it; the key `all` applies to every metric."""
    reasons: Mapping[str, str] = evaluation.not_measured
    return reasons.get(name) or reasons.get("all", "")


def against(value: Interval | float | None, neutral: float) -> str:
    """Return `above`, `below` or `open`: the side of the null value on which the whole interval lies."""
    if not isinstance(value, Interval):
        return ""
    if value.low > neutral:
        return "above"
    return "below" if value.high < neutral else "open"
