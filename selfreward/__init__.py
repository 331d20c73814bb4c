"""Trains a language model on its own judgments. `selfreward.run("recipe.yaml")` does the same as `selfreward run`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selfreward.launch.local import RunResult
    from selfreward.monitoring.ceiling import CeilingMonitor

__version__ = "0.2.0"
__all__ = ["CeilingMonitor", "run"]


def run(recipe: str | Path, overrides: Sequence[str] = ()) -> "RunResult":
    """Run, or resume, the recipe in this file; `overrides` are `key.path=value`, as for `--set`.

    Returns the run folder and the monitor's last decision. Raises a SelfRewardError whose message states what to do.
    Call it under `if __name__ == "__main__":`, because the engine may start processes.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as in cli.main; has no effect once torch is imported
    from selfreward import recipe_file
    from selfreward.launch import local

    return local.run(recipe_file.load(Path(recipe), overrides))


def __getattr__(name: str) -> object:
    """Import `selfreward.CeilingMonitor` at its first use."""
    if name == "CeilingMonitor":
        from selfreward.monitoring.ceiling import CeilingMonitor

        return CeilingMonitor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
