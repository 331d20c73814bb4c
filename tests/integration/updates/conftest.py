"""Every test of updates uses one thread."""

import pytest


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """The fixture for every test here."""
