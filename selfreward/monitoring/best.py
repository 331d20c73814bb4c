"""Which checkpoint to use now.

First form, with what is measured: M_t against M_{t-1} and M_0. The walk starts with M_0 as best.

* While the best is M_{t-1}, M_t takes its place unless it is shown to be worse: the whole interval of the anchor's win
  rate below 0.5 (a valid anchor only), or the whole interval of the pass rate's difference below 0.
* After such a loss the best and M_{t-1} are two checkpoints, and nothing compares M_t with the best directly. M_t then
  takes the place when it is not shown to be worse than M_{t-1} and, by every measure that both have against M_0 (at
  least one), it stands at least as high as the best. These are point estimates, not tests.
* An iteration that trained nothing made no checkpoint and is passed over.

So "best" means the latest unless shown worse, because that is what the papers use; a promotion that has to be earned
needs a comparison with the best itself. While the best is M_0, the run folder has no link `best`.
"""

from collections.abc import Mapping, Sequence

from selfreward.records import Evaluation, Interval, IterationSummary

COMPARED_METRICS = (
    "win_rate_vs_previous",
    "win_rate_vs_initial",
    "pass_rate_vs_previous",
    "pass_rate_vs_initial",
    "anchor_valid",
    "position_consistency_rate",
)

NO_DIFFERENCE = {"win_rate": 0.5, "pass_rate": 0.0}


def best_iteration(history: Sequence[IterationSummary]) -> int:
    """The number of the checkpoint to use now, 0 for M_0. `history` holds iterations 1..t in order."""
    best, best_standing = 0, dict(NO_DIFFERENCE)
    previous = 0
    for summary in history:
        if not was_trained(summary):
            continue
        standing = _against_initial(summary.evaluation)
        if not shown_worse(summary.evaluation) and (best == previous or _as_high(standing, best_standing)):
            best, best_standing = summary.iteration, standing
        previous = summary.iteration
    return best


def was_trained(summary: IterationSummary) -> bool:
    """Whether the iteration made a checkpoint."""
    return bool(summary.training or summary.evaluation.metrics)


def shown_worse(evaluation: Evaluation) -> bool:
    """Whether a measure shows M_t to be worse than M_{t-1}; an anchor that is not valid shows nothing."""
    return any(interval.high < NO_DIFFERENCE[kind] for kind, interval in usable(evaluation, "previous").items())


def usable(evaluation: Evaluation, rival: str) -> dict[str, Interval]:
    """The intervals against this rival that may be believed, by `win_rate` and `pass_rate`."""
    found = {kind: evaluation.metrics.get(f"{kind}_vs_{rival}") for kind in NO_DIFFERENCE}
    if not anchor_is_valid(evaluation):
        found.pop("win_rate")
    return {kind: interval for kind, interval in found.items() if isinstance(interval, Interval)}


def anchor_is_valid(evaluation: Evaluation) -> bool:
    """False only when the anchor was examined and failed: one that was not asked has done nothing wrong."""
    return evaluation.metrics.get("anchor_valid", 1.0) != 0.0


def _against_initial(evaluation: Evaluation) -> dict[str, float]:
    return {kind: interval.mean for kind, interval in usable(evaluation, "initial").items()}


def _as_high(standing: Mapping[str, float], best: Mapping[str, float]) -> bool:
    shared = standing.keys() & best.keys()
    return bool(shared) and all(standing[kind] >= best[kind] for kind in shared)
