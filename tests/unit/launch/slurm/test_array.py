"""The scripts of an array and of its table, in a real bash."""

import os
import subprocess
from pathlib import Path

import pytest

from selfreward import recipe_file
from selfreward.launch.slurm.array import array_script, group_places, table_script
from selfreward.launch.slurm.places import places_in
from selfreward.launch.slurm.script import script_of
from selfreward.recipe import Recipe

HOSTILE = "a b; $(touch owned) 'q' `touch owned` {{scripts}}"


def recipe(*overrides: str) -> Recipe:
    text = "models: {policy: {model: random:tiny}}\nprompts: builtin\nname: demo\n"
    slurm = "launch.slurm={partition: gpu, gpus: 2}"
    return recipe_file.parse(text, overrides=[slurm, *overrides])


@pytest.mark.parametrize("task", [0, 3])
def test_a_task_becomes_the_script_of_its_run(tmp_path: Path, task: int) -> None:
    scripts = {number: tmp_path / HOSTILE / f"run-{number}" / "job.sh" for number in (0, 3)}
    for number, path in scripts.items():
        path.parent.mkdir(parents=True)
        path.write_text(f"echo run {number}\n")
    of_a_run = script_of(recipe(), places_in(tmp_path / "run"), working_folder=tmp_path)
    text = array_script(of_a_run, scripts, group_places(tmp_path / HOSTILE))
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": str(task)}
    done = subprocess.run(
        ["bash", "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"run {task}\n" and not [*tmp_path.rglob("owned")]
    options = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert {"#SBATCH --partition=gpu", "#SBATCH --gpus-per-node=2", "#SBATCH --signal=B:USR1@120"} < {*options}
    assert options[-2] == "#SBATCH --array=0,3" and options[-1].endswith("/logs/slurm-%A_%a.log'"), (
        "the last one counts"
    )


def test_the_table_takes_no_gpus_but_the_place_of_the_runs(tmp_path: Path) -> None:
    places = group_places(tmp_path / "demo-seeds")
    text = table_script(recipe("launch.slurm.environment={A: two words}"), places, working_folder=tmp_path)
    assert "#SBATCH --partition=gpu" in text and "--gpus" not in text and "export A='two words'" in text
    assert f"selfreward table {places.folder} --resubmit" in text
    assert not subprocess.run(["bash", "-n", "-c", text], check=False).returncode
