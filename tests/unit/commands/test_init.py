"""`selfreward init`: shipped recipes as files, in a checkout and in a wheel."""

import json
import zipfile
from pathlib import Path

import pytest

from selfreward import recipe_file
from selfreward.cli import main
from selfreward.commands.init import STARTER, init, shipped_recipes
from selfreward.errors import RecipeError

ROOT = Path(__file__).parents[3]


def test_the_recipes_of_the_checkout_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--list"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert {name for name, _ in lines} == {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    for name, words in lines:
        assert words.endswith((".", "cores.")), f"{name}: its first line is not a sentence"


@pytest.mark.parametrize("name", [None, *sorted(shipped_recipes())])
def test_a_recipe_is_written_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", *([name] if name else [])]) == 0
    file = tmp_path / (f"{name}.yaml" if name else "recipe.yaml")
    assert file.read_text() == shipped_recipes()[name or STARTER].read_text().replace("recipes/", "")
    recipe = recipe_file.load(file)
    assert not name or name == STARTER or recipe.name == name


def test_the_next_command_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == main(["init", "tiny.yaml"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].endswith("next: selfreward validate recipe.yaml")
    assert printed[3] == "next: selfreward run tiny.yaml"


def test_a_recipe_for_a_gpu_is_planned_first_by_the_command_of_its_comment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "qwen-7b-lora-8gpu"
    assert main(["init", name]) == 0
    plan = f"selfreward plan {name}.yaml --gpu 8xL40S"
    assert capsys.readouterr().out.splitlines()[-1] == f"next: {plan}; selfreward run {name}.yaml"
    assert f"`{plan}`" in Path(f"{name}.yaml").read_text(), "its comment is about the file that was written"


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text("mine")
    with pytest.raises(RecipeError, match=r"tiny.yaml: exists already.*--force"):
        init("tiny", folder=tmp_path)
    assert (tmp_path / "tiny.yaml").read_text() == "mine"
    init("tiny", folder=tmp_path, force=True)
    assert "random:tiny" in (tmp_path / "tiny.yaml").read_text()


def test_an_unknown_name_is_answered_with_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "quickstrat"]) == 2
    assert "quickstart" in capsys.readouterr().err


def test_the_starter_works_on_data_and_every_comment_is_a_key(tmp_path: Path) -> None:
    file = init(None, folder=tmp_path)
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Say {i}."}) + "\n" for i in range(60)))
    text = file.read_text()
    header, mark, rest = text.partition("# Everything else has a default")
    assert mark
    keys = [line.removeprefix("# ") for line in rest.splitlines()[1:]]
    file.write_text(header + "\n".join(keys) + "\n")
    recipe = recipe_file.load(file, ["models.policy.model=random:tiny"])
    assert (recipe.name, recipe.output_dir, recipe.launch.num_processes) == ("mine", "runs/mine-0", 1)
    unset = {key for key in type(recipe).model_fields if key not in recipe.model_fields_set}
    assert unset == {"regime", "refinement", "meta_judging"}, "the starter shows every section but the rare ones"


def test_a_wheel_contains_the_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = pytest.importorskip("hatchling.build", reason="hatchling is in the extra dev")
    monkeypatch.chdir(ROOT)
    wheel = tmp_path / build.build_wheel(str(tmp_path))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    shipped = ROOT / "recipes"
    for path in (path for path in shipped.rglob("*") if path.is_file()):
        installed = tmp_path / "installed" / "selfreward" / "recipes" / path.relative_to(shipped)
        assert installed.read_bytes() == path.read_bytes()
