"""The environment that other processes inherit: without what a library has set for itself in this one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_set_here: dict[str, tuple[str | None, str]] = {}  # name: value before, value that a library gave it


@contextmanager
def for_this_process_alone() -> Iterator[None]:
    """Note the variables that change in this context, as when vLLM is imported and started."""
    before = dict(os.environ)
    try:
        yield
    finally:
        _set_here.update(
            (name, (before.get(name), value)) for name, value in os.environ.items() if before.get(name) != value
        )


def inherited_environment() -> dict[str, str]:
    """Return the environment with the earlier values of noted variables, unless they were changed again since."""
    found = dict(os.environ)
    for name, (before, value) in _set_here.items():
        if found.get(name) == value:
            del found[name]
            if before is not None:
                found[name] = before
    return found
