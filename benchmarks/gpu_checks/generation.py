"""Tokens per second of the engine, as a share of vLLM's own `generate` and of the limit by memory bandwidth."""

import json
import random
import time
from typing import Any

from engines import engine_on, section_of
from models import LLAMA_1B, tiny, write_model
from speed import copy_bandwidth
from step import Step, main

from selfreward.model_files import checkpoint_of
from selfreward.requests import GenerationRequest

MIN_SHARE_OF_VLLM = 0.95


def run(step: Step) -> None:
    bandwidth = copy_bandwidth(step.device)
    step.figure("bandwidth", bandwidth / 1e9, "GB/s")
    folder, sizes, num_tokens = tiny(), (4, 8), 16
    if step.on_cuda:
        folder = write_model(step.folder / "model", "llama", LLAMA_1B, device="cuda", tokenizer_of=tiny())
        sizes, num_tokens = (256, 1024), 256
    first = checkpoint_of(folder, 0)
    engine = engine_on(section_of(max_num_seqs=max(sizes)), first)
    engine.load(first)
    engine.generate(_requests(2, 8))
    for size in sizes:
        with step.attempt(f"{size} sequences"):
            _compare(step, engine, _requests(size, num_tokens), folder, bandwidth)
    with step.attempt("close"):
        engine.close()


def _requests(num: int, num_tokens: int) -> list[GenerationRequest]:
    """Requests of 128 random tokens with different seeds; prompts share nothing."""
    rng = random.Random(num)
    prompts = [tuple(rng.randrange(250) for _ in range(128)) for _ in range(num)]
    return [GenerationRequest(prompt, num_tokens, seed=i) for i, prompt in enumerate(prompts)]


def _compare(step: Step, engine: Any, requests: list[GenerationRequest], folder: Any, bandwidth: float) -> None:
    size = len(requests)
    engine.generate(_requests(size, 8))  # warms up batches of this size
    ours = _rate_of_engine(engine, requests)
    step.figure(f"{size} sequences", ours, "tokens/s")
    section = engine._section  # the same engine without seeds, which need a generator for each request
    engine._section = section.model_copy(update={"seeded": False})
    unseeded = _rate_of_engine(engine, requests)
    engine._section = section
    step.figure(f"{size} sequences: without seeds", unseeded, "tokens/s")
    raw = _rate_of_vllm(engine._llm, requests)
    step.figure(f"{size} sequences: vLLM itself", raw, "tokens/s")
    step.figure(f"{size} sequences: share of vLLM, with seeds", ours / raw)
    step.figure(f"{size} sequences: share of vLLM, without seeds", unseeded / raw)
    limit = _limit(folder, size, requests[0], bandwidth)
    step.figure(f"{size} sequences: share of the limit by bandwidth", ours / limit)
    if step.on_cuda:
        step.at_least(f"{size} sequences: share of vLLM", ours / raw, MIN_SHARE_OF_VLLM)
    step.check(f"{size} sequences: tokens", ours, limit="more than 0 per second", ok=ours > 0)


def _rate_of_engine(engine: Any, requests: list[GenerationRequest]) -> float:
    started = time.monotonic()
    results = engine.generate(requests)
    return sum(len(draw.token_ids) for draws in results for draw in draws) / (time.monotonic() - started)


def _rate_of_vllm(llm: Any, requests: list[GenerationRequest]) -> float:
    from vllm import SamplingParams

    params = SamplingParams(max_tokens=requests[0].max_tokens, temperature=1.0, detokenize=False)
    llm.reset_prefix_cache()
    started = time.monotonic()
    prompts = [{"prompt_token_ids": [*request.prompt_token_ids]} for request in requests]
    outputs = llm.generate(prompts, params, use_tqdm=False)
    return sum(len(output.outputs[0].token_ids) for output in outputs) / (time.monotonic() - started)


def _limit(folder: Any, size: int, request: GenerationRequest, bandwidth: float) -> float:
    """Return tokens/s when each step reads all weights and the keys and values of all sequences once, in 16 bits."""
    config = json.loads((folder / "config.json").read_text())
    weights = (folder / "model.safetensors").stat().st_size  # in 16 bits
    head_size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    per_token = 2 * 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * head_size
    length = len(request.prompt_token_ids) + request.max_tokens / 2
    return size * bandwidth / (weights + size * length * per_token)


if __name__ == "__main__":
    main(run)
