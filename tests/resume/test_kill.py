"""SIGKILL in every stage of a real run; the same command again; the same bytes as a run that was never touched."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = ROOT / "recipes" / "tiny.yaml"


def command(folder: Path, *overrides: str) -> list[str]:
    sets = [argument for item in (f"output_dir={folder}", *overrides) for argument in ("--set", item)]
    return [sys.executable, "-m", "selfreward", "run", str(TINY), *sets]


VLLM = ("engine.kind=vllm", "engine.kv_cache_gib=0.25", "iterations.max=1", "iterations.shard_prompts=2")


def run(folder: Path, *overrides: str) -> None:
    done = subprocess.run(command(folder, *overrides), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def kill_when(folder: Path, trigger: str, *overrides: str) -> None:
    """Starts the run, waits until a file that matches `trigger` is there, and kills the process group at once."""
    with subprocess.Popen(
        command(folder, *overrides),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while not any(folder.glob(trigger)):
            if process.poll() is not None:
                assert process.stderr is not None
                pytest.fail(f"ended before {trigger} was there: {process.stderr.read()[-3000:]}")
            time.sleep(0.002)  # polling a file, not waiting for luck
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def contents(folder: Path) -> dict[str, bytes]:
    """What a run leaves: records, evaluations, decisions and weights; not times, which differ."""
    wanted = ("*.parquet", "evaluation.json", "checkpoint/*.safetensors")
    return {str(p.relative_to(folder)): p.read_bytes() for w in wanted for p in folder.glob(f"iteration-*/{w}")}


def kill_twice(folder: Path, stage: str, overrides: tuple[str, ...]) -> None:
    """Killed after shard 0 and again after shard 2; in between shard 0 is not touched."""
    first = folder / "iteration-01" / stage / "00000.parquet"
    kill_when(folder, f"iteration-01/{stage}/00000.parquet", *overrides)
    inode = first.stat().st_ino
    kill_when(folder, f"iteration-01/{stage}/00002.parquet", *overrides)
    assert first.stat().st_ino == inode, f"{first} was written again"
    assert not first.parent.with_suffix(".parquet").exists(), "killed too late to show anything"


def test_tiny_killed_in_every_stage_gives_the_same_bytes(tmp_path: Path) -> None:
    overrides = (
        "iterations.max=1",
        "iterations.shard_prompts=1",
        "training.save_every_steps=1",
        "training.batch_size=1",
    )
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole, *overrides)
    kill_twice(broken, "responses", overrides)
    kill_twice(broken, "judgments", overrides)
    kill_when(broken, "iteration-01/.training/**/complete.json", *overrides)
    assert not (broken / "iteration-01/checkpoint").exists(), "killed too late to show anything"
    kill_twice(broken, "evaluation_responses", overrides)
    run(broken, *overrides)
    assert contents(broken) == contents(whole)
    status = json.loads((broken / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("finished", 0)


def test_vllm_killed_between_shards_gives_the_same_bytes(tmp_path: Path) -> None:
    """In the driver's process vLLM gives the same bytes for the same shard, also after a kill."""
    pytest.importorskip("vllm")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole, *VLLM)
    kill_when(broken, "iteration-01/responses/00001.parquet", *VLLM)
    assert not (broken / "iteration-01/responses.parquet").exists(), "killed too late to show anything"
    kill_when(broken, "iteration-01/judgments/00001.parquet", *VLLM)
    run(broken, *VLLM)
    assert contents(broken) == contents(whole)
