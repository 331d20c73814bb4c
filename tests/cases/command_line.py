"""The command line in a process of its own, as users call it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = ROOT / "recipes" / "tiny.yaml"


def selfreward(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "selfreward", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def run(folder: Path, *overrides: str, recipe: Path = TINY) -> subprocess.CompletedProcess[str]:
    sets = [argument for item in (f"output_dir={folder}", *overrides) for argument in ("--set", item)]
    return selfreward("run", recipe, *sets)
