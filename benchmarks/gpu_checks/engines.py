"""An engine on a model of the checks, and what transformers computes for the same tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from models import TINY, changed_copy, tiny, write_model

from selfreward.engines.vllm import VllmEngine
from selfreward.model_files import checkpoint_of
from selfreward.recipe import EngineSection
from selfreward.records import Checkpoint, Message
from selfreward.requests import GenerationRequest
from selfreward.updates.checkpoint import write_canary

QUESTIONS = ("What is the capital of France?", "Name a plural of mouse.", "Why is the sky blue?", "Write about rivers.")


def qwen2_with_biases(folder: Path, *, device: str) -> Path:
    size = TINY | {"vocab_size": 320, "max_position_embeddings": 4096, "initializer_range": 0.05}
    return write_model(folder, "qwen2", size, device=device, tokenizer_of=tiny())


def section_of(**changes: Any) -> EngineSection:
    return EngineSection.model_validate({"kind": "vllm", "context_tokens": 1024, "kv_cache_gib": 0.25, **changes})


def engine_on(section: EngineSection, first: Checkpoint) -> VllmEngine:
    return VllmEngine(section, first=first)


def updated(first: Checkpoint, folder: Path) -> Checkpoint:
    """Return a checkpoint like after an update, with the log-probabilities of a fixed text by the trainer's code."""
    changed_copy(first.path, folder, scale=0.01)
    write_canary(folder, trust_remote_code=False)
    return checkpoint_of(folder, 1)


def ask(engine: VllmEngine, text: str, **settings: Any) -> GenerationRequest:
    prompt = engine.encode([Message("user", text)])
    return GenerationRequest(prompt, **{"max_tokens": 48, "n": 4, "temperature": 0.8, "top_p": 0.95, **settings})


def logprobs_of(
    folder: Path, rows: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], *, device: str
) -> list[list[float]]:
    """Return the log-probabilities of each (prompt, response) by transformers in float32, one row at a time."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    found = []
    with torch.no_grad():
        for prompt, response in rows:
            ids_1T = torch.tensor([[*prompt, *response]], device=device)
            logps_TV = model(ids_1T).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            found.append(logps_TV.gather(1, ids_1T[0, len(prompt) :, None])[:, 0].tolist())
    return found


def mean_difference(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    """Return the mean absolute difference of a token's log-probability, in nats."""
    differences = [abs(a - b) for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=True)]
    return sum(differences) / len(differences)
