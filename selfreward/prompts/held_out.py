"""The prompts that a run is measured on: validation, second validation, test, verifiable and gold sets, of which no two
overlap.

Verifiable prompts and gold pairs are given. The other three sets are taken from one pool in its order, validation
prompts first, so that neither a second validation set nor a test set changes them. A prompt that overlaps with what was
held out before it is passed over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from selfreward.errors import RecipeError
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
"""The sets that are taken from a pool, in this order, and the key of `evaluation` that gives the size of each."""

WORDS: Final = {"validation": "validation set", "second_validation": "second validation set", "test": "test set"}


@dataclass(frozen=True)
class HeldOut:
    """`num_passed_over`: by set, how many prompts of the pool overlapped with what had been held out already."""

    validation: tuple[Prompt, ...] = ()
    second_validation: tuple[Prompt, ...] = ()
    test: tuple[Prompt, ...] = ()
    verifiable: tuple[Prompt, ...] = ()
    gold: tuple[GoldPair, ...] = ()
    num_passed_over: Mapping[str, int] = field(default_factory=dict)

    @property
    def taken(self) -> tuple[Prompt, ...]:
        """What the pool gave."""
        return self.validation + self.second_validation + self.test

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """Everything that is never trained on."""
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
) -> HeldOut:
    """`sizes` are those of validation, second validation and test sets. Raises RecipeError when there are too few
    candidates.

    `source` names the candidates in errors. `mark_ids` puts a set's name before its ids: two files may both number
    their rows, so that prompts of another source than the training's are told apart by their ids.
    """
    gold_prompts = [pair.prompt for pair in gold]
    _refuse_gold_among(verifiable, gold_prompts, boilerplate)
    before: list[Prompt] = [*verifiable, *gold_prompts]
    left = candidates
    taken: dict[str, tuple[Prompt, ...]] = {}
    num_passed_over: dict[str, int] = {}
    for name in KEYS:
        if (size := sizes[name]) == 0:
            continue
        found, rest = _first(left, size, before, boilerplate)
        if len(found) < size:
            raise _too_few(name, size, len(found), taken, source=source, how_to_add=how_to_add)
        before += found
        num_passed_over[name] = len(left) - len(rest) - size
        left = rest
        taken[name] = tuple(
            replace(prompt, id=f"{SPLIT_SEED_NAMES[name]}-{prompt.id}") if mark_ids else prompt for prompt in found
        )
    return HeldOut(**taken, verifiable=tuple(verifiable), gold=tuple(gold), num_passed_over=num_passed_over)


def _first(
    candidates: Sequence[Prompt], size: int, before: Sequence[Prompt], boilerplate: Sequence[str]
) -> tuple[list[Prompt], Sequence[Prompt]]:
    """The first `size` that overlap with nothing before, and what follows; fewer and nothing when they run out."""
    found: list[Prompt] = []
    for start in range(0, len(candidates), size):
        block = candidates[start : start + size]
        overlapping = check_overlap(block, before, boilerplate=boilerplate).training_ids
        for place, prompt in enumerate(block, start):
            if prompt.id not in overlapping:
                found.append(prompt)
            if len(found) == size:
                return found, candidates[place + 1 :]
    return found, []


def _refuse_gold_among(verifiable: Sequence[Prompt], gold: Sequence[Prompt], boilerplate: Sequence[str]) -> None:
    if overlap := check_overlap(gold, verifiable, boilerplate=boilerplate).pairs:
        raise RecipeError(
            f"evaluation.gold: the prompt {overlap[0].training_id!r} overlaps with the verifiable prompt "
            f"{overlap[0].evaluation_id!r}, {len({pair.training_id for pair in overlap})} in all; held-out sets are "
            "disjoint; remove these rows from the file"
        )


def _too_few(
    name: str, size: int, num_free: int, taken: Mapping[str, Sequence[Prompt]], *, source: str, how_to_add: str
) -> RecipeError:
    key = f"evaluation.{KEYS[name]}"
    others = " and ".join(f"{len(prompts)} {other}" for other, prompts in taken.items())
    return RecipeError(
        f"{source} gives {num_free} prompts that can be held out{f' beside {others} prompts' if others else ''}; "
        f"{key} needs {size}, {size - num_free} more; {how_to_add}, or lower {key}{' (0: none)' if others else ''}"
    )


def gaps(evaluation: EvaluationSection) -> list[str]:
    """What the held-out sets of this recipe cannot tell; a sentence each, none when every set is there."""
    missing: dict[str, list[str]] = {}
    for name, size in (("second_validation", evaluation.second_validation_size), ("test", evaluation.test_size)):
        if size == 0:
            automatic = getattr(evaluation, KEYS[name]) is None
            few = f"{evaluation.num_prompts} validation prompts are fewer than {EXTRA_SPLITS_FROM}"
            missing.setdefault(few if automatic else f"evaluation.{KEYS[name]} is 0", []).append(f"no {WORDS[name]}")
    found = [f"{' and '.join(names)}: {why}" for why, names in missing.items()]
    if evaluation.verifiable is None:
        found.append("no verifiable prompts: nothing is measured without a judge's opinion")
    if evaluation.gold is None:
        found.append("no gold pairs: the judge's accuracy against known orders is not measured")
    return found
