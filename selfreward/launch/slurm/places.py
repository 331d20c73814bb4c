"""Where the files of a run's batch jobs are, in its run folder."""

from pathlib import Path
from typing import NamedTuple

from selfreward.launch.attempts import LOGS


class Places(NamedTuple):
    """`recipe` is the recipe as it was submitted; `jobs` has a line of JSON for each job, and is only appended to."""

    run_folder: Path
    script: Path
    recipe: Path
    jobs: Path
    logs: Path


def places_in(run_folder: Path) -> Places:
    folder = run_folder.absolute()
    own = folder / "slurm"
    return Places(folder, own / "job.sh", own / "recipe.yaml", own / "jobs.jsonl", folder / LOGS)
