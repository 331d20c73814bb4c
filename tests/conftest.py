"""Settings of all tests: no network, no time limits of hypothesis (machines are shared), few threads."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("shared-machine", deadline=None, derandomize=True)
settings.load_profile("shared-machine")

# So that a failed assert there shows its values, as in a test file.
pytest.register_assert_rewrite("cases.engine_tests")


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let torch use one thread, also in child processes, so that sums have the same order everywhere."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(before)
