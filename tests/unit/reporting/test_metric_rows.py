"""The table of metrics: a number that means nothing is null with its reason, never 0, and no row is lost."""

from dataclasses import asdict

from selfreward.records import Evaluation, Interval, IterationSummary
from selfreward.reporting.metric_rows import MetricRow, metric_rows

RATE = Interval(0.0, 0.0, 0.4, 20)


def rows_of(evaluation: Evaluation, **rest: object) -> dict[str, MetricRow]:
    summary = IterationSummary(**{"iteration": 1, "counts": {}, "training": {}, "seconds_by_stage": {}, **rest},  # type: ignore[arg-type]
                               evaluation=evaluation)  # fmt: skip
    found = list(metric_rows([summary]))
    assert len({(row.section, row.metric) for row in found}) == len(found)
    return {row.metric: row for row in found}


def test_an_invalid_number_is_null_and_a_true_zero_is_zero() -> None:
    evaluation = Evaluation(
        1, {"anchor_valid": 0.0, "win_rate_vs_initial": Interval(0.5, 0.4, 0.6, 20), "pass_rate": RATE},
        {"anchor": "INVALID: it follows the position", "self_win_rate_vs_initial": "self_judge is false"},
    )  # fmt: skip
    rows = rows_of(evaluation)
    invalid = {"mean": None, "low": None, "high": None, "level": None, "num_units": None, "valid": False}
    assert asdict(rows["win_rate_vs_initial"]).items() >= invalid.items()
    assert rows["win_rate_vs_initial"].reason == "INVALID: it follows the position"
    assert rows["self_win_rate_vs_initial"].reason == "self_judge is false"
    assert (rows["pass_rate"].mean, rows["pass_rate"].num_units, rows["pass_rate"].valid) == (0.0, 20, True)
    assert "anchor" not in rows


def test_a_win_rate_of_a_valid_anchor_is_a_number() -> None:
    rows = rows_of(Evaluation(1, {"anchor_valid": 1.0, "win_rate_vs_initial": RATE}))
    assert rows["win_rate_vs_initial"].high == 0.4 and rows["win_rate_vs_initial"].reason is None


def test_ends_that_are_not_finite_are_null_beside_a_number() -> None:
    rows = rows_of(Evaluation(1, {"pass_rate": Interval(0.5, float("-inf"), float("nan"), 2)}))
    assert (rows["pass_rate"].mean, rows["pass_rate"].low, rows["pass_rate"].high) == (0.5, None, None)


def test_every_section_has_its_rows() -> None:
    rows = rows_of(
        Evaluation(1, {}, {"all": "nothing was trained"}), counts={"num_pairs": 3},
        training={"loss_last": 0.6, "steps": [{"step": 1}], "optimizer": "adamw"},
        judging=Evaluation(1, {"judge_reliability": RATE}), test_set=Evaluation(1, {"pass_rate": RATE}),
        seconds_by_stage={"responses": 2.5}, usage_by_stage={"responses": {"num_generated_tokens": 9}},
    )  # fmt: skip
    assert {name: (row.section, row.mean) for name, row in rows.items()} == {
        "num_pairs": ("counts", 3), "judge_reliability": ("judging", 0.0), "all": ("evaluation", None),
        "pass_rate": ("test", 0.0), "loss_last": ("training", 0.6), "responses.seconds": ("cost", 2.5),
        "responses.num_generated_tokens": ("cost", 9),
    }  # fmt: skip
    assert rows["all"].reason == "nothing was trained"
