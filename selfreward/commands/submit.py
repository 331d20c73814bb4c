"""`selfreward submit`: a recipe as a batch job. Whatever a run would refuse is refused before anything is queued."""

import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from selfreward import recipe_file
from selfreward.begun import run_folder
from selfreward.commands.group import Task, Tasks
from selfreward.errors import LockedError
from selfreward.launch.continued import continued_recipe
from selfreward.launch.finished import finished_run
from selfreward.launch.group import write_group
from selfreward.launch.local import check
from selfreward.launch.slurm import queue
from selfreward.launch.slurm.array import GroupPlaces, array_script, group_places, table_script
from selfreward.launch.slurm.jobs import active_jobs, record_job
from selfreward.launch.slurm.places import Places, places_in
from selfreward.launch.slurm.ray_nodes import on_its_nodes
from selfreward.launch.slurm.script import script_of
from selfreward.recipe import Recipe
from selfreward.store import Store
from selfreward.store.files import write_text_atomically


class Submitted(NamedTuple):
    job_id: str
    places: Places

    @property
    def log(self) -> Path:
        """Return the log of the first attempt."""
        return self.places.logs / f"slurm-{self.job_id}-0.log"


def checked_script(recipe: Recipe) -> tuple[str, Sequence[str]]:
    """Return the script of a recipe's job, and warnings. Raises RecipeError for what `validate` refuses."""
    recipe = on_its_nodes(recipe)
    script = script_of(recipe, places_in(run_folder(recipe)), working_folder=Path.cwd())
    _, warnings = check(recipe)
    return script, warnings


def submit(recipe: Recipe, script: str) -> Submitted:
    """Write the script into the run folder and submit it.

    Raises LockedError when a job of this run is queued or running, or a process works on it; RecipeError when the run
    cannot be continued with this recipe; LaunchError when Slurm refuses the job or does not answer.
    """
    recipe = on_its_nodes(recipe)
    folder = run_folder(recipe)
    places = places_in(folder)
    _refuse_active_job(folder)  # it holds the lock
    with Store(folder, name=recipe.name) as store:
        _prepare(store, recipe, script)
        job_id = queue.submitted(places.script, working_folder=Path.cwd())
        record_job(folder, job_id)
    return Submitted(job_id, places)


class SubmittedGroup(NamedTuple):
    array: str
    table_job: str
    places: GroupPlaces
    indices: Sequence[int]


def group_scripts(group: Tasks) -> tuple[str, str, str]:
    """Return the scripts of the array, of the first run and of the table's job."""
    places, folder = group_places(group.folder), Path.cwd()
    recipes = [on_its_nodes(task.recipe) for task in group.tasks]
    first = script_of(recipes[0], places_in(group.tasks[0].member.folder), working_folder=folder)
    scripts = {index: places_in(task.member.folder).script for index, task in unfinished(group).items()}
    return array_script(first, scripts, places), first, table_script(recipes[0], places, working_folder=folder)


def unfinished(group: Tasks) -> dict[int, Task]:
    """Return the runs that are to be submitted, by their numbers in the array."""
    return {index: task for index, task in enumerate(group.tasks) if not finished_run(task.recipe)}


def submit_group(group: Tasks) -> SubmittedGroup:
    """Submit the unfinished runs as one array, and at once the job that writes their table when they have ended.

    A table's job that is submitted later could depend on jobs that Slurm has forgotten. Raises what `submit` raises.
    """
    places, tasks = group_places(group.folder), unfinished(group)
    array, _, table = group_scripts(group)
    for task in tasks.values():
        _refuse_active_job(task.member.folder)
    with ExitStack() as stack:
        for task in tasks.values():
            recipe, folder = on_its_nodes(task.recipe), task.member.folder
            store = stack.enter_context(Store(folder, name=recipe.name))
            _prepare(store, recipe, script_of(recipe, places_in(folder), working_folder=Path.cwd()))
        write_group(group.folder, [task.member for task in group.tasks])
        for path, text in ((places.array, array), (places.table, table)):
            path.parent.mkdir(exist_ok=True)
            write_text_atomically(path, text)
        places.logs.mkdir(exist_ok=True)
        job_id = queue.submitted(places.array, working_folder=Path.cwd())
        for index, task in tasks.items():
            name = f"{job_id}_{index}"
            record_job(task.member.folder, name, output=places.logs / f"slurm-{name}.log")
    table_job = queue.submitted(places.table, working_folder=Path.cwd(), after=[job_id])
    return SubmittedGroup(job_id, table_job, places, list(tasks))


def _prepare(store: Store, recipe: Recipe, script: str) -> None:
    """Write the recipe and the script of a run whose folder is locked."""
    _refuse_active_job(store.folder)  # of another `submit` in the same second
    if store.manifest["files"]:
        continued_recipe(store, recipe)
    store.write_text("slurm/recipe.yaml", recipe_file.dump(recipe, only_set=True))
    store.write_text("slurm/job.sh", script)
    places_in(store.folder).logs.mkdir(exist_ok=True)


def _refuse_active_job(folder: Path) -> None:
    quoted = shlex.quote(str(folder))
    if active := active_jobs(folder):
        raise LockedError(
            f"{folder}: job {active[0].id} of this run is {active[0].state}; one job at a time works on a run; wait "
            f"for it (`selfreward status {quoted}`), or end it with `selfreward cancel {quoted}`"
        )
