"""The weights of each role, from iteration to iteration.

    policy    generates and judges in iteration t: M_{t-1}, from the first step of the iteration to the last
    previous  M_{t-1} as the baseline of M_t
    trained   M_t, after the updates of iteration t
    initial   M_0; `given` is models.policy, from which a seed stage trains M_0
    best      the checkpoint that the monitor selected as best after iteration t-1

and every other model that the recipe names. An update may train any role.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from selfreward.records import Checkpoint

POLICY_MODELS = frozenset({"policy", "initial", "best"})
"""Models that exist in every recipe and may judge: they have weights of the policy."""

CHANGING = frozenset({"policy", "best"})
"""Models whose weights change from iteration to iteration, in addition to other roles that a recipe trains."""

RESERVED = POLICY_MODELS - {"policy"} | {"given", "previous", "trained"}
"""Roles whose weights only the run sets: no model of a recipe may have such a name, and no update such a role."""


class Weights(Protocol):
    """The identity of a model in records: `id` is a hash of its weights, `iteration` t means M_t.

    A `Checkpoint` is weights with a folder.
    """

    @property
    def id(self) -> str: ...

    @property
    def iteration(self) -> int: ...


@dataclass(frozen=True)
class Roles(Mapping[str, Checkpoint]):
    """A mapping from role to current weights, after the updates made so far.

    `models` are the recipe's models. `at_iteration_start` are the weights at the start of this iteration, and
    `at_previous_start` the weights at the start of the previous one.
    """

    weights: Mapping[str, Checkpoint]
    models: Mapping[str, Checkpoint]
    at_iteration_start: Mapping[str, Checkpoint]
    at_previous_start: Mapping[str, Checkpoint]

    @classmethod
    def at_start(cls, models: Mapping[str, Checkpoint]) -> "Roles":
        """Return the roles before iteration 0, given the recipe's models: all roles of the run are models.policy."""
        weights = {**models, **dict.fromkeys(("given", "initial", "policy", "trained", "best"), models["policy"])}
        return cls(weights, models, at_iteration_start=weights, at_previous_start={})

    def __getitem__(self, role: str) -> Checkpoint:
        return self.weights[role]

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)

    def latest(self, role: str) -> Checkpoint:
        """Return the weights from which an update of `role` starts; for the policy, the latest update of M_t."""
        return self["trained" if role == "policy" else role]

    def first(self, role: str) -> Checkpoint:
        """Return the weights of `role` before any update; M_0 for the policy."""
        return self["initial"] if role == "policy" else self.models[role]

    def updated(self, role: str, weights: Checkpoint) -> "Roles":
        """Return the roles after an update of `role`. The policy's sets `trained`; `policy` stays M_{t-1}."""
        return replace(self, weights={**self.weights, "trained" if role == "policy" else role: weights})

    def advanced(self, *, best: Checkpoint) -> "Roles":
        """Return the roles at the start of the next iteration, where M_t becomes the policy."""
        trained = self["trained"]
        weights = {**self.weights, "policy": trained, "previous": trained, "trained": trained, "best": best}
        return Roles(weights, self.models, at_iteration_start=weights, at_previous_start=self.at_iteration_start)
