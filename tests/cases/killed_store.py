"""`python killed_store.py FOLDER`: a run folder whose process is killed before every operation that changes a file.

Each round is killed once, continued to the end, and compared with a folder that was never touched. Prints JSON.
"""

import json
import shutil
import sys
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pandas  # noqa: F401 - pyarrow imports it in the first round otherwise, and again in each fork
from cases.kill_points import run_killed

from selfreward.records import Message, Prompt
from selfreward.store import Store
from selfreward.tables import PROMPTS


def work(folder: Path) -> None:
    """Write everything that a run writes: a manifest, shards, a merged table, values, a checkpoint, a link, a text."""
    with Store(folder, name="test") as store:
        store.record_event("started")
        store.stage(1, PROMPTS, 3, lambda shard: [Prompt(f"p{shard}", (Message("user", "say"),))])
        made = store.work_folder(1, "training") / "checkpoint"
        store.read_or_make_json(1, "training", lambda: _trained(made))
        store.commit_checkpoint(1, "checkpoint", made)
        store.set_link("best", "iteration-01/checkpoint")
        store.read_or_make_json(1, "decision", lambda: {"stop": True})
        store.write_text("report.json", "{}")


def _trained(made: Path) -> dict[str, int]:
    made.mkdir(exist_ok=True)
    (made / "model.safetensors").write_bytes(b"weights")
    (made / "config.json").write_text("{}")
    return {"steps": 1}


def contents(folder: Path) -> dict[str, str]:
    """Return all files and folders; not the times in the manifest, and not who holds the lock."""
    paths = (path for path in folder.rglob("*") if path.name not in ("manifest.json", ".lock"))
    return {str(path.relative_to(folder)): path.read_bytes().hex() if path.is_file() else "" for path in paths}


def main(folder: Path) -> None:
    run_killed(lambda: work(folder / "whole"), at=10**9, log=folder / "log")
    whole, kills = contents(folder / "whole"), []
    for at in count():
        broken = folder / "broken"
        killed = run_killed(lambda: work(broken), at=at, log=folder / "log").killed_at  # noqa: B023 - called at once
        if killed is None:
            break
        again = run_killed(lambda: work(broken), at=10**9, log=folder / "log")  # noqa: B023
        found = contents(broken)
        different = sorted(name for name in whole.keys() | found.keys() if whole.get(name) != found.get(name))
        kills.append({"at": killed.replace(str(folder), ""), "exit_code": again.exit_code, "different": different})
        shutil.rmtree(broken, ignore_errors=True)
    print(json.dumps(kills))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
