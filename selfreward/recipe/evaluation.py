"""`evaluation`: the anchor (the judge that measures) and the held-out prompts on which it measures."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from selfreward.recipe.judging import (
    AdditiveSection,
    ExpectedScoreSection,
    PairwiseAnchorSection,
    RewardModelSection,
    RubricSection,
    VerifierSection,
)
from selfreward.recipe.paths import InputPath
from selfreward.recipe.prompts import FILE_DROPPED_RATE, AnswerCheck, Columns, PromptsSection
from selfreward.recipe.section import VALIDATION_PROMPTS, VERIFIABLE_PROMPTS, Changeable, Section
from selfreward.roles import CHANGING

EXTRA_SPLITS_FROM = 400
"""Number of validation prompts from which on a second validation set and a test set of that size are also held out."""


def _kind(section: Any) -> str | None:
    """Return the anchor's kind, `pairwise` when none is given; None for what is no section."""
    return str(section.get("kind", "pairwise")) if isinstance(section, dict) else getattr(section, "kind", None)


AnchorSection = Annotated[
    Annotated[PairwiseAnchorSection, Tag("pairwise")]
    | Annotated[AdditiveSection, Tag("additive")]
    | Annotated[RubricSection, Tag("rubric")]
    | Annotated[ExpectedScoreSection, Tag("expected_score")]
    | Annotated[RewardModelSection, Tag("reward_model")]
    | Annotated[VerifierSection, Tag("verifier")],
    Discriminator(_kind),
]


class VerifiableEvaluation(Section):
    """Prompts with checks that are never trained on: generated ones on topics of their own, or those of a file.

    `path`: a file like that of `prompts`, with the same `columns` and `answer_check`. Its rows without `checks` or an
    answer are left out; `num_prompts` of the others are used, in an order drawn by the seed.
    """

    path: InputPath | None = None
    columns: Columns = Columns()
    answer_check: AnswerCheck = "auto"
    max_dropped_rate: float = Changeable(FILE_DROPPED_RATE, ge=0, le=1)
    num_prompts: int = Field(128, ge=1)
    num_checks: int = Field(1, ge=1, le=3)
    check_kinds: list[str] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _a_file_has_its_own_checks(self) -> "VerifiableEvaluation":
        if self.path is not None and (self.num_checks, self.check_kinds) != (1, None):
            raise ValueError(
                "path: the prompts of a file have checks of their own, so that num_checks and check_kinds have no "
                "effect; remove them or `path`"
            )
        if self.path is None and (self.columns, self.answer_check, self.max_dropped_rate) != (
            Columns(), "auto", FILE_DROPPED_RATE,
        ):  # fmt: skip
            raise ValueError(
                "columns, answer_check and max_dropped_rate are about a file, and there is none; add "
                "`path`, or remove them"
            )
        return self


def _form(section: Any) -> str:
    return VALIDATION_PROMPTS if isinstance(section, str) else VERIFIABLE_PROMPTS


VerifiableSection = Annotated[
    Annotated[VerifiableEvaluation, Tag(VERIFIABLE_PROMPTS)]
    | Annotated[Literal["validation"], Tag(VALIDATION_PROMPTS)],
    Discriminator(_form),
]


class GoldSection(Section):
    """A file of pairs with a known order, by human labels or by construction, to measure judge accuracy; a text is its
    path.

    A row has a prompt, `chosen` and `rejected` (texts, messages or conversations), and optionally `id` (docs/data.md).
    """

    path: InputPath = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _a_text_is_the_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


class EvaluationSection(Section):
    """`prompts: null` takes the validation, second validation and test sets from the recipe's own prompt source.

    All of them are disjoint and never trained on. Decisions are based on the validation prompts (`num_prompts`). The
    second validation set is evaluated when they leave a decision open. The test set is evaluated once, after the run
    has ended, because the best checkpoint was selected on the other two. Null makes the second validation and test sets
    as large as the validation set from 400 prompts on, and empty below that.
    `verifiable`: prompts with checks, for the pass rate: generated ones, a file of one's own (`path`), or `validation`,
    those of the validation prompts that have checks. Unset, it is `validation` where at least half of the prompts have
    checks.
    `temperature`: the pass rate of greedy responses is measured too where it is not 0.
    `preset` gives the sizes that are not set, and `self_judge` (`sizes.py`); unset, it is `light` below 1,000 prompts.
    `self_judge`: the run's own judge compares the same responses as the anchor, which shows when it is exploited.
    `anchor_may_label`: allows an anchor whose model and template also label.
    `num_judge_prompts`: that many of the first iteration's prompts are judged again by every later judge, and on that
    many prompts of each iteration the anchor compares the best with the worst response. 0 switches off both.
    """

    preset: Literal["light", "standard", "full"] = "standard"
    anchor: AnchorSection = PairwiseAnchorSection()
    anchor_may_label: bool = False
    prompts: PromptsSection | None = None
    num_prompts: int = Field(128, ge=2)
    num_second_validation_prompts: int | None = Field(None, ge=0)
    num_test_prompts: int | None = Field(None, ge=0)
    verifiable: VerifiableSection | None = VerifiableEvaluation()
    gold: GoldSection | None = None
    self_judge: bool = True
    num_judge_prompts: int = Field(64, ge=0)
    temperature: float = Field(0.0, ge=0)
    max_tokens: int | None = Field(None, ge=1, description="null: sampling.max_tokens")

    @model_validator(mode="after")
    def _anchor_stays_the_same(self) -> "EvaluationSection":
        if (by := getattr(self.anchor, "by", None)) in CHANGING:
            raise ValueError(f"anchor.by: {by} changes during the run; an anchor must stay the same; use initial")
        return self

    @property
    def second_validation_size(self) -> int:
        return self._size(self.num_second_validation_prompts)

    @property
    def test_size(self) -> int:
        return self._size(self.num_test_prompts)

    def _size(self, requested: int | None) -> int:
        return requested if requested is not None else self.num_prompts if self.num_prompts >= EXTRA_SPLITS_FROM else 0
