"""A run in this process: open the run folder, check that its recipe is the same, run the loop, record the status."""

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfreward import history, loop, recipe_file, signals
from selfreward.dtypes import engine_dtype
from selfreward.errors import RecipeError, SelfRewardError, StoreError
from selfreward.problems import warnings_of
from selfreward.recipe import Recipe
from selfreward.records import Decision
from selfreward.settled import resumed, settled
from selfreward.store import Store
from selfreward.store.files import read_text
from selfreward.store.lock import is_held

if TYPE_CHECKING:
    from selfreward.tools import Tools

_INITIAL_STATUS = {
    "state": "running",
    "iteration": None,
    "stage": None,
    "decision": None,
    "stopped_by": None,
    "exit_code": None,
}

Progress = Callable[[str, int, str, Mapping[str, Any]], None]
"""Called with (what, iteration, stage, details); see `store.run_folder.Listener`."""


@dataclass(frozen=True)
class RunResult:
    """`folder` contains the checkpoints and reports; `decision` is the monitor's last decision."""

    folder: Path
    decision: Decision


def run(recipe: Recipe, *, progress: Progress = lambda *_: None) -> RunResult:
    """Run or resume a recipe. Raises a SelfRewardError, whose `exit_code` gives its kind."""
    folder = Path(recipe.output_dir).expanduser()
    with Store(folder, name=recipe.name) as store:
        is_new = not store.manifest["files"]
        recipe = recipe if is_new else _compared_recipe(store, recipe)
        with _recorded_status(store, progress) as status:
            recipe = _stored_recipe(store, recipe) if is_new else recipe
            tools = prepare(recipe, store)
            parts = parts_of(recipe, store, tools)
            for warning in store.manifest["facts"]["warnings"]:
                progress("warning", 0, warning, {})
            try:
                with _reported_notes(tools, store, progress):
                    decision = loop.run(parts, store)
            finally:
                parts.engine.close()
            status |= {"state": "finished", **_outcome(decision)}
    return RunResult(folder, decision)


def prepare(recipe: Recipe, store: Store) -> "Tools":
    """Store models on disk, check the recipe and its inputs; the engine starts at its first use. Raises RecipeError."""
    from selfreward.launch.inputs import facts_of, refuse_other_inputs
    from selfreward.launch.versions import newer_than_tested, record_other_versions, version_warnings
    from selfreward.tools import problems, tools_of

    tools = tools_of(recipe, cache_folder=store.folder / "endpoints")
    store.meter = tools.usage
    warnings = warnings_of(problems(recipe, tools, begun=bool(store.manifest["files"])))
    facts = facts_of(recipe, tools, warnings=warnings)
    refuse_other_inputs(store, facts)
    record_other_versions(store, facts["versions"])
    facts["warnings"] += [*store.warnings, *newer_than_tested(facts["versions"]), *version_warnings(store)]
    store.record_facts(**facts)
    return tools


def parts_of(recipe: Recipe, store: Store, tools: "Tools", **own: Any) -> loop.Run:
    """Return the inputs of the loop. `own` replaces parts of the recipe: see `compose.compose`."""
    from selfreward import reporting
    from selfreward.compose import compose

    return loop.Run(
        compose=lambda t, decisions: compose(recipe, t, decisions, tools, **own),
        models=tools.models,
        engine=tools.engine,
        monitor=tools.monitor,
        reporter=reporting.build(store, recipe=recipe),
        keep_checkpoints=recipe.checkpoints.keep,
    )


def check(recipe: Recipe) -> tuple["Tools", list[str]]:
    """Read prompts and models as a run would, without starting it. Return them and warnings; raises RecipeError."""
    from selfreward.tools import problems, tools_of

    recipe, folder = settled(recipe), Path(recipe.output_dir).expanduser()
    tools = tools_of(recipe, cache_folder=folder / "endpoints")
    return tools, warnings_of(problems(recipe, tools, begun=history.has_begun(folder)))


def rewrite_reports(folder: Path) -> Path:
    """Rewrite the reports of a run from its folder alone; return the path of report.html."""
    from selfreward import reporting

    store = Store(folder, write=False)
    summaries, decisions, initial = history.read_history(store)
    if not summaries:
        raise StoreError(f"{folder}: no finished iteration yet; a report needs one; continue the run")
    recipe = history.stored_recipe(folder)
    reporting.build(store, recipe=recipe).write(summaries, decisions, initial)
    return folder / "report.html"


def status_of(folder: Path) -> dict[str, Any]:
    """Return `state` (running, finished, failed, preempted, interrupted) and the other keys of `_INITIAL_STATUS`."""
    Store(folder, write=False)  # raises a clear error when this is not a run folder
    path = folder / "status.json"
    status: dict[str, Any] = {**_INITIAL_STATUS, "state": "interrupted"}
    with suppress(OSError, ValueError, RecursionError):  # a run that has just started, or a file that was changed
        found = json.loads(read_text(path))
        status |= found if isinstance(found, dict) else {}
    if status["state"] == "running" and not is_held(folder):
        status["state"] = "interrupted"
    return status


@contextmanager
def _reported_notes(tools: "Tools", store: Store, progress: Progress) -> Iterator[None]:
    """Report each note about endpoints once, after the stage that it is about, and store it for the report."""
    reported: list[str] = []
    listen = store.listener

    def report() -> None:
        for note in tools.notes():
            if note in reported:
                continue
            reported.append(note)
            progress("warning", 0, note, {})
            notes = store.manifest["facts"].get("endpoint_notes", [])
            store.record_facts(endpoint_notes=list(dict.fromkeys((*notes, note))))

    def listen_and_report(what: str, iteration: int, stage: str, details: Mapping[str, Any]) -> None:
        listen(what, iteration, stage, details)
        if what != "started":
            report()

    store.listener = listen_and_report
    try:
        yield
    finally:
        report()


def _outcome(decision: Decision) -> dict[str, Any]:
    return {"decision": decision.decision, "stopped_by": decision.stopped_by, "exit_code": decision.exit_code}


def _stored_recipe(store: Store, recipe: Recipe) -> Recipe:
    """Store the recipe of a new run with the dtype and the sizes that all of its iterations use, and return it."""
    chosen, recipe = engine_dtype(recipe.engine), settled(recipe)
    store.write_text("recipe.yaml", recipe_file.dump(recipe))
    store.record_facts(engine_dtype=f"{chosen.name}: {chosen.reason}")
    store.record_event("started")
    return recipe


def _compared_recipe(store: Store, recipe: Recipe) -> Recipe:
    """Refuse changes of keys that may not change on resume; return the recipe with what the run began with."""
    before = history.stored_recipe(store.folder)
    asked, recipe = recipe, resumed(recipe, before)
    changeable, fixed = recipe_file.changed_keys(before, recipe)
    if fixed:
        raise RecipeError(
            f"{store.folder}: contains a run of another recipe ({'; '.join(fixed)}); these keys may not change on "
            "resume; undo the change, or set another output_dir"
        )
    here = engine_dtype(asked.engine)
    is_other = asked.engine.dtype == "auto" and here.name != recipe.engine.dtype
    kept = (
        [f"engine.dtype stays {recipe.engine.dtype}; here it would be {here.name}: {here.reason}"] if is_other else []
    )
    store.record_event("resumed", changed=[*changeable, *kept])
    store.write_text("recipe.yaml", recipe_file.dump(recipe))
    return recipe


@contextmanager
def _recorded_status(store: Store, progress: Progress) -> Iterator[dict[str, Any]]:
    """Keep status.json up to date, however the run ends."""
    status: dict[str, Any] = {**_INITIAL_STATUS, "iteration": 0}

    def save(**changes: Any) -> None:
        status.update(changes)
        store.write_text("status.json", json.dumps(status) + "\n")

    def listen(what: str, iteration: int, stage: str, details: Mapping[str, Any]) -> None:
        if what == "started":
            save(iteration=iteration, stage=stage)
        progress(what, iteration, stage, details)

    store.listener = listen
    save(pid=os.getpid())
    with signals.raised():
        try:
            yield status
        except BaseException as error:
            with suppress(StoreError):  # the disk may be full
                save(**_failure(error))
            raise
        save()


def _failure(error: BaseException) -> dict[str, Any]:
    """Return the state and exit code of a run that ended in an error; after a signal any error is due to it."""
    if received := signals.received():
        state = "interrupted" if received == signal.SIGINT else "preempted"
        return {"state": state, "exit_code": signals.code_of(received)}
    code = error.exit_code if isinstance(error, SelfRewardError) else 4 if isinstance(error, MemoryError) else 1
    return {"state": "failed", "exit_code": code}
