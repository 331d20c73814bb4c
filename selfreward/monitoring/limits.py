"""Limits of the recipe, which end a run whatever the data say of a gain.

    TOO_MANY_UNSCORED  unscored judgments / judgments > max_unscored_rate   mode enforce, before training, exit code 3
    TOO_FEW_PAIRS      fewer than min_pairs pairs of responses              mode enforce, before training
                       none at all                                          any mode: there is nothing to train on
    MAX_HOURS          the run has worked for max_hours                     any mode
    MAX_ITERATIONS     iterations.max are done                              any mode

Exit code 3 says that what the judge wrote cannot be trusted, so somebody has to look. The others are ends that the
recipe asked for, or that a loop comes to when its responses grow alike: `best` is usable and the run is finished.
The first two are gates: in mode `report_only` one that failed is written down and does not stop.
"""

from collections.abc import Mapping

from selfreward.recipe import MonitorSection

TOO_MANY_UNSCORED, TOO_FEW_PAIRS = "TOO_MANY_UNSCORED", "TOO_FEW_PAIRS"
MAX_HOURS, MAX_ITERATIONS = "MAX_HOURS", "MAX_ITERATIONS"

EXIT_CODES = {TOO_MANY_UNSCORED: 3}


def failed_checks(section: MonitorSection, counts: Mapping[str, int]) -> tuple[str, ...]:
    """The gates that an iteration with these counts fails, whatever the mode."""
    gates = []
    if unscored_rate(counts) > section.max_unscored_rate:
        gates.append(TOO_MANY_UNSCORED)
    if response_pairs(counts) < section.min_pairs:
        gates.append(TOO_FEW_PAIRS)
    return tuple(gates)


def failed_checks_enforced(section: MonitorSection, counts: Mapping[str, int]) -> tuple[str, ...]:
    """Those of them that keep the iteration from training."""
    if section.mode == "enforce":
        return failed_checks(section, counts)
    return () if response_pairs(counts) > 0 else (TOO_FEW_PAIRS,)


def reached_limit(section: MonitorSection, *, iteration: int, max_iterations: int, elapsed_s: float) -> str:
    """The limit at which a run that would go on ends, or ""."""
    if section.max_hours is not None and elapsed_s >= section.max_hours * 3600:
        return MAX_HOURS
    return MAX_ITERATIONS if iteration >= max_iterations else ""


def numbers_of(
    section: MonitorSection, counts: Mapping[str, int], *, max_iterations: int, elapsed_s: float
) -> dict[str, float]:
    """What limits and gates look at."""
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
    """Pairs of responses: those of judgments teach the judge, and are no reason to go on alone."""
    return counts.get("num_pairs", 0) - counts.get("num_judgment_pairs", 0)


def unscored_rate(counts: Mapping[str, int]) -> float:
    """Unscored judgments as a share of all judgments, 0 when there are none."""
    num_judgments = counts.get("num_judgments", 0)
    return counts.get("num_unscored_judgments", 0) / num_judgments if num_judgments else 0.0


def limit_clause(name: str, numbers: Mapping[str, float]) -> str:
    """A limit or a failed gate in words, as a part of a sentence."""
    match name:
        case "TOO_MANY_UNSCORED":
            return (
                f"no verdict could be read in {numbers['unscored_rate']:.0%} of the judgments "
                f"(at most {numbers['max_unscored_rate']:.0%} are allowed)"
            )
        case "TOO_FEW_PAIRS":
            num_pairs = round(numbers["num_pairs"])
            return (
                f"{num_pairs} preference {'pair is' if num_pairs == 1 else 'pairs are'} too few to learn from "
                f"({numbers['min_pairs']:.0f} are asked for)"
            )
        case "MAX_HOURS":
            return (
                f"the run has worked for {numbers['elapsed_hours']:.2f} hours and may work for {numbers['max_hours']:g}"
            )
        case _:
            return f"the recipe asks for {numbers['max_iterations']:.0f}"
