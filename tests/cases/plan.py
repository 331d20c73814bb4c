"""A small recipe, prompts of known lengths and a word tokenizer, for sums computed by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfreward import judging, monitoring, recipe_file
from selfreward.chats.local import LocalChat
from selfreward.model_files import materialise
from selfreward.parts import LeftOut
from selfreward.plan.amounts import Work
from selfreward.plan.planning import warnings
from selfreward.plan.work import IterationWork, count_work
from selfreward.recipe import ModelSection, Recipe
from selfreward.records import Checkpoint, GoldPair, Message, Prompt
from selfreward.templates import Template
from selfreward.tools import Tools

RECIPE = """\
name: small
output_dir: {folder}
models: {{policy: {{model: "random:tiny"}}}}
engine: {{kind: transformers, dtype: bfloat16, context_tokens: 4096}}
iterations: {{max: 2, num_prompts_per_iteration: 3}}
prompts: {{kind: builtin}}
sampling: {{num_responses: 4, max_tokens: 50}}
judging: {{kind: additive, num_draws: 5, max_tokens: 30}}
training: {{batch_size: 2, num_epochs: 3}}
evaluation: {{num_prompts: 40, max_tokens: 20, verifiable: {{num_prompts: 6}}}}
monitor: {{min_pairs: 3}}
"""


def make_recipe(*overrides: str, folder: Path | str = "runs/small") -> Recipe:
    return recipe_file.parse(RECIPE.format(folder=folder), overrides=overrides)


class Words:
    """A tokenizer whose tokens are words, with one token before each turn and one before the assistant's.

    One more tells a model not to think first.
    """

    enforces_schema = True

    def __init__(self, context_tokens: int) -> None:
        self.context_tokens = context_tokens

    def encode(self, messages: Sequence[Message], *, thinking: bool = True) -> tuple[int, ...]:
        return (0,) * (1 + sum(1 + len(message.content.split()) for message in messages) + (not thinking))

    def encode_text(self, text: str) -> tuple[int, ...]:
        return (0,) * len(text.split())


def words(name: str, count: int) -> Prompt:
    """Return a prompt of `count` words: `count` + 2 tokens."""
    return Prompt(name, (Message("user", " ".join(["word"] * count)),))


class Source:
    """Training prompts of iteration t have 10, 20 and 30 words and t more; 40 validation prompts, 6 verifiable ones.

    Second-validation and test prompts have 6 and 7 words; gold prompts have 9, and responses of 4 and 8.
    """

    def __init__(
        self, *, num_verifiable: int = 6, num_second_validation: int = 0, num_test: int = 0, num_gold: int = 0
    ) -> None:
        self._num_verifiable, self._num_gold = num_verifiable, num_gold
        self._num_second_validation, self._num_test = num_second_validation, num_test

    def training_prompts(self, iteration: int) -> Sequence[Prompt]:
        return [words(f"t{iteration}-{i}", 10 * (i + 1) + iteration) for i in range(3)]

    def left_out(self, iteration: int | None) -> Sequence[LeftOut]:
        return []

    def notes(self) -> Sequence[str]:
        return []

    def validation_prompts(self) -> Sequence[Prompt]:
        return [words(f"m{i}", 5) for i in range(40)]

    def verifiable_prompts(self) -> Sequence[Prompt]:
        return [words(f"v{i}", 8) for i in range(self._num_verifiable)]

    def second_validation_prompts(self) -> Sequence[Prompt]:
        return [words(f"r{i}", 6) for i in range(self._num_second_validation)]

    def test_prompts(self) -> Sequence[Prompt]:
        return [words(f"s{i}", 7) for i in range(self._num_test)]

    def gold_pairs(self) -> Sequence[GoldPair]:
        return [GoldPair(words(f"g{i}", 9), "good " * 4, "bad " * 8) for i in range(self._num_gold)]

    def num_overlapping(self, prompts: Sequence[Prompt]) -> int:
        return 0

    def facts(self) -> Mapping[str, Any]:
        return {}


class Endpoint:
    """A model behind an endpoint, with only the parts that are used before a request is sent."""

    is_local = False

    def __init__(self, name: str) -> None:
        self.by = name


def tools_of(recipe: Recipe, source: Source) -> Tools:
    """Return the tools as `tools.tools_of` does, but with other prompts and tokenizer."""
    engine: Any = Words(recipe.engine.context_tokens)
    names = dict.fromkeys(("policy", "initial", "best", *recipe.local_models))
    chats: Any = {name: LocalChat(name, engine) for name in names} | {n: Endpoint(n) for n in recipe.endpoints}
    tiny = Checkpoint("tiny", materialise(ModelSection(model="random:tiny")), 0)
    anchor = judging.build_anchor(
        recipe.evaluation.anchor, chats=chats, engine=engine, seed=0, models=recipe.local_models
    )
    monitor = monitoring.build(recipe.monitor, max_iterations=recipe.iterations.max)
    return Tools(
        engine=engine, chats=chats, models={"policy": tiny, "initial": tiny}, source=source, anchor=anchor,
        monitor=monitor,
    )  # fmt: skip


def count(recipe: Recipe, source: Source | None = None) -> tuple[tuple[IterationWork, ...], list[str]]:
    """Return the work of a plan, and its warnings about lengths."""
    tools = tools_of(recipe, source or Source())
    work = count_work(recipe, tools)
    return work, [said for said in warnings(recipe, tools, work) if "context" in said]


def rubric(name: str, prompt: Prompt, **values: str | None) -> int:
    """Return the tokens of a judge's prompt around empty responses; one more where a choice is read directly."""
    template = Template.load(name)
    return 2 + bool(template.opening) + len(template.render(prompt=prompt.messages, **values)[0].content.split())


def without_repeats(work: Work) -> Work:
    return replace(work, num_repeated_tokens=0, parts=tuple(map(without_repeats, work.parts)))
