"""The held-out sets of a run: validation, second validation, test, verifiable prompts and gold pairs, all disjoint.

Verifiable prompts and gold pairs are given. The other three sets are taken from one pool in order, validation prompts
first, so that the sizes of the other two do not change them. Prompts that overlap with earlier held-out prompts are
skipped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from selfreward.errors import RecipeError
from selfreward.parts import LeftOut
from selfreward.prompts.contamination import check_overlap
from selfreward.recipe import EvaluationSection
from selfreward.recipe.evaluation import EXTRA_SPLITS_FROM
from selfreward.records import GoldPair, Prompt
from selfreward.seeding import SPLIT_SEED_NAMES

KEYS: Final = {
    "validation": "num_prompts",
    "second_validation": "num_second_validation_prompts",
    "test": "num_test_prompts",
}
"""The sets that are taken from a pool, in this order, with the key of `evaluation` that gives the size of each."""

Fit = Callable[[Prompt], LeftOut | None]
"""Returns why a prompt is left out; None when the policy can respond to it."""

WORDS: Final = {"validation": "validation set", "second_validation": "second validation set", "test": "test set"}


def always_fits(_: Prompt) -> None:
    """Leave out no prompt."""


def is_hopeless(num_left_out: int, num_found: int) -> bool:
    """Return whether no more prompts are tried: a thousand do not fit, and ten times as many as do."""
    return num_left_out > 1000 + 10 * num_found


@dataclass(frozen=True)
class HeldOut:
    """The held-out sets; `num_passed_over` counts, by set, prompts of the pool skipped because of overlap.

    `left_out` are prompts of the pool skipped because the policy cannot respond to them.
    """

    validation: tuple[Prompt, ...] = ()
    second_validation: tuple[Prompt, ...] = ()
    test: tuple[Prompt, ...] = ()
    verifiable: tuple[Prompt, ...] = ()
    gold: tuple[GoldPair, ...] = ()
    num_passed_over: Mapping[str, int] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()

    @property
    def taken(self) -> tuple[Prompt, ...]:
        """The prompts taken from the pool."""
        return self.validation + self.second_validation + self.test

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """All prompts that are never trained on."""
        return self.taken + self.verifiable + tuple(pair.prompt for pair in self.gold)


def hold_out(
    candidates: Sequence[Prompt],
    *,
    sizes: Mapping[str, int],
    verifiable: Sequence[Prompt],
    gold: Sequence[GoldPair],
    boilerplate: Sequence[str],
    source: str,
    how_to_add: str,
    mark_ids: bool,
    fit: Fit = always_fits,
) -> HeldOut:
    """Take the validation, second validation and test sets of the given `sizes` from the candidates.

    `source` names the candidates in errors. `mark_ids` prefixes ids with the set's name, so that ids of another source
    than the training source are distinct, even if both number their rows. `fit` returns why a prompt is left out.
    Raises RecipeError when there are too few candidates.
    """
    gold_prompts = [pair.prompt for pair in gold]
    _refuse_gold_among(verifiable, gold_prompts, boilerplate)
    before: list[Prompt] = [*verifiable, *gold_prompts]
    left = candidates
    taken: dict[str, tuple[Prompt, ...]] = {}
    num_passed_over: dict[str, int] = {}
    left_out: dict[str, LeftOut] = {}
    for name in KEYS:
        if (size := sizes[name]) == 0:
            continue
        num_left_out = len(left_out)
        found, rest = _first(left, size, before, boilerplate, fit, left_out)
        if len(found) < size:
            raise _too_few(
                name, size, len(found), taken, source=source, how_to_add=how_to_add, left_out=[*left_out.values()]
            )
        before += found
        num_passed_over[name] = len(left) - len(rest) - size - (len(left_out) - num_left_out)
        left = rest
        taken[name] = tuple(
            replace(prompt, id=f"{SPLIT_SEED_NAMES[name]}-{prompt.id}") if mark_ids else prompt for prompt in found
        )
    return HeldOut(
        **taken,
        verifiable=tuple(verifiable),
        gold=tuple(gold),
        num_passed_over=num_passed_over,
        left_out=tuple(left_out.values()),
    )


def _first(
    candidates: Sequence[Prompt],
    size: int,
    before: Sequence[Prompt],
    boilerplate: Sequence[str],
    fit: Fit,
    left_out: dict[str, LeftOut],
) -> tuple[list[Prompt], Sequence[Prompt]]:
    """Return the first `size` candidates without overlap with `before`, and the rest; fewer when they run out.

    Those that do not fit are added to `left_out`; when hardly any fits, the search ends early.
    """
    found: list[Prompt] = []
    for start in range(0, len(candidates), size):
        block = candidates[start : start + size]
        overlapping = check_overlap(block, before, boilerplate=boilerplate).training_ids
        for index, prompt in enumerate(block, start):
            if prompt.id not in overlapping:
                if (misfit := fit(prompt)) is None:
                    found.append(prompt)
                else:
                    left_out[prompt.id] = misfit
            if len(found) == size or is_hopeless(len(left_out), len(found)):
                return found, candidates[index + 1 :]
    return found, []


def _refuse_gold_among(verifiable: Sequence[Prompt], gold: Sequence[Prompt], boilerplate: Sequence[str]) -> None:
    if overlap := check_overlap(gold, verifiable, boilerplate=boilerplate).pairs:
        raise RecipeError(
            f"evaluation.gold: the prompt {overlap[0].training_id!r} overlaps with the verifiable prompt "
            f"{overlap[0].evaluation_id!r}, {len({pair.training_id for pair in overlap})} in all; held-out sets must "
            "be disjoint; remove these rows from the file"
        )


def _too_few(
    name: str,
    size: int,
    num_free: int,
    taken: Mapping[str, Sequence[Prompt]],
    *,
    source: str,
    how_to_add: str,
    left_out: Sequence[LeftOut],
) -> RecipeError:
    key = f"evaluation.{KEYS[name]}"
    others = " and ".join(f"{len(prompts)} {other}" for other, prompts in taken.items())
    unusable = (
        f" and {len(left_out)} that cannot be used ({left_out[0].found}; {left_out[0].advice})" if left_out else ""
    )
    besides = f" in addition to {others} prompts" if others else ""
    return RecipeError(
        f"{source} has {num_free} prompts to hold out{besides}{unusable}; "
        f"{key} needs {size}, {size - num_free} more; {how_to_add}, or lower {key}"
        f"{f' to {num_free}' if num_free > 1 else ''}{' (0: none)' if others else ''}"
    )


def gaps(evaluation: EvaluationSection) -> list[str]:
    """Return what the held-out sets of this recipe cannot measure, one sentence each; empty when all sets exist."""
    missing: dict[str, list[str]] = {}
    for name, size in (("second_validation", evaluation.second_validation_size), ("test", evaluation.test_size)):
        if size == 0:
            automatic = getattr(evaluation, KEYS[name]) is None
            few = f"{evaluation.num_prompts} validation prompts are fewer than {EXTRA_SPLITS_FROM}"
            missing.setdefault(few if automatic else f"evaluation.{KEYS[name]} is 0", []).append(f"no {WORDS[name]}")
    found = [f"{' and '.join(names)}: {why}" for why, names in missing.items()]
    if evaluation.verifiable is None:
        found.append("no verifiable prompts: nothing is measured independently of a judge")
    if evaluation.gold is None:
        found.append("no gold pairs: the judge's accuracy against known orders is not measured")
    return found
