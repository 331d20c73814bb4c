"""Makes M_t of M_{t-1} and preference pairs: on-policy DPO, a function of files."""

from selfreward.parts import Trainer
from selfreward.recipe import LaunchSection, LoraSection, TrainingSection

__all__ = ["build"]


def build(
    section: TrainingSection,
    *,
    engine_dtype: str,
    lora: LoraSection | None = None,
    launch: LaunchSection | None = None,
    trust_remote_code: bool = False,
) -> Trainer:
    """The trainer of the recipe's `training` section.

    `engine_dtype` (bfloat16, float16, float32) is what the engine rounds weights to: the share of its weights
    that an update changes is measured with it. Raises RecipeError for settings that have no effect.
    """
    from selfreward.training.dpo import DpoTraining
    from selfreward.training.settings import Settings

    return DpoTraining(
        Settings(
            training=section,
            engine_dtype=engine_dtype,
            lora=lora,
            launch=launch or LaunchSection(),
            trust_remote_code=trust_remote_code,
        )
    )
