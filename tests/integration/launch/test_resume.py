"""`selfreward run` interrupted, refused or without space: it loses nothing, and the same command continues."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cases.command_line import TINY, run, selfreward


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
