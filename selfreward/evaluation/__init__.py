"""Measures checkpoints on held-out prompts, and the judge that labels; writes the outcomes that the monitor reads."""

from selfreward.evaluation.bench import Bench
from selfreward.evaluation.held_out import held_out
from selfreward.evaluation.judge import judge_probe
from selfreward.evaluation.reserve import reserve
from selfreward.evaluation.responding import Decoding
from selfreward.evaluation.seal import seal
from selfreward.parts import Anchor, Engine, PromptSource
from selfreward.recipe import Recipe


def bench(recipe: Recipe, *, source: PromptSource, engine: Engine, anchor: Anchor) -> Bench:
    """What all measurements on held-out prompts share. Responses are drawn as `recipe` says, in every iteration."""
    section, sampling = recipe.evaluation, recipe.sampling
    decoding = Decoding(section.temperature, sampling.top_p, section.max_tokens or sampling.max_tokens)
    return Bench(source, engine, anchor, decoding, recipe.seed, recipe.iterations.shard_prompts)
