"""An installation in which a companion of torch cannot be imported: what the message says to do, and the exit code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cases.command_line import TINY

ERRORS = {
    "torchvision": "RuntimeError('operator torchvision::nms does not exist')",
    "torchaudio": "OSError('Could not load this library: _torchaudio.so')",
}


def install(folder: Path, name: str, error: str) -> None:
    """Install a package whose import fails as that of a build for another torch does."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(f"raise {error}\n")
    info = folder / f"{name}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")


@pytest.mark.parametrize("name", ERRORS)
def test_a_broken_companion_of_torch_is_named_with_what_to_uninstall(tmp_path: Path, name: str) -> None:
    install(tmp_path / "site", name, ERRORS[name])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(TINY.parents[1])])}
    done = subprocess.run(
        [sys.executable, "-m", "selfreward", "run", str(TINY), "--set", f"output_dir={tmp_path / 'run'}"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr[-2000:]
    *_, message = done.stderr.splitlines()
    assert message.startswith(f"selfreward: {name} 0.1 (") and "of another build than torch" in message
    assert "pip uninstall -y torchvision torchaudio torchcodec" in message
