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


class Weights(Protocol):
    """Weights that an engine can hold. `id` is a hash of them, `iteration` t means M_t.

    A `Checkpoint` is weights with a folder.
    """

    @property
    def id(self) -> str: ...

    @property
    def iteration(self) -> int: ...


@dataclass(frozen=True)
class Roles(Mapping[str, Checkpoint]):
    """A mapping from role to weights. `before` are the roles of the iteration before, None in the first one."""

    weights: Mapping[str, Checkpoint]
    before: "Roles | None" = None

    @classmethod
    def at_start(cls, models: Mapping[str, Checkpoint]) -> "Roles":
        """Before iteration 0, of the recipe's models by name: everything that the run makes begins as models.policy."""
        given = models["policy"]
        return cls({**models, **dict.fromkeys(("given", "initial", "policy", "trained", "best"), given)})

    def __getitem__(self, role: str) -> Checkpoint:
        return self.weights[role]

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)

    def updated(self, role: str, weights: Checkpoint) -> "Roles":
        """After an update of `role`. What the update of the policy made is `trained`; `policy` stays what it was."""
        return replace(self, weights={**self.weights, "trained" if role == "policy" else role: weights})

    def advanced(self, *, best: Checkpoint) -> "Roles":
        """The roles with which the next iteration begins: M_t is the policy now."""
        trained = self["trained"]
        moved = {"policy": trained, "previous": trained, "trained": trained, "best": best}
        return Roles({**self.weights, **moved}, before=replace(self, before=None))
