"""All that the update depends on beside its job: sections of the recipe, as a child process gets them too."""

from pydantic import BaseModel, ConfigDict

from selfreward.dtypes import engine_dtype
from selfreward.recipe import ExoPairLoss, LaunchSection, LoraSection, Recipe, RobustLoss, TrainingSection

COUPLED = {"aot": "", "aot_unpaired": "", "sft": "; or use kind: nll, the mean over pairs of the same quantity"}
"""Losses that are no mean over pairs, and what to say besides."""


class Settings(BaseModel):
    """`engine_dtype` is what the engine rounds weights to: bfloat16, float16 or float32."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    training: TrainingSection
    engine_dtype: str
    lora: LoraSection | None = None
    launch: LaunchSection = LaunchSection()
    trust_remote_code: bool = False

    @property
    def label_smoothings(self) -> set[float]:
        """Those of the losses that have one; TRL knows one for all."""
        return {loss.label_smoothing for loss in self.training.losses if isinstance(loss, ExoPairLoss | RobustLoss)}


def settings_of(recipe: Recipe, role: str = "policy") -> Settings:
    """Of an update of `role`."""
    return Settings(
        training=recipe.training,
        engine_dtype=engine_dtype(recipe.engine).name,
        lora=recipe.local_models[role].lora,
        launch=recipe.launch,
        trust_remote_code=recipe.policy.trust_remote_code,
    )
