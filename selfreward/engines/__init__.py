"""Inference engines, which generate and score text: vLLM where it is installed, transformers anywhere."""

import importlib.util
import os
from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from selfreward.engines.pool.size import num_replicas
from selfreward.engines.recipe_problems import problems
from selfreward.errors import RecipeError
from selfreward.model_files.tokenizer import ChatTokenizer
from selfreward.parts import Engine
from selfreward.recipe import EngineSection, RaySection
from selfreward.records import Checkpoint

if TYPE_CHECKING:
    from selfreward.engines.in_process import InProcessEngine


def build(
    section: EngineSection,
    *,
    first: Checkpoint,
    trust_remote_code: bool = False,
    chat: ChatTokenizer | None = None,
    ray: RaySection | None = None,
) -> Engine:
    """Return the engine of a run, or several as one; it starts at its first use. `first` gives tokenizer,
    configuration and weights.

    `chat` is the tokenizer with the model's variables of the chat template; without it there are none.
    """
    address = ray.address if ray else None
    number = num_replicas(section, address)
    if number != 1:
        first = replace(first, path=first.path.absolute())
    engine = _engine(section, first=first, trust_remote_code=trust_remote_code, chat=chat)
    if number == 1:
        return engine
    from selfreward.engines.pool.engine import PooledEngine

    num_nodes = ray.nodes if ray else 1
    return PooledEngine(engine, section, address=address, num_replicas=number, num_nodes=num_nodes)


def _engine(
    section: EngineSection, *, first: Checkpoint, trust_remote_code: bool, chat: ChatTokenizer | None
) -> "InProcessEngine":
    kind = section.kind
    if kind == "auto":
        kind = "vllm" if importlib.util.find_spec("vllm") is not None else "transformers"
    match kind:
        case "vllm":
            if importlib.util.find_spec("vllm") is None:
                raise RecipeError(
                    "engine.kind: vllm is not installed; auto would select transformers; set engine.kind to auto, or "
                    "install vLLM with: pip install 'selfreward-lm[cuda]', or 'selfreward-lm[cpu]' where there is no "
                    "GPU (docs/install.md)"
                )
            # Read when torch is imported; the messages that it hides at vLLM's start need no action by users.
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
            from selfreward.engines.vllm import VllmEngine

            return VllmEngine(section, first=first, trust_remote_code=trust_remote_code, chat=chat)
        case "transformers":
            if section.tensor_parallel_size > 1:
                raise RecipeError(
                    "engine.tensor_parallel_size: only vLLM computes a model on several GPUs, and it is not installed; "
                    "set it to 1, or install vLLM (docs/install.md)"
                )
            if section.batch_invariant:
                raise RecipeError(
                    "engine.batch_invariant: only vLLM has such a mode, and it is not installed; set it to false, or "
                    "install vLLM (docs/install.md)"
                )
            from selfreward.engines.transformers import TransformersEngine

            return TransformersEngine(section, first=first, trust_remote_code=trust_remote_code, chat=chat)
        case _:
            assert_never(kind)
