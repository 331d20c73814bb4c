"""`load_run` on run folders that are finished, unfinished, damaged or none."""

from pathlib import Path

import pandas as pd
import pytest
from cases.reporting import make_run, write

import selfreward
from selfreward.errors import RecipeError, StoreError
from selfreward.store import Store
from selfreward.tables import RESPONSES


def test_records_of_all_iterations_have_the_iteration(tmp_path: Path) -> None:
    make_run(tmp_path, num_iterations=2, num_prompts=5)
    run = selfreward.load_run(str(tmp_path))
    assert run.prompts["iteration"] == [1] * 5 + [2] * 5
    assert run.records("responses", iteration=2)["id"] == [f"i2-p{p}-r{n}" for p in range(5) for n in range(4)]
    unscored = run.judgments.filter(lambda row: row["score"] is None, keep_in_memory=True)
    assert 0 < unscored.num_rows < run.judgments.num_rows and None not in unscored["unscored"]
    assert run.outcomes.num_rows == 0 and "outcome" in run.outcomes.column_names
    with pytest.raises(RecipeError, match=r"no iteration 3; there are 1, 2"):
        run.records("responses", iteration=3)
    with pytest.raises(RecipeError, match=r"no table 'answers'; there are .*responses"):
        run.records("answers")


def test_a_run_in_its_first_stage_has_the_shards_that_are_finished(tmp_path: Path) -> None:
    """The folder is read at each access, so it can be watched."""
    made = make_run(tmp_path / "other", num_iterations=1, num_prompts=1)
    responses = list(made.store.read(1, RESPONSES))
    with Store(tmp_path / "run") as store:
        run = selfreward.load_run(tmp_path / "run")
        assert run.responses.num_rows == 0 and "text" in run.responses.column_names
        store.make_shard(1, RESPONSES, 0, lambda: responses)
        assert run.responses["id"] == [response.id for response in responses]
        assert run.status["state"] == "interrupted"
    assert (run.checkpoint, run.report, run.decision, run.history, run.checkpoints) == (None, None, None, [], {})
    assert run.metrics.empty and run.summary.empty and {"metric", "mean", "valid"} <= set(run.metrics.columns)
    with pytest.raises(RecipeError, match="has no response pairs"):
        run.preference_dataset()


def test_metrics_jsonl_is_a_table_of_eleven_columns(tmp_path: Path) -> None:
    write(make_run(tmp_path, num_iterations=8, rich=True))
    table = pd.read_json(tmp_path / "metrics.jsonl", lines=True)
    assert list(table.columns) == [
        "iteration", "section", "metric", "mean", "low", "high", "level", "num_units", "method", "valid", "reason",
    ]  # fmt: skip
    assert set(table["iteration"]) == set(range(9))
    assert table.loc[~table["valid"], "mean"].isna().all() and table.loc[table["valid"], "mean"].notna().all()


def test_what_is_no_run_folder_or_was_changed_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no manifest.json"):
        selfreward.load_run(tmp_path / "none")
    made = make_run(tmp_path / "run", num_iterations=1, num_prompts=2)
    made.store.path(1, RESPONSES).write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="was changed after it was written"):
        _ = selfreward.load_run(tmp_path / "run").responses
