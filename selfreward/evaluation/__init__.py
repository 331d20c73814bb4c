"""Measures checkpoints on held-out prompts: win rates by the anchor, pass rate, length, variety, divergence."""

from typing import assert_never

from selfreward.parts import Engine, Evaluator, Judge, PairwiseJudge, PromptSource
from selfreward.recipe import EvaluationSection, SamplingSection


def build(
    section: EvaluationSection,
    *,
    prompts: PromptSource,
    engine: Engine,
    judge: Judge,
    anchor: PairwiseJudge,
    sampling: SamplingSection,
    seed: int,
    shard_prompts: int,
) -> Evaluator:
    """The evaluator of a recipe: of checkpoints by `anchor`, and of `judge`, which labels."""
    from selfreward.evaluation.evaluator import HeldOutEvaluator
    from selfreward.evaluation.judge import JudgeEvaluator
    from selfreward.evaluation.responding import Decoding

    max_tokens = section.max_tokens or sampling.max_tokens
    match section.anchor.kind:
        case "pairwise":
            return HeldOutEvaluator(
                prompts=prompts,
                engine=engine,
                anchor=anchor,
                judge_evaluator=JudgeEvaluator(judge, anchor, num_prompts=section.num_judge_prompts, seed=seed),
                decoding=Decoding(section.temperature, sampling.top_p, max_tokens),
                seed=seed,
                shard_prompts=shard_prompts,
            )
        case _:
            assert_never(section.anchor.kind)
