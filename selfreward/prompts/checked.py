"""The prompts of `evaluation.verifiable`, for the pass rate: generated ones, or the rows of a file that have checks."""

from dataclasses import dataclass, replace
from typing import Final, Literal

from selfreward.errors import RecipeError
from selfreward.parts import LeftOut
from selfreward.prompts.pool import in_seeded_order
from selfreward.prompts.reading import read_prompts
from selfreward.prompts.verifiable import VerifiableGenerator
from selfreward.recipe import FilePrompts, VerifiableEvaluation
from selfreward.records import Prompt

ID_PREFIX: Final = "verifiable-"
"""Ids of a file get it, because the file of the training prompts may number its rows too."""


@dataclass(frozen=True)
class CheckedPrompts:
    """`prompts` have checks. `left_out` are rows without any. `is_validation`: the validation prompts are used."""

    prompts: tuple[Prompt, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    is_validation: bool = False


def checked_prompts(section: VerifiableEvaluation | Literal["validation"] | None, *, seed: int) -> CheckedPrompts:
    """Return the prompts of this section. Raises RecipeError when there are fewer than `num_prompts`."""
    if section is None or section == "validation":
        return CheckedPrompts(is_validation=section is not None)
    if section.path is None:
        return CheckedPrompts(generated(_generator(section, seed), "verifiable", section.num_prompts))
    rows = in_seeded_order(_rows(section), seed=seed)
    checked = [replace(prompt, id=f"{ID_PREFIX}{prompt.id}") for prompt in rows if prompt.checks]
    if len(checked) < section.num_prompts:
        advice = (
            f"lower it to {len(checked)}, or add rows"
            if checked
            else 'add `"checks": [{"kind": ...}]` to rows, or name the column of their answers with `columns: {answer: '
            "...}`"
        )
        raise RecipeError(
            f"evaluation.verifiable: {section.path} has {len(checked)} rows with `checks` and "
            f"{len(rows) - len(checked)} without; evaluation.verifiable.num_prompts needs {section.num_prompts}; "
            f"{advice}"
        )
    left_out = (_without_checks(prompt) for prompt in rows if not prompt.checks)
    return CheckedPrompts(tuple(checked[: section.num_prompts]), tuple(left_out))


def num_checked(section: VerifiableEvaluation | Literal["validation"] | None, *, seed: int, at_most: int) -> int:
    """Return the number of prompts that this section could use; of a file at most `at_most` rows are read."""
    if section is None or section == "validation":
        return 0
    if section.path is None:
        return _generator(section, seed).available("verifiable")
    return sum(bool(prompt.checks) for prompt in _rows(section, at_most=at_most))


def _rows(section: VerifiableEvaluation, *, at_most: int | None = None) -> list[Prompt]:
    file = FilePrompts(
        kind="file", path=str(section.path), columns=section.columns, answer_check=section.answer_check,
        max_dropped_rate=section.max_dropped_rate,
    )  # fmt: skip
    found, _ = read_prompts(file, key="evaluation.verifiable", at_most=at_most)
    return found


def generated(generator: VerifiableGenerator, part: str, count: int) -> tuple[Prompt, ...]:
    # Ids are used in file names and record keys, so they must not contain a slash.
    return tuple(replace(prompt, id=prompt.id.replace("/", "-")) for prompt in generator.prompts(part, 0, count))


def _generator(section: VerifiableEvaluation, seed: int) -> VerifiableGenerator:
    return VerifiableGenerator(seed, num_checks=section.num_checks, check_kinds=section.check_kinds)


def _without_checks(prompt: Prompt) -> LeftOut:
    return LeftOut(prompt.id, "no_checks", f"prompt {prompt.id}: it has no checks", "add checks, or remove the row")
