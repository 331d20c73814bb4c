"""A run folder survives a kill before every operation that changes a file."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "cases/killed_store.py"


def test_a_kill_before_any_change_of_a_file_leaves_a_folder_that_continues_to_the_same_content(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rounds = json.loads(done.stdout)
    assert [r for r in rounds if r["exit_code"] or r["different"]] == []
    # All kinds of operations were met: the lock, the manifest before any iteration, shards, the merge, the checkpoint.
    met = " ".join(r["at"] for r in rounds)
    for name in (".lock", ".manifest.json.", "00002.parquet", ".prompts.parquet.", ".training", "symlink", ".best."):
        assert name in met
    first_manifest = next(i for i, r in enumerate(rounds) if "rename" in r["at"] and "manifest" in r["at"])
    first_iteration = next(i for i, r in enumerate(rounds) if "iteration-01" in r["at"])
    assert first_manifest < first_iteration
