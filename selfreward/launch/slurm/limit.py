"""When the time of this process ends: that of the batch job in which it runs."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from selfreward.launch.slurm import queue

END_VARIABLE: Final = "SELFREWARD_END_TIME"
"""When the program has to stop, in seconds since 1970; set by the script of `selfreward submit`, or by the user."""
_WARNING_S: Final = 120
"""Where only the end of the job is known, nothing is started that ends in its last seconds."""


def end_of_time(environment: Mapping[str, str]) -> float | None:
    """Return when to have stopped, in seconds since 1970; None without a limit."""
    with suppress(KeyError, ValueError):
        return float(environment[END_VARIABLE])
    with suppress(KeyError, ValueError):
        return float(environment["SLURM_JOB_END_TIME"]) - _WARNING_S
    job = environment.get("SLURM_JOB_ID", "")
    end = queue.end_time(job) if job else None
    return None if end is None else end - _WARNING_S
