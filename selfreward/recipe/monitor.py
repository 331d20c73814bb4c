"""`monitor`: when another iteration is worth its cost, and which intervention to try when it is not."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from selfreward.recipe.paths import Patch
from selfreward.recipe.section import NAMED_INTERVENTION, USER_INTERVENTION, Changeable, Section

NamedIntervention = Literal[
    "more_draws",
    "min_reliability",
    "consistency_weights",
    "initial_rejected",
    "higher_temperature",
    "higher_rho",
    "larger_beta",
    "pin_judge",
    "fresh_prompts",
    "stop",
]
INTERVENTIONS: tuple[str, ...] = get_args(NamedIntervention)


class UserIntervention(Section):
    """A user-defined recipe patch with a name: `set` maps keys of the recipe (`sampling.temperature`) to new values."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    set: Patch = Field(min_length=1)

    @model_validator(mode="after")
    def _name_is_new(self) -> "UserIntervention":
        if self.name in INTERVENTIONS:
            raise ValueError(f"name: {self.name} is a built-in intervention; choose another name")
        return self


def _tag_of(value: Any) -> str:
    return USER_INTERVENTION if isinstance(value, (dict, UserIntervention)) else NAMED_INTERVENTION


Intervention = Annotated[
    Annotated[NamedIntervention, Tag(NAMED_INTERVENTION)] | Annotated[UserIntervention, Tag(USER_INTERVENTION)],
    Discriminator(_tag_of),
]


class InterventionsSection(Section):
    """Interventions to try, in order, at each of these decisions, before the run stops; see `monitoring/interventions`.

    Without any, STARVED and PLATEAU stop the run, and DRIFT is reported and changes nothing.
    """

    STARVED: list[Intervention] = Field(default_factory=list)
    DRIFT: list[Intervention] = Field(default_factory=list)
    PLATEAU: list[Intervention] = Field(default_factory=list)


class MonitorSection(Section):
    """Decisions and checks stop the run only in mode `enforce`; `report_only` records them without acting on them.

    `horizon`: the number of iterations over which the alpha-spending budget is spread, fixed at the start. `delta`: the
    smallest gain that is worth an iteration, as a win rate above 0.5 against the previous checkpoint. `alpha_stop`: the
    probability, over the complete run, of a stop by PLATEAU or OVEROPT while every iteration gains `delta` or more.
    `alpha_harm`: the same for a stop by HARM while nothing got worse. `first_analysis_share`: the share of an
    iteration's budget for the first interim analysis, where there is a second validation set.
    """

    mode: Literal["enforce", "report_only"] = "enforce"
    horizon: int = Field(8, ge=1)
    delta: float = Field(0.05, gt=0, lt=0.5)
    alpha_stop: float = Field(0.05, gt=0, lt=0.5)
    alpha_harm: float = Field(0.05, gt=0, lt=0.5)
    first_analysis_share: float = Field(0.4, gt=0, lt=1)
    length_adjusted: bool = True
    min_position_consistency: float = Field(0.6, ge=0.6, le=1, description="below 0.6 it is at chance level")
    max_anchor_unscored_rate: float = Field(0.02, ge=0, le=1)
    max_pass_rate_loss: float = Field(
        0.02, ge=0, le=1, description="a new best may lose less than this of the best checkpoint's pass rate"
    )
    max_gold_loss: float = Field(0.03, ge=0, le=1, description="the judge's accuracy may fall by this below its best")
    min_reliability: float = Field(0.4, ge=0, le=1)
    min_yield_rate: float = Field(0.3, ge=0, le=1)
    interventions: InterventionsSection = InterventionsSection()
    min_pairs: int = Field(8, ge=1)
    max_unscored_rate: float = Field(0.5, ge=0, le=1)
    max_hours: float | None = Changeable(None, gt=0)
