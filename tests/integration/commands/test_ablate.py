"""`selfreward ablate` without Slurm: every combination once, and nothing that has finished again."""

import csv
import os
import subprocess
import sys
from pathlib import Path

TINY = Path(__file__).parents[3] / "recipes" / "tiny.yaml"


def ablate(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "selfreward", "ablate", str(TINY), "iterations.max=1", f"output_dir={folder}/run"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, env=os.environ)


def test_an_ablation_runs_what_has_not_finished_and_prints_a_table(tmp_path: Path) -> None:
    group = tmp_path / "tiny-ablation"
    done = ablate(tmp_path, "--vary", "pairing.min_gap=0.5,x")
    assert done.returncode == 2 and "min_gap" in done.stderr and not group.exists()
    done = ablate(tmp_path, "--vary", "sampling.temperature=0.5")
    assert done.returncode == 0, done.stderr
    run = group / "temperature=0.5_seed=0"
    before = (run / "status.json").stat().st_mtime_ns
    done = ablate(tmp_path, "--vary", "sampling.temperature=0.5,1.0")
    assert done.returncode == 0, done.stderr
    assert "1 of 2, temperature=0.5_seed=0: already finished" in done.stderr
    assert (run / "status.json").stat().st_mtime_ns == before
    assert done.stdout == (group / "table.md").read_text() and done.stdout.startswith("| sampling.temperature | seed |")
    with (group / "table.csv").open() as file:
        found = [(row["sampling.temperature"], row["seed"], row["state"]) for row in csv.DictReader(file)]
    assert found == [("0.5", "0", "finished"), ("1.0", "0", "finished")]
