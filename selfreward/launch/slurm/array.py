"""Runs as tasks of one array job, and the job after it that writes their table."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from selfreward.launch.attempts import LOGS
from selfreward.launch.slurm.placeholders import replaced
from selfreward.launch.slurm.script import environment_lines, log_pattern, printable, program_command
from selfreward.recipe import Recipe, SlurmSection

_ARRAY: Final = Path(__file__).with_name("array.sh")
_TABLE: Final = Path(__file__).with_name("table.sh")
_TABLE_MINUTES: Final = 30


class GroupPlaces(NamedTuple):
    """Where the files of a group's jobs are, in its folder."""

    folder: Path
    array: Path
    table: Path
    logs: Path


def group_places(folder: Path) -> GroupPlaces:
    folder = folder.absolute()
    return GroupPlaces(folder, folder / "slurm" / "array.sh", folder / "slurm" / "table.sh", folder / LOGS)


def array_script(of_a_run: str, scripts: Mapping[int, Path], places: GroupPlaces) -> str:
    """Return the script of the array whose task N becomes the job of the run with script N.

    Its options are those of the job of one run, `of_a_run`; of several equal ones the last counts.
    """
    values = {
        "options": "\n".join(_options(of_a_run)),
        "tasks": ",".join(map(str, scripts)),
        "output": shlex.quote(log_pattern(places.logs, "%A_%a")),
        "folder": printable(str(places.folder)),
        "scripts": "\n".join(f"    [{number}]={shlex.quote(str(path))}" for number, path in scripts.items()),
    }
    return replaced(_ARRAY.read_text(encoding="utf-8"), values)


def _options(script: str) -> list[str]:
    """Return the lines of a script that sbatch reads, which end at the first command."""
    found: list[str] = []
    for line in script.splitlines():
        if line.strip() and not line.startswith("#"):
            break
        if line.startswith("#SBATCH"):
            found.append(line)
    return found


def table_script(recipe: Recipe, places: GroupPlaces, *, working_folder: Path) -> str:
    """Return the script of the job that writes the table, in the environment of the runs but without their GPUs."""
    slurm = recipe.launch.slurm
    kept = {"partition": slurm.partition, "account": slurm.account, "qos": slurm.qos, "constraint": slurm.constraint}
    options = [f"--{name}={shlex.quote(value)}" for name, value in kept.items() if value is not None]
    output = shlex.quote(log_pattern(places.logs, "%j", name="table"))
    single = SlurmSection(container=slurm.container)
    values = {
        "options": "\n".join(f"#SBATCH {option}" for option in options) or "#",
        "name": shlex.quote(f"{recipe.name}-table"),
        "minutes": str(_TABLE_MINUTES),
        "output": output,
        "folder": printable(str(places.folder)),
        "working_folder": shlex.quote(str(working_folder)),
        "environment": "\n".join(environment_lines(slurm)) or ":",
        "command": program_command(single, ["table", str(places.folder), "--resubmit"], working_folder),
    }
    return replaced(_TABLE.read_text(encoding="utf-8"), values)
