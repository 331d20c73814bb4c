"""The prompts of one source, in the order in which a run takes them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from selfreward.prompts.collecting import Summary
from selfreward.records import Message, Prompt
from selfreward.seeding import seed_of


@dataclass(frozen=True)
class Pool:
    """Prompts of one source in the order in which a run takes them.

    `held_out` is set when the source itself separates prompts to hold out. `summary` is what was found in a source of
    rows. `how_to_add` is advice on getting more prompts.
    """

    name: str
    prompts: tuple[Prompt, ...]
    held_out: tuple[Prompt, ...] | None = None
    summary: Summary | None = None
    how_to_add: str = "add prompts"

    @property
    def facts(self) -> dict[str, Any]:
        summary = self.summary or Summary(self.name)
        skipped = dict(summary.dropped) | ({"same_prompt": summary.num_repeated} if summary.num_repeated else {})
        return {
            "source": self.name,
            "num_read": len(self.prompts),
            "num_rows": summary.num_rows,
            "num_skipped": skipped,
            "shapes": dict(summary.shapes),
            "unused_columns": summary.unused[:50],
        }


def in_seeded_order(prompts: Iterable[Prompt], *, seed: int) -> tuple[Prompt, ...]:
    """Shuffle prompts by the seed and their ids only, so that the order is the same in every process."""
    return tuple(sorted(prompts, key=lambda prompt: (seed_of(seed, 0, "prompts", prompt.id), prompt.id)))


def with_system_prompt(prompts: Iterable[Prompt], system_prompt: str | None) -> tuple[Prompt, ...]:
    """Prepend a system turn to each prompt that has none."""
    if system_prompt is None:
        return tuple(prompts)
    turn = Message("system", system_prompt)
    return tuple(
        prompt if prompt.messages[0].role == "system" else replace(prompt, messages=(turn, *prompt.messages))
        for prompt in prompts
    )
