"""Settings of all tests: no network, no time limits of hypothesis (machines are shared), few threads."""

import os

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("shared-machine", deadline=None, derandomize=True)
settings.load_profile("shared-machine")

# So that a failed assert there shows its values, as in a test file.
pytest.register_assert_rewrite("cases.engine_tests")
