"""The training prompts divided into blocks, one for each iteration, of prompts to which the policy can respond."""

from collections import defaultdict
from collections.abc import Sequence

from selfreward.parts import LeftOut
from selfreward.prompts.held_out import Fit, is_hopeless
from selfreward.records import Prompt


class Blocks:
    """Blocks of `size` of the prompts that fit, in their order.

    `fit` returns why a prompt is left out, and the next one takes its place. Each prompt is tried once, when the first
    block that may contain it is asked for, so a block does not depend on which others were asked for before.
    """

    def __init__(self, prompts: Sequence[Prompt], *, size: int, fit: Fit) -> None:
        self._untried, self._size, self._fit = iter(prompts), size, fit
        self._usable: list[Prompt] = []
        self._left_out: defaultdict[int, list[LeftOut]] = defaultdict(list)

    def __getitem__(self, number: int) -> tuple[Prompt, ...]:
        """Return block `number` (from 1); it is shorter when the prompts run out."""
        end = number * self._size
        return tuple(self.first(end)[end - self._size : end])

    def left_out(self, number: int) -> Sequence[LeftOut]:
        """Return the prompts that were left out when block `number` was filled."""
        self.first(number * self._size)
        return tuple(self._left_out[number])

    def first(self, count: int) -> Sequence[Prompt]:
        """Return the first `count` prompts that fit, fewer when the prompts run out or hardly any fits."""
        while len(self._usable) < count and not is_hopeless(self.num_left_out, len(self._usable)):
            if (prompt := next(self._untried, None)) is None:
                break
            if (misfit := self._fit(prompt)) is None:
                self._usable.append(prompt)
            else:
                self._left_out[len(self._usable) // self._size + 1].append(misfit)
        return self._usable[:count]

    @property
    def num_left_out(self) -> int:
        """The number of prompts that were tried and do not fit."""
        return sum(map(len, self._left_out.values()))

    @property
    def all_left_out(self) -> list[LeftOut]:
        """The prompts that were tried and do not fit."""
        return [misfit for found in self._left_out.values() for misfit in found]
