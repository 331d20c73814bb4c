"""Engines: where text is generated and scored. vLLM where it is installed, plain transformers anywhere."""

import importlib.util
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import assert_never

from selfreward.engines.models import checkpoint_of, materialise
from selfreward.engines.sampling import EngineSampler
from selfreward.errors import RecipeError
from selfreward.parts import Chat, Engine, Sampler
from selfreward.recipe import EndpointSection, EngineSection, SamplingSection
from selfreward.records import Checkpoint

__all__ = ["build", "build_chats", "build_sampler", "checkpoint_of", "materialise"]


def build(section: EngineSection, *, first: Checkpoint, trust_remote_code: bool = False) -> Engine:
    """The engine of a run; it starts at its first use. `first` gives tokenizer, configuration and first weights."""
    kind = section.kind
    if kind == "auto":
        kind = "vllm" if importlib.util.find_spec("vllm") is not None else "transformers"
    match kind:
        case "vllm":
            if importlib.util.find_spec("vllm") is None:
                raise RecipeError(
                    "engine.kind: vllm is not installed; auto takes transformers then; set engine.kind to auto, or "
                    "install selfreward-lm[cpu] or selfreward-lm[cuda]"
                )
            # Read when torch is imported; what it would print at vLLM's start no user can act on.
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
            from selfreward.engines.vllm import VllmEngine

            return VllmEngine(section, first=first, trust_remote_code=trust_remote_code)
        case "transformers":
            from selfreward.engines.transformers import TransformersEngine

            return TransformersEngine(section, first=first, trust_remote_code=trust_remote_code)
        case _:
            assert_never(kind)


def build_sampler(section: SamplingSection, *, engine: Engine, seed: int) -> Sampler:
    """The sampler of a run; `seed` is the run's."""
    return EngineSampler(section, engine=engine, run_seed=seed)


def build_chats(
    local: Iterable[str], endpoints: Mapping[str, EndpointSection], *, engine: Engine, cache_folder: Path
) -> dict[str, Chat]:
    """All models that can judge, by name: those in the engine, and those behind endpoints, with a cache file each."""
    from selfreward.engines.local_chat import LocalChat

    chats: dict[str, Chat] = {name: LocalChat(name, engine) for name in local}
    if endpoints:
        from selfreward.engines.endpoint import EndpointChat

        chats |= {
            name: EndpointChat(name, section, cache_file=cache_folder / f"{name}.sqlite")
            for name, section in endpoints.items()
        }
    return chats
