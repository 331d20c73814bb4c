"""A finished run: the same command answers at once, more iterations continue it, and its status has totals."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cases.command_line import TINY, run, selfreward

SLOW_LIBRARIES = ("torch", "transformers", "trl", "vllm", "matplotlib", "datasets")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    done = run(folder, "iterations.max=2")
    assert done.returncode == 0, done.stderr[-2000:]
    (folder.parent / "printed.txt").write_text(done.stdout)
    return folder


def again(folder: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
    """Run the command in a new process that says which slow libraries it imported."""
    code = (
        "import sys\nfrom selfreward.cli import main\ncode = main(sys.argv[1:])\n"
        f"print('imported', sorted({set(SLOW_LIBRARIES)!r} & set(sys.modules)))\nsys.exit(code)"
    )
    arguments = ["run", str(TINY), f"output_dir={folder}", *overrides]
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_the_same_command_says_that_the_run_is_finished(finished: Path) -> None:
    status = (finished / "status.json").read_bytes()
    done = again(finished, "iterations.max=2")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "imported []"
    assert "already finished" in done.stderr
    assert " ".join(lines[:-1]).split() == (finished.parent / "printed.txt").read_text().split()
    assert (finished / "status.json").read_bytes() == status


def test_the_last_lines_name_model_pairs_report_and_the_next_command(finished: Path) -> None:
    *_, model, trained, pairs, report, following = (finished.parent / "printed.txt").read_text().strip().splitlines()
    assert trained.startswith(f"trained {finished / 'iteration-0'}") and "not shown to be better" in trained
    assert model.split()[0] == "model" and model.split()[1] == str((finished / "best").resolve())
    assert (finished / "best" / "config.json").exists()
    assert pairs.split()[0] == "pairs" and str(finished / "iteration-01" / "pairs.parquet") in pairs
    assert report.split() == ["report", str(finished / "report.html")]
    assert following.split()[:2] == ["next", "selfreward"]


def test_a_best_model_that_was_deleted_from_the_cache_is_made_again(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, symlinks=True)
    if (folder / "best").resolve().is_relative_to(folder):
        pytest.fail("this test is about a run whose best model is M_0, in the cache")
    (folder / "best").unlink()
    (folder / "best").symlink_to(tmp_path / "deleted")
    done = again(folder, "iterations.max=2")
    assert done.returncode == 0 and "torch" in done.stdout.splitlines()[-1]
    assert (folder / "best" / "config.json").exists()


def test_what_was_changed_after_the_end_is_noticed(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, symlinks=True)
    assert again(folder, "iterations.max=2").stdout.endswith("imported []\n"), "a moved run is still finished"
    path = folder / "iteration-02/judgments.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    done = run(folder, "iterations.max=2")
    assert done.returncode == 4 and "judgments.parquet" in done.stderr


def test_an_iteration_that_was_removed_is_made_again(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, symlinks=True)
    shutil.rmtree(folder / "iteration-02/checkpoint")
    refused = run(folder, "iterations.max=2")
    assert refused.returncode == 4 and "remove the folder iteration-02 and all later ones" in refused.stderr
    shutil.rmtree(folder / "iteration-02")
    done = run(folder, "iterations.max=2")
    assert done.returncode == 0 and (folder / "iteration-02/checkpoint").is_dir(), done.stderr[-2000:]


def test_a_finished_run_continues_when_prompts_suffice(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, symlinks=True)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("iteration-0[12]/*.parquet")}
    done = run(folder, "iterations.max=3")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (folder / "iteration-03/checkpoint").is_dir()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    too_many = run(folder, "iterations.max=500")
    assert too_many.returncode == 2, too_many.stderr[-2000:]
    assert "4,000" in too_many.stderr or "4000" in too_many.stderr, too_many.stderr
    assert "set iterations.max to 39" in too_many.stderr
    assert again(folder, "iterations.max=3").stdout.endswith("imported []\n"), "a refused continuation changes nothing"


def test_fewer_iterations_than_are_finished_change_nothing(finished: Path) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    done = again(finished, "iterations.max=1")
    assert done.returncode == 0 and done.stdout.endswith("imported []\n"), done.stderr
    assert "already finished" in done.stderr
    assert (
        "warning: iterations.max is 1, but 2 iterations are finished, and nothing that is finished is undone"
        in done.stderr
    )
    assert f"`--from {finished}@1` with another output_dir starts a run from M_1" in done.stderr
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_status_has_totals(finished: Path) -> None:
    status = json.loads(selfreward("status", finished, "--json").stdout)
    report = json.loads((finished / "report.json").read_text())
    assert (status["state"], status["num_iterations"], status["max_iterations"]) == ("finished", 2, 2)
    assert status["num_pairs"] == sum(each["counts"]["num_pairs"] for each in report["iterations"])
    assert status["num_generated_tokens"] > 100 and status["seconds"] > 0 and status["seconds_left"] is None
    assert status["decision"] == report["iterations"][-1]["decision"]["decision"]
    assert (status["best"], status["report"]) == (str(finished / "best"), str(finished / "report.html"))
    lines = dict(line.split(maxsplit=1) for line in selfreward("status", finished).stdout.splitlines())
    assert lines["state"] == "finished (exit code 0)" and lines["iterations"].startswith("2 of 2 finished")
    assert lines["report"] == str(finished / "report.html")


def test_run_log_has_the_console_with_times_and_every_step(finished: Path) -> None:
    lines = (finished / "run.log").read_text().splitlines()
    assert all(line[:4].isdigit() and line[19] == "Z" for line in lines), "each line begins with a time"
    texts = [line[21:] for line in lines]
    assert sum(text.startswith("── iteration") for text in texts) == 2
    steps = [text for text in texts if text.startswith("training: update")]
    trained = [json.loads((finished / f"iteration-0{t}/training.json").read_text()) for t in (1, 2)]
    assert len(steps) == sum(each["num_steps"] for each in trained)
    assert f"loss {trained[0]['loss_first']:.4f}" in steps[0]
    printed = [line for line in (finished.parent / "printed.txt").read_text().splitlines() if line]
    ends = [number for number, text in enumerate(texts) if text.startswith("finished: ")]
    assert texts[ends[0] + 1 :][: len(printed)] == printed, "the log ends with what the terminal shows at the end"


def test_run_log_has_the_error_and_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-very-secret")
    endpoint = "models.gpt={endpoint: 'http://127.0.0.1:9/v1', model: m, api_key_env: SOME_KEY, max_attempts: 1}"
    done = run(tmp_path / "run", endpoint, "judging={kind: expected_score, by: gpt}", "iterations.max=1")
    assert done.returncode == 4, done.stderr[-2000:]
    log = (tmp_path / "run" / "run.log").read_text()
    assert "failed: " in log and "127.0.0.1" in log
    for path in (tmp_path / "run").rglob("*"):
        assert not path.is_file() or b"sk-very-secret" not in path.read_bytes(), path
    assert "sk-very-secret" not in done.stderr and os.environ["SOME_KEY"]


# Another recipe, from a checkpoint of the run


def test_another_run_starts_from_a_checkpoint(finished: Path, tmp_path: Path) -> None:
    arguments = ("run", TINY, f"output_dir={tmp_path / 'next'}", "iterations.max=1", "training.beta=0.2")
    done = selfreward(*arguments, "--from", f"{finished}@1")
    assert done.returncode == 0, done.stderr[-2000:]
    facts = json.loads((tmp_path / "next/manifest.json").read_text())["facts"]
    assert facts["started_from"] == {"run": str(finished), "iteration": 1}
    checkpoint = json.loads((finished / "manifest.json").read_text())["files"]["iteration-01/checkpoint"]
    assert checkpoint["sha256"].startswith(facts["models"]["policy"]["id"])
    assert "were training prompts" not in done.stderr, "the same prompts and seed hold out the same prompts"
    again = selfreward(*arguments, "--from", f"{finished}@1")
    assert again.returncode == 0 and "already finished" in again.stderr
    other = selfreward(*arguments)
    assert other.returncode == 2 and "models.policy.model" in other.stderr


def test_prompts_that_the_checkpoint_has_seen_are_warned_of(finished: Path, tmp_path: Path) -> None:
    held_out = ["evaluation.num_prompts=100", "seed=1", f"output_dir={tmp_path / 'next'}"]
    done = selfreward("validate", TINY, *held_out, "--from", f"{finished}@2")
    assert done.returncode == 0, done.stderr
    assert f"of the 100 prompts that are held out here were training prompts of {finished}" in done.stderr


@pytest.mark.parametrize(("name", "words"), [("@7", "no checkpoint of iteration 7"), ("@0", "set models.policy.model")])
def test_a_checkpoint_that_is_missing_is_answered_with_those_that_exist(finished: Path, name: str, words: str) -> None:
    done = selfreward("validate", TINY, "--from", f"{finished}{name}")
    assert done.returncode == 2
    assert words in done.stderr and f"it has {finished}@1, {finished}@2" in done.stderr


def test_a_best_checkpoint_that_is_gone_is_named(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, symlinks=True)
    (folder / "best").unlink()
    (folder / "best").symlink_to(tmp_path / "deleted")
    done = selfreward("validate", TINY, "--from", folder)
    assert done.returncode == 2 and f"no best checkpoint any more ({tmp_path / 'deleted'} is gone)" in done.stderr
    assert f"it has {folder}@1, {folder}@2" in done.stderr


def test_a_path_that_is_no_run_is_refused(tmp_path: Path) -> None:
    done = selfreward("validate", TINY, "--from", tmp_path)
    assert done.returncode == 2 and "manifest.json" in done.stderr
