"""Overrides beside the options of a command, wherever they stand."""

from pathlib import Path

import pytest

from selfreward.commands.arguments import parsed


@pytest.mark.parametrize(
    ("arguments", "overrides"),
    [
        (["run", "r.yaml", "seed=3"], ["seed=3"]),
        (["run", "seed=3", "r.yaml", "training.learning_rate=1e-6"], ["seed=3", "training.learning_rate=1e-6"]),
        (["run", "r.yaml", "a=1", "--set", "b=2", "c=3"], ["a=1", "b=2", "c=3"]),
        (["run", "r.yaml", "--set=b=2", "c=x=y", "note="], ["b=2", "c=x=y", "note="]),
        (["plan", "r.yaml", "judging={kind: verifier}"], ["judging={kind: verifier}"]),
        (["validate", "models.my-model.model=x", "r.yaml"], ["models.my-model.model=x"]),
    ],
)
def test_overrides_may_stand_anywhere(arguments: list[str], overrides: list[str]) -> None:
    options = parsed(arguments)
    assert (options.recipe, options.overrides) == (Path("r.yaml"), overrides)


def test_the_file_of_judge_is_the_second_argument_that_is_no_override() -> None:
    options = parsed(["judge", "r.yaml", "seed=1", "rows.jsonl", "--out", "a=b.jsonl", "judging.num_draws=2"])
    assert (options.recipe, options.file, options.out) == (Path("r.yaml"), Path("rows.jsonl"), Path("a=b.jsonl"))
    assert options.overrides == ["seed=1", "judging.num_draws=2"]
    assert parsed(["judge", "r.yaml", "./a=b.jsonl", "--out", "o"]).file == Path("a=b.jsonl"), "a path is no key"


def test_monitor_takes_a_run_or_a_table() -> None:
    options = parsed(["monitor", "runs/a", "delta=0.03", "--json", "alpha_stop=0.1"])
    assert (options.run, options.json, options.overrides) == (Path("runs/a"), "-", ["delta=0.03", "alpha_stop=0.1"])
    options = parsed(["monitor", "--csv", "a=b.csv", "delta=0.03"])
    assert (options.csv, options.overrides) == (Path("a=b.csv"), ["delta=0.03"])


def test_commands_without_overrides_take_such_a_path() -> None:
    assert parsed(["status", "a=b"]).run == Path("a=b")


def test_an_argument_that_is_no_override_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    from selfreward.cli import main

    recipe = str(Path(__file__).parents[3] / "recipes" / "tiny.yaml")
    assert main(["run", recipe, "seed", "3"]) == 2
    assert "seed: not KEY=VALUE; an override is a key of the recipe and its value, as in seed=3" in (
        capsys.readouterr().err
    )


def test_overrides_are_not_among_the_required_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(["run"])
    assert capsys.readouterr().err.endswith("the following arguments are required: recipe\n")
