"""Groups of runs: their seeds, values and folders, and the table of what they came to."""

import csv
import json
from pathlib import Path

import pytest

from selfreward.commands.arguments import parsed
from selfreward.commands.group import of_ablation, of_seeds, seeds_in
from selfreward.errors import NoRunError, RecipeError, StoreError
from selfreward.launch.group import Member, keys_of, read_group, write_group
from selfreward.launch.group_table import write_table
from selfreward.store import Store


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "demo.yaml"
    path.write_text(
        "models: {policy: {model: random:tiny}}\nprompts: builtin\njudging: {kind: expected_score, by: policy}\n"
    )
    return path


def where(folder: Path) -> str:
    return f"output_dir={folder}/{{name}}-{{seed}}"


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-4", [0, 1, 2, 3, 4]), ("0,3,7", [0, 3, 7]), ("2", [2]), ("5, 0-2,1", [5, 0, 1, 2])]
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert seeds_in(text) == seeds


@pytest.mark.parametrize("text", ["0-999999999", "", "a", "4-0", "-1", "1,", "0-"])
def test_wrong_seeds_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"--seeds: found .*0-4 or 0,3,7"):
        seeds_in(text)


def test_each_seed_has_its_run_folder(recipe: Path, tmp_path: Path) -> None:
    group = of_seeds(recipe, [where(tmp_path)], [0, 3])
    assert [task.member.folder for task in group.tasks] == [tmp_path / "demo-0", tmp_path / "demo-3"]
    assert [task.recipe.seed for task in group.tasks] == [0, 3] and group.folder == tmp_path / "demo-seeds"
    with pytest.raises(RecipeError, match=r"is the folder of several seeds.*output_dir='runs/\{name\}-\{seed\}'"):
        of_seeds(recipe, [f"output_dir={tmp_path}/run"], [0, 3])
    assert not [*tmp_path.glob("demo-*")]


def test_an_ablation_is_the_product_of_values_and_seeds(recipe: Path, tmp_path: Path) -> None:
    vary = ["judging.num_draws=1,3", "sampling.top_p=[0.9, 1.0][0], 1.0"]
    with pytest.raises(RecipeError, match="--vary"):
        of_ablation(recipe, [where(tmp_path)], vary, 2)
    group = of_ablation(recipe, [where(tmp_path)], ["judging.num_draws=1,3", "sampling.top_p=0.9"], 2)
    names = [task.member.folder.name for task in group.tasks]
    assert group.folder == tmp_path / "demo-ablation"
    assert names == [f"num_draws={n}_top_p=0.9_seed={s}" for n in (1, 3) for s in (0, 1)]
    assert [(task.recipe.judging.num_draws, task.recipe.seed) for task in group.tasks] == [
        (1, 0),
        (1, 1),
        (3, 0),
        (3, 1),
    ]
    assert all(Path(task.recipe.output_dir) == task.member.folder for task in group.tasks)


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        (["judging.num_drawz=1,3"], "num_drawz"),
        (["judging.num_draws=1,x"], "num_draws"),
        (["judging.num_draws="], "as in judging.num_draws=1,3,11"),
        (["judging.num_draws"], "as in judging.num_draws=1,3,11"),
        (["seed=1,2"], "use --seeds"),
        (["launch.slurm.gpus=1,2"], "a key of the method"),
        (["judging.num_draws=1", "judging.num_draws=3"], "given twice"),
        (["judging.num_draws=3,3"], "would be called num_draws=3_seed=0"),
    ],
)
def test_a_wrong_ablation_is_refused(recipe: Path, tmp_path: Path, vary: list[str], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        of_ablation(recipe, [where(tmp_path)], vary, 1)
    assert words in str(caught.value)
    assert not [*tmp_path.glob("demo-*")]


def test_values_are_no_overrides_of_the_command() -> None:
    options = parsed(
        ["ablate", "r.yaml", "seed=3", "--vary", "judging.num_draws=1,3", "--vary", "a.b=x", "--seeds", "2"]
    )
    assert (options.vary, options.overrides, options.seeds) == (["judging.num_draws=1,3", "a.b=x"], ["seed=3"], 2)


def test_a_later_command_adds_to_the_group(tmp_path: Path) -> None:
    first, second = (Member(tmp_path / f"r{i}", {"seed": i}) for i in range(2))
    write_group(tmp_path, [first])
    assert write_group(tmp_path, [first, second]) == [first, second] == read_group(tmp_path)
    other = Member(tmp_path / "r2", {"seed": 0, "a.b": [1]})
    assert keys_of(write_group(tmp_path, [other])) == ["a.b", "seed"]
    with pytest.raises(NoRunError, match=r"no runs\.json"):
        read_group(tmp_path / "r0")
    (tmp_path / "runs.json").write_text("[1]")
    with pytest.raises(StoreError, match="not as it was written"):
        read_group(tmp_path)


def test_the_table_has_every_run_whatever_became_of_it(tmp_path: Path) -> None:
    for name, status in {"failed": {"state": "failed", "exit_code": 4}, "done": {"state": "finished"}}.items():
        with Store(tmp_path / name) as store:
            store.write_text("status.json", json.dumps(status))
    interval = {"mean": 0.5, "low": 0.25, "high": 0.75}
    last = {"metrics": {"win_rate_vs_initial": interval, "pass_rate": interval}, "invalid": {"pass_rate": "why"}}
    (tmp_path / "done" / "report.json").write_text(json.dumps({"iterations": [{"metrics": {}}, last]}))
    members = [Member(tmp_path / name, {"k.a": ["x"], "seed": 0}) for name in ("done", "failed", "absent")]
    rows, text = write_table(tmp_path, members)
    assert [row.is_finished for row in rows] == [True, False, False]
    with (tmp_path / "table.csv").open() as file:
        found = list(csv.DictReader(file))
    assert (found[0]["win_rate_vs_initial"], found[0]["win_rate_vs_initial_high"]) == ("0.5", "0.75")
    assert (found[0]["pass_rate"], found[0]["invalid"], found[0]["k.a"]) == ("", "pass_rate", '["x"]')
    assert found[1]["state"] == "failed, exit code 4" and "absent" in found[2]["state"]
    assert "| 0.5 [0.25, 0.75] | invalid | finished |" in text and "response tokens" not in text
    assert f"2 of 3 runs have not finished:\n\n- `{tmp_path / 'failed'}`: failed, exit code 4\n" in text
    assert (tmp_path / "table.md").read_text() == text
