"""Measures checkpoints on held-out prompts: win rates by the anchor, pass rate, length, variety, divergence."""

from typing import assert_never

from selfreward.parts import Engine, Evaluator, PairwiseJudge, PromptSource
from selfreward.recipe import EvaluationSection, SamplingSection
from selfreward.records import Checkpoint


def build(
    section: EvaluationSection,
    *,
    prompts: PromptSource,
    engine: Engine,
    anchor: PairwiseJudge,
    anchor_model: Checkpoint,
    sampling: SamplingSection,
    seed: int,
    shard_prompts: int,
) -> Evaluator:
    """The evaluator of a recipe. `anchor` compares with the weights of `anchor_model`, in every iteration."""
    from selfreward.evaluation.evaluator import HeldOutEvaluator
    from selfreward.evaluation.responding import Decoding

    max_tokens = section.max_tokens or sampling.max_tokens
    match section.anchor.kind:
        case "pairwise":
            return HeldOutEvaluator(
                prompts=prompts,
                engine=engine,
                anchor=anchor,
                anchor_model=anchor_model,
                decoding=Decoding(section.temperature, sampling.top_p, max_tokens),
                seed=seed,
                shard_prompts=shard_prompts,
            )
        case _:
            assert_never(section.anchor.kind)
