"""Decides after each iteration whether another one is worth its cost, and writes down why."""

from selfreward.parts import Monitor
from selfreward.recipe import MonitorSection


def build(section: MonitorSection, *, max_iterations: int) -> Monitor:
    """The monitor of a recipe; `max_iterations` is `iterations.max`."""
    from selfreward.monitoring.gates import GateMonitor

    return GateMonitor(section=section, max_iterations=max_iterations)
