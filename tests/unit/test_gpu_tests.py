"""The tests for a GPU are collected everywhere, and what they import exists, so that they do not rot."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in (ROOT / "tests" / "gpu").glob("*.py") if path.name != "conftest.py")


def collected(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *map(str, FILES)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_file_is_imported_and_has_tests() -> None:
    done = collected("--collect-only")
    assert done.returncode == 0, done.stdout + done.stderr
    without = [f.name for f in FILES if f"{f.name}::" not in done.stdout]
    assert without == []


def test_without_a_gpu_all_are_skipped_with_the_reason() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    done = collected("-rs")
    assert done.returncode == 0 and "needs a CUDA device" in done.stdout, done.stdout + done.stderr
    assert "passed" not in done.stdout


def test_what_they_import_from_the_checks_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    """These imports are within functions, which a CPU does not run."""
    checks = ROOT / "benchmarks" / "gpu_checks"
    wanted = [
        (node.module, alias.name)
        for file in [*FILES, FILES[0].with_name("conftest.py")]
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and (checks / f"{node.module}.py").exists()
        for alias in node.names
    ]
    assert len(wanted) > 5
    for module, name in wanted:
        tree = ast.parse((checks / f"{module}.py").read_text())
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        defined |= {target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
                    if isinstance(target, ast.Name)}  # fmt: skip
        assert name in defined, f"{module}.{name}"
