"""What a reader must know before any number of the run: the update did not change the responses."""

from collections.abc import Mapping, Sequence

from selfreward.records import Interval, IterationSummary

# By baseline: the metric, and what the checkpoint is compared with.
_BASELINES = (("same_response_rate_vs_initial", "M_0"), ("same_response_rate_vs_previous", "the previous model"))


def findings(history: Sequence[IterationSummary]) -> list[str]:
    """Return the finding about the newest of these iterations that has one, if any."""
    found = [unchanged_responses(summary.iteration, _rates(summary)) for summary in history]
    return [text for text in found if text][-1:]


def unchanged_responses(iteration: int, rates: Mapping[str, tuple[float, int]]) -> str | None:
    """Return a sentence if all held-out responses of M_t are those of an earlier model, else None.

    `rates` are the share of equal responses and the number of prompts, by metric.
    """
    for name, model in _BASELINES:
        share, num_prompts = rates.get(name, (0.0, 0))
        if share == 1 and num_prompts:
            prompts = "the only held-out prompt" if num_prompts == 1 else f"all {num_prompts} held-out prompts"
            return (
                f"M_{iteration} gives the same responses as {model} on {prompts}: the update is too small for the "
                "engine's dtype or the learning rate. Raise training.learning_rate, or set engine.dtype to float32."
            )
    return None


def _rates(summary: IterationSummary) -> dict[str, tuple[float, int]]:
    measured = {name: summary.evaluation.metrics.get(name) for name, _ in _BASELINES}
    return {name: (value.mean, value.num_units) for name, value in measured.items() if isinstance(value, Interval)}
