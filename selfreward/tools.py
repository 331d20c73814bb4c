"""What a run works with from its beginning to its end: prompts, models, engine, anchor, monitor.

No intervention changes any of it: what measures is measured with to the end.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from selfreward import (
    chats,
    engines,
    evaluation,
    judging,
    meta_judging,
    model_files,
    monitoring,
    pairing,
    prompts,
    sampling,
    updates,
)  # fmt: skip
from selfreward.errors import RecipeError
from selfreward.monitoring import interventions
from selfreward.parts import Anchor, Chat, Engine, Judge, Monitor, PromptSource
from selfreward.problems import Facts, Problem
from selfreward.recipe import AdditiveSection, Recipe, RewardModelSection
from selfreward.records import Checkpoint
from selfreward.roles import OF_THE_RUN
from selfreward.workload import Lengths


@dataclass(frozen=True, kw_only=True)
class Inference:
    """The models of a recipe by name, the engine that holds them in turn, and what judges speak to.

    `judges` are those that were built: a file that one names and that changes in mid-run changes nothing.
    """

    engine: Engine
    chats: Mapping[str, Chat]
    models: Mapping[str, Checkpoint]
    judges: dict[str, Judge] = field(default_factory=dict)

    def judge(self, recipe: Recipe) -> Judge:
        """The judge that labels by this recipe. Raises RecipeError."""
        key = recipe.judging.model_dump_json()
        if key not in self.judges:
            self.judges[key] = judging.build(
                recipe.judging, chats=self.chats, engine=self.engine, seed=recipe.seed,
                trust_remote_code=recipe.policy.trust_remote_code,
            )  # fmt: skip
        return self.judges[key]

    def meta_judge(self, recipe: Recipe, iteration: int) -> meta_judging.MetaJudge | None:
        """Who judges the judgments of an iteration; None where nobody does. Raises RecipeError."""
        section = recipe.meta_judging
        judge = recipe.judging
        if section is None or iteration not in section.iterations or not isinstance(judge, AdditiveSection):
            return None  # the schema allows no other judge
        return meta_judging.build(section, judge=judge, chats=self.chats, seed=recipe.seed)

    def usage(self) -> Mapping[str, float]:
        """What engine and endpoints did so far; counters that only grow."""
        used = Counter(self.engine.usage())
        for chat in self.chats.values():
            used.update(chat.usage())
        return used


@dataclass(frozen=True, kw_only=True)
class Tools(Inference):
    """And the prompts, the judge that measures, and the monitor."""

    source: PromptSource
    anchor: Anchor
    monitor: Monitor


def inference_of(recipe: Recipe, *, cache_folder: Path) -> Inference:
    """Puts models on disk; the engine starts at its first use. `cache_folder` keeps what endpoints replied."""
    models = {
        name: model_files.checkpoint_of(model_files.materialise(section), iteration=0)
        for name, section in recipe.local_models.items()
    }
    models["initial"] = models["policy"]
    engine = engines.build(recipe.engine, first=models["policy"], trust_remote_code=recipe.policy.trust_remote_code)
    local = dict.fromkeys((*sorted(OF_THE_RUN), *models))
    built = chats.build(local, recipe.endpoints, engine=engine, cache_folder=cache_folder)
    return Inference(engine=engine, chats=built, models=models)


def tools_of(recipe: Recipe, *, cache_folder: Path) -> Tools:
    """Raises RecipeError for prompts, models and names that cannot be used."""
    source = prompts.build(recipe.prompts, evaluation=recipe.evaluation, iterations=recipe.iterations, seed=recipe.seed)
    inference = inference_of(recipe, cache_folder=cache_folder)
    anchor = judging.build_anchor(
        recipe.evaluation.anchor, chats=inference.chats, engine=inference.engine, seed=recipe.seed,
        trust_remote_code=recipe.policy.trust_remote_code,
    )  # fmt: skip
    monitor = monitoring.build(
        recipe.monitor,
        max_iterations=recipe.iterations.max,
        num_second_validation=len(source.second_validation_prompts()),
        recipe=recipe,
    )
    return Tools(**vars(inference), source=source, anchor=anchor, monitor=monitor)


def problems(recipe: Recipe, tools: Tools, *, begun: bool = False) -> Iterator[Problem]:
    """What is wrong with a recipe, also with the interventions that it lists.

    Of a run that was `begun` the lengths of prompts are not asked again: the keys that would help may not change.
    """
    lengths = Lengths(tools.engine)
    variants = interventions.variants(recipe)
    scoring = _reward_models(recipe, *variants.values())
    of_recipe = list(_of_sections(recipe, tools, lengths))
    facts = Facts(recipe, tools.source, tools.engine, tools.models, lengths)
    yield from model_files.problems(recipe.models, facts, scoring=scoring)
    if not begun:
        yield from sampling.problems(recipe.sampling, facts)
        yield from evaluation.problems(recipe.evaluation, facts)
    yield from of_recipe
    yield from judging.anchor_problems(recipe.evaluation.anchor, facts)
    yield from monitoring.problems(recipe.monitor, facts)
    for label, variant in variants.items():
        of_variant = sampling.problems(variant.sampling, replace(facts, recipe=variant))
        found = [*of_variant, *_of_sections(variant, tools, lengths)]
        yield from (problem.of(label) for problem in found if problem not in of_recipe)


def _of_sections(recipe: Recipe, tools: Tools, lengths: Lengths) -> Iterator[Problem]:
    """Of the sections that an intervention may change."""
    facts = Facts(recipe, tools.source, tools.engine, tools.models, lengths)
    yield from judging.problems(recipe.judging, facts)
    yield from pairing.problems(recipe.pairing, facts)
    yield from updates.problems(recipe.training, facts)
    try:
        tools.judge(recipe)
        for iteration in recipe.meta_judging.iterations if recipe.meta_judging else ():
            tools.meta_judge(recipe, iteration)
    except RecipeError as error:  # a model that is not there, principles that cannot be read
        yield Problem(str(error))


def _reward_models(*recipes: Recipe) -> set[str]:
    """Names of models that score and do not generate, so that the engine never holds them."""
    judges = [
        judge for r in recipes for section in (r.judging, r.evaluation.anchor) for judge in judging.members(section)
    ]
    return {judge.by for judge in judges if isinstance(judge, RewardModelSection)} - OF_THE_RUN
