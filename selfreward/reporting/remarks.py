"""What the training numbers do not say by themselves, in words: each remark once, with the iterations it is about."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from selfreward.recipe import TrainingSection
from selfreward.records import IterationSummary
from selfreward.reporting.formatting import amount, iterations, span

# Below this the engine takes less than half of the step that the trainer took.
SEEN_SHARE = 0.5

_ADVICE = (
    "On a CPU the gap closes with engine.dtype set to float32; on a GPU, where the trainer multiplies in bfloat16, it "
    "stays: set training.reference_logprobs to trainer."
)
_FELL_BACK = (
    "the engine's log-probabilities were not used as the reference, although the recipe sets "
    "training.reference_logprobs to sampler. Beside the trainer's own they are off by {gap} on the reward margin, and "
    "training.max_reference_gap allows {limit}; so the trainer computed the reference itself, which costs a pass over "
    f"the pairs. {_ADVICE}"
)
_NOTHING_THERE = (
    "the recipe sets training.reference_logprobs to sampler, but the engine has no log-probabilities under the "
    "reference for any response of the pairs: another checkpoint sampled them, or they were changed since. The trainer "
    "computed the reference itself. With training.reference set to initial that is so from the second iteration on."
)
_USED = (
    "the reference came from the engine, and its error on the reward margin, {gap}, is as large as all that the update "
    "moved this margin, {moved}. The loss and the reward margin of a step say little then. "
    f"{_ADVICE}"
)
_NOT_USED = (
    "the engine's log-probabilities differ from the trainer's by {gap} on the reward margin, as much as all that the "
    "update moved this margin, {moved}. The reference was the trainer's own, so nothing is wrong here: leave "
    "training.reference_logprobs at trainer."
)
_UNSEEN = (
    "rounded to the engine's number format, only {share} of the update is left: {changed} of the weights changed. The "
    "engine samples and judges nearly as before: raise training.learning_rate, or run the engine in float32."
)


def remarks(history: Sequence[IterationSummary], *, training: TrainingSection) -> list[str]:
    """Sentences for people about the training of these iterations; usually none or one."""
    asked = training.reference_logprobs == "sampler"
    found: dict[str, list[IterationSummary]] = {
        text: [] for text in (_FELL_BACK, _NOTHING_THERE, _USED, _NOT_USED, _UNSEEN)
    }
    for summary in history:
        metrics = summary.training
        if asked and _fell_back(metrics):
            found[_FELL_BACK].append(summary)
        elif asked and _number(metrics, "num_sampler_logprobs") == 0:
            found[_NOTHING_THERE].append(summary)
        elif _is_large(metrics):
            found[_USED if _number(metrics, "num_sampler_logprobs") > 0 else _NOT_USED].append(summary)
        if _number(metrics, "seen_update_share") < SEEN_SHARE:
            found[_UNSEEN].append(summary)
    return [_said(text, summaries) for text, summaries in found.items() if summaries]


def about(summaries: Sequence[IterationSummary], said: str) -> str:
    """The remark with the iterations that it is about."""
    return f"{iterations([summary.iteration for summary in summaries]).capitalize()}: {said}"


def _fell_back(training: Mapping[str, Any]) -> bool:
    gap, limit = _number(training, "reference_gap_margin"), _number(training, "reference_gap_limit")
    return gap > limit and _number(training, "num_sampler_logprobs") == 0


def _is_large(training: Mapping[str, Any]) -> bool:
    """Whether the engine's error is as large as the margin moved; false when either was not measured."""
    return _number(training, "reference_gap_margin") >= abs(_moved(training))


def _moved(training: Mapping[str, Any]) -> float:
    return _number(training, "reward_margin_after") - _number(training, "reward_margin_before")


def _number(training: Mapping[str, Any], name: str) -> float:
    """NaN, with which every comparison is false, where there is none."""
    value = training.get(name)
    return value if isinstance(value, int | float) else math.nan


def _said(text: str, summaries: Sequence[IterationSummary]) -> str:
    trainings = [summary.training for summary in summaries]

    def values(name: str) -> list[float]:
        return [_number(training, name) for training in trainings]

    said = text.format(
        gap=span(values("reference_gap_margin"), _nats),
        limit=span(values("reference_gap_limit"), _nats),
        moved=span([_moved(training) for training in trainings], _nats),
        share=span(values("seen_update_share"), _percent),
        changed=span(values("changed_weight_share"), _percent),
    )
    return about(summaries, said)


def _nats(value: float) -> str:
    return amount("reward_margin", value)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
