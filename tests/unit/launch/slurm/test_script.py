"""The batch script: a golden copy, hostile values in a real bash, and templates of one's own."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from selfreward import recipe_file
from selfreward.errors import LaunchError, RecipeError
from selfreward.launch.slurm.places import places_in
from selfreward.launch.slurm.ray_nodes import on_its_nodes
from selfreward.launch.slurm.script import TEMPLATE, script_of
from selfreward.recipe import Recipe

GOLDEN = Path(__file__).with_name("golden.sh")
HOSTILE = "a b; touch owned 'q' \"$(touch owned)\" `touch owned` $HOME && touch owned %j {{command}}\t\n#SBATCH --uid=0"
ONE_LINE = HOSTILE.split("\t")[0]


def recipe(slurm: dict[str, object], name: str = "demo") -> Recipe:
    text = "models: {policy: {model: random:tiny}}\nprompts: builtin\n"
    return recipe_file.parse(text, overrides=[f"name={name}", f"launch.slurm={json.dumps(slurm)}"])


def script(slurm: dict[str, object], *, run: Path = Path("/runs/demo-0"), work: Path = Path("/work")) -> str:
    return script_of(recipe(slurm), places_in(run), working_folder=work)


def require_golden(found: str, path: Path) -> None:
    """After a change that is meant: SELFREWARD_GOLDEN=1 pytest, then read the difference in git."""
    found = found.replace(shlex.quote(sys.executable), "/env/bin/python")
    if os.environ.get("SELFREWARD_GOLDEN"):
        path.write_text(found)
    assert found == path.read_text()


def test_the_script_is_the_golden_copy() -> None:
    found = script({
        "partition": "gpu", "account": "lab", "qos": "long", "gpus": 4, "cpus": 16, "memory": "128G",
        "time": "12:00:00", "constraint": "h100&nvlink", "modules": ["cuda/12.8"], "environment": {"A": "two words"},
        "environment_file": "/home/me/keys.env", "setup": ["ulimit -n 65536"],
        "extra": ["--mail-type=END", "--comment=it's late"], "max_restarts": 20,
    })  # fmt: skip
    require_golden(found, GOLDEN)


def test_the_script_of_several_nodes_is_the_golden_copy() -> None:
    container = {"kind": "apptainer", "image": "/images/a b.sif"}
    found = script({"nodes": 3, "gpus": 4, "cpus": 16, "container": container})
    require_golden(found, GOLDEN.with_name("golden_nodes.sh"))


def commands(folder: Path) -> dict[str, str]:
    """An environment with the commands of a cluster: `srun` and `module` write down what they were given."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for name, lines in {
        "srun": 'printf "%s\\0" "$@" >"$OUT/arguments"; env -0 >"$OUT/environment"; pwd >"$OUT/folder"',
        "module": 'printf "%s\\0" "$@" >>"$OUT/modules"',
        "squeue": "echo N/A",
    }.items():
        (bin_folder / name).write_text(f"#!/bin/bash\n{lines}\n")
        (bin_folder / name).chmod(0o755)
    return {"PATH": f"{bin_folder}:{os.environ['PATH']}", "OUT": str(folder), "HOME": "/nowhere", "SLURM_JOB_ID": "7"}


@pytest.mark.parametrize("container", [None, "apptainer", "enroot"])
def test_hostile_values_reach_the_program_as_they_are(tmp_path: Path, container: str | None) -> None:
    work = tmp_path / HOSTILE.replace("/", "")
    run = tmp_path / ONE_LINE / "run"
    work.mkdir()
    (run / "logs").mkdir(parents=True)
    slurm: dict[str, object] = {
        "partition": ONE_LINE, "constraint": ONE_LINE, "extra": [f"--comment={ONE_LINE}"], "gpus": 1,
        "environment": {"HOSTILE": HOSTILE}, "modules": [HOSTILE],
    }  # fmt: skip
    if container:
        paths = "binds" if container == "apptainer" else "mounts"
        slurm["container"] = {"kind": container, "image": HOSTILE, paths: [HOSTILE]}
    text = script(slurm, run=run, work=work)
    done = subprocess.run(["bash", "-c", text], cwd=tmp_path, env=commands(tmp_path), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert not [*tmp_path.rglob("owned")]
    arguments = (tmp_path / "arguments").read_text().split("\0")[:-1]
    assert arguments[-2:] == ["run", str(run / "slurm" / "recipe.yaml")]
    if container == "apptainer":
        assert arguments[2:6] == ["apptainer", "exec", "--nv", f"--bind={HOSTILE}"] and arguments[6] == HOSTILE
    if container == "enroot":
        assert f"--container-image={HOSTILE}" in arguments and f"--container-mounts={HOSTILE}" in arguments
    assert f"HOSTILE={HOSTILE}" in (tmp_path / "environment").read_text().split("\0")
    assert (tmp_path / "modules").read_text().split("\0")[:2] == ["load", HOSTILE]
    assert (tmp_path / "folder").read_text() == f"{work}\n"
    assert "ended with exit code 0" in (run / "logs" / "slurm-7-0.log").read_text()
    options = options_of(text)
    assert {f"--partition={ONE_LINE}", f"--constraint={ONE_LINE}", f"--comment={ONE_LINE}"} <= options
    assert not any(option.startswith("--uid") for option in options)


def options_of(text: str) -> set[str]:
    """Return the options of a script as sbatch reads them: up to the first command, quotes as in bash."""
    found: set[str] = set()
    for line in text.splitlines():
        if line and not line.startswith("#"):
            return found
        if line.startswith("#SBATCH "):
            (option,) = shlex.split(line.removeprefix("#SBATCH "))
            found.add(option)
    raise AssertionError("no command")


def test_a_folder_into_which_slurm_writes_no_log_is_refused() -> None:
    for folder in ("/runs/a\\b", "/runs/a\nb"):
        with pytest.raises(LaunchError, match="set another output_dir"):
            script({}, run=Path(folder))
    assert "--output='/runs/a%%j b/logs/slurm-%j.log'" in script({}, run=Path("/runs/a%j b"))


def test_a_job_on_several_nodes_uses_the_ray_of_its_script() -> None:
    several = on_its_nodes(recipe({"nodes": 3}))
    assert (several.launch.ray.address, several.launch.ray.nodes) == ("auto", 3)
    stored = recipe_file.parse(recipe_file.dump(several, only_set=True))
    assert stored.launch.ray == several.launch.ray
    one = recipe({"nodes": 1})
    assert on_its_nodes(one) == one
    own = recipe_file.patched(recipe({"nodes": 3}), {"launch.ray.address": "auto"})
    with pytest.raises(RecipeError, match=r"launch\.slurm\.nodes: found 3.*remove launch\.ray"):
        on_its_nodes(own)


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    template = tmp_path / "mine.sh"
    template.write_text("#!/bin/bash\n{{options}}\n{{environment}}\nnice {{command}}\n")
    found = script({"template": str(template), "environment": {"A": "{{command}}"}})
    assert found.startswith("#!/bin/bash\n#SBATCH --job-name=demo\n")
    assert "export A='{{command}}'\nnice srun --nodes=1" in found, "a value is no template"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{options}} {{command}} {{comand}}", ["{{comand}}", "allowed are {{options}}"]),
        ("{{options}}", ["lacks {{command}}"]),
        ("{{command}}", ["lacks {{options}}"]),
        (None, ["cannot be read", "correct the path"]),
    ],
)
def test_a_wrong_template_is_refused(tmp_path: Path, text: str | None, words: list[str]) -> None:
    template = tmp_path / "mine.sh"
    if text is not None:
        template.write_text(text)
    with pytest.raises(RecipeError) as caught:
        script({"template": str(template)})
    assert str(template) in str(caught.value) and all(word in str(caught.value) for word in words)


def test_the_template_of_the_program_is_one() -> None:
    assert script({"template": str(TEMPLATE)}) == script({})
