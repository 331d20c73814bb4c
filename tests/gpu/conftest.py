"""These tests need a GPU: `python -m pytest tests/gpu`. Elsewhere they are collected and skipped."""

import sys
from pathlib import Path

import pytest
import torch

# The checks of the first session on a GPU; the tests assert what it records.
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_checks"))
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def step(tmp_path: Path) -> object:
    """A step of `gpu_check.py` on CUDA, in which a failed check is an error."""
    from step import Step

    class AssertingStep(Step):
        def check(self, name: str, value: object, *, limit: str, ok: bool) -> None:
            assert ok, f"{name}: {value}, and the limit is {limit}"

    return AssertingStep(device="cuda", out=tmp_path / "step.json")
