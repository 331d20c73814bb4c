"""Models that one engine cannot hold in turn."""

import json
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from selfreward.problems import Facts, Problem
from selfreward.recipe import NamedModel

_SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "vocab_size")


def problems(section: Mapping[str, NamedModel], facts: Facts, *, scoring: Set[str]) -> Iterator[Problem]:
    """Weights are swapped in place, so shapes must agree; `scoring` models run beside the engine."""
    policy = _shape(facts.models["policy"].path)
    for name in section:
        model = facts.models.get(name)
        if model is not None and name not in scoring and (found := _shape(model.path)) != policy:
            yield Problem(
                f"models.{name}: its shape is {found}; the policy's is {policy}, and the engine swaps weights in "
                "place, so the two must agree; use a model of the policy's architecture"
            )


def _shape(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {key: config.get(key) for key in _SHAPE}
