"""The status of a run: what its process last wrote, and totals from its folder."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from selfreward.begun import stored_recipe
from selfreward.errors import StoreError
from selfreward.launch.missing import advice_on, missing_models
from selfreward.launch.slurm.jobs import job_status
from selfreward.reporting.formatting import duration
from selfreward.reporting.gpu_hours import gpu_hours_by_stage, num_gpus
from selfreward.store import Store
from selfreward.store.files import read_text
from selfreward.store.lock import is_held
from selfreward.store.names import folder_of, iteration_of
from selfreward.tables import COUNTS, DECISION

STATUS: Final = "status.json"
FINISHED: Final = "finished"
QUEUED: Final = "queued"
INITIAL: Final[Mapping[str, Any]] = {
    "state": "running",
    "iteration": None,
    "stage": None,
    "decision": None,
    "stopped_by": None,
    "exit_code": None,
}
REPORT: Final = "report.html"


def stored_status(folder: Path) -> dict[str, Any]:
    """Return what the run wrote last; nothing for a run that has just started, or a file that was changed."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(read_text(folder / STATUS))
        return found if isinstance(found, dict) else {}
    return {}


def status_of(folder: Path) -> dict[str, Any]:
    """Return the status of a run; docs/commands.md explains its keys, which `selfreward status --json` prints.

    Raises NoRunError when this is no run folder, and StoreError when it is damaged.
    """
    store = Store(folder, write=False)
    status: dict[str, Any] = {**INITIAL, "state": "interrupted", **stored_status(folder)}
    if status["state"] == "running" and not is_held(folder):
        status["state"] = "interrupted"
    job = job_status(folder, status)
    if job and job.is_active and status["state"] != FINISHED and not is_held(folder):
        status["state"] = QUEUED if job.state == "PENDING" else "running"  # on a node whose lock is not seen here
    return status | _totals(store, status) | {"job": job.as_json() if job else None}


def _totals(store: Store, status: Mapping[str, Any]) -> dict[str, Any]:
    counts: list[Mapping[str, Any]] = []
    decisions: list[Mapping[str, Any]] = []
    while decision := store.read_json(len(decisions) + 1, DECISION):
        decisions.append(decision)
        counts.append(store.read_json(len(decisions), COUNTS) or {})
    most, best = _max_iterations(store.folder), decisions[-1]["best_iteration"] if decisions else None
    report, missing = store.folder / REPORT, [*map(str, missing_models(store))]
    return {
        "decision": decisions[-1]["decision"] if decisions else None,
        "num_iterations": len(decisions),
        "max_iterations": most,
        "num_pairs": sum(each.get("num_pairs", 0) for each in counts),
        "num_generated_tokens": int(_total_usage(store, "num_generated_tokens")),
        "seconds": round(store.elapsed_s(), 1),
        "gpu_hours_by_stage": _gpu_hours(store),
        "seconds_left": None if status["state"] == FINISHED else _seconds_left(store, len(decisions), most),
        "best_iteration": best,
        "best": str(store.folder / "best") if best is not None else None,
        "report": str(report) if report.is_file() else None,
        "missing": missing,
        "advice": advice_on(missing, store.folder) if missing else None,
    }


def _max_iterations(folder: Path) -> int | None:
    with suppress(StoreError):  # a run that has just started, or a recipe that was changed
        return stored_recipe(folder).iterations.max
    return None


def _gpu_hours(store: Store) -> dict[str, float]:
    """Return the GPU-hours of all iterations by stage; nothing on a CPU."""
    with suppress(StoreError):  # a run that has just started, or a recipe that was changed
        held = num_gpus(store.manifest, stored_recipe(store.folder))
        spent: Counter[str] = Counter()
        for t in {iteration_of(name) for name in store.manifest["files"]}:
            spent.update(store.seconds_by_stage(t))
        return gpu_hours_by_stage(spent, held)
    return {}


def _total_usage(store: Store, counter: str) -> float:
    return float(sum(entry["usage"].get(counter, 0) for entry in store.manifest["files"].values()))


def _seconds_left(store: Store, num_finished: int, most: int | None) -> float | None:
    """Return the working time of the iterations to come, each as long as the mean of the finished ones; None before."""
    if not num_finished or most is None:
        return None
    mean = sum(_seconds(store, range(1, num_finished + 1))) / num_finished
    (current,) = _seconds(store, [num_finished + 1])
    left = max(0, most - num_finished)
    return round(max(0.0, left * mean - min(current, mean)), 1) if left else 0.0


def _seconds(store: Store, iterations: Iterable[int]) -> list[float]:
    entries = store.manifest["files"].items()
    return [sum(entry["seconds"] for name, entry in entries if name.startswith(f"{folder_of(t)}/")) for t in iterations]


def _best(status: Mapping[str, Any]) -> str:
    if status["best"] is None:
        return "-"
    gone = "" if Path(status["best"]).is_dir() else ", which is gone"
    return f"M_{status['best_iteration']}, {status['best']}{gone}"


def _job_lines(job: Mapping[str, Any] | None) -> dict[str, str]:
    if job is None:
        return {}
    reason = f" ({job['reason']})" if job["reason"] else ""
    left = "" if job["seconds_left"] is None else f", {duration(job['seconds_left'])} left"
    return {"job": f"{job['id']} {job['state']}{reason}{left}", "log": job["log"] or "-"} | (
        {"lost": job["lost"]} if job["lost"] else {}
    )


def rendered(status: Mapping[str, Any]) -> str:
    """Return the status in lines for people."""
    done, most = status["num_iterations"], status["max_iterations"]
    now = f"iteration {status['iteration']}, {status['stage']}" if status["stage"] else "-"
    ended = f", stopped by {status['stopped_by']}" if status["stopped_by"] else ""
    code = "" if status["exit_code"] is None else f" (exit code {status['exit_code']})"
    lines = {
        "state": f"{status['state']}{code}",
        "stage": now if status["state"] != FINISHED else "-",
        "iterations": f"{done} of {'?' if most is None else most} finished{ended}",
        "decision": status["decision"] or "-",
        "best": _best(status),
        "pairs": f"{status['num_pairs']:,}",
        "tokens": f"{status['num_generated_tokens']:,} generated",
        "time": duration(status["seconds"]),
        **({"GPU-hours": f"{sum(used.values()):.2f}"} if (used := status["gpu_hours_by_stage"]) else {}),
        "left": "-" if status["seconds_left"] is None else f"at most about {duration(status['seconds_left'])}",
        "report": status["report"] or "-",
        **_job_lines(status["job"]),
    }
    if gone := status["missing"]:
        lines["missing"] = f"{', '.join(gone)}; {status['advice']}"
    return "\n".join(f"{name:11}{value}" for name, value in lines.items())
