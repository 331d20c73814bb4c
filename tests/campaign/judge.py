"""`selfreward judge` killed before each change of a file: the same command continues, and leaves its output alone."""

import json
import random
import shutil
import signal
from pathlib import Path

from campaign import forks
from campaign.forks import Interruption
from campaign.results import Results, shown

PART = "judge"
_TINY = str(Path(__file__).parents[2] / "recipes/tiny.yaml")
_ROWS = [{"id": n, "prompt": f"Name sea {n // 2}.", "response": f"Sea {n}."} for n in range(6)]


def campaign(results: Results, work: Path, *, num_kills: int, case: str = "") -> None:
    """Kill before `num_kills` of the changes, or before all when there are fewer. `case` is the number of a change."""
    work.mkdir(parents=True, exist_ok=True)
    rows, place, log = work / "rows.jsonl", work / "place", work / "log"
    rows.write_text("".join(json.dumps(row) + "\n" for row in _ROWS))
    command = ["judge", _TINY, str(rows), "--out", str(place / "out.jsonl"), "--set", "iterations.shard_prompts=1"]
    place.mkdir()
    whole = forks.run(command, log=log)
    expected = (place / "out.jsonl").read_bytes()
    changes = range(whole.num_changes)
    drawn = random.Random(f"{results.seed}/{PART}").sample(changes, min(num_kills, len(changes)))
    for change in shown([int(case)] if case else sorted(drawn), PART):
        shutil.rmtree(place)
        place.mkdir()
        forks.run(command, log=log, interruption=Interruption(signal.SIGKILL, at_change=change))
        again = forks.run(command, log=log)
        left = sorted(path.name for path in place.iterdir())
        results.counts["judge_kills"] += 1
        results.counts["files_compared"] += 1
        results.counts["tracebacks"] += again.has_traceback
        if again.exit_code != 0 or (place / "out.jsonl").read_bytes() != expected or left != ["out.jsonl"]:
            found = f"exit code {again.exit_code}, left {left}: {again.output[-500:]}"
            results.fail(PART, found, case=str(change))
