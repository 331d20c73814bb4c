"""Composed iterations of real recipes: their stages, queries and bounds."""

from pathlib import Path

import pytest

from selfreward import recipe_file
from selfreward.compose import compose
from selfreward.steps import Stage
from selfreward.tables import PAIRS
from selfreward.tools import tools_of
from selfreward.workload import Lengths

RECIPES = Path(__file__).parents[2] / "recipes"
BYTES = Path(__file__).parents[1] / "bytes"
JUDGES = {
    "additive": "{kind: additive, commit_first: {max_tokens: 9}}",
    "expected_score": "{kind: expected_score, by: initial, num_draws: 1}",
    "pairwise": "{kind: pairwise, by: best}",
    "intrinsic": "{kind: intrinsic}",
    "likelihood": "{kind: likelihood}",
    "self_consistency": "{kind: self_consistency}",
    "verifier": "{kind: verifier}",
    "ensemble": "{kind: ensemble, members: [{kind: additive}, {kind: pairwise, by: initial}]}",
}


def iterations_of(path, folder, *overrides):
    recipe = recipe_file.load(path, [*overrides, f"output_dir={folder}"])
    tools = tools_of(recipe, cache_folder=folder / "endpoints")
    return [compose(recipe, t, (), tools) for t in range(recipe.iterations.max + 1)], Lengths(tools.engine)


@pytest.mark.parametrize("judge", JUDGES.values(), ids=JUDGES)
def test_stages_count_requests_only_for_the_models_that_they_query(tmp_path, judge):
    composed, lengths = iterations_of(RECIPES / "tiny.yaml", tmp_path, f"judging={judge}", "iterations.max=2")
    counted = 0
    for iteration in composed:
        for stage in iteration.stages:
            asked = {requests.by for requests in stage.max_requests(lengths)}
            assert asked <= stage.queries, f"iteration {iteration.number}, {stage.name}"
            counted += bool(asked)
    assert counted > len(composed)


def test_meta_judging_adds_one_stage(tmp_path):
    with_it, lengths = iterations_of(BYTES / "meta.yaml", tmp_path)
    without, _ = iterations_of(BYTES / "meta.yaml", tmp_path, "meta_judging=null")
    for more, fewer in zip(with_it[1:], without[1:], strict=True):
        added = [stage for stage in more.stages if stage.name not in {other.name for other in fewer.stages}]
        assert len(added) == 1 and {r.by for r in added[0].max_requests(lengths)} == added[0].queries
        assert [s.name for s in more.stages if s not in added] == [s.name for s in fewer.stages]


def test_one_stage_makes_pairs_from_prompts_responses_and_judgments(tmp_path):
    composed, _ = iterations_of(RECIPES / "tiny.yaml", tmp_path)
    made = [step for step in composed[1].steps if isinstance(step, Stage) and step.table == PAIRS]
    assert len(made) == 1 and {read.table.name for read in made[0].reads} >= {"prompts", "responses", "judgments"}
