"""Remarks that interpret the training numbers, each printed once with the iterations that it applies to."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from selfreward.recipe import TrainingSection
from selfreward.records import IterationSummary
from selfreward.reporting.formatting import amount, iterations, span

# Below this share the engine's rounded weights moved less than half as far as the trainer's.
MIN_ENGINE_UPDATE_SHARE = 0.5

_ADVICE = (
    "On a CPU, engine.dtype: float32 removes the gap. On a GPU, where the trainer multiplies in bfloat16, the gap "
    "remains: set training.reference_logprobs to trainer."
)
_FELL_BACK = (
    "the engine's log-probabilities were not used as the reference, although the recipe sets "
    "training.reference_logprobs to sampler. Compared with the trainer's they are off by {gap} on the reward margin, "
    "and training.max_reference_gap allows {limit}. The trainer computed the reference itself, which costs a forward "
    f"pass over the pairs. {_ADVICE}"
)
_NOT_RECORDED = (
    "the recipe sets training.reference_logprobs to sampler, but the engine has no log-probabilities under the "
    "reference for any response of the pairs: another checkpoint sampled them, or they were changed since. The trainer "
    "computed the reference itself. With training.reference: initial this is the case from the second iteration on."
)
_USED = (
    "the reference came from the engine, and its error on the reward margin, {gap}, is as large as the change of this "
    "margin by the update, {moved}. The loss and the reward margin of a step are then unreliable. "
    f"{_ADVICE}"
)
_NOT_USED = (
    "the engine's log-probabilities differ from the trainer's by {gap} on the reward margin, which is as large as the "
    "change of this margin by the update, {moved}. The trainer computed the reference, so training is not affected: "
    "leave training.reference_logprobs at trainer."
)
_LOST_IN_ROUNDING = (
    "rounded to the engine's dtype, only {share} of the update remains: {changed} of the weights changed. The "
    "engine samples and judges almost as before the update: raise training.learning_rate, or run the engine in float32."
)


def remarks(history: Sequence[IterationSummary], *, training: TrainingSection) -> list[str]:
    """Return remarks about the training of these iterations; usually none or one."""
    wants_sampler = training.reference_logprobs == "sampler"
    found: dict[str, list[IterationSummary]] = {
        text: [] for text in (_FELL_BACK, _NOT_RECORDED, _USED, _NOT_USED, _LOST_IN_ROUNDING)
    }
    for summary in history:
        metrics = summary.training
        if wants_sampler and _fell_back(metrics):
            found[_FELL_BACK].append(summary)
        elif wants_sampler and _number(metrics, "num_sampler_logprobs") == 0:
            found[_NOT_RECORDED].append(summary)
        elif _is_large(metrics):
            found[_USED if _number(metrics, "num_sampler_logprobs") > 0 else _NOT_USED].append(summary)
        if _number(metrics, "seen_update_share") < MIN_ENGINE_UPDATE_SHARE:
            found[_LOST_IN_ROUNDING].append(summary)
    return [_formatted(text, summaries) for text, summaries in found.items() if summaries]


def with_iterations(summaries: Sequence[IterationSummary], remark: str) -> str:
    """Return the remark, preceded by the iterations that it applies to."""
    return f"{iterations([summary.iteration for summary in summaries]).capitalize()}: {remark}"


def _fell_back(training: Mapping[str, Any]) -> bool:
    gap, limit = _number(training, "reference_gap_margin"), _number(training, "reference_gap_limit")
    return gap > limit and _number(training, "num_sampler_logprobs") == 0


def _is_large(training: Mapping[str, Any]) -> bool:
    """Return whether the engine's error is as large as the change of the margin; false when either was not measured."""
    return _number(training, "reference_gap_margin") >= abs(_margin_change(training))


def _margin_change(training: Mapping[str, Any]) -> float:
    return _number(training, "reward_margin_after") - _number(training, "reward_margin_before")


def _number(training: Mapping[str, Any], name: str) -> float:
    """Return a number; NaN when it is missing, so that every comparison is false."""
    value = training.get(name)
    return value if isinstance(value, int | float) else math.nan


def _formatted(text: str, summaries: Sequence[IterationSummary]) -> str:
    trainings = [summary.training for summary in summaries]

    def values(name: str) -> list[float]:
        return [_number(training, name) for training in trainings]

    remark = text.format(
        gap=span(values("reference_gap_margin"), _nats),
        limit=span(values("reference_gap_limit"), _nats),
        moved=span([_margin_change(training) for training in trainings], _nats),
        share=span(values("seen_update_share"), _percent),
        changed=span(values("changed_weight_share"), _percent),
    )
    return with_iterations(summaries, remark)


def _nats(value: float) -> str:
    return amount("reward_margin", value)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
