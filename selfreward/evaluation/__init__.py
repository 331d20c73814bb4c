"""Measures checkpoints on held-out prompts, and the judge that labels; writes the outcomes that the monitor reads."""

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
    from selfreward.evaluation.collecting import Collector
    from selfreward.evaluation.evaluator import HeldOutEvaluator
    from selfreward.evaluation.judge import JudgeEvaluator
    from selfreward.evaluation.responding import Decoding

    decoding = Decoding(section.temperature, sampling.top_p, section.max_tokens or sampling.max_tokens)
    return HeldOutEvaluator(
        prompts=prompts,
        collector=Collector(engine, anchor, decoding, seed=seed, shard_prompts=shard_prompts),
        self_judge=judge if section.self_judge else None,
        judge_evaluator=JudgeEvaluator(
            judge=judge,
            anchor=anchor,
            prompts=prompts,
            engine=engine,
            num_prompts=section.num_judge_prompts,
            seed=seed,
            shard_prompts=shard_prompts,
        ),
        seed=seed,
    )
