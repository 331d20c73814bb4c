"""The algorithm, top to bottom.

M_{t-1} generates responses and judges them in its own second role; fresh preference pairs and an on-policy DPO
update make M_t; M_t is measured on held-out prompts; the monitor decides whether another iteration is worth it. The
steps of an iteration, in order, stand in `compose.py`.

Every step goes through the store, which runs it only when its files are not there yet: a run that was killed
at any moment and is started again takes exactly this path, and does nothing twice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from selfreward.history import initial_evaluation, summarise
from selfreward.parts import Engine, Models, Monitor, Reporter
from selfreward.records import Checkpoint, Decision, IterationSummary
from selfreward.roles import Roles
from selfreward.running import Runner
from selfreward.steps import Iteration
from selfreward.store import Store
from selfreward.tables import DECISION

RUNTIME_LIMITS = ("MAX_ITERATIONS", "MAX_HOURS")  # recipe keys that may have been raised since the run stopped


@dataclass(frozen=True)
class Run:
    """All that the loop works with. `compose` gives iteration t, from 0, after the decisions on 1..t-1.

    `models` are the recipe's by name; `keep_checkpoints` bounds how many of the newest stay on disk (None: all).
    """

    compose: Callable[[int, Sequence[Decision]], Iteration]
    models: Models
    engine: Engine
    monitor: Monitor
    reporter: Reporter
    keep_checkpoints: int | None = None


def run(parts: Run, store: Store) -> Decision:
    """Iterates until the monitor says stop; returns its last decision. Raises SelfRewardError."""
    runner = Runner(store, parts.engine)
    roles = runner.run(parts.compose(0, ()), Roles.at_start(parts.models))
    checkpoints = [roles["trained"]]  # M_0, M_1, ...
    history: list[IterationSummary] = []
    decisions: list[Decision] = []
    while not decisions or not decisions[-1].stops:
        t = len(history) + 1
        roles = roles.advanced(best=best_of(checkpoints, decisions))
        iteration = parts.compose(t, decisions)
        store.write_text(f"iteration-{t:02d}/recipe.yaml", iteration.recipe_text)
        roles = runner.run(iteration, roles)
        checkpoints.append(roles["trained"])
        history.append(summarise(store, t))
        decide = partial(decision_on, parts.monitor, runner, iteration, roles, history, decisions)
        stored = store.once_json(t, DECISION, decide, again_if=partial(is_open, store, t))
        decisions.append(Decision.from_json(stored))
        best = best_of(checkpoints, decisions)
        point_to(store, best)
        prune_checkpoints(store, iteration, decisions, keep=parts.keep_checkpoints)
        if decisions[-1].stops:
            measure_at_end(runner, iteration, roles.updated("best", best), history)
        if any(parts.engine.usage().values()):  # an engine that was not needed has no swap to tell of
            store.record_facts(engine=parts.engine.facts())
        parts.reporter.write(history, decisions, initial_evaluation(store))
    return decisions[-1]


def decision_on(
    monitor: Monitor,
    runner: Runner,
    iteration: Iteration,
    roles: Roles,
    history: list[IterationSummary],
    decisions: Sequence[Decision],
) -> dict[str, object]:
    """The monitor's decision on the last of `history`, where it stays open with the outcomes of a second look."""
    found = monitor.decide(history, decisions, elapsed_s=runner.store.elapsed_s())
    if found.wants_second_validation:
        for probe in iteration.probes("on_request"):
            runner.probe(iteration.number, probe, roles)
        history[-1] = summarise(runner.store, iteration.number)
        found = monitor.decide(history, decisions, elapsed_s=runner.store.elapsed_s())
    return asdict(found)


def is_open(store: Store, t: int, decided: Mapping[str, Any]) -> bool:
    """Whether a stored decision may still change: at a limit that was raised, or before anything followed it."""
    return decided["stopped_by"] in RUNTIME_LIMITS or not store.began(t + 1)


def measure_at_end(runner: Runner, iteration: Iteration, roles: Roles, history: list[IterationSummary]) -> None:
    """What is measured once in the life of a run, whenever it stops."""
    for probe in iteration.probes("at_end"):
        if not any(runner.store.read_json(summary.iteration, probe.name) for summary in history):
            runner.probe(iteration.number, probe, roles)
    history[-1] = summarise(runner.store, iteration.number)


def best_of(checkpoints: Sequence[Checkpoint], decisions: Sequence[Decision]) -> Checkpoint:
    """The checkpoint to use now: M_0 until another one was shown to be better."""
    return checkpoints[decisions[-1].best_iteration] if decisions else checkpoints[0]


def point_to(store: Store, best: Checkpoint) -> None:
    """`best`, a link in the run folder: relative to it for a checkpoint of the run."""
    inside = best.path.is_relative_to(store.folder)
    store.point("best", str(best.path.relative_to(store.folder) if inside else best.path.absolute()))


def prune_checkpoints(store: Store, iteration: Iteration, decisions: Sequence[Decision], *, keep: int | None) -> None:
    """Removes old checkpoints of each trained role to bound the disk: all but the newest, and those that may judge."""
    if keep is None:
        return
    judges = {decision.best_iteration for decision in decisions[-2:]}  # this `best` and the one before
    for folder in map(iteration.folder_of, iteration.updates):
        made = [t for t in store.folders(folder) if t <= len(decisions)]  # a resumed run has later ones too
        for old in made[:-keep]:
            if old not in judges:
                store.remove_folder(old, folder)
