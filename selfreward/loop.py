"""The algorithm, top to bottom.

M_{t-1} generates responses and, in its second role, judges them. New preference pairs and an on-policy DPO update give
M_t. M_t is evaluated on held-out prompts, and the monitor decides whether another iteration is worth its cost.
`compose.py` lists the steps of an iteration in order.

Every step runs through the store, which skips it when its files exist. A run that was killed at any moment and is
started again follows the same path, and repeats nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from selfreward.history import initial_evaluation, summarise
from selfreward.parts import Engine, Models, Monitor, Reporter, ResumableEngine
from selfreward.records import Checkpoint, Decision, IterationSummary
from selfreward.roles import Roles
from selfreward.running import Runner
from selfreward.steps import Iteration
from selfreward.store import Store
from selfreward.tables import DECISION

RAISABLE_LIMITS = ("MAX_ITERATIONS", "MAX_HOURS")  # limits of the recipe that may be raised on resume


@dataclass(frozen=True)
class Run:
    """The inputs of the loop. `compose` returns iteration t, from 0, given the decisions on iterations 1..t-1.

    `models` are the recipe's models by name; `keep_checkpoints` is the number of newest checkpoints that stay on disk
    (None: all).
    """

    compose: Callable[[int, Sequence[Decision]], Iteration]
    models: Models
    engine: Engine
    monitor: Monitor
    reporter: Reporter
    keep_checkpoints: int | None = None


def run(parts: Run, store: Store) -> Decision:
    """Iterate until the monitor stops the run; return its last decision. Raises SelfRewardError."""
    if isinstance(parts.engine, ResumableEngine):
        parts.engine.resume_from(
            store.manifest["facts"].get("engine", {}), lambda facts: store.record_facts(engine=facts)
        )
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
        stored = store.read_or_make_json(t, DECISION, decide, remake_if=partial(may_still_change, store, t))
        decisions.append(Decision.from_json(stored))
        best = best_of(checkpoints, decisions)
        link_best(store, best)
        prune_checkpoints(store, iteration, decisions, keep=parts.keep_checkpoints)
        if decisions[-1].stops:
            run_final_probes(runner, iteration, roles.updated("best", best), history)
        if any(parts.engine.usage().values()):  # an engine that was never used has no weight sync to report
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
    """Return the decision on the last iteration; an inconclusive one is made again with the second validation set."""
    found = monitor.decide(history, decisions, elapsed_s=runner.store.elapsed_s())
    if found.wants_second_validation:
        for probe in iteration.probes("on_request"):
            runner.probe(iteration.number, probe, roles)
        history[-1] = summarise(runner.store, iteration.number)
        found = monitor.decide(history, decisions, elapsed_s=runner.store.elapsed_s())
    return asdict(found)


def may_still_change(store: Store, t: int, decided: Mapping[str, Any]) -> bool:
    """Return whether a stored decision may still change: a limit may have been raised, or no later iteration began."""
    return decided["stopped_by"] in RAISABLE_LIMITS or not store.has_begun(t + 1)


def run_final_probes(runner: Runner, iteration: Iteration, roles: Roles, history: list[IterationSummary]) -> None:
    """Run the probes that are run once, when the run stops, unless an earlier stop already did."""
    for probe in iteration.probes("at_end"):
        if not any(runner.store.read_json(summary.iteration, probe.name) for summary in history):
            runner.probe(iteration.number, probe, roles)
    history[-1] = summarise(runner.store, iteration.number)


def best_of(checkpoints: Sequence[Checkpoint], decisions: Sequence[Decision]) -> Checkpoint:
    """Return the checkpoint to use now: M_0 until another one was shown to be better."""
    return checkpoints[decisions[-1].best_iteration] if decisions else checkpoints[0]


def link_best(store: Store, best: Checkpoint) -> None:
    """Set the link `best` in the run folder; it is relative for a checkpoint of the run."""
    inside = best.path.is_relative_to(store.folder)
    store.set_link("best", str(best.path.relative_to(store.folder) if inside else best.path.absolute()))


def prune_checkpoints(store: Store, iteration: Iteration, decisions: Sequence[Decision], *, keep: int | None) -> None:
    """Remove old checkpoints of each trained role, except the newest `keep` and those that may still judge."""
    if keep is None:
        return
    judges = {decision.best_iteration for decision in decisions[-2:]}  # the current and the previous `best`
    for folder in map(iteration.folder_of, iteration.updates):
        made = [t for t in store.folders(folder) if t <= len(decisions)]  # a resumed run may have later ones
        for old in made[:-keep]:
            if old not in judges:
                store.remove_folder(old, folder)
