"""Decides after each iteration whether another one is worth its cost, and writes down why."""

from collections.abc import Iterator

from selfreward.parts import Monitor
from selfreward.problems import Facts, Problem, warning
from selfreward.recipe import MonitorSection, Recipe
from selfreward.steps import Gate


def build(
    section: MonitorSection, *, max_iterations: int, num_second_validation: int = 0, recipe: Recipe | None = None
) -> Monitor:
    """The monitor of a recipe. `max_iterations` is `iterations.max`, `num_second_validation` the size of the second validation set.

    `recipe` lets it pass over an intervention that would change nothing in this recipe any more.
    """
    from selfreward.monitoring.monitor import RunMonitor

    return RunMonitor(section, max_iterations, num_second_validation, recipe)


def gate(monitor: Monitor, *, judge: str) -> Gate:
    """Whether the iteration's pairs are worth training on; `judge` names the measurement of the judge."""
    return Gate(lambda counts, measured: monitor.may_train(counts, measured.get(judge)))


def problems(section: MonitorSection, facts: Facts) -> Iterator[Problem]:
    """Whether the alpha-spending budget reaches to the last iteration."""
    if (last := facts.recipe.iterations.max) > section.horizon:
        yield warning(
            f"iterations.max is {last} and monitor.horizon {section.horizon}: beyond the horizon, where the error "
            "budget ends, false stops may be more frequent; set them alike"
        )
