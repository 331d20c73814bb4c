"""Limits of the recipe, which end a run regardless of its gain.

    TOO_MANY_UNSCORED  unscored judgments / judgments > max_unscored_rate   mode enforce, before training
    TOO_FEW_PAIRS      fewer than min_pairs pairs of responses              mode enforce, before training
                       none at all                                          any mode: there is nothing to train on
    MAX_HOURS          the run has worked for max_hours                     any mode
    MAX_ITERATIONS     iterations.max are finished                          any mode

The first two are checks before training: in mode `report_only` a failed check is recorded and does not stop.
"""

from collections.abc import Mapping, Sequence

from selfreward.recipe import MonitorSection
from selfreward.records import IterationSummary

TOO_MANY_UNSCORED, TOO_FEW_PAIRS = "TOO_MANY_UNSCORED", "TOO_FEW_PAIRS"
MAX_HOURS, MAX_ITERATIONS = "MAX_HOURS", "MAX_ITERATIONS"

NEEDS_A_PERSON = 3  # exit code


def failed_checks(section: MonitorSection, counts: Mapping[str, int]) -> tuple[str, ...]:
    """Return the checks that an iteration with these counts fails, in any mode."""
    failed = []
    if unscored_rate(counts) > section.max_unscored_rate:
        failed.append(TOO_MANY_UNSCORED)
    if response_pairs(counts) < section.min_pairs:
        failed.append(TOO_FEW_PAIRS)
    return tuple(failed)


def failed_checks_enforced(section: MonitorSection, counts: Mapping[str, int]) -> tuple[str, ...]:
    """Return the failed checks that prevent training in the section's mode."""
    if section.mode == "enforce":
        return failed_checks(section, counts)
    return () if response_pairs(counts) > 0 else (TOO_FEW_PAIRS,)


def reached_limit(section: MonitorSection, *, iteration: int, max_iterations: int, elapsed_s: float) -> str:
    """Return the limit at which a run that would otherwise continue ends, or ""."""
    if section.max_hours is not None and elapsed_s >= section.max_hours * 3600:
        return MAX_HOURS
    return MAX_ITERATIONS if iteration >= max_iterations else ""


def exit_code(stopped_by: str, history: Sequence[IterationSummary]) -> int:
    """Return the exit code of a run: 3 when it trained nothing, or cannot read its verdicts, so a person has to look.

    All other ends are normal, in either mode: `best` is usable and the run is finished.
    """
    trained = any(summary.training for summary in history)
    return NEEDS_A_PERSON if stopped_by and (not trained or stopped_by == TOO_MANY_UNSCORED) else 0


def numbers_of(
    section: MonitorSection, counts: Mapping[str, int], *, max_iterations: int, elapsed_s: float
) -> dict[str, float]:
    """Return the numbers that limits and checks use."""
    numbers: dict[str, float] = {
        "num_pairs": response_pairs(counts),
        "min_pairs": section.min_pairs,
        "num_judgments": counts.get("num_judgments", 0),
        "unscored_rate": unscored_rate(counts),
        "max_unscored_rate": section.max_unscored_rate,
        "elapsed_hours": elapsed_s / 3600,
        "max_iterations": max_iterations,
    }
    return numbers if section.max_hours is None else {**numbers, "max_hours": section.max_hours}


def response_pairs(counts: Mapping[str, int]) -> int:
    """Return the number of pairs of responses; pairs of judgments train the judge and do not count here."""
    return counts.get("num_pairs", 0) - counts.get("num_judgment_pairs", 0)


def unscored_rate(counts: Mapping[str, int]) -> float:
    """Return the share of unscored judgments among all judgments; 0 when there are none."""
    num_judgments = counts.get("num_judgments", 0)
    return counts.get("num_unscored_judgments", 0) / num_judgments if num_judgments else 0.0


def limit_clause(name: str, numbers: Mapping[str, float]) -> str:
    """Return a limit or a failed check in words, as a clause of a sentence."""
    match name:
        case "TOO_MANY_UNSCORED":
            return (
                f"{numbers['unscored_rate']:.0%} of the judgments are unscored "
                f"(at most {numbers['max_unscored_rate']:.0%} are allowed; the report counts the reasons)"
            )
        case "TOO_FEW_PAIRS":
            num_pairs = round(numbers["num_pairs"])
            return (
                f"{num_pairs} preference {'pair is' if num_pairs == 1 else 'pairs are'} too few to learn from "
                f"({numbers['min_pairs']:.0f} are required)"
            )
        case "MAX_HOURS":
            return f"the run has worked for {numbers['elapsed_hours']:.2f} hours of {numbers['max_hours']:g} allowed"
        case _:
            return f"the recipe's maximum is {numbers['max_iterations']:.0f}"
