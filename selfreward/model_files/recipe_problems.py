"""The checks that one engine can load all models of a recipe in turn, and that the policy takes a system prompt."""

from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from selfreward.model_files.json_file import read_json_object
from selfreward.model_files.tokenizer import merged_system_turn
from selfreward.problems import Facts, Problem, warning
from selfreward.recipe import NamedModel

_SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "vocab_size")


def problems(section: Mapping[str, NamedModel], facts: Facts, *, scoring: Set[str]) -> Iterator[Problem]:
    """Yield models whose shape differs from the policy's; `scoring` models run outside the engine."""
    policy = _shape(facts.models["policy"].path)
    for name in section:
        model = facts.models.get(name)
        if model is not None and name not in scoring and (found := _shape(model.path)) != policy:
            yield Problem(
                f"models.{name}: its shape is {found}; the policy's is {policy}, and the engine loads weights in "
                "place, so the two must be equal; use a model of the policy's architecture"
            )
    yield from _of_system_turns(facts)


def _of_system_turns(facts: Facts) -> Iterator[Problem]:
    """Yield a warning when prompts have a system turn, and the policy's chat template has no system role."""
    with_system = [
        prompt
        for t in range(1, facts.recipe.iterations.max + 1)
        for prompt in facts.source.training_prompts(t)
        if prompt.messages[0].role == "system"
    ]
    if not with_system:
        return
    turns = with_system[0].messages
    if facts.engine.encode(turns) == facts.engine.encode(merged_system_turn(turns)):
        yield warning(
            "models.policy: its chat template has no system role; the system prompt is put before the first user turn"
        )


def _shape(folder: Path) -> dict[str, Any]:
    config = read_json_object(folder / "config.json")
    return {key: config.get(key) for key in _SHAPE}
