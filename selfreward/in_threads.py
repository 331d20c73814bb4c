"""Calls in threads, for tokenizers: they release Python's lock while they encode."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def map_in_threads(function: Callable[..., T], *arguments: Iterable[Any]) -> list[T]:
    """Return the results in order; the first exception is raised. One thread for each core that is available."""
    calls = list(zip(*arguments, strict=True))
    num_cores = len(os.sched_getaffinity(0))
    if num_cores == 1 or len(calls) < 2 * num_cores:
        return [function(*call) for call in calls]
    with ThreadPoolExecutor(num_cores) as pool:
        return list(pool.map(lambda call: function(*call), calls))
