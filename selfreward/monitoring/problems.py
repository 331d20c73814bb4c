"""What a person should know of `monitor` before a run."""

from collections.abc import Iterator

from selfreward.problems import Facts, Problem, warning
from selfreward.recipe import MonitorSection


def problems(section: MonitorSection, facts: Facts) -> Iterator[Problem]:
    if (last := facts.recipe.iterations.max) > section.horizon:
        yield warning(
            f"iterations.max is {last} and monitor.horizon {section.horizon}: beyond the horizon, where the error "
            "budget ends, false stops may be more frequent; set them alike"
        )
