"""A run in this process: open the run folder, check that its recipe is the same, run the loop, record the status.

A finished run is answered from its files: what takes seconds to import is imported where a run computes.
"""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfreward import recipe_file, signals
from selfreward.begun import has_begun, run_folder, stored_recipe
from selfreward.dtypes import engine_dtype
from selfreward.errors import RecipeError, SelfRewardError, StoreError
from selfreward.launch.continued import continued_recipe, record_resume
from selfreward.launch.finished import finished_run
from selfreward.launch.lines import Lines
from selfreward.launch.lines import Progress as Progress
from selfreward.launch.result import RunResult as RunResult
from selfreward.launch.run_log import LOGGER, run_log
from selfreward.launch.slurm.limit import end_of_time
from selfreward.launch.status import FINISHED, INITIAL, REPORT, STATUS, stored_status
from selfreward.launch.status import status_of as status_of
from selfreward.problems import warnings_of
from selfreward.recipe import Recipe
from selfreward.records import Decision
from selfreward.settled import settled
from selfreward.store import Store
from selfreward.store.deadline import Deadline

if TYPE_CHECKING:
    from selfreward import loop
    from selfreward.tools import Tools


def run(recipe: Recipe, *, progress: Progress = lambda *_: None) -> RunResult:
    """Run or resume a recipe. Raises a SelfRewardError, whose `exit_code` gives its kind.

    A run that has ended, and that this recipe would not continue, is not opened again: its result is read.
    """
    if found := finished_run(recipe):
        if found.note:
            progress("warning", 0, found.note, {})
        return found
    return _run(recipe, progress)


def _run(recipe: Recipe, progress: Progress) -> RunResult:
    from selfreward import loop

    folder = run_folder(recipe)
    with Store(folder, name=recipe.name) as store, run_log(folder):
        progress = _logged(progress)
        progress("opened", 0, str(folder), {})
        store.deadline = Deadline(end_of_time(os.environ))
        is_new, asked = not store.manifest["files"], recipe
        recipe = recipe if is_new else continued_recipe(store, recipe)
        with _recorded_status(store, progress) as status:
            recipe = _stored_recipe(store, recipe) if is_new else recipe
            tools = prepare(recipe, store)
            if not is_new:
                record_resume(store, recipe, asked)
            parts = parts_of(recipe, store, tools)
            for warning in store.manifest["facts"]["warnings"]:
                progress("warning", 0, warning, {})
            try:
                with _reported_notes(tools, store, progress):
                    decision = loop.run(parts, store)
            finally:
                parts.engine.close()
            status |= {"state": FINISHED, **_outcome(decision)}
    return RunResult(folder, decision)


def prepare(recipe: Recipe, store: Store) -> "Tools":
    """Store models on disk, check the recipe and its inputs; the engine starts at its first use. Raises RecipeError."""
    from selfreward.launch.inputs import facts_of, refuse_other_inputs
    from selfreward.launch.started_from import seen_prompts_warnings
    from selfreward.launch.versions import newer_than_tested, record_other_versions, version_warnings
    from selfreward.tools import problems, tools_of

    tools = tools_of(recipe, cache_folder=store.folder / "endpoints")
    store.meter = tools.usage
    warnings = warnings_of(problems(recipe, tools, begun=bool(store.manifest["files"])))
    warnings += seen_prompts_warnings(recipe, tools.source)
    facts = facts_of(recipe, tools, warnings=warnings)
    refuse_other_inputs(store, facts)
    record_other_versions(store, facts["versions"])
    facts["warnings"] += [*store.warnings, *newer_than_tested(facts["versions"]), *version_warnings(store)]
    store.record_facts(**facts)
    return tools


def parts_of(recipe: Recipe, store: Store, tools: "Tools", **own: Any) -> "loop.Run":
    """Return the inputs of the loop. `own` replaces parts of the recipe: see `compose.compose`."""
    from selfreward import loop, reporting
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
    from selfreward.launch.started_from import seen_prompts_warnings
    from selfreward.tools import problems, tools_of

    recipe, folder = settled(recipe), run_folder(recipe)
    tools = tools_of(recipe, cache_folder=folder / "endpoints")
    warnings = warnings_of(problems(recipe, tools, begun=has_begun(folder)))
    return tools, [*warnings, *seen_prompts_warnings(recipe, tools.source)]


def rewrite_reports(folder: Path) -> Path:
    """Rewrite the reports of a run from its folder alone; return the path of report.html."""
    from selfreward import history, reporting

    store = Store(folder, write=False)
    summaries, decisions, initial = history.read_history(store)
    if not summaries:
        raise StoreError(f"{folder}: no finished iteration yet; a report needs one; continue the run")
    recipe = stored_recipe(folder)
    reporting.build(store, recipe=recipe).write(summaries, decisions, initial)
    return folder / REPORT


def _logged(progress: Progress) -> Progress:
    """Return a listener that also writes the lines of the console to the logs."""
    lines = Lines()

    def listen(what: str, iteration: int, stage: str, details: Mapping[str, Any]) -> None:
        for line in lines(what, iteration, stage, details):
            LOGGER.info(line)
        progress(what, iteration, stage, details)

    return listen


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


@contextmanager
def _recorded_status(store: Store, progress: Progress) -> Iterator[dict[str, Any]]:
    """Keep status.json up to date, however the run ends. A finished run that refuses to continue stays finished."""
    before = stored_status(store.folder)
    status: dict[str, Any] = {**INITIAL, "iteration": 0}

    def save(**changes: Any) -> None:
        status.update(changes)
        store.write_text(STATUS, json.dumps(status) + "\n")

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
            failure = _failure(error)
            LOGGER.error("%s: %s", failure["state"], error)
            is_refused = isinstance(error, RecipeError) and status["stage"] is None
            with suppress(StoreError):  # the disk may be full
                save(**(before if is_refused and before.get("state") == FINISHED else failure))
            raise
        LOGGER.info("finished: %s", status["decision"])
        save()


def _failure(error: BaseException) -> dict[str, Any]:
    """Return the state and exit code of a run that ended in an error; after a signal any error is due to it."""
    if received := signals.received():
        state = "interrupted" if received == signal.SIGINT else "preempted"
        return {"state": state, "exit_code": signals.code_of(received)}
    code = error.exit_code if isinstance(error, SelfRewardError) else 4 if isinstance(error, MemoryError) else 1
    return {"state": "preempted" if code == signals.PREEMPTED else "failed", "exit_code": code}
