"""The objects that a run uses from start to end: prompts, models, engine, anchor, monitor.

No intervention changes any of them, so measurements stay comparable.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
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
    updates,
)  # fmt: skip
from selfreward.errors import RecipeError
from selfreward.installation import require_transformers
from selfreward.monitoring import interventions
from selfreward.nvidia import require_usable_gpu
from selfreward.parts import Anchor, Chat, Engine, Judge, Monitor, PromptSource
from selfreward.problems import Facts, Problem, left_out
from selfreward.recipe import AdditiveSection, ModelSection, Recipe, RewardModelSection
from selfreward.records import Checkpoint
from selfreward.roles import POLICY_MODELS
from selfreward.workload import Lengths


@dataclass(frozen=True, kw_only=True)
class Inference:
    """The models of a recipe by name, the engine that loads them in turn, and the chats that judges query.

    `judges` caches the judges already built, so that a change of a judge's files during a run has no effect.
    """

    engine: Engine
    chats: Mapping[str, Chat]
    models: Mapping[str, Checkpoint]
    judges: dict[str, Judge] = field(default_factory=dict)

    def judge(self, recipe: Recipe) -> Judge:
        """Return the judge that labels responses in this recipe. Raises RecipeError."""
        key = recipe.judging.model_dump_json()
        if key not in self.judges:
            self.judges[key] = judging.build(
                recipe.judging, chats=self.chats, engine=self.engine, seed=recipe.seed,
                models=recipe.local_models,
            )  # fmt: skip
        return self.judges[key]

    def meta_judge(self, recipe: Recipe, iteration: int) -> meta_judging.MetaJudge | None:
        """Return the meta-judge of an iteration; None without meta-judging. Raises RecipeError."""
        section = recipe.meta_judging
        judge = recipe.judging
        if section is None or iteration not in section.iterations or not isinstance(judge, AdditiveSection):
            return None  # the schema allows no other judge
        return meta_judging.build(section, judge=judge, chats=self.chats, seed=recipe.seed)

    def usage(self) -> Mapping[str, float]:
        """Return the counters of engine and endpoints since the start; they only grow."""
        used = Counter(self.engine.usage())
        for chat in self.chats.values():
            used.update(chat.usage())
        return used

    def notes(self) -> list[str]:
        """Return sentences that the user should read about the endpoints' replies; their number only grows."""
        return [note for chat in self.chats.values() for note in chat.notes()]


@dataclass(frozen=True, kw_only=True)
class Tools(Inference):
    """The inference objects, and the prompts, the anchor and the monitor."""

    source: PromptSource
    anchor: Anchor
    monitor: Monitor


def inference_of(recipe: Recipe, *, cache_folder: Path, is_plan: bool = False) -> Inference:
    """Store the models on disk; the engine starts at its first use. `cache_folder` stores the replies of endpoints.

    With `is_plan` no weights are needed, and the engine can only tell lengths.
    """
    require_transformers()
    if not is_plan:
        require_usable_gpu()
    models = {name: _model(name, section, is_plan) for name, section in recipe.local_models.items()}
    models["initial"] = models["policy"]
    encoders = {
        name: (model_files.planned_tokenizer if is_plan else model_files.ChatTokenizer.of)(section, models[name].path)
        for name, section in recipe.local_models.items()
    }
    engine = engines.build(
        recipe.engine, first=models["policy"], trust_remote_code=recipe.policy.trust_remote_code,
        chat=encoders.pop("policy"), ray=recipe.launch.ray,
    )  # fmt: skip
    local = dict.fromkeys((*sorted(POLICY_MODELS), *models))
    built = chats.build(local, recipe.endpoints, engine=engine, cache_folder=cache_folder, encoders=encoders)
    return Inference(engine=engine, chats=built, models=models)


def _model(name: str, section: ModelSection, is_plan: bool) -> Checkpoint:
    key = f"models.{name}"
    if is_plan:
        return model_files.planned_model(section, key=key)
    return model_files.checkpoint_of(model_files.materialise(section, key=key), iteration=0)


def tools_of(recipe: Recipe, *, cache_folder: Path, is_plan: bool = False) -> Tools:
    """Build the tools of a recipe, or of its plan. Raises RecipeError for prompts, models and names that cannot be
    used."""
    inference = inference_of(recipe, cache_folder=cache_folder, is_plan=is_plan)
    source = prompts.build(
        recipe.prompts, evaluation=recipe.evaluation, iterations=recipe.iterations, seed=recipe.seed,
        fits=_fits(recipe, Lengths(inference.engine)),
    )  # fmt: skip
    anchor = judging.build_anchor(
        recipe.evaluation.anchor, chats=inference.chats, engine=inference.engine, seed=recipe.seed,
        models=recipe.local_models,
    )  # fmt: skip
    monitor = monitoring.build(
        recipe.monitor,
        max_iterations=recipe.iterations.max,
        num_second_validation=len(source.second_validation_prompts()),
        recipe=recipe,
    )
    return Tools(**vars(inference), source=source, anchor=anchor, monitor=monitor)


def fits_of(recipe: Recipe) -> prompts.Fits:
    """Return which prompts the policy can respond to, with its tokenizer alone. Raises RecipeError."""
    require_transformers()
    section = recipe.policy
    chat = model_files.planned_tokenizer(section, model_files.planned_folder(section, key="models.policy"))
    return _fits(recipe, Lengths(model_files.PlannedContext(chat, recipe.engine.context_tokens)))


def _fits(recipe: Recipe, lengths: Lengths) -> prompts.Fits:
    # An intervention may allow longer responses later in the run.
    longest = max(r.sampling.max_tokens for r in (recipe, *interventions.variants(recipe).values()))
    return prompts.Fits(
        training=partial(left_out, max_tokens=longest, lengths=lengths),
        held_out=partial(
            left_out, max_tokens=recipe.evaluation.max_tokens or recipe.sampling.max_tokens, lengths=lengths
        ),
    )


def problems(recipe: Recipe, tools: Tools, *, begun: bool = False) -> Iterator[Problem]:
    """Yield the problems of a recipe, also with each of its interventions.

    In a run that has `begun`, prompts that cannot be used are left out whatever their number, because neither they nor
    the keys that would help may change.
    """
    lengths = Lengths(tools.engine)
    variants = interventions.variants(recipe)
    scoring = _reward_models(recipe, *variants.values())
    of_recipe = list(_of_sections(recipe, tools, lengths))
    facts = Facts(recipe, tools.source, tools.engine, tools.models, lengths)
    yield from model_files.problems(recipe.models, facts, scoring=scoring)
    yield from prompts.problems(facts, begun=begun)
    yield from evaluation.problems(recipe.evaluation, facts, begun=begun)
    yield from engines.problems(recipe.engine, facts)
    yield from of_recipe
    yield from judging.anchor_problems(recipe.evaluation.anchor, facts)
    yield from monitoring.problems(recipe.monitor, facts)
    for label, variant in variants.items():
        found = _of_sections(variant, tools, lengths)
        yield from (problem.of(label) for problem in found if problem not in of_recipe)


def _of_sections(recipe: Recipe, tools: Tools, lengths: Lengths) -> Iterator[Problem]:
    """Yield the problems of the sections that an intervention may change."""
    facts = Facts(recipe, tools.source, tools.engine, tools.models, lengths)
    yield from judging.problems(recipe.judging, facts)
    yield from pairing.problems(recipe.pairing, facts)
    yield from updates.problems(recipe.training, facts)
    try:
        tools.judge(recipe)
        for iteration in recipe.meta_judging.iterations if recipe.meta_judging else ():
            tools.meta_judge(recipe, iteration)
    except RecipeError as error:  # an unknown model, principles that cannot be read
        yield Problem(str(error))


def _reward_models(*recipes: Recipe) -> set[str]:
    """Return the names of models that only score, so that the engine never loads them."""
    judges = [
        judge for r in recipes for section in (r.judging, r.evaluation.anchor) for judge in judging.members(section)
    ]
    return {judge.by for judge in judges if isinstance(judge, RewardModelSection)} - POLICY_MODELS
