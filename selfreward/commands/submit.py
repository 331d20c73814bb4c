"""`selfreward submit`: a recipe as a batch job. Whatever a run would refuse is refused before anything is queued."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from selfreward import recipe_file
from selfreward.begun import run_folder
from selfreward.errors import LockedError
from selfreward.launch.continued import continued_recipe
from selfreward.launch.local import check
from selfreward.launch.slurm import queue
from selfreward.launch.slurm.jobs import active_jobs, record_job
from selfreward.launch.slurm.places import Places, places_in
from selfreward.launch.slurm.ray_nodes import on_its_nodes
from selfreward.launch.slurm.script import script_of
from selfreward.recipe import Recipe
from selfreward.store import Store


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
        _refuse_active_job(folder)  # of another `submit` in the same second
        if store.manifest["files"]:
            continued_recipe(store, recipe)
        store.write_text("slurm/recipe.yaml", recipe_file.dump(recipe, only_set=True))
        store.write_text("slurm/job.sh", script)
        places.logs.mkdir(exist_ok=True)
        job_id = queue.submitted(places.script, working_folder=Path.cwd())
        record_job(folder, job_id)
    return Submitted(job_id, places)


def _refuse_active_job(folder: Path) -> None:
    quoted = shlex.quote(str(folder))
    if active := active_jobs(folder):
        raise LockedError(
            f"{folder}: job {active[0].id} of this run is {active[0].state}; one job at a time works on a run; wait "
            f"for it (`selfreward status {quoted}`), or end it with `selfreward cancel {quoted}`"
        )
