"""The summary of `selfreward judge`: self-explanatory, in 80 columns."""

from pathlib import Path

import pytest

from selfreward.commands.judge import with_output
from selfreward.commands.judge_result import JudgeResult
from selfreward.records import Evaluation, Interval
from selfreward.statistics.judge_metrics import measure_judge

ONE = "the judge scores one response at a time and has no order to be swapped"


def shown(*, out: Path = Path("out.jsonl"), unscored: dict[str, int] | None = None, **metrics: Interval | float) -> str:
    """Return the summary of 160 responses and 480 judgments."""
    reasons = {"judge_position_consistency_rate": ONE, "judge_tie_rate": "no prompt has two scored responses"}
    left = {name: reason for name, reason in reasons.items() if name not in metrics}
    return with_output(JudgeResult((), 160, 480, unscored or {}, Evaluation(1, metrics, left)), out)


def r_of(mean: float) -> Interval:
    return Interval(mean, max(mean - 0.1, 0), min(mean + 0.1, 1), 40)


def test_a_metric_has_a_line_with_its_interval_and_a_missing_one_its_reason() -> None:
    text = shown(judge_score_mean=Interval(3.214, 2.881, 3.47, 40), judge_reliability=r_of(0.7), judge_other=0.5)
    lines = text.splitlines()
    (reliability,) = (line for line in lines if line.startswith("Judge reliability (ICC), r"))
    assert reliability.split()[-4:] == ["0.70", "0.60", "to", "0.80"]
    (mean,) = (line for line in lines if line.startswith("Mean score"))
    assert mean.split()[-4:] == ["3.21", "2.88", "to", "3.47"]
    assert [line.split() for line in lines if line.startswith("judge_other")] == [["judge_other", "0.500"]]
    words = " ".join(text.split())
    assert f"Judge's position consistency not measured: {ONE}" in words
    assert "Ties between responses not measured: no prompt has two scored responses" in words
    assert lines.index(reliability) < lines.index(mean)  # in the order of the docs
    assert "95 % interval" in text


def test_unscored_judgments_are_counted_by_reason() -> None:
    text = shown(unscored={"truncated": 36, "no_verdict": 12})
    assert "160 responses, 480 judgments of them" in text and "48 (10%) unscored:" in text
    assert "36  truncated" in text and "12  no verdict" in text
    assert "Unscored rate, policy responses" in shown(judge_unscored_rate=0.1)  # whole, in its column
    assert "all with a score" in shown() and "unscored:" not in shown()


def test_the_dtype_in_which_a_local_model_judged_is_shown() -> None:
    nothing = Evaluation(1, {}, {})
    text = str(JudgeResult((), 2, 4, {}, nothing, dtype="float32 (the CPU has no bfloat16 instructions)"))
    assert "\n\nJudged in float32 (the CPU has no bfloat16 instructions)\n\n" in text
    assert "Judged in" not in str(JudgeResult((), 2, 4, {}, nothing))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.0, 0.39, "Below 0.4, as here, the scores are mostly noise"),
        (0.0, 0.96, "the interval does not exclude it, so judge more prompts"),
        (0.39, 0.41, "the interval does not exclude it, so judge more prompts"),
        (0.4, 0.9, ""),
    ],
)
def test_a_low_r_is_explained_as_far_as_its_interval_allows(low: float, high: float, said: str) -> None:
    words = " ".join(shown(judge_reliability=Interval(low, low, high, 40)).split())
    assert "the judge would give again" in words
    assert ("mostly noise" in words) == bool(said) and said in words
    assert "would give again" not in shown()
    assert "noise" not in shown(judge_reliability=0.0)  # without an interval nothing is known


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.5, 0.7, "longer responses score"),
        (-0.7, -0.5, "shorter responses score"),
        (0.05, 0.2, "longer responses score"),
        (-0.1, 0.8, ""),
        (-1.0, 1.0, ""),
    ],
)
def test_a_correlation_of_score_and_length_is_reported_if_its_interval_excludes_0(
    low: float, high: float, said: str
) -> None:
    text = shown(judge_length_correlation=Interval((low + high) / 2, low, high, 40))
    assert ("responses score" in text) == bool(said) and said in text
    assert "responses score" not in shown(judge_length_correlation=-1.0)


def test_the_summary_fits_80_columns_and_ends_with_the_complete_path() -> None:
    metrics, not_measured = measure_judge([], response_lengths={}, scale=None, seed=0)
    out = Path("folder-" * 20) / "judgments.jsonl"
    evaluation = Evaluation(1, metrics, {**not_measured, "x" * 99: "y z" * 99})
    text = with_output(JudgeResult((), 0, 0, {"no_verdict" * 30: 1}, evaluation), out)
    *lines, last = text.splitlines()
    assert last == str(out)
    assert max(map(len, lines)) <= 80
    for line in shown(judge_reliability=r_of(0.1), judge_length_correlation=r_of(0.8)).splitlines():
        assert len(line) <= 80


def test_no_control_character_reaches_the_terminal() -> None:
    evaluation = Evaluation(1, {"\x1b[2Jname": 1.0}, {"\x1b[31m": "\x1b[2J\u202ereason"})
    text = with_output(JudgeResult((), 1, 1, {"\x1b[2J": 1}, evaluation), Path("a\x1b[2Jb.jsonl"))
    assert not set("\x1b\u202e") & set(text) and "ESC" in text
