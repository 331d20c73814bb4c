"""The parts of the tables of `monitor_oc.py`, and the measures of a simulated run."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from monitor_oc_rules import Run
from monitor_oc_scenarios import HORIZON, Scenario, through


def same(scenario: Scenario) -> Scenario:
    return scenario


def unpredicted(scenario: Scenario) -> str:
    return ""


@dataclass(frozen=True)
class Line:
    """A scenario and, unless the columns predict, a prediction for each column ("" without one)."""

    name: str
    scenario: Scenario
    predicted: tuple[str, ...] = ()
    weight: float = 1.0
    rule: str = "shipped"


@dataclass(frozen=True)
class Column:
    """A measure of a run of a variant of the line's scenario: `of(scenario, rule, run)`.

    It returns a number, or None where the measure is undefined.
    """

    name: str
    of: Callable[[Scenario, str, Run], float | None]
    variant: Callable[[Scenario], Scenario] = same
    predict: Callable[[Scenario], str] = unpredicted


@dataclass(frozen=True)
class Table:
    title: str
    note: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Requirement:
    line: str
    column: str
    limit: float
    at_most: bool = False


def stopped_by(*names: str) -> Column:
    return Column("stop by " + " or ".join(names), lambda scenario, rule, run: run.stopped_by in names)


def stopped_from(first: int, last: int, name: str) -> Column:
    """Return a stop in one of these iterations, counted from the first without a gain; earlier stops do not count."""

    def of(scenario: Scenario, rule: str, run: Run) -> float | None:
        at, useful = run.stopped_at[rule] or HORIZON + 1, scenario.last_useful
        return None if useful == HORIZON else float(useful + first <= at <= useful + last)

    return Column(name, of)


def decided(name: str, *, first: int = 1, last: int = HORIZON, where: str = "ever") -> Column:
    """Return whether there is such a decision in these iterations, whether or not it stops the run."""
    return Column(
        f"{name} {where}",
        lambda scenario, rule, run: float(
            any(decision.decision == name for decision in run.decisions[first - 1 : last])
        ),
    )


def _lost(scenario: Scenario, rule: str, run: Run) -> float:
    return max(0, scenario.last_useful - (run.stopped_at[rule] or HORIZON))


def _wasted(scenario: Scenario, rule: str, run: Run) -> float:
    return max(0, (run.stopped_at[rule] or HORIZON) - scenario.last_useful)


def _gain_left(scenario: Scenario, rule: str, run: Run) -> float:
    return sum(scenario.gains[run.decisions[-1].best : scenario.last_useful])


FALSE_STOP = stopped_by("PLATEAU", "OVEROPT")
OVEROPT = stopped_by("OVEROPT")
HARM = stopped_by("HARM")
AT_ONCE = stopped_from(1, 1, "at once")
WITHIN_TWO = stopped_from(1, 2, "within two")
WHILE_GAINING = Column(
    "stop while gaining",
    lambda scenario, rule, run: float((run.stopped_at[rule] or HORIZON + 1) <= scenario.last_useful),
)
LOST = Column("iterations lost", _lost)
WASTED = Column("iterations wasted", _wasted)
MOVES_AT_ONCE = Column("best moves in 1", lambda scenario, rule, run: float(run.decisions[0].best == 1))
MOVES = Column("best ever moves", lambda scenario, rule, run: float(run.decisions[-1].best > 0))
RIGHT_BEST = Column(
    "best is the best", lambda scenario, rule, run: float(run.decisions[-1].best == scenario.last_useful)
)
GAIN_LEFT = Column("gain not in best", _gain_left)

PLATEAU_GAINS = through(0.22, 0.18, 0.06, 0.0)
worst = Scenario("gain = delta", through(0.05))
plateau = Scenario("plateau after 3", PLATEAU_GAINS)
goodhart = Scenario("Goodhart from 4", through(0.22, 0.18, 0.06, 0.0, -0.02), through(0.22, 0.18, 0.06, 0.15))
healthy = Scenario("gain = 2 delta", through(0.10), through(0.10))


def at_worst(scenario: Scenario) -> Scenario:
    return replace(scenario, gains=through(scenario.delta))


def at_plateau(scenario: Scenario) -> Scenario:
    return replace(scenario, gains=PLATEAU_GAINS)


def with_second_validation(scenario: Scenario) -> Scenario:
    return replace(scenario, second_validation=True)


def worst_with_second_validation(scenario: Scenario) -> Scenario:
    return with_second_validation(at_worst(scenario))
