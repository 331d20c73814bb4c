"""Inference engines, which generate and score text: vLLM where it is installed, transformers anywhere."""

import importlib.util
import os
from typing import assert_never

from selfreward.errors import RecipeError
from selfreward.model_files.tokenizer import ChatTokenizer
from selfreward.parts import Engine
from selfreward.recipe import EngineSection
from selfreward.records import Checkpoint


def build(
    section: EngineSection, *, first: Checkpoint, trust_remote_code: bool = False, chat: ChatTokenizer | None = None
) -> Engine:
    """Return the engine of a run; it starts at its first use. `first` gives tokenizer, configuration and weights.

    `chat` is the tokenizer with the model's variables of the chat template; without it there are none.
    """
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
            if section.batch_invariant:
                raise RecipeError(
                    "engine.batch_invariant: only vLLM has such a mode, and it is not installed; set it to false, or "
                    "install vLLM (docs/install.md)"
                )
            from selfreward.engines.transformers import TransformersEngine

            return TransformersEngine(section, first=first, trust_remote_code=trust_remote_code, chat=chat)
        case _:
            assert_never(kind)
