"""The sizes that a recipe leaves open: they fit the data, keys win, and a run keeps those with which it began."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward import recipe_file, sizes
from selfreward.recipe import EvaluationSection, IterationsSection, MonitorSection, Recipe
from selfreward.sizes import Available, as_begun, enough, is_complete, sized

MINIMAL = 'output_dir: runs/mine\nmodels: {policy: {model: "random:tiny"}}\nprompts: {kind: builtin}\n'


def recipe(*overrides: str) -> Recipe:
    return recipe_file.parse(MINIMAL, overrides=overrides)


def num_held_out(found: Recipe) -> int:
    evaluation = found.evaluation
    return evaluation.num_prompts + evaluation.second_validation_size + evaluation.test_size


def sized_for(num_prompts: int, *overrides: str, **more: Any) -> Recipe:
    available = Available(num_prompts, num_prompts, num_verifiable=10_000, **more)
    return sized(recipe(*overrides), available, num_left=lambda found: num_prompts - num_held_out(found))


def test_sixty_prompts_are_enough_to_start() -> None:
    found = sized_for(60)
    assert (found.evaluation.preset, found.evaluation.num_prompts, found.evaluation.self_judge) == ("light", 20, False)
    assert (found.iterations.max, found.iterations.num_prompts_per_iteration) == (2, 20)
    assert (found.monitor.horizon, found.monitor.min_pairs, found.evaluation.num_judge_prompts) == (2, 6, 5)
    assert found.evaluation.verifiable.num_prompts == 20


def test_with_many_prompts_the_sizes_are_the_defaults_of_the_schema() -> None:
    found = sized_for(100_000)
    assert found.evaluation == EvaluationSection()
    assert found.iterations == IterationsSection()
    assert found.monitor == MonitorSection()


@given(num_prompts=st.integers(3, 20_000), preset=st.sampled_from([None, *sizes.PRESETS]))
def test_the_sizes_fit_the_prompts_whatever_their_number(num_prompts: int, preset: str | None) -> None:
    found = sized_for(num_prompts, *([f"evaluation.preset={preset}"] if preset else []))
    block = found.iterations.num_prompts_per_iteration
    assert num_held_out(found) + found.iterations.max * block <= num_prompts
    assert 1 <= found.monitor.min_pairs <= block and found.evaluation.num_judge_prompts <= block
    assert found.iterations.max <= found.monitor.horizon <= 8
    assert is_complete(found) and recipe_file.parse(recipe_file.dump(found)) == found


@given(
    num_prompts=st.integers(3, 5_000),
    values=st.fixed_dictionaries(
        {},
        optional={
            "evaluation.num_prompts": st.integers(2, 900),
            "evaluation.num_test_prompts": st.integers(0, 900),
            "evaluation.self_judge": st.booleans(),
            "evaluation.num_judge_prompts": st.integers(0, 900),
            "evaluation.verifiable.num_prompts": st.integers(1, 900),
            "iterations.max": st.integers(1, 20),
            "iterations.num_prompts_per_iteration": st.integers(1, 900),
            "monitor.horizon": st.integers(1, 20),
            "monitor.min_pairs": st.integers(1, 20),
        },
    ),
)
def test_keys_that_the_recipe_sets_win(num_prompts: int, values: dict[str, Any]) -> None:
    found = sized_for(num_prompts, *(f"{key}={str(value).lower()}" for key, value in values.items()))
    for key, value in values.items():
        section: Any = found
        for name in key.split("."):
            section = getattr(section, name)
        assert section == value


def test_requested_training_and_test_prompts_leave_the_rest_for_validation() -> None:
    both = ("iterations.max=4", "iterations.num_prompts_per_iteration=14")
    assert sized_for(60, *both).evaluation.num_prompts == 4
    assert sized_for(60, "evaluation.num_test_prompts=30").evaluation.num_prompts == 10
    assert sized_for(600, "evaluation.num_prompts=500").evaluation.test_size == 0  # 500 more are not there
    assert sized_for(6000, "evaluation.num_prompts=500").evaluation.test_size == 500


def test_prompts_with_checks_give_the_pass_rate_and_no_others_are_generated() -> None:
    assert sized_for(60, checked_share=0.5).evaluation.verifiable == "validation"
    assert sized_for(60, checked_share=0.4).evaluation.verifiable != "validation"
    assert sized_for(60, "evaluation.verifiable=null", checked_share=1.0).evaluation.verifiable is None
    kept = sized_for(60, "evaluation.verifiable={num_checks: 2}", checked_share=1.0).evaluation.verifiable
    assert (kept.num_checks, kept.num_prompts) == (2, 20)


def test_more_than_enough_prompts_change_nothing() -> None:
    for overrides in ((), ("evaluation.preset=full",), ("iterations.max=10",), ("evaluation.num_prompts=900",)):
        number = enough(recipe(*overrides))
        half_overlap = sized(
            recipe(*overrides), Available(number, number, num_verifiable=900), num_left=lambda _, n=number: n // 2
        )
        assert half_overlap == sized_for(1_000_000, *overrides)


def test_a_run_keeps_the_sizes_with_which_it_began() -> None:
    before = recipe_file.parse(recipe_file.dump(sized_for(60)))
    assert as_begun(recipe(), before) == before
    moved = as_begun(recipe("output_dir=runs/moved", "iterations.max=3"), before)
    may, may_not = recipe_file.changed_keys(before, moved)
    assert may_not == [] and {change.split(":")[0] for change in may} == {"output_dir", "iterations.max"}
    _, may_not = recipe_file.changed_keys(before, as_begun(recipe("evaluation.preset=full"), before))
    assert may_not == ["evaluation.preset: 'light' -> 'full'"]


@pytest.mark.parametrize("verifiable", ["null", "validation", "{path: own.jsonl}", "{num_checks: 3}"])
def test_every_form_of_verifiable_prompts_is_kept(verifiable: str) -> None:
    asked = recipe(f"evaluation.verifiable={verifiable}")
    before = recipe_file.parse(recipe_file.dump(sized_for(60, f"evaluation.verifiable={verifiable}")))
    assert as_begun(asked, before) == before
