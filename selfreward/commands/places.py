"""The last lines of a run: where its model, pairs and report are, and the next command to type."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfreward.begun import stored_recipe
from selfreward.launch.result import RunResult
from selfreward.launch.status import REPORT
from selfreward.store.names import MANIFEST, folder_of


def continuing_command(recipe: Path, overrides: Sequence[str], *, start: str | None) -> list[str]:
    """Return the command with which a run is continued, to which a raised limit is added."""
    kept = [each for each in overrides if not each.startswith("iterations.max=")]
    return ["selfreward", "run", str(recipe), *kept, *(["--from", start] if start else [])]


def places(result: RunResult, report: Mapping[str, Any], command: Sequence[str] = ()) -> str:
    """Return a line each for model, pairs, report and the next command."""
    folder = result.folder
    lines = {
        "model": _model(result),
        **_trained(result),
        "pairs": _pairs(folder, report),
        "report": str((folder / REPORT).resolve()),
        "next": shlex.join(_next(result, report, command)),
    }
    return "\n".join(f"{name:8}{value}" for name, value in lines.items())


def _model(result: RunResult) -> str:
    """Return the folder to which the link `best` leads."""
    best = result.decision.best_iteration
    path = str((result.folder / "best").resolve())
    return path if best else f"{path} (the initial model: no checkpoint was shown to be better)"


def _trained(result: RunResult) -> dict[str, str]:
    """Return the last trained model where the initial one is still the best: people want to look at it too."""
    newest = result.decision.iteration
    path = result.folder / folder_of(newest) / "checkpoint"
    if result.decision.best_iteration or not newest or not path.is_dir():
        return {}
    return {"trained": f"{path.resolve()} (M_{newest}, not shown to be better)"}


def _pairs(folder: Path, report: Mapping[str, Any]) -> str:
    numbers = {each["iteration"]: each["counts"].get("num_pairs", 0) for each in report["iterations"]}
    files = [str((folder / folder_of(t) / "pairs.parquet").resolve()) for t, number in numbers.items() if number]
    shown = files if len(files) < 3 else [files[0], "...", files[-1]]
    return " ".join([f"{sum(numbers.values()):,}", *(["in", *shown] if files else [])])


def _has_prompts_left(folder: Path, num_iterations: int) -> bool:
    """Return whether there are fresh prompts for one more iteration."""
    facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["facts"]
    there = facts.get("prompts", {}).get("training", {}).get("num_prompts", 0)
    block = stored_recipe(folder).iterations.num_prompts_per_iteration
    return bool((num_iterations + 1) * block <= there)


def _next(result: RunResult, report: Mapping[str, Any], command: Sequence[str]) -> list[str]:
    """Return the command that continues a run that still gained; else the export of its pairs."""
    folder, decision = str(result.folder), result.decision
    gained = decision.decision == "CONTINUE" and decision.stopped_by == "MAX_ITERATIONS"
    if command and gained and _has_prompts_left(result.folder, decision.iteration):
        return [*command, f"iterations.max={decision.iteration + 1}"]
    if any(each["counts"].get("num_pairs", 0) for each in report["iterations"]):
        return ["selfreward", "export", folder, "--pairs", "pairs.jsonl"]
    return ["selfreward", "status", folder]
