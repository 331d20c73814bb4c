"""Makes M_t of M_{t-1} and preference pairs: full fine-tuning DPO, a function of files."""

from typing import assert_never

from selfreward.parts import Trainer
from selfreward.recipe import TrainingSection

__all__ = ["build"]


def build(section: TrainingSection, *, engine_dtype: str, trust_remote_code: bool = False) -> Trainer:
    """The trainer of the recipe's `training` section.

    `engine_dtype` (bfloat16, float16, float32) is what the engine rounds weights to: the share of its weights
    that an update changes is measured with it. Raises RecipeError for settings that have no effect.
    """
    match section.packing:
        case "padded":
            from selfreward.training.dpo import DpoTraining

            return DpoTraining(section, engine_dtype=engine_dtype, trust_remote_code=trust_remote_code)
        case packing:
            assert_never(packing)
