"""The runs that a campaign interrupts: small recipes that reach every stage, and what must be the same at the end."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bytes.record import ENGINES, RECIPES

_SMALL = (
    "iterations.max=2", "iterations.num_prompts_per_iteration=4", "iterations.shard_prompts=2",
    "evaluation.num_prompts=2",
    "evaluation.verifiable.num_prompts=2", "training.save_every_steps=1", "training.batch_size=2",
)  # fmt: skip
_FEW = (
    "iterations.max=2", "iterations.num_prompts_per_iteration=6", "iterations.shard_prompts=3",
    "evaluation.num_prompts=3", "evaluation.num_second_validation_prompts=2", "evaluation.num_test_prompts=2",
    "evaluation.verifiable.num_prompts=3", "evaluation.num_judge_prompts=2",
)  # fmt: skip
_TIMES = ("seconds", "hours", "tokens_per_s", "elapsed", "_at", "pid", "last_weight_sync")


@dataclass(frozen=True)
class Variant:
    """A recipe with overrides, and what replaces the engine's replies by readable ones, if anything does."""

    name: str
    recipe: Path
    overrides: tuple[str, ...] = ()
    engine: str = ""
    share: int = 1  # of the interruptions

    def command(self, folder: Path) -> list[str]:
        sets = [argument for key in (f"output_dir={folder}", *self.overrides) for argument in ("--set", key)]
        return ["run", str(self.recipe), *sets]

    def prepare(self) -> None:
        """Replace the engine, in a fork."""
        if self.engine:
            from selfreward import engines

            build, change = engines.build, ENGINES[self.engine]
            engines.build = lambda *args, **named: change(build(*args, **named))


_ENSEMBLE = (
    "judging={kind: ensemble, normalise: false, members: [{kind: expected_score}, {kind: verifier}]}",
    "prompts={kind: verifiable, check_kinds: ['detectable_format:json_format', 'keywords:existence']}",
)

VARIANTS = (
    Variant("tiny", RECIPES["tiny"], _SMALL, share=3),
    Variant("variant", RECIPES["variant"], _FEW, share=2),
    Variant("meta", RECIPES["meta"], ("iterations.max=1", "iterations.num_prompts_per_iteration=5"), "meta", share=2),
    Variant("ensemble", RECIPES["tiny"], (*_SMALL, *_ENSEMBLE), share=1),
)
TWO_PROCESSES = Variant(
    "processes", RECIPES["tiny"], ("iterations.max=1", "training.save_every_steps=1", "launch.processes_per_node=2")
)


def contents(folder: Path) -> dict[str, str]:
    """Return a hash of every file that a run leaves, without times; files that hold only times by name alone.

    Each attempt leaves a log of its own, so logs are left out.
    """
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    kept = [path for path in files if path.name != ".lock" and path.parent != folder / "logs"]
    return {str(path.relative_to(folder)): _digest(path, folder) for path in kept}


def _digest(path: Path, folder: Path) -> str:
    if path.parent == folder or path.suffix in (".md", ".log", ".jsonl"):  # reports and status: rewritten, with times
        return "present"
    content = path.read_bytes()
    if path.suffix == ".json":
        content = json.dumps(_without_times(json.loads(content))).encode()
    return hashlib.sha256(content.replace(str(folder).encode(), b"RUN")).hexdigest()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if not any(part in k for part in _TIMES)}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def finished_files(folder: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of every file that the manifest calls finished; a decision may be made again."""
    try:
        names = json.loads((folder / "manifest.json").read_text())["files"]
    except (OSError, ValueError):
        return {}
    paths = {name: folder / name for name in names if not name.endswith("decision.json")}
    return {name: (path.stat().st_ino, path.stat().st_mtime_ns) for name, path in paths.items() if path.is_file()}


def stage_of(folder: Path) -> str:
    """Return the stage in which a run was interrupted, as its status says."""
    try:
        status = json.loads((folder / "status.json").read_text())
    except (OSError, ValueError):
        return "start"
    return status["stage"] or "start"


def timed(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started
