"""The tests for a GPU are collected everywhere, and what they import exists, so that they do not rot."""

import ast
import subprocess
import sys
from pathlib import Path

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


def test_what_they_import_from_the_checks_exists() -> None:
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
