"""`selfreward run`: the decisions of the monitor and what follows from them."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from cases.command_line import run, selfreward


def test_too_many_unscored_judgments_end_with_exit_code_3(tmp_path: Path) -> None:
    """A random model gives no verdict, so every additive judgment is unscored: no pair, no training, no tie."""
    overrides = ("judging={kind: additive, num_draws: 2, max_tokens: 8}", "monitor.mode=enforce")
    done = run(tmp_path / "run", *overrides, "iterations.num_prompts_per_iteration=2", "evaluation.num_prompts=2")
    assert done.returncode == 3, done.stderr[-2000:]
    judgments = pq.read_table(tmp_path / "run/iteration-01/judgments.parquet").to_pylist()
    assert judgments
    assert all(j["score"] is None and j["unscored"] for j in judgments)
    assert not (tmp_path / "run/iteration-01/checkpoint").exists()


def test_interventions_patch_the_recipe_and_are_reported(tmp_path: Path) -> None:
    """Every prompt ties under a verifier that no response passes, so there is no pair until the judge is replaced."""
    words = "{name: by_words, set: {judging: {kind: expected_score}}}"
    settings = (
        "judging={kind: verifier, aggregate: all}",
        "prompts={kind: verifiable, check_kinds: ['detectable_format:json_format']}",
        f"monitor={{mode: enforce, min_pairs: 2, interventions: {{STARVED: [{words}, stop]}}}}",
        "iterations.max=3",
    )
    done = run(tmp_path / "run", *settings)
    assert done.returncode == 0, done.stderr[-2000:]
    decisions = [decision_of(tmp_path / "run", t) for t in (1, 2)]
    assert (decisions[0]["decision"], decisions[0]["intervention"]) == ("STARVED", "by_words")
    assert not (tmp_path / "run/iteration-01/checkpoint").exists()
    assert decisions[1]["effect"]["helped"] is True and (tmp_path / "run/iteration-02/checkpoint").exists()
    judges = [
        set(pq.read_table(tmp_path / f"run/iteration-0{t}/judgments.parquet")["judge"].to_pylist()) for t in (1, 2)
    ]
    assert judges == [{"verifier"}, {"expected_score"}]
    assert "kind: expected_score" in (tmp_path / "run/iteration-03/recipe.yaml").read_text()
    assert "kind: verifier" in (tmp_path / "run/recipe.yaml").read_text()
    page = (tmp_path / "run/report.html").read_text()
    assert "by_words" in page
    (tmp_path / "run/report.html").unlink()
    assert selfreward("report", tmp_path / "run").returncode == 0
    assert (tmp_path / "run/report.html").read_text() == page


HELD_OUT = (
    "evaluation={anchor: {kind: expected_score, by: initial}, anchor_may_label: true, num_prompts: 12, "
    "num_second_validation_prompts: 12, num_test_prompts: 12, max_tokens: 16, verifiable: null, num_judge_prompts: 2}"
)


def decision_of(folder: Path, iteration: int) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / f"iteration-{iteration:02d}/decision.json").read_text())
    return loaded


def test_an_inconclusive_decision_uses_the_second_validation_set_and_is_made_again(tmp_path: Path) -> None:
    monitor = "monitor={mode: enforce, min_pairs: 1, max_anchor_unscored_rate: 1.0}"
    done = run(tmp_path / "run", HELD_OUT, monitor, "iterations.max=1", "training.learning_rate=3.0e-3")
    assert done.returncode == 0, done.stderr[-2000:]
    decision = decision_of(tmp_path / "run", 1)
    assert (decision["num_analyses"], decision["wants_second_validation"], decision["best_iteration"]) == (2, False, 0)
    assert decision["bounds"]["gain_vs_previous"]["num_prompts"] == 24, (
        "twelve validation prompts and twelve of the second validation set"
    )
    assert (tmp_path / "run/best/model.safetensors").exists()
    assert not (tmp_path / "run/iteration-01/test.json").exists(), "nothing is better than M_0"


def test_the_test_set_is_evaluated_once_when_a_model_is_better(tmp_path: Path) -> None:
    monitor = "monitor={mode: report_only, min_pairs: 1, horizon: 1, alpha_stop: 0.49, max_anchor_unscored_rate: 1.0}"
    settings = (HELD_OUT, monitor, "training.learning_rate=3.0e-3")
    assert run(tmp_path / "run", *settings, "iterations.max=1").returncode == 0
    test_set = tmp_path / "run/iteration-01/test.json"
    assert test_set.exists() == (decision_of(tmp_path / "run", 1)["best_iteration"] > 0)
    if not test_set.exists():
        pytest.skip("this machine's rounding made no better checkpoint")
    opened = test_set.read_bytes()
    assert json.loads(opened)["metrics"]["test_win_rate_vs_initial"]["num_units"] == 12
    assert run(tmp_path / "run", *settings, "iterations.max=2").returncode == 0
    assert test_set.read_bytes() == opened
    assert not (tmp_path / "run/iteration-02/test.json").exists()
    page = (tmp_path / "run/report.html").read_text()
    assert selfreward("report", tmp_path / "run").returncode == 0
    assert (tmp_path / "run/report.html").read_text() == page
