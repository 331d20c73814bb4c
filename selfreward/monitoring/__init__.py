"""The monitor, which decides after each iteration whether another one is worth its cost, and records the reason."""

from collections.abc import Iterator

from selfreward.parts import Monitor
from selfreward.problems import Facts, Problem, warning
from selfreward.recipe import MonitorSection, Recipe
from selfreward.steps import Gate


def build(
    section: MonitorSection, *, max_iterations: int, num_second_validation: int = 0, recipe: Recipe | None = None
) -> Monitor:
    """Return the monitor of a recipe.

    `max_iterations` is `iterations.max`, `num_second_validation` the size of the second validation set. With `recipe`
    it skips interventions that would no longer change anything in this recipe.
    """
    from selfreward.monitoring.monitor import RunMonitor

    return RunMonitor(section, max_iterations, num_second_validation, recipe)


def gate(monitor: Monitor, *, judge: str) -> Gate:
    """Return the check whether the iteration's pairs are worth training on; `judge` names the judge's measurements."""
    return Gate(lambda counts, measured: monitor.may_train(counts, measured.get(judge)))


def problems(section: MonitorSection, facts: Facts) -> Iterator[Problem]:
    """Yield a warning when the alpha-spending budget does not cover all iterations."""
    if (last := facts.recipe.iterations.max) > section.horizon:
        yield warning(
            f"iterations.max is {last} and monitor.horizon {section.horizon}: beyond the horizon, where the "
            "alpha-spending budget ends, false stops may be more frequent; set both to the same number before a run "
            "begins"
        )
