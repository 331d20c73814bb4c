"""A plan compared with its run: the same stages, and at least as many requests as the run made."""

import math
from pathlib import Path

import pytest

import selfreward
from selfreward import cli, recipe_file
from selfreward.plan import Plan, plan
from selfreward.settled import settled
from selfreward.store import Store
from selfreward.tables import PAIRS

RECIPE = Path(__file__).parents[3] / "recipes" / "tiny.yaml"
# A step large enough to change the responses: equal texts are not compared.
OVERRIDES = ("iterations.max=2", "training.learning_rate=0.02", "evaluation.temperature=1.0")
# All kinds of engine requests: sampled reasoning, choices, comparisons, the judge's own responses, and scoring.
ENSEMBLE = (
    *OVERRIDES,
    "engine.context_tokens=3000",
    "iterations.num_prompts_per_iteration=3",
    "sampling.num_responses=2",
    "judging={kind: ensemble, members: [{kind: expected_score, num_draws: 2, reasoning: {max_tokens: 12}, "
    "commit_first: {max_tokens: 9}}, {kind: pairwise}, {kind: intrinsic}]}",
    "pairing={kind: initial_rejected, allow_truncated_chosen: true}",
    "evaluation.anchor={kind: pairwise, commit_first: {max_tokens: 6}}",
    "evaluation.anchor_may_label=true",
)


def plan_and_run(folder: Path, *overrides: str) -> tuple[Plan, Store, list[str]]:
    with_folder = [*overrides, f"output_dir={folder / 'tiny'}"]
    before = plan(recipe_file.load(RECIPE, with_folder))
    result = selfreward.run(RECIPE, with_folder)
    return before, Store(result.folder, write=False), with_folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store, list[str]]:
    return plan_and_run(tmp_path_factory.mktemp("plan"), *OVERRIDES)


@pytest.fixture(scope="module", params=["tiny", "ensemble"])
def planned_and_run(
    request: pytest.FixtureRequest, tiny: tuple[Plan, Store, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Plan, Store, list[str]]:
    return tiny if request.param == "tiny" else plan_and_run(tmp_path_factory.mktemp("plan"), *ENSEMBLE)


def test_the_plan_lists_every_stage_that_uses_the_engine_and_bounds_its_requests(
    planned_and_run: tuple[Plan, Store, list[str]],
) -> None:
    planned, store, _ = planned_and_run
    num_planned = num_real = 0.0
    for work in planned.iterations:
        used = {stage: counters["num_requests"] for stage, counters in store.usage_by_stage(work.iteration).items()}
        used = {stage: number for stage, number in used.items() if number}
        assert used.keys() == work.stages.keys(), f"iteration {work.iteration}"
        for stage, number in used.items():
            assert number <= work.stages[stage].num_requests, f"iteration {work.iteration}, {stage}"
        num_planned += work.num_requests
        num_real += sum(used.values())
    assert num_planned <= 1.1 * num_real


def test_the_planned_tokens_equal_the_runs_except_for_responses_that_ended_early(
    planned_and_run: tuple[Plan, Store, list[str]],
) -> None:
    planned, store, _ = planned_and_run
    for work in planned.iterations:
        for stage, counters in store.usage_by_stage(work.iteration).items():
            if stage in work.stages:
                real = counters.get("num_prompt_tokens", 0) + counters.get("num_generated_tokens", 0)
                # The anchor does not compare responses to a prompt without a best and a worst response.
                share = counters["num_requests"] / work.stages[stage].num_requests
                planned_tokens = work.stages[stage].num_tokens
                # Invalid bytes become three bytes in a judge's prompt, hence the 3 %.
                assert 0.85 * share * planned_tokens <= real <= 1.03 * planned_tokens, stage


def test_pairs_and_steps_equal_the_runs(planned_and_run: tuple[Plan, Store, list[str]]) -> None:
    planned, store, _ = planned_and_run
    for work in planned.iterations[1:]:
        num_pairs = len(list(store.read(work.iteration, PAIRS)))
        training = store.read_json(work.iteration, "training")
        assert training is not None
        assert 0 < num_pairs <= work.update.num_pairs
        assert (
            training["num_steps"] == math.ceil(num_pairs / planned.recipe.training.batch_size) <= work.update.num_steps
        )
        assert training["num_computed_tokens"] <= work.update.num_training_tokens


def test_the_command_prints_the_plan_and_after_the_run_the_measured_time(
    tiny: tuple[Plan, Store, list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    planned, store, overrides = tiny

    def printed(*more: str) -> str:
        arguments = [f"--set={override}" for override in (*overrides, *more)]
        assert cli.main(["plan", str(RECIPE), *arguments]) == 0
        return " ".join(capsys.readouterr().out.split())

    fresh = printed(f"output_dir={tmp_path / 'fresh'}")
    assert f"{planned.iterations[2].num_requests} " in fresh and "GFLOP/s" in fresh and "already spent" not in fresh
    assert not (tmp_path / "fresh").exists()
    assert "the run is finished" in printed()
    longer = printed("iterations.max=3")
    assert "already spent" in longer and "warning" not in longer
    assert "contains a run of another recipe (seed: 0 -> 1)" in printed("seed=1")
    auto = printed("engine.dtype=auto")  # the run began in float32 and keeps it
    assert "in float32" in auto and "another recipe" not in auto
    assert store.elapsed_s() > 0
    assert 0 < planned.machine.training_flops < 1e16 and 0 < planned.machine.copied_bytes_per_s < 1e14


@pytest.mark.parametrize("name", ["quickstart", "self-judge"])
def test_recipes_for_two_cores_stay_within_their_stated_work(tmp_path: Path, name: str) -> None:
    """Machines vary tenfold, work does not."""
    recipe = settled(recipe_file.load(RECIPE.with_name(f"{name}.yaml"), [f"output_dir={tmp_path / name}"]))
    for work in plan(recipe).iterations:
        assert work.num_requests <= 400, work.iteration
        assert work.num_tokens <= 40_000, work.iteration
        assert work.update.num_pairs <= 40, work.iteration


def test_the_prompted_judge_draws_twice_which_reliability_needs() -> None:
    judging = recipe_file.load(RECIPE.with_name("self-judge.yaml")).judging
    assert judging.kind == "expected_score" and judging.num_draws >= 2
