"""The batch script of a run: its template, with the recipe's values quoted for bash."""

import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from selfreward.errors import LaunchError, RecipeError
from selfreward.launch.slurm.container import inside
from selfreward.launch.slurm.placeholders import placeholders, replaced
from selfreward.launch.slurm.places import Places
from selfreward.launch.slurm.ray_nodes import start_ray
from selfreward.recipe import Recipe, SlurmSection

TEMPLATE: Final = Path(__file__).with_name("job.sh")


def script_of(recipe: Recipe, places: Places, *, working_folder: Path) -> str:
    """Return the script. Raises RecipeError for a template with unknown placeholders, or without one it needs."""
    slurm = recipe.launch.slurm
    values = {
        "options": "\n".join(f"#SBATCH {option}" for option in _options(recipe, places)),
        "run_folder": printable(str(places.run_folder)),
        "working_folder": shlex.quote(str(working_folder)),
        "logs_folder": shlex.quote(str(places.logs)),
        "jobs_file": shlex.quote(str(places.jobs)),
        "script": shlex.quote(str(places.script)),
        "environment": "\n".join(environment_lines(slurm)) or ":",
        "start_nodes": start_ray(slurm, places.logs, working_folder) if slurm.nodes > 1 else "# There are none.",
        "command": program_command(slurm, ["run", str(places.recipe)], working_folder),
        "max_restarts": str(slurm.max_restarts),
        "signal_s": str(slurm.signal_s),
    }
    return filled(Path(slurm.template) if slurm.template else TEMPLATE, values)


def filled(template: Path, values: Mapping[str, str]) -> str:
    """Return the template with its placeholders replaced by these values, which are not searched again."""
    try:
        text = template.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"launch.slurm.template: {template} cannot be read ({error}); a script with placeholders such as "
            "{{command}} is needed; correct the path, or remove the key for the program's own script"
        ) from error
    names = placeholders(text)
    allowed = ", ".join(f"{{{{{name}}}}}" for name in values)
    if unknown := sorted(names - values.keys()):
        raise RecipeError(
            f"launch.slurm.template: {template} has the placeholder {{{{{unknown[0]}}}}}; allowed are {allowed}; "
            "correct it"
        )
    if missing := [name for name in ("options", "command") if name not in names]:
        raise RecipeError(
            f"launch.slurm.template: {template} lacks {{{{{missing[0]}}}}}, without which no job runs the recipe; "
            f"allowed are {allowed}; add it on a line of its own"
        )
    return replaced(text, values)


def _options(recipe: Recipe, places: Places) -> Iterator[str]:
    """Yield the options of sbatch, which reads quotes as bash does; the last of several equal ones counts."""
    slurm = recipe.launch.slurm
    values = {
        "job-name": recipe.name,
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "nodes": slurm.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": slurm.gpus or None,
        "cpus-per-task": slurm.cpus,
        "mem": slurm.memory,
        "time": slurm.time,
        "constraint": slurm.constraint,
        "output": log_pattern(places.logs),
        "open-mode": "append",
        "signal": f"B:USR1@{slurm.signal_s}",
    }
    yield from (f"--{name}={shlex.quote(str(value))}" for name, value in values.items() if value is not None)
    yield "--requeue"
    yield from map(_quoted_option, slurm.extra)


def _quoted_option(option: str) -> str:
    """Quote the value of `--name=value`, or of `--name value`."""
    found = re.fullmatch(r"(--?[A-Za-z][\w-]*)(?:(=|\s+)(.*))?", option)
    if found is None:
        return shlex.quote(option)
    name, between, value = found.groups()
    return name if value is None else f"{name}{'=' if between == '=' else ' '}{shlex.quote(value)}"


def log_pattern(logs: Path, job: str = "%j", *, name: str = "slurm") -> str:
    """Return the file of what Slurm itself says about a job: why it ended it, for example."""
    folder = str(logs)
    if odd := [c for c in folder if not c.isprintable() or c == "\\"]:
        raise LaunchError(
            f"{folder!r}: Slurm writes no log into a folder whose path contains {odd[0]!r}; printable characters "
            "without backslashes are allowed; set another output_dir"
        )
    return f"{folder.replace('%', '%%')}/{name}-{job}.log"


def environment_lines(slurm: SlurmSection) -> Iterator[str]:
    """Yield the lines before the program: modules, variables, the file of secrets, the recipe's own lines."""
    if slurm.modules:
        yield "type module >/dev/null 2>&1 || . /etc/profile"
    for module in map(shlex.quote, slurm.modules):
        yield f"module load {module} || exit 4"
    for name, value in slurm.environment.items():
        yield f"export {name}={shlex.quote(value)}"
    if slurm.environment_file:
        yield f"set -a; . {shlex.quote(slurm.environment_file)} || exit 4; set +a"
    yield from slurm.setup


def program_command(slurm: SlurmSection, program: Sequence[str], working_folder: Path) -> str:
    """Return the command that runs the program as one task, in the container if there is one.

    `srun` passes a signal on to its task, also to one in a container, and ends with its exit code.
    """
    step = ["srun", "--nodes=1", "--ntasks=1", *([f"--cpus-per-task={slurm.cpus}"] if slurm.cpus else [])]
    python = [sys.executable, "-m"] if slurm.container is None else []
    return shlex.join([*step, *inside(slurm, working_folder), *python, "selfreward", *program])


def printable(text: str) -> str:
    """Return a text for a comment, which must not end before it."""
    return "".join(c if c.isprintable() else "?" for c in text)
