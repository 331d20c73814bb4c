"""launch.slurm: what is refused, with what message, and the forms of Slurm's times."""

from pathlib import Path

import pytest

from selfreward import recipe_file
from selfreward.errors import RecipeError
from selfreward.recipe import Recipe, seconds_of
from selfreward.recipe_changes import fixed_keys

TEXT = "models: {policy: {model: random:tiny}}\nprompts: builtin\n"


def recipe(*overrides: str) -> Recipe:
    return recipe_file.parse(TEXT, overrides=[f"launch.slurm.{override}" for override in overrides])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("time=4h", ["launch.slurm.time", "'4h'", "04:00:00"]),
        ("time=1", ["time is 1 (60 s)", "signal_s 120"]),
        ("memory=16GB", ["launch.slurm.memory", "'16GB'"]),
        ('partition="a\\n#SBATCH --uid=0"', ["launch.slurm.partition", "'\\n'", "remove it"]),
        ('constraint="a\\\\b"', ["launch.slurm.constraint", "backslashes"]),
        ('extra=["--mail-user=x\\n"]', ["launch.slurm.extra", "'\\n'"]),
        ("extra=[--time=3]", ["launch.slurm.extra", "set launch.slurm.time instead"]),
        ("extra=[-o x]", ["launch.slurm.extra", "set output_dir instead"]),
        ("extra=[exclusive]", ["launch.slurm.extra", "'exclusive'", "--mail-type=END"]),
        ("environment={HF_TOKEN: x}", ["launch.slurm.environment", "HF_TOKEN", "environment_file"]),
        ("environment={openai_api_key: x}", ["launch.slurm.environment", "environment_file"]),
        ("environment={a-b: x}", ["launch.slurm.environment", "'a-b'"]),
        ('environment={A: "\\0"}', ["launch.slurm.environment.A", "NUL"]),
        ("container={kind: docker, image: x}", ["launch.slurm.container.kind", "apptainer, enroot"]),
        ("container={kind: enroot, image: x, binds: [a]}", ["launch.slurm.container.binds", "mounts"]),
        ("nodez=2", ["launch.slurm.nodez", "did you mean 'nodes'"]),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(override: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(override)
    for word in words:
        assert word in str(caught.value)


def test_what_people_write_is_read() -> None:
    slurm = recipe(
        "time=90", "memory=64G", "modules=cuda/12", "environment={THREADS: 4, TOKENIZERS_PARALLELISM: no}",
        "extra=[--mail-type=END, -x n7]", "setup=source env/bin/activate",
    ).launch.slurm  # fmt: skip
    assert (slurm.time, slurm.modules, slurm.setup) == ("90", ["cuda/12"], ["source env/bin/activate"])
    assert slurm.environment == {"THREADS": "4", "TOKENIZERS_PARALLELISM": "no"}


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    slurm = "{template: job.sh, environment_file: keys.env, container: {kind: apptainer, image: ./image.sif}}"
    file.write_text(f"{TEXT}launch: {{slurm: {slurm}}}\n")
    found = recipe_file.load(file).launch.slurm
    assert (found.template, found.environment_file) == (str(tmp_path / "job.sh"), str(tmp_path / "keys.env"))
    assert found.container is not None and found.container.image == str(tmp_path / "image.sif")


def test_every_key_may_change_on_resume() -> None:
    container = "container={kind: apptainer, image: docker://x}"
    assert not [key for key in fixed_keys(recipe(container)) if key.startswith("launch.slurm")]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 1800), ("4:05", 245), ("04:00:00", 14400), ("1-12", 129600), ("1-12:30", 131400), ("2-00:00:10", 172810)],
)
def test_times_have_the_forms_of_sbatch(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "4h", "1:2:3:4", "UNLIMITED", "-1", "1-"])
def test_other_texts_are_no_times(text: str) -> None:
    assert seconds_of(text) is None


def test_a_submitted_recipe_leaves_open_what_its_author_did(tmp_path: Path) -> None:
    """Where keys follow the machine and the data, the compute node decides, and not the one that submits."""
    before = recipe("gpus=1")
    after = recipe_file.parse(recipe_file.dump(before, only_set=True))
    assert after == before
    assert after.evaluation.model_fields_set == before.evaluation.model_fields_set == set()
    assert after.engine.model_fields_set == set()
