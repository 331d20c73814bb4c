"""The tests for a GPU are collected everywhere, and what they import and call exists, so that they do not rot."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in (ROOT / "tests" / "gpu").glob("*.py") if path.name != "conftest.py")


def test_every_file_is_imported_and_without_a_gpu_skipped_with_the_reason() -> None:
    has_gpu = torch.cuda.is_available()
    options = ["--collect-only"] if has_gpu else ["-vv", "-rs"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, *map(str, FILES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [file.name for file in FILES if f"{file.name}::" not in done.stdout] == []
    assert has_gpu or ("needs a CUDA device" in done.stdout and "passed" not in done.stdout)


def test_what_they_import_exists_and_their_calls_have_its_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """These imports and calls are within functions, which a CPU does not run."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "gpu_checks"))
    checks = {path.stem for path in (ROOT / "benchmarks" / "gpu_checks").glob("*.py")}
    num_calls = sum(_check(file, checks) for file in [*FILES, FILES[0].with_name("conftest.py")])
    assert num_calls > 10


def test_a_call_with_other_parameters_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "gpu_checks"))
    file = tmp_path / "test_old.py"
    file.write_text(
        "def test_it():\n    from models import random_pairs\n    random_pairs(2, 100, vocabulary_size=5)\n"
    )
    with pytest.raises(AssertionError, match=r"test_old.py:3: random_pairs: .*vocabulary"):
        _check(file, {"models"})


def _check(file: Path, checks: set[str]) -> int:
    """Assert that imports from the checks and selfreward resolve and that calls fit; return the number of calls."""
    tree = ast.parse(file.read_text())
    imported = {
        alias.asname or alias.name: _imported(node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and (node.module in checks or "selfreward" in node.module)
        for alias in node.names
    }
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    calls = [call for call in calls if call.func.id in imported and not _is_starred(call)]  # type: ignore[attr-defined]
    for call in calls:
        name: str = call.func.id  # type: ignore[attr-defined]
        try:
            inspect.signature(imported[name]).bind(*call.args, **{word.arg: None for word in call.keywords if word.arg})
        except TypeError as error:
            raise AssertionError(f"{file.name}:{call.lineno}: {name}: {error}") from error
    return len(calls)


def _imported(module: str, name: str) -> Any:
    found = importlib.import_module(module)
    return getattr(found, name) if hasattr(found, name) else importlib.import_module(f"{module}.{name}")


def _is_starred(call: ast.Call) -> bool:
    return any(isinstance(each, ast.Starred) for each in call.args) or any(word.arg is None for word in call.keywords)
