"""The monitor as a callback of `transformers.Trainer`, and so of TRL's trainers, without importing TRL.

An iteration is the training between two snapshots of the model: two evaluations, two saves, or two epochs.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from selfreward.errors import RecipeError
from selfreward.monitoring.ceiling import CeilingMonitor
from selfreward.records import Decision

Compare = Callable[[Any, int], Mapping[str, Any] | None]
"""Called with the model and the number of optimizer steps; returns the arguments of `CeilingMonitor.observe`.

It must store the model's responses to the held-out prompts for the next comparison. The first call precedes the first
step, when there is nothing to compare with, and its return value is ignored. It is called in every training process,
and must return the same in each.
"""

_log = logging.getLogger(__name__)


class CeilingCallback(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Compares each snapshot with the previous one, and ends the training when the monitor decides to stop.

    `compare_second_validation` is called when a decision wants the second validation set, and returns the arguments of
    `observe_second_validation`. The results are appended to `state.log_history` as `monitor/...`.
    """

    def __init__(
        self,
        compare: Compare,
        *,
        monitor: CeilingMonitor,
        at: Literal["evaluate", "save", "epoch_end"] = "evaluate",
        compare_second_validation: Compare | None = None,
    ) -> None:
        self.monitor = monitor
        self._compare = compare
        self._compare_second_validation = compare_second_validation
        self._at = at
        self._steps: dict[int, int] = {}  # optimizer steps of each snapshot, by iteration

    @property
    def best_step(self) -> int | None:
        """The number of optimizer steps of the snapshot to use; None when it precedes this training."""
        return self._steps.get(self.monitor.best_iteration)

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step and not self.monitor.decisions:
            _log.warning(
                "the monitor has no record of the %d earlier steps: it compares with the current model, and its "
                "alpha-spending budget starts again; observe() the earlier outcomes to continue",
                state.global_step,
            )
        self._steps[len(self.monitor.decisions)] = state.global_step
        _call(self._compare, kwargs["model"], state)

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._observe("evaluate", state, control, kwargs["model"])

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._observe("save", state, control, kwargs["model"])

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._observe("epoch_end", state, control, kwargs["model"])

    def _observe(self, event: str, state: TrainerState, control: TrainerControl, model: Any) -> None:
        # Each of several evaluation sets raises an event; before the training there is nothing to compare with.
        if event != self._at or not self._steps or state.global_step <= max(self._steps.values()):
            return
        decision = self.monitor.observe(**_measure(self._compare, model, state))
        self._steps[decision.iteration] = state.global_step
        if decision.wants_second_validation and self._compare_second_validation is not None:
            decision = self.monitor.observe_second_validation(**_measure(self._compare_second_validation, model, state))
        state.log_history.append(self._entry(decision, state))
        if decision.stops:
            control.should_training_stop = True
            _log.warning("training stops at step %d with %s: %s", state.global_step, decision.decision, decision.reason)

    def _entry(self, decision: Decision, state: TrainerState) -> dict[str, Any]:
        entry = {"epoch": state.epoch, "step": state.global_step, "monitor/iteration": decision.iteration}
        entry |= {"monitor/decision": decision.decision, "monitor/best_step": self.best_step}
        if gain := decision.bounds.get("gain_vs_previous"):
            low, high = gain["stop"]
            entry |= {"monitor/gain": gain["mean"], "monitor/gain_low": low, "monitor/gain_high": high}
        return entry


def _call(compare: Compare, model: Any, state: TrainerState) -> Mapping[str, Any] | None:
    """Call `compare` with the model in evaluation mode and without gradients."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return compare(model, state.global_step)
    finally:
        model.train(was_training)


def _measure(compare: Compare, model: Any, state: TrainerState) -> Mapping[str, Any]:
    answer = _call(compare, model, state)
    if not isinstance(answer, Mapping):
        raise RecipeError(
            f"compare: {type(answer).__name__} at step {state.global_step}; the arguments of CeilingMonitor.observe "
            'are needed, for example {"anchor": outcomes}; return them from each call but the first'
        )
    return answer
