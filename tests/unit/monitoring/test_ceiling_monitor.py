"""`CeilingMonitor`: the monitor used by another trainer."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest

import selfreward
from selfreward.errors import RecipeError
from selfreward.monitoring.ceiling import CeilingMonitor, Measured

N = 800


def outcomes(gain: float, *, seed: int, num: int = N, tie_rate: float = 0.4) -> dict[str, float]:
    """Wins, ties and losses with expectation 0.5 + gain."""
    chance = np.random.default_rng(seed)
    win = (1 - tie_rate) / 2 + gain
    drawn = chance.choice([1.0, 0.5, 0.0], size=num, p=[win, tie_rate, 1 - tie_rate - win])
    return {f"p{i}": float(value) for i, value in enumerate(drawn)}


def test_a_training_that_stops_gaining_is_stopped_at_its_best_checkpoint() -> None:
    monitor = CeilingMonitor(delta=0.05, horizon=8)
    assert monitor.best_iteration == 0 and monitor.decisions == ()
    decisions = [monitor.observe(outcomes(gain, seed=t)) for t, gain in enumerate((0.22, 0.15, 0.1, 0.0))]
    assert [d.decision for d in decisions] == ["CONTINUE", "CONTINUE", "CONTINUE", "PLATEAU"]
    assert [d.stops for d in decisions] == [False, False, False, True]
    assert tuple(decisions) == monitor.decisions and monitor.best_iteration == 3
    assert decisions[-1].alpha_spending["stop"] == pytest.approx(0.05 * 4 / 8)


def test_additional_measurements_change_the_decision() -> None:
    flat, rising, falling = outcomes(0.0, seed=1), outcomes(0.15, seed=2), outcomes(-0.2, seed=3)
    assert CeilingMonitor().observe(flat).decision == "PLATEAU"
    assert CeilingMonitor().observe(flat, self_judge=rising).decision == "OVEROPT"
    assert CeilingMonitor().observe(flat, verifiable=rising).decision == "CONTINUE"
    assert CeilingMonitor().observe(rising, verifiable=falling).decision == "HARM"
    assert CeilingMonitor().observe(flat, position_consistency=0.4).decision == "INVALID"
    assert CeilingMonitor(mode="report_only").observe(flat).stops is False


def test_a_gain_only_from_length_is_not_a_gain() -> None:
    chance = np.random.default_rng(5)
    deltas = chance.normal(40, 40, size=N)
    longer_wins = (deltas + chance.normal(0, 20, size=N) > 0).astype(float)
    assert CeilingMonitor().observe(longer_wins).decision == "CONTINUE"
    judged = CeilingMonitor().observe(longer_wins, length_deltas_tokens=deltas)
    assert judged.decision != "CONTINUE" and judged.bounds["raw_gain_vs_previous"]["mean"] > 0.3
    unadjusted = CeilingMonitor(length_adjusted=False).observe(longer_wins, length_deltas_tokens=deltas)
    assert unadjusted.decision == "CONTINUE"


def test_none_and_nan_are_unscored_and_the_order_of_prompts_does_not_matter() -> None:
    given = outcomes(0.1, seed=4)
    scored = CeilingMonitor().observe(given)
    turned = CeilingMonitor().observe(dict(reversed(given.items())))
    assert turned.bounds["gain_vs_previous"]["mean"] == pytest.approx(scored.bounds["gain_vs_previous"]["mean"])
    few = CeilingMonitor().observe([*given.values(), None, math.nan])
    assert few.bounds["gain_vs_previous"] == scored.bounds["gain_vs_previous"] and few.decision == "CONTINUE"
    many = CeilingMonitor().observe([*given.values(), *[None] * 30])
    assert many.decision == "INVALID" and "unscored" in many.reason


def test_an_anchor_with_constant_outcomes_is_invalid() -> None:
    for value in (0.0, 0.5, 1.0):
        decision = CeilingMonitor().observe([value] * N)
        assert decision.decision == "INVALID" and not decision.stops
    # Compared in both orders this is valid: the responses did not change.
    assert CeilingMonitor().observe([0.5] * N, position_consistency=1.0).decision == "PLATEAU"


def test_the_best_is_replaced_only_by_a_checkpoint_compared_with_it() -> None:
    better = outcomes(0.15, seed=1)
    with_best: Measured = {"anchor": outcomes(0.12, seed=2)}

    def after_a_loss() -> CeilingMonitor:
        monitor = CeilingMonitor(mode="report_only")
        monitor.observe(better)
        assert monitor.observe(outcomes(-0.15, seed=3)).decision == "HARM"
        assert monitor.best_iteration == 1
        return monitor

    unknown, known = after_a_loss(), after_a_loss()
    assert unknown.observe(better).best_iteration == 1
    decision = known.observe(better, against_best=with_best)
    assert decision.best_iteration == known.best_iteration == 3
    assert decision.bounds["gain_vs_best"]["num_prompts"] == N
    # While the best is the previous checkpoint, the plain outcomes are the ones against the best.
    first = CeilingMonitor().observe(better, against_best={"anchor": outcomes(-0.2, seed=9)})
    assert first.best_iteration == 1 and first.bounds["gain_vs_best"] == first.bounds["gain_vs_previous"]


def test_the_second_validation_set_is_accepted_only_when_it_is_wanted() -> None:
    monitor = CeilingMonitor(num_second_validation_prompts=N)
    with pytest.raises(RecipeError, match="the second validation set is not wanted"):
        monitor.observe_second_validation(outcomes(0.0, seed=1))
    first = monitor.observe([1.0] * 256 + [0.5] * 320 + [0.0] * 224)  # a gain of 0.02
    assert first.decision == "INCONCLUSIVE" and first.wants_second_validation and first.num_analyses == 1
    with pytest.raises(RecipeError, match="outcomes lie in"):
        monitor.observe_second_validation([2.0])
    assert monitor.decisions == (first,)  # an error leaves the state unchanged
    second = monitor.observe_second_validation([1.0] * 224 + [0.5] * 320 + [0.0] * 256)  # together none
    assert monitor.decisions == (second,) and second.num_analyses == 2 and not second.wants_second_validation
    assert second.decision == "PLATEAU"
    assert second.bounds["gain_vs_previous"]["num_prompts"] == 2 * N
    assert second.alpha_spending["stop"] == pytest.approx(0.05 / 8)
    with pytest.raises(RecipeError, match="the second validation set is not wanted"):
        monitor.observe_second_validation(outcomes(0.0, seed=1))


def test_a_table_gives_what_observing_it_gives(tmp_path: Path) -> None:
    observed = CeilingMonitor(delta=0.03)
    with (tmp_path / "outcomes.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["iteration", "prompt_id", "anchor_outcome"])
        for t, gain in enumerate((0.2, 0.05, 0.0), start=1):
            found = outcomes(gain, seed=t)
            observed.observe(found)
            writer.writerows([t, prompt_id, value] for prompt_id, value in found.items())
    read = CeilingMonitor.from_csv(tmp_path / "outcomes.csv", delta=0.03)
    assert read.decisions == observed.decisions and len(read.decisions) == 3
    # It continues from there.
    assert read.observe(outcomes(0.1, seed=7)) == observed.observe(outcomes(0.1, seed=7))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"delat": 0.03}, "did you mean 'delta'?"),
        ({"delta": 5}, "monitor.delta: found 5; input should be less than 0.5"),
        ({"delta": math.nan}, "monitor.delta"),
        ({"horizon": 0}, "monitor.horizon"),
        ({"horizon": "8"}, "monitor.horizon"),
        ({"min_pairs": 3}, "min_pairs has no effect here; allowed are mode, horizon, delta"),
        ({"max_gold_loss": 0.1}, "max_gold_loss has no effect here"),
    ],
)
def test_settings_are_checked_as_a_recipes(settings: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        CeilingMonitor(**settings)
    assert str(caught.value).startswith("CeilingMonitor") and said in str(caught.value)


def test_invalid_outcomes_are_refused_and_nothing_is_stored() -> None:
    monitor = CeilingMonitor()
    for wrong in ([0.5, 1.2], [-0.1], [math.inf], ["win"], [[0.5]]):
        with pytest.raises(RecipeError, match=r"^anchor: .*prompt [01] (has|is)"):
            monitor.observe(wrong)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="self_judge: the outcome of prompt b is 7"):
        monitor.observe({"a": 1.0}, self_judge={"b": 7.0})
    with pytest.raises(RecipeError, match="length_deltas_tokens: 2 of 2 belong to prompts without an outcome"):
        monitor.observe({"a": 1.0, "b": 0.0}, length_deltas_tokens=[3, -4])
    assert monitor.decisions == ()


def test_the_package_offers_it() -> None:
    assert selfreward.CeilingMonitor is CeilingMonitor
    with pytest.raises(AttributeError, match="no attribute 'CeilingMonitors'"):
        _ = selfreward.CeilingMonitors


def test_arguments_of_the_version_before_have_new_names() -> None:
    with pytest.raises(RecipeError, match=r"num_reserve_prompts.* it is called num_second_validation_prompts now"):
        CeilingMonitor(num_reserve_prompts=3)
    with pytest.warns(FutureWarning, match=r"first_look_share was renamed; it is called monitor.first_analysis_share"):
        assert CeilingMonitor(first_look_share=0.4).settings.first_analysis_share == 0.4
