"""The remarks on training: printed when they apply, once, and on both pages."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases.reporting import make_run, write

from selfreward import recipe_file
from selfreward.recipe import TrainingSection
from selfreward.records import Evaluation, IterationSummary
from selfreward.reporting.remarks import remarks

SAMPLER = TrainingSection(reference_logprobs="sampler")
TRAINER = TrainingSection(reference_logprobs="trainer")
# The gap is far below the change of the margin, and nearly all of the update remains: no remark.
SOUND = {
    "reward_margin_before": 0.0, "reward_margin_after": 0.4, "changed_weight_share": 0.02, "seen_update_share": 0.9,
    "reference_gap_margin": 0.04, "reference_gap_limit": 0.1, "num_sampler_logprobs": 64, "num_trainer_logprobs": 0,
}  # fmt: skip


def remarks_on(*trainings: dict[str, Any], section: TrainingSection = SAMPLER) -> list[str]:
    """Return the remarks on iterations 1, 2, ... with these differences from a sound training."""
    numbered = enumerate(trainings, start=1)
    history = [IterationSummary(t, {}, {**SOUND, **training}, Evaluation(t, {}), {}) for t, training in numbered]
    return remarks(history, training=section)


def test_sound_or_missing_training_gives_no_remark() -> None:
    assert remarks_on({}) == remarks_on({}, section=TRAINER) == []
    nothing = IterationSummary(1, {}, {}, Evaluation(1, {}), {})
    assert remarks([nothing], training=SAMPLER) == remarks([], training=TRAINER) == []


def test_a_rejected_sampler_reference_is_reported_only_where_the_recipe_wants_it() -> None:
    too_far = {"reference_gap_margin": 0.25, "num_sampler_logprobs": 0, "num_trainer_logprobs": 64}
    (remark,) = remarks_on(too_far)
    assert remark.startswith("Iteration 1: the engine's log-probabilities were not used as the reference")
    assert "off by 0.250" in remark and "allows 0.100" in remark
    assert remarks_on(too_far, section=TRAINER) == []
    at_the_limit = {"reference_gap_margin": 0.1, "num_sampler_logprobs": 64}
    assert remarks_on(at_the_limit) == remarks_on({**too_far, "num_sampler_logprobs": 64}) == []


def test_a_sampler_without_log_probabilities_is_reported() -> None:
    without = {"reference_gap_margin": math.nan, "num_sampler_logprobs": 0, "num_unusable_logprobs": 64}
    (remark,) = remarks_on({}, without)
    assert remark.startswith("Iteration 2: the recipe sets training.reference_logprobs to sampler, but the engine has")
    assert remarks_on({}, without, section=TRAINER) == []


@pytest.mark.parametrize("after", [0.03, -0.03])
def test_a_gap_as_large_as_the_change_of_the_margin_is_reported(after: float) -> None:
    moved = {"reward_margin_before": 0.0, "reward_margin_after": after}
    (used,) = remarks_on(moved)
    assert "the reference came from the engine" in used and "0.0400" in used and "0.0300" in used
    (unused,) = remarks_on({**moved, "num_sampler_logprobs": 0}, section=TRAINER)
    assert "The trainer computed the reference, so training is not affected" in unused
    assert remarks_on({"reward_margin_before": 0.5 - after, "reward_margin_after": 0.5}) == [used]
    assert remarks_on({"reward_margin_after": 0.041}) == []


def test_an_update_lost_in_rounding_is_reported_once_for_all_iterations() -> None:
    few = {"seen_update_share": 0.021}
    (remark,) = remarks_on({}, few, {"seen_update_share": 0.034}, few)
    assert remark.startswith(
        "Iterations 2 to 4: rounded to the engine's dtype, only 2.1 % to 3.4 % of the update remains"
    )
    assert "raise training.learning_rate" in remark
    assert remarks_on(few, {}, few)[0].startswith("Iterations 1 and 3: rounded to the engine's dtype, only 2.1 % of")
    assert remarks_on({"seen_update_share": 0.5}) == []


def test_remarks_are_on_both_pages(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_iterations=2)
    recipe = recipe_file.load(Path("recipes/tiny.yaml"), ["training.reference_logprobs=sampler"])
    second = run.history[1]
    training = {**second.training, "reference_gap_margin": 0.25, "seen_update_share": 0.5}
    run.history[1] = replace(second, training=training)
    write(run, recipe=recipe)
    html = (tmp_path / "report.html").read_text()
    assert "Iteration 2: the engine&#39;s log-probabilities were not used as the reference" in html
    assert (
        "Iteration 1: rounded to the engine&#39;s dtype, only 31 % of the update remains: 3.4 % of the weights" in html
    )
    first_page, second_page = ((tmp_path / f"iteration-0{t}" / "report.md").read_text() for t in (1, 2))
    assert "were not used as the reference" in second_page and "were not used as the reference" not in first_page
    assert "Iteration 1: rounded to the engine's dtype, only 31 %" in first_page
    assert "weights changed" not in second_page.replace("Weights changed", "")
