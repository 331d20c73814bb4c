"""Which weights each role stands for, from iteration to iteration.

    policy    generates and judges in iteration t: M_{t-1}, from the iteration's first step to its last
    previous  M_{t-1} too, as what M_t is compared with
    trained   M_t, once the updates of iteration t have made it
    initial   M_0; `given` is models.policy, of which a seed stage makes M_0
    best      the checkpoint that the monitor named best after iteration t-1

and every other model that the recipe names. An update may be of any role.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from selfreward.records import Checkpoint

OF_THE_RUN = frozenset({"policy", "initial", "best"})
"""Models that are there without being named and as whom a judge may speak: they stand for the policy's weights."""

CHANGING = frozenset({"policy", "best"})
"""Models whose weights change from iteration to iteration. A recipe that trains another role has one more of them."""

RESERVED = OF_THE_RUN - {"policy"} | {"given", "previous", "trained"}
"""Roles that the run alone gives weights to: no model of a recipe has such a name, and no update such a role."""


class Weights(Protocol):
    """What a record says of the model that it is by: `id` is a hash of its weights, `iteration` t means M_t.

    A `Checkpoint` is weights with a folder.
    """

    @property
    def id(self) -> str: ...

    @property
    def iteration(self) -> int: ...


@dataclass(frozen=True)
class Roles(Mapping[str, Checkpoint]):
    """A mapping from role to weights as they are now, after the updates that were made.

    `models` are the recipe's. `began` are those with which the iteration began, and `before` those with which the one
    before it did.
    """

    weights: Mapping[str, Checkpoint]
    models: Mapping[str, Checkpoint]
    began: Mapping[str, Checkpoint]
    before: Mapping[str, Checkpoint]

    @classmethod
    def at_start(cls, models: Mapping[str, Checkpoint]) -> "Roles":
        """Before iteration 0, of the recipe's models by name: everything that the run makes begins as models.policy."""
        weights = {**models, **dict.fromkeys(("given", "initial", "policy", "trained", "best"), models["policy"])}
        return cls(weights, models, began=weights, before={})

    def __getitem__(self, role: str) -> Checkpoint:
        return self.weights[role]

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)

    def latest(self, role: str) -> Checkpoint:
        """What an update of `role` starts from: of the policy what an update before it made."""
        return self["trained" if role == "policy" else role]

    def first(self, role: str) -> Checkpoint:
        """What `role` was before any update: of the policy M_0."""
        return self["initial"] if role == "policy" else self.models[role]

    def updated(self, role: str, weights: Checkpoint) -> "Roles":
        """After an update of `role`. What the update of the policy made is `trained`; `policy` stays what it was."""
        return replace(self, weights={**self.weights, "trained" if role == "policy" else role: weights})

    def advanced(self, *, best: Checkpoint) -> "Roles":
        """The roles with which the next iteration begins: M_t is the policy now."""
        trained = self["trained"]
        weights = {**self.weights, "policy": trained, "previous": trained, "trained": trained, "best": best}
        return Roles(weights, self.models, began=weights, before=self.began)
