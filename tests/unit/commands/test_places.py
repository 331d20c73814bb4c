"""The last lines of a run: the next command can be typed as it is."""

import shlex
from pathlib import Path

import pytest

from selfreward import recipe_file
from selfreward.commands.arguments import parsed
from selfreward.commands.places import continuing_command, places
from selfreward.launch.result import RunResult
from selfreward.records import Decision
from selfreward.store import Store


def test_the_last_trained_model_is_named_where_the_initial_one_is_the_best(tmp_path: Path) -> None:
    report = {"iterations": [{"iteration": 2, "counts": {"num_pairs": 0}}]}
    trained = tmp_path / "iteration-02" / "checkpoint"
    worse = RunResult(tmp_path, Decision(2, "INCONCLUSIVE", "no better", 0))
    assert "\ntrained" not in places(worse, report)
    trained.mkdir(parents=True)
    (line,) = [line for line in places(worse, report).splitlines() if line.startswith("trained")]
    assert line == f"trained {trained} (M_2, not shown to be better)"
    assert "\ntrained" not in places(RunResult(tmp_path, Decision(2, "CONTINUE", "better", 2)), report)


GIVEN = ["run", "a b.yaml", "seed=3", "--set", "note=it's mine", "iterations.max=2", "--from", "runs/x-0@1"]


@pytest.mark.parametrize(("num_prompts", "can_continue"), [(30, True), (29, False)])
def test_a_run_that_still_gained_is_continued_with_the_overrides_that_were_given(
    tmp_path: Path, num_prompts: int, can_continue: bool
) -> None:
    text = "models: {policy: {model: random:tiny}}\nprompts: builtin\niterations: {num_prompts_per_iteration: 10}\n"
    with Store(tmp_path, name="run") as store:
        store.record_facts(prompts={"training": {"num_prompts": num_prompts}})
        store.write_text("recipe.yaml", recipe_file.dump(recipe_file.parse(text)))
    options = parsed(GIVEN)
    command = continuing_command(options.recipe, options.overrides, start=options.start)
    decision = Decision(2, "CONTINUE", "better", 0, stopped_by="MAX_ITERATIONS")
    report = {"iterations": [{"iteration": 1, "counts": {"num_pairs": 3}}]}
    following = places(RunResult(tmp_path, decision), report, command).splitlines()[-1]
    words = shlex.split(following)[1:]
    if not can_continue:
        assert words == ["selfreward", "export", str(tmp_path), "--pairs", "pairs.jsonl"]
        return
    again, before = parsed(words[1:]), parsed(GIVEN)
    assert words[0] == "selfreward" and (again.recipe, again.start) == (before.recipe, before.start)
    assert sorted(again.overrides) == ["iterations.max=3", "note=it's mine", "seed=3"]
