"""Splits what was read into fresh training prompts for each iteration and held-out prompts: disjoint, and checked.

Order of work: verifiable prompts are given; monitor prompts are the first of the evaluation's own source, or of the
training source when it has none; training prompts are what is left, less all that overlaps with either. Iteration t
takes block t of them, whatever `iterations.max` is, because that key may change on a started run.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from selfreward.errors import RecipeError
from selfreward.prompts.contamination import NGRAM_WORDS, THRESHOLD, Overlap, check_overlap
from selfreward.prompts.diversity import diversity
from selfreward.recipe import IterationsSection
from selfreward.records import Message, Prompt
from selfreward.seeding import seed_of

DIVERSITY_PROMPTS = 256
DIVERSITY_WORDS = 128


@dataclass(frozen=True)
class Pool:
    """Prompts of one source in the order in which a run takes them.

    `held_out` is set when the source keeps prompts for monitoring apart by itself. `num_skipped` counts rows of the
    source that are no prompts, by reason. `how_to_add` is what a person does to get more prompts.
    """

    name: str
    prompts: tuple[Prompt, ...]
    held_out: tuple[Prompt, ...] | None = None
    num_skipped: Mapping[str, int] = field(default_factory=dict)
    how_to_add: str = "add prompts"


def in_seeded_order(prompts: Iterable[Prompt], *, seed: int) -> tuple[Prompt, ...]:
    """A shuffle that depends on the seed and the ids alone, so that it is the same in every process."""
    return tuple(sorted(prompts, key=lambda prompt: (seed_of(seed, 0, "prompts", prompt.id), prompt.id)))


def with_system_prompt(prompts: Iterable[Prompt], system_prompt: str | None) -> tuple[Prompt, ...]:
    """Puts a system turn before each prompt that brings none of its own."""
    if system_prompt is None:
        return tuple(prompts)
    turn = Message("system", system_prompt)
    return tuple(
        prompt if prompt.messages[0].role == "system" else replace(prompt, messages=(turn, *prompt.messages))
        for prompt in prompts
    )


class SplitSource:
    """The PromptSource of every kind of recipe.

    `own` is the training source, `other` the evaluation's own source (None: monitor prompts are held out of `own`).
    Raises RecipeError when there are too few prompts, or when more than half of the training prompts overlap with
    evaluation prompts.
    """

    def __init__(
        self,
        own: Pool,
        *,
        other: Pool | None,
        verifiable: Sequence[Prompt],
        num_monitor: int,
        iterations: IterationsSection,
        boilerplate: Sequence[str] = (),
    ) -> None:
        self._own, self._other, self._iterations = own, other, iterations
        self._verifiable = tuple(verifiable)
        self._monitor, self._num_passed_over = _monitor_prompts(own, other, self._verifiable, num_monitor, boilerplate)
        held_out_ids = {prompt.id for prompt in self._monitor}
        candidates = [prompt for prompt in own.prompts if prompt.id not in held_out_ids]
        self._num_held_out = len(own.prompts) - len(candidates)
        self._overlap = check_overlap(candidates, [*self._monitor, *self._verifiable], boilerplate=boilerplate)
        removed = self._overlap.training_ids
        self._training = tuple(prompt for prompt in candidates if prompt.id not in removed)
        self._require_little_overlap()
        self._require_enough(iterations.max)
        _require_unique_ids([*self._training, *self._monitor, *self._verifiable])

    def training_prompts(self, iteration: int) -> Sequence[Prompt]:
        """Block `iteration` (from 1) of the training prompts."""
        if iteration < 1:
            raise ValueError(f"training prompts: iteration {iteration} was asked for; iterations count from 1")
        self._require_enough(iteration)
        block = self._iterations.num_prompts_per_iteration
        return self._training[(iteration - 1) * block : iteration * block]

    def monitor_prompts(self) -> Sequence[Prompt]:
        """`evaluation.num_prompts` held-out prompts."""
        return self._monitor

    def verifiable_prompts(self) -> Sequence[Prompt]:
        """Held-out prompts with checks; empty when `evaluation.verifiable` is null."""
        return self._verifiable

    def facts(self) -> Mapping[str, Any]:
        """JSON values only. `diversity` is of the first 256 training prompts (for ROUGE-L, of their first 128 words).

        Of a generator as many prompts are read as `iterations.max` may need: then `sha256` changes with that key.
        """
        return self._facts

    @cached_property
    def _facts(self) -> Mapping[str, Any]:
        varied = diversity(self._training[:DIVERSITY_PROMPTS], max_words=DIVERSITY_WORDS)
        exact = {pair.training_id for pair in self._overlap.pairs if pair.kind == "exact"}
        return {
            "training": {
                "source": self._own.name,
                "num_read": len(self._own.prompts),
                "num_skipped": dict(self._own.num_skipped),
                "num_held_out": self._num_held_out,
                "num_prompts": len(self._training),
                "sha256": prompts_sha256(self._training),
            },
            "monitor": {
                "source": (self._other or self._own).name,
                "num_prompts": len(self._monitor),
                "num_skipped": dict(self._other.num_skipped) if self._other else {},
                "sha256": prompts_sha256(self._monitor),
            },
            "verifiable": {"num_prompts": len(self._verifiable), "sha256": prompts_sha256(self._verifiable)},
            "overlap": {
                "ngram_words": NGRAM_WORDS,
                "threshold": THRESHOLD,
                "num_training_checked": self._overlap.num_training,
                "num_evaluation_checked": self._overlap.num_evaluation,
                "num_training_removed_exact": len(exact),
                "num_training_removed_near": len(self._overlap.training_ids - exact),
                "num_monitor_passed_over": self._num_passed_over,
                "examples": [asdict(pair) for pair in self._overlap.pairs[:5]],
            },
            "diversity": {**asdict(varied), "nearest_pair": list(varied.nearest_pair or ())},
        }

    def _require_little_overlap(self) -> None:
        num_removed = len(self._overlap.training_ids)
        if 2 * num_removed <= self._overlap.num_training:
            return
        held_out = "the prompts held out of the same source"
        source = f"evaluation.prompts ({self._other.name})" if self._other else held_out
        raise RecipeError(
            f"prompts: {num_removed} of {self._overlap.num_training} training prompts from {self._own.name} overlap "
            f"with {source}, {_example(self._overlap)}; at most half may be removed; give evaluation prompts of "
            "another origin, lower evaluation.num_prompts, or move a template that all share to `system_prompt`"
        )

    def _require_enough(self, iteration: int) -> None:
        block = self._iterations.num_prompts_per_iteration
        needed, available = iteration * block, len(self._training)
        if needed <= available:
            return
        used = [f"{self._num_held_out} are held out for evaluation"] if self._num_held_out else []
        if self._overlap.training_ids:
            used.append(f"{len(self._overlap.training_ids)} are removed because they overlap with evaluation prompts")
        advice = [self._own.how_to_add]
        if available >= iteration:
            advice.append(f"set iterations.num_prompts_per_iteration to {available // iteration}")
        if available >= block:
            advice.append(f"set iterations.max to {available // block}")
        raise RecipeError(
            f"prompts: {self._own.name} gives {len(self._own.prompts)} prompts"
            f"{''.join(f', {part}' for part in used)}, which leaves {available} for training; {iteration} iterations x "
            f"{block} prompts need {needed} fresh ones, {needed - available} more; {', or '.join(advice)}"
        )


def _monitor_prompts(
    own: Pool, other: Pool | None, verifiable: Sequence[Prompt], num_monitor: int, boilerplate: Sequence[str]
) -> tuple[tuple[Prompt, ...], int]:
    """The first prompts that are no verifiable prompts, and how many had to be passed over."""
    pool = other or own
    candidates = pool.prompts if pool.held_out is None else pool.held_out
    taken = check_overlap(candidates, verifiable, boilerplate=boilerplate).training_ids
    free = [prompt for prompt in candidates if prompt.id not in taken]
    if len(free) < num_monitor:
        where = "evaluation.prompts" if other else "prompts"
        raise RecipeError(
            f"{where}: {pool.name} gives {len(free)} prompts that can be held out; evaluation.num_prompts needs "
            f"{num_monitor}, {num_monitor - len(free)} more; {pool.how_to_add}, or lower evaluation.num_prompts"
        )
    monitor = tuple(free[:num_monitor])
    last = candidates.index(monitor[-1])
    # Two files may both number their rows: prompts of another source are told apart by their id.
    return tuple(replace(prompt, id=f"monitor-{prompt.id}") for prompt in monitor) if other else monitor, (
        last + 1 - num_monitor
    )


def _require_unique_ids(prompts: Sequence[Prompt]) -> None:
    repeated = [prompt_id for prompt_id, count in Counter(prompt.id for prompt in prompts).items() if count > 1]
    if repeated:
        raise RecipeError(
            f"prompts: the id {repeated[0]!r} stands for more than one prompt of this run; ids are unique over "
            "training and evaluation; rename it in the file"
        )


def _example(overlap: Overlap) -> str:
    pair = overlap.pairs[0]
    return f"for example {pair.training_id!r} with {pair.evaluation_id!r} ({pair.kind}, share {pair.share:.2f})"


def prompts_sha256(prompts: Iterable[Prompt]) -> str:
    """Of ids, turns and checks in order: tells whether a started run still sees the prompts it began with."""
    digest = hashlib.sha256()
    for prompt in prompts:
        turns = [[message.role, message.content] for message in prompt.messages]
        row = json.dumps([prompt.id, turns, [dict(check) for check in prompt.checks]], sort_keys=True)
        digest.update(row.encode() + b"\n")
    return digest.hexdigest()
