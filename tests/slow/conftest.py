"""Fixtures of several files of slow tests."""

from typing import Any

import pytest


@pytest.fixture(scope="module")
def forks() -> Any:
    from cases.ranks import fork_server

    return fork_server()
