"""What a reader must know before any number of the run: the update did not change the responses."""

from collections.abc import Mapping, Sequence

from selfreward.records import Interval, IterationSummary

# By baseline: the share of equal responses, the divergence, and what the checkpoint is compared with.
_BASELINES = (
    ("same_response_rate_vs_initial", "kl_initial_nats", "M_0"),
    ("same_response_rate_vs_previous", "kl_previous_nats", "the previous model"),
)
METRICS = tuple(name for names in _BASELINES for name in names[:2])

_TOO_SMALL = (
    "the update is too small for the learning rate or the engine's dtype. Raise training.learning_rate, or set "
    "engine.dtype to float32 if it is not."
)
_MOVED = (
    "although the update moved it ({nats:.2g} nats). Read the samples: responses that have collapsed are often equal. "
    "Otherwise use more held-out prompts, or a higher evaluation.temperature."
)
_MIN_NATS = 0.05
"""A divergence from which on an update is not small: one response is e^0.05 times as likely, or 5 % more."""


def findings(history: Sequence[IterationSummary]) -> list[str]:
    """Return the finding about the newest of these iterations that has one, if any."""
    found = [unchanged_responses(summary.iteration, _rates(summary)) for summary in history]
    return [text for text in found if text][-1:]


def unchanged_responses(iteration: int, rates: Mapping[str, tuple[float, int]]) -> str | None:
    """Return a sentence if all held-out responses of M_t are those of an earlier model, else None.

    `rates` are means and numbers of prompts of `METRICS`, those that were measured.
    """
    for name, divergence, model in _BASELINES:
        share, num_prompts = rates.get(name, (0.0, 0))
        if share == 1 and num_prompts:
            prompts = "the only held-out prompt" if num_prompts == 1 else f"all {num_prompts} held-out prompts"
            nats, _ = rates.get(divergence, (0.0, 0))
            said = f"M_{iteration} gives the same responses as {model} on {prompts}"
            return f"{said}, {_MOVED.format(nats=nats)}" if nats >= _MIN_NATS else f"{said}: {_TOO_SMALL}"
    return None


def _rates(summary: IterationSummary) -> dict[str, tuple[float, int]]:
    measured = {name: summary.evaluation.metrics.get(name) for name in METRICS}
    return {name: (value.mean, value.num_units) for name, value in measured.items() if isinstance(value, Interval)}
