"""`selfreward run` on a real tiny model: the files of a finished run, and what it refuses."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cases.command_line import run, selfreward


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    done = run(folder, "iterations.max=2")
    assert done.returncode == 0, done.stderr[-3000:]
    assert str(folder / "report.html") in done.stdout
    assert "stopped after iteration 2: the recipe's maximum is 2." in " ".join(done.stdout.split())
    return folder


def training(folder: Path, iteration: int) -> dict[str, float]:
    loaded: dict[str, float] = json.loads((folder / f"iteration-{iteration:02d}" / "training.json").read_text())
    return loaded


def test_an_update_visibly_raises_the_margin_on_its_own_pairs(finished: Path) -> None:
    for iteration in (1, 2):
        metrics = training(finished, iteration)
        assert metrics["reward_margin_before"] == pytest.approx(0, abs=1e-6)
        assert metrics["reward_margin_after"] > 0.05
        assert metrics["changed_weight_share"] > 0.5


def test_the_engine_was_given_the_new_weights(finished: Path) -> None:
    """Responses of M_1 do not come from M_0: their log-probabilities match the M_1 on disk."""
    import torch
    from transformers import AutoModelForCausalLM

    rows = pq.read_table(finished / "iteration-02/responses.parquet").to_pylist()
    model = AutoModelForCausalLM.from_pretrained(finished / "iteration-01/checkpoint", dtype=torch.float32)
    row = max(rows, key=lambda r: len(r["token_ids"]))
    ids = torch.tensor([row["prompt_token_ids"] + row["token_ids"]])
    with torch.no_grad():
        logprobs = model(ids).logits.log_softmax(-1)
    start = len(row["prompt_token_ids"])
    expected = [logprobs[0, start + i - 1, token].item() for i, token in enumerate(row["token_ids"])]
    assert row["token_logprobs"] == pytest.approx(expected, abs=2e-3)


def test_the_sampled_token_ids_are_trained_on(finished: Path) -> None:
    responses = {r["id"]: r for r in pq.read_table(finished / "iteration-01/responses.parquet").to_pylist()}
    pairs = pq.read_table(finished / "iteration-01/pairs.parquet").to_pylist()
    assert pairs
    for pair in pairs:
        for side in ("chosen", "rejected"):
            sampled = responses[pair[f"{side}_id"]]
            assert pair[f"{side}_token_ids"] == sampled["token_ids"]
            assert pair["prompt_token_ids"] == sampled["prompt_token_ids"]
        assert pair["margin"] > 0


def test_counts_add_up_in_the_report(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    assert [entry["iteration"] for entry in report["iterations"]] == [1, 2]
    for entry in report["iterations"]:
        counts = entry["counts"]
        assert counts["num_prompts"] == counts["num_pairs"] + counts["num_dropped_prompts"]
    assert (finished / "best/model.safetensors").exists()


def test_status_reports_how_the_run_ended(finished: Path) -> None:
    status = json.loads(selfreward("status", finished, "--json").stdout)
    expected = {"state": "finished", "iteration": 2, "stopped_by": "MAX_ITERATIONS", "exit_code": 0}
    assert {key: status[key] for key in expected} == expected
    decided = json.loads((finished / "iteration-02/decision.json").read_text())
    assert status["decision"] == decided["decision"] == "INVALID", "a random model follows the position"


def test_pairs_are_exported_as_conversations(finished: Path, tmp_path: Path) -> None:
    done = selfreward("export", finished, "--pairs", tmp_path / "pairs.jsonl")
    assert done.returncode == 0
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert len(rows) == sum(training(finished, i)["num_pairs_available"] for i in (1, 2))
    assert rows[0]["prompt"][-1]["role"] == "user"
    assert [message["role"] for message in rows[0]["chosen"]] == ["assistant"]


def test_the_same_command_again_repeats_no_work(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.parquet")}
    engine = json.loads((finished / "manifest.json").read_text())["facts"]["engine"]
    assert engine["last_weight_sync"]["num_tensors_compared"] > 0
    assert run(finished, "iterations.max=2").returncode == 0
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*.parquet")} == before
    assert json.loads((finished / "manifest.json").read_text())["facts"]["engine"] == engine  # the proof stays


def test_reports_are_rewritten_from_the_folder_alone(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    (finished / "report.html").unlink()
    assert selfreward("report", finished).returncode == 0
    assert (finished / "report.html").read_text() == page


def test_a_changed_recipe_is_refused_naming_the_key(finished: Path) -> None:
    done = run(finished, "iterations.max=2", "training.beta=0.2")
    assert done.returncode == 2
    assert "training.beta: 0.1 -> 0.2" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_changed_file_is_refused_and_its_iteration_can_be_made_again(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, symlinks=True)
    path = folder / "iteration-02/judgments.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    done = run(folder, "iterations.max=2")
    assert done.returncode == 4
    assert "judgments.parquet" in done.stderr
    assert "remove the folder iteration-02" in done.stderr
    shutil.rmtree(folder / "iteration-02")
    assert run(folder, "iterations.max=2").returncode == 0
    assert path.read_bytes() == (finished / "iteration-02/judgments.parquet").read_bytes()


def test_a_second_process_on_the_same_folder_is_refused_and_harms_nothing(finished: Path) -> None:
    from selfreward.store import Store

    status = (finished / "status.json").read_text()
    with Store(finished):
        done = run(finished, "iterations.max=2")
    assert done.returncode == 5
    assert "in use by" in done.stderr
    assert (finished / "status.json").read_text() == status
