"""Split of a source's prompts into fresh training prompts for each iteration and disjoint held-out sets.

Verifiable prompts and gold pairs are given. The validation, second validation and test sets are the first prompts of
the evaluation's own source, or of the training source if it has none. Training prompts are the remaining ones, without
those that overlap with any held-out prompt. Iteration t takes block t of those to which the policy can respond,
regardless of `iterations.max`, because that key may change when a run is resumed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

from selfreward.errors import RecipeError
from selfreward.parts import LeftOut
from selfreward.prompts.blocks import Blocks
from selfreward.prompts.collecting import Summary, counted
from selfreward.prompts.contamination import NGRAM_WORDS, THRESHOLD, Overlap, check_overlap
from selfreward.prompts.diversity import diversity
from selfreward.prompts.hashes import pairs_sha256, size_and_hash
from selfreward.prompts.held_out import KEYS, Fit, always_fits, hold_out
from selfreward.prompts.pool import Pool
from selfreward.recipe import IterationsSection
from selfreward.records import GoldPair, Prompt

DIVERSITY_PROMPTS = 256
DIVERSITY_WORDS = 128


class SplitSource:
    """The `parts.PromptSource` of all recipes.

    `own` is the training source, `other` the evaluation's own source (None: prompts are held out of `own`). `gaps` are
    sentences on what the recipe's held-out sets do not measure. `fit_training` and `fit_held_out` return why a prompt
    is left out of the training prompts, or not held out; the next prompt takes its place. Raises RecipeError when there
    are too few prompts for `iterations`, or when more than half of the training prompts overlap with held-out prompts.
    """

    def __init__(
        self,
        own: Pool,
        *,
        other: Pool | None,
        verifiable: Sequence[Prompt],
        verifiable_left_out: Sequence[LeftOut] = (),
        checks_validation: bool = False,
        num_validation: int,
        num_second_validation: int = 0,
        num_test: int = 0,
        gold: Sequence[GoldPair] = (),
        gold_summary: Summary | None = None,
        iterations: IterationsSection,
        boilerplate: Sequence[str] = (),
        gaps: Sequence[str] = (),
        fit_training: Fit = always_fits,
        fit_held_out: Fit = always_fits,
    ) -> None:
        self._own, self._other, self._iterations = own, other, iterations
        self._boilerplate, self._gaps = boilerplate, gaps
        self._verifiable_left_out = tuple(verifiable_left_out)
        pool = other or own
        self._summaries = [own.summary, other and other.summary, gold_summary]
        self._held_out = hold_out(
            pool.prompts if pool.held_out is None else pool.held_out,
            sizes={"validation": num_validation, "second_validation": num_second_validation, "test": num_test},
            verifiable=verifiable, gold=gold, boilerplate=boilerplate,
            source=f"{'evaluation.prompts' if other else 'prompts'}: {pool.name}", how_to_add=pool.how_to_add,
            mark_ids=other is not None, fit=fit_held_out,
        )  # fmt: skip
        validation = self._held_out.validation
        self._checks_validation = checks_validation
        self._verifiable = _with_checks(validation) if checks_validation else self._held_out.verifiable
        held_out_ids = {prompt.id for prompt in self._held_out.taken}
        candidates = [prompt for prompt in own.prompts if prompt.id not in held_out_ids]
        self._num_held_out = len(own.prompts) - len(candidates)
        self._overlap = check_overlap(candidates, self._held_out.prompts, boilerplate=boilerplate)
        removed = self._overlap.training_ids
        self._training = tuple(prompt for prompt in candidates if prompt.id not in removed)
        self._require_little_overlap()
        self._blocks = Blocks(self._training, size=iterations.num_prompts_per_iteration, fit=fit_training)
        self._require_enough(iterations.max)
        _require_unique_ids([*self._training, *self._held_out.prompts])

    def training_prompts(self, iteration: int) -> Sequence[Prompt]:
        """Return block `iteration` (from 1) of the training prompts."""
        if iteration < 1:
            raise ValueError(f"training prompts: iteration {iteration} was requested; iterations start at 1")
        self._require_enough(iteration)
        return self._blocks[iteration]

    def left_out(self, iteration: int | None) -> Sequence[LeftOut]:
        """Return the prompts that block `iteration`, or with None the held-out sets, left out."""
        if iteration is not None:
            return self._blocks.left_out(iteration)
        return self._held_out.left_out + self._verifiable_left_out

    def notes(self) -> Sequence[str]:
        """Return sentences on dropped rows, repeated prompts and changed ids of all sources."""
        return [note for summary in self._summaries if summary for note in summary.notes()]

    def validation_prompts(self) -> Sequence[Prompt]:
        """Return `evaluation.num_prompts` held-out prompts."""
        return self._held_out.validation

    def second_validation_prompts(self) -> Sequence[Prompt]:
        """Return `evaluation.second_validation_size` held-out prompts."""
        return self._held_out.second_validation

    def test_prompts(self) -> Sequence[Prompt]:
        """Return `evaluation.test_size` held-out prompts."""
        return self._held_out.test

    def verifiable_prompts(self) -> Sequence[Prompt]:
        """Return held-out prompts with checks; empty when `evaluation.verifiable` is null."""
        return self._verifiable

    @property
    def num_usable(self) -> int:
        """The number of prompts that could be trained on, in any iteration; all of them are tried."""
        return len(self._blocks.first(len(self._training)))

    def gold_pairs(self) -> Sequence[GoldPair]:
        """Return the pairs of `evaluation.gold`; empty when it is null."""
        return self._held_out.gold

    def num_overlapping(self, prompts: Sequence[Prompt]) -> int:
        """Return the number of these prompts that overlap with held-out prompts, by the same check as for training."""
        return len(check_overlap(prompts, self._held_out.prompts, boilerplate=self._boilerplate).training_ids)

    def facts(self) -> Mapping[str, Any]:
        """Return facts about the prompts, as JSON values.

        `diversity` is computed on the first 256 training prompts (for ROUGE-L, on their first 128 words).
        `data_split_guarantees` are sentences on what this run guarantees, and on what its sets do not measure.
        From a generator only as many prompts are read as `iterations.max` may need, so `sha256` changes with that key.
        """
        return self._facts

    @cached_property
    def _facts(self) -> Mapping[str, Any]:
        varied = diversity(self._training[:DIVERSITY_PROMPTS], max_words=DIVERSITY_WORDS)
        held_out = self._held_out
        return {
            "training": {
                **self._own.facts,
                "num_held_out": self._num_held_out,
                "num_left_out": self._num_left_out(),
                **size_and_hash(self._training),
            },
            "validation": {
                "source": (self._other or self._own).name,
                "num_skipped": self._other.facts["num_skipped"] if self._other else {},
                "num_left_out": len(held_out.left_out),
                **size_and_hash(held_out.validation),
            },
            "second_validation": size_and_hash(held_out.second_validation),
            "test": size_and_hash(held_out.test),
            "verifiable": {
                "num_without_checks": len(self._verifiable_left_out),
                "of_validation": self._checks_validation,
                **size_and_hash(self._verifiable),
            },
            "gold": {"num_prompts": len(held_out.gold), "sha256": pairs_sha256(held_out.gold)},
            "overlap": self._overlap_facts(),
            "data_split_guarantees": [self._guarantee(), *self._gaps],
            "diversity": {**asdict(varied), "nearest_pair": list(varied.nearest_pair or ())},
        }

    def _num_left_out(self) -> int:
        """Return the number of prompts that the blocks of all iterations left out."""
        return sum(len(self._blocks.left_out(t)) for t in range(1, self._iterations.max + 1))

    def _overlap_facts(self) -> dict[str, Any]:
        exact = {pair.training_id for pair in self._overlap.pairs if pair.kind == "exact"}
        passed_over = {f"num_{name}_passed_over": n for name, n in self._held_out.num_passed_over.items()}
        return {
            "ngram_words": NGRAM_WORDS,
            "threshold": THRESHOLD,
            "num_training_checked": self._overlap.num_training,
            "num_evaluation_checked": self._overlap.num_evaluation,
            "num_training_removed_exact": len(exact),
            "num_training_removed_near": len(self._overlap.training_ids - exact),
            **passed_over,
            "examples": [asdict(pair) for pair in self._overlap.pairs[:5]],
        }

    def _guarantee(self) -> str:
        held_out = self._held_out
        sizes = {
            name: len(getattr(held_out, name))
            for name in ("validation", "second_validation", "test", "verifiable", "gold")
        }
        sets = ", ".join(f"{size} {name}" for name, size in sizes.items() if size)
        checked = f" ({len(self._verifiable)} of the validation prompts have checks)" if self._checks_validation else ""
        return (
            f"held out and never trained on: {sets} prompts{checked}; no two of these sets overlap, and "
            f"{len(self._overlap.training_ids)} prompts that overlap with them were removed from training"
        )

    def _require_little_overlap(self) -> None:
        num_removed = len(self._overlap.training_ids)
        if 2 * num_removed <= self._overlap.num_training:
            return
        source = (
            f"evaluation.prompts ({self._other.name})" if self._other else "the prompts held out of the same source"
        )
        sets = {"verifiable": self._held_out.verifiable, "gold": [pair.prompt for pair in self._held_out.gold]}
        overlapping = {pair.evaluation_id for pair in self._overlap.pairs}
        for name, prompts in sets.items():
            if any(prompt.id in overlapping for prompt in prompts):
                source += f" or with evaluation.{name}"
        raise RecipeError(
            f"prompts: {num_removed} of {self._overlap.num_training} training prompts from {self._own.name} overlap "
            f"with {source}, {_example(self._overlap)}; at most half may be removed; give evaluation prompts "
            "from another source, hold out fewer, or move a shared template to `system_prompt`"
        )

    def _require_enough(self, iteration: int) -> None:
        block = self._iterations.num_prompts_per_iteration
        needed = iteration * block
        available = len(self._blocks.first(needed))
        if needed <= available:
            return
        used = [f"{self._num_held_out} are held out for evaluation"] if self._num_held_out else []
        if self._overlap.training_ids:
            used.append(f"{len(self._overlap.training_ids)} are removed because they overlap with evaluation prompts")
        if left_out := self._blocks.all_left_out:
            reasons = counted(Counter(each.kind for each in left_out))
            example = f"{left_out[0].found}; {left_out[0].advice}"
            used.append(f"{len(left_out)} cannot be used ({reasons}; for example {example})")
        advice = [self._own.how_to_add]
        if self._num_held_out and self._held_out.validation and available < iteration:
            fitting = len(self._held_out.validation) - (iteration - available)
            advice += [f"lower evaluation.num_prompts to {fitting}"] if fitting >= 2 else []
        if self._num_held_out and (spare := [k for k in ("second_validation", "test") if getattr(self._held_out, k)]):
            advice.append(f"lower {' or '.join(f'evaluation.{KEYS[name]}' for name in spare)}")
        if available >= iteration:
            advice.append(f"set iterations.num_prompts_per_iteration to {available // iteration}")
        if available >= block:
            advice.append(f"set iterations.max to {available // block}")
        raise RecipeError(
            f"prompts: {self._own.name} has {len(self._own.prompts)} prompts"
            f"{''.join(f', {part}' for part in used)}, which leaves {available} for training; {iteration} iterations x "
            f"{block} prompts need {needed} fresh ones, {needed - available} more; before a run begins, "
            f"{', or '.join(advice)}; a run that has begun has its prompts and sizes for good: go on from its last "
            "model in a new run, with other prompts or sizes: selfreward run NEW.yaml --from RUN@ITERATION"
        )


def _with_checks(prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """Return the validation prompts that have checks. Raises RecipeError when none has."""
    found = tuple(prompt for prompt in prompts if prompt.checks)
    if not found:
        raise RecipeError(
            f"evaluation.verifiable: validation: none of the {len(prompts)} validation prompts has `checks`; at least "
            "one is needed for a pass rate; add checks to the rows, or set evaluation.verifiable to {path: ...}, "
            "{num_prompts: ...} for generated prompts, or null"
        )
    return found


def _require_unique_ids(prompts: Sequence[Prompt]) -> None:
    repeated = [prompt_id for prompt_id, count in Counter(prompt.id for prompt in prompts).items() if count > 1]
    if repeated:
        raise RecipeError(
            f"prompts: the id {repeated[0]!r} belongs to more than one prompt of this run; ids must be unique over "
            "training and evaluation; rename it in the file"
        )


def _example(overlap: Overlap) -> str:
    pair = overlap.pairs[0]
    return f"for example {pair.training_id!r} with {pair.evaluation_id!r} ({pair.kind}, share {pair.share:.2f})"
