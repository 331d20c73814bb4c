"""`judging` and `meta_judging`: the judges of responses and the judge of their judgments. One section per kind.

Settings without effect cannot be written: those of sampled reasoning are keys of `reasoning`.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from selfreward.recipe.paths import InputPath
from selfreward.recipe.section import Section
from selfreward.roles import CHANGING


class Reasoning(Section):
    """Chain of thought: the judge explains itself before its verdict, and its explanation is stored."""

    max_tokens: int = Field(256, ge=1)
    temperature: float = Field(0.7, ge=0)
    top_p: float = Field(0.9, gt=0, le=1)


class CommitFirst(Section):
    """The judge first responds to the prompt itself; its own response is then shown to it next to the candidate."""

    max_tokens: int = Field(256, ge=1)


class ModelJudgeSection(Section):
    """Settings shared by judges that prompt a model.

    `by`: the name of any model. `commit_first`: a judge that shares its context with the author of a response tends to
    be gamed (2407.04549); that a judge which has committed to a response is gamed less is our guess.
    `reference_answer`: the judge is shown the prompt's `reference`; responses to a prompt without one stay unscored.
    """

    by: str = "policy"
    commit_first: CommitFirst | None = None
    reference_answer: bool = False


class GenerativeSection(ModelJudgeSection):
    """A judge that writes its verdict. `structured`: as JSON that the engine enforces, with the explanation first."""

    num_draws: int = Field(3, ge=1)
    temperature: float = Field(0.7, ge=0)
    top_p: float = Field(0.9, gt=0, le=1)
    max_tokens: int = Field(384, ge=1)
    structured: bool = False

    @model_validator(mode="after")
    def _draws_differ(self) -> "GenerativeSection":
        refuse_equal_draws(self.num_draws, self.temperature)
        return self


def refuse_equal_draws(num_draws: int, temperature: float) -> None:
    if temperature == 0 and num_draws > 1:
        raise ValueError(
            f"num_draws: {num_draws} has no effect at temperature 0, where all draws are identical; "
            "set num_draws to 1 or the temperature above 0"
        )


class AdditiveSection(GenerativeSection):
    """Additive 0-5 rubric, reasoning then `Score: n`, draws averaged (Self-Rewarding, 2401.10020, section 2.2)."""

    kind: Literal["additive"]


MAX_PROMPT_VARIANTS = 3


class ExpectedScoreSection(ModelJudgeSection):
    """Expected score under the probabilities of the score token, one prefill a draw (RLAIF, 2309.00267, section 2.3).

    Without `reasoning` nothing is sampled: each draw is another variant of the judge prompt, with other labels in
    another order, so that dependence on the prompt becomes visible (at most three variants). With `reasoning` each draw
    is a sampled explanation, after which the score token is read.
    """

    kind: Literal["expected_score"]
    num_draws: int = Field(2, ge=1)
    reasoning: Reasoning | None = None
    min_score_mass: float = Field(
        0.0, ge=0, le=1, description="below this total probability of the score tokens a judgment is unscored"
    )

    @model_validator(mode="after")
    def _draws_differ(self) -> "ExpectedScoreSection":
        if self.reasoning is not None:
            refuse_equal_draws(self.num_draws, self.reasoning.temperature)
        elif self.num_draws > MAX_PROMPT_VARIANTS:
            raise ValueError(
                f"num_draws: {self.num_draws} prompt variants; there are {MAX_PROMPT_VARIANTS} without reasoning, "
                "where draws are not sampled; lower it or add `reasoning: {}`"
            )
        return self


class ComparisonSection(ModelJudgeSection):
    """A judge that compares all pairs of a prompt's responses, each pair in both orders.

    A response's score is the mean probability of being preferred, in [0, 1].
    """

    reasoning: Reasoning | None = None
    num_draws: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _draws_differ(self) -> "ComparisonSection":
        if self.reasoning is None and self.num_draws > 1:
            raise ValueError(
                f"num_draws: {self.num_draws} has no effect without reasoning, where all draws are identical; set it "
                "to 1 or add `reasoning: {}`"
            )
        if self.reasoning is not None:
            refuse_equal_draws(self.num_draws, self.reasoning.temperature)
        return self


class PairwiseSection(ComparisonSection):
    """Pairwise preference: token probabilities, both orders averaged (Online AI Feedback, 2402.04792)."""

    kind: Literal["pairwise"]


class ConstitutionSection(ComparisonSection):
    """Preference for the response that follows a principle better (Constitutional AI, 2212.08073, section 4).

    `principles`: a YAML file with a list of sentences. `each_judgment`: one principle drawn for each pair of responses,
    or the average over all of them. `clamp` bounds the probabilities after reasoning, which makes a judge
    overconfident; null is the paper's [0.4, 0.6].
    """

    kind: Literal["constitution"]
    principles: InputPath
    each_judgment: Literal["one", "all"] = "one"
    clamp: tuple[float, float] | None = None

    @model_validator(mode="before")
    @classmethod
    def _clamp_is_a_pair(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("clamp"), list):
            return {**value, "clamp": tuple(value["clamp"])}
        return value

    @model_validator(mode="after")
    def _clamp_after_reasoning(self) -> "ConstitutionSection":
        if self.clamp is None:
            return self
        low, high = self.clamp
        if not 0 <= low < 0.5 or abs(low + high - 1) > 1e-9:
            raise ValueError(
                f"clamp: [{low}, {high}]; bounds symmetric around 0.5 are allowed, as in [0.4, 0.6]; fix them"
            )
        if self.reasoning is None:
            raise ValueError("clamp: it bounds probabilities after reasoning; add `reasoning: {}` or remove it")
        return self


class Criterion(Section):
    """One criterion: `description` states what earns a high score, `weight` is its weight in the mean over criteria."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]*$", max_length=40)
    description: str = Field(min_length=1)
    weight: float = Field(1.0, gt=0)


class RubricSection(GenerativeSection):
    """Named criteria, each critiqued and scored separately, 0 to 5; the score is their weighted mean.

    `normalise`: z-scores per criterion first, so that a criterion with a small spread counts as much as the others.
    """

    kind: Literal["rubric"]
    criteria: list[Criterion] = Field(min_length=1)
    normalise: bool = False

    @model_validator(mode="after")
    def _names_differ(self) -> "RubricSection":
        names = [criterion.name for criterion in self.criteria]
        if len(set(names)) < len(names):
            raise ValueError(f"criteria: the names are {', '.join(names)}; each must be unique; rename one")
        return self


class VerifierSection(Section):
    """The share of a prompt's checks that a response passes, or 1/0 for all of them."""

    kind: Literal["verifier"]
    aggregate: Literal["share", "all"] = "share"


class RewardModelSection(Section):
    """A sequence-classification checkpoint with one output. `by` names it under `models`."""

    kind: Literal["reward_model"]
    by: str
    batch_tokens: int = Field(8192, ge=1, description="padded tokens of one forward batch")


class IntrinsicSection(Section):
    """log pi(response) of the model `by` minus that of `reference`: DPO's implicit reward without beta (CREAM,
    2410.12735).

    `per_token` divides it by the number of tokens.
    """

    kind: Literal["intrinsic"]
    by: str = "policy"
    reference: str = "initial"
    per_token: bool = False

    @model_validator(mode="after")
    def _two_models(self) -> "IntrinsicSection":
        if self.by == self.reference:
            raise ValueError(f"reference: {self.by} is also `by`, so every score would be 0; name another model")
        return self


class LikelihoodSection(Section):
    """log pi(response) of the model `by`, which needs no judge prompt (sharpening, 2412.01951, section 2).

    `per_token` divides it by the number of tokens.
    """

    kind: Literal["likelihood"]
    by: str = "policy"
    per_token: bool = False


class SelfConsistencySection(Section):
    """The share of the prompt's responses that reach the same final answer (ScPO, 2411.04109, section 2).

    `answer`: how the final answer is read and compared, as the check of that name does: `math` (formulas and numbers,
    mathematically equal), `numeric` (the last number) or `exact` (the complete text, without case and punctuation).
    `marker`: the answer is what follows its last occurrence, as in "The answer is".
    """

    kind: Literal["self_consistency"]
    answer: Literal["math", "numeric", "exact"] = "math"
    marker: str | None = Field(None, min_length=1)


_One = (
    AdditiveSection
    | ExpectedScoreSection
    | PairwiseSection
    | RubricSection
    | ConstitutionSection
    | VerifierSection
    | RewardModelSection
    | IntrinsicSection
    | LikelihoodSection
    | SelfConsistencySection
)
MemberSection = Annotated[_One, Field(discriminator="kind")]


class EnsembleSection(Section):
    """Several judges combined, after Coste et al. (2310.02743): `mean`, `worst_case`, or mean minus lambda times
    variance.

    Members are z-scored over the responses judged together, unless `normalise` is false.
    """

    kind: Literal["ensemble"]
    members: list[MemberSection] = Field(min_length=2)
    combine: Literal["mean", "worst_case", "mean_minus_variance"] = "mean"
    variance_weight: float | None = Field(None, gt=0, description="lambda; null is 1 with mean_minus_variance")
    normalise: bool = True

    @model_validator(mode="after")
    def _weight_has_a_variance(self) -> "EnsembleSection":
        if self.variance_weight is not None and self.combine != "mean_minus_variance":
            raise ValueError(
                f"variance_weight: no effect with combine: {self.combine}; it belongs to mean_minus_variance; remove it"
            )
        draws = sorted({getattr(member, "num_draws", 1) for member in self.members} - {1})
        if len(draws) > 1:
            raise ValueError(
                f"members: some have num_draws {draws[0]}, others {draws[-1]}; members with several draws need the "
                "same number; set their num_draws to one value"
            )
        return self


JudgingSection = Annotated[_One | EnsembleSection, Field(discriminator="kind")]


class MetaJudgingSection(Section):
    """The model judges its judgments; the better and the worse one become a training pair (2407.19594, section 2.2).

    `iterations`: the iterations in which it does. `max_share` bounds the share of judgment pairs among all pairs (0.15
    is about one to six pairs of responses): beyond 0.15 a published system's judge began to answer "always a 5".
    `max_chosen_chars` leaves out pairs whose chosen judgment is longer. `max_judgments`: the number of judgments of a
    response that are compared, each with each in both orders.
    """

    by: str = "policy"
    iterations: list[Annotated[int, Field(ge=1)]] = Field([1, 2], min_length=1)
    max_share: float = Field(0.15, gt=0, lt=1)
    max_chosen_chars: int | None = Field(1100, ge=1)
    max_judgments: int = Field(11, ge=2)
    temperature: float = Field(0.7, ge=0)
    top_p: float = Field(0.9, gt=0, le=1)
    max_tokens: int = Field(384, ge=1)


class PairwiseAnchorSection(ComparisonSection):
    """The judge that measures: pairwise, both orders, token probabilities averaged (OAIF, 2402.04792)."""

    kind: Literal["pairwise"] = "pairwise"
    by: str = "initial"

    @model_validator(mode="after")
    def _stays_the_same(self) -> "PairwiseAnchorSection":
        if self.by in CHANGING:
            raise ValueError(f"by: {self.by} changes during the run; an anchor must stay the same; use initial")
        return self
