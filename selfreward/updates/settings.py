"""Everything an update depends on besides its job: sections of the recipe, also passed to child processes."""

from pydantic import BaseModel, ConfigDict

from selfreward.dtypes import engine_dtype
from selfreward.recipe import LaunchSection, LoraSection, Recipe, TrainingSection
from selfreward.updates.accelerate_file import resolved

COUPLED_LOSSES = {"aot": "", "aot_unpaired": "", "sft": "; or use kind: nll, the mean over pairs of the same quantity"}
"""Losses that are not a mean over pairs, and what to add to the error about each."""


class Settings(BaseModel):
    """Settings of an update. `engine_dtype` is the dtype that the engine rounds weights to: bfloat16, float16 or
    float32."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    training: TrainingSection
    engine_dtype: str
    lora: LoraSection | None = None
    launch: LaunchSection = LaunchSection()
    trust_remote_code: bool = False


def settings_of(recipe: Recipe, role: str = "policy") -> Settings:
    """Return the settings for an update of `role`."""
    return Settings(
        training=recipe.training,
        engine_dtype=engine_dtype(recipe.engine).name,
        lora=recipe.local_models[role].lora,
        launch=resolved(recipe.launch),
        trust_remote_code=recipe.policy.trust_remote_code,
    )
