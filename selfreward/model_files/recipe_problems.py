"""The check that one engine can load all models of a recipe in turn."""

from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from selfreward.model_files.json_file import read_json_object
from selfreward.problems import Facts, Problem
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


def _shape(folder: Path) -> dict[str, Any]:
    config = read_json_object(folder / "config.json")
    return {key: config.get(key) for key in _SHAPE}
