"""Tokens per second of an engine, in a process of its own.

    python rates.py ENGINE --folder MODEL --out FILE --sizes 4,8 --tokens 16

ENGINE is `seeded` or `unseeded`, the engine of a run with these settings, or `stock`: vLLM with its own defaults.
FILE gets {number of sequences: tokens per second} as JSON.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engines import engine_on, section_of

from selfreward.devices import visible_gpus
from selfreward.model_files import checkpoint_of
from selfreward.requests import GenerationRequest

Generate = Callable[[list[GenerationRequest]], int]
"""Generates for all requests and returns the number of tokens."""


def requests_of(num: int, num_tokens: int) -> list[GenerationRequest]:
    """Return requests of 128 random tokens with different seeds; prompts share nothing."""
    rng = random.Random(num)
    prompts = [tuple(rng.randrange(250) for _ in range(128)) for _ in range(num)]
    return [GenerationRequest(prompt, num_tokens, seed=i) for i, prompt in enumerate(prompts)]


def ours(folder: Path, max_num_seqs: int, *, seeded: bool) -> Generate:
    first = checkpoint_of(folder, 0)
    engine = engine_on(section_of(max_num_seqs=max_num_seqs, seeded=seeded), first)
    engine.load(first)
    return lambda requests: sum(len(draw.token_ids) for draws in engine.generate(requests) for draw in draws)


def stock(folder: Path, max_num_seqs: int) -> Generate:
    """vLLM as its documentation starts it, with the same lengths, dtype and memory."""
    from vllm import LLM, SamplingParams

    section = section_of()
    memory: dict[str, Any] = {"gpu_memory_utilization": section.gpu_memory_utilization}
    if not visible_gpus():
        memory = {"kv_cache_memory_bytes": int(section.kv_cache_gib * 2**30), "enforce_eager": True}
    llm = LLM(model=str(folder), dtype=section.dtype, max_model_len=section.context_tokens, max_num_seqs=max_num_seqs,
              **memory)  # fmt: skip

    def generate(requests: list[GenerationRequest]) -> int:
        params = SamplingParams(max_tokens=requests[0].max_tokens, temperature=1.0, detokenize=False)
        prompts = [{"prompt_token_ids": [*request.prompt_token_ids]} for request in requests]
        outputs = llm.generate(prompts, params, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    return generate


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", choices=["seeded", "unseeded", "stock"])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", required=True)
    parser.add_argument("--tokens", type=int, required=True)
    given = parser.parse_args()
    sizes = [int(size) for size in given.sizes.split(",")]
    if given.engine == "stock":
        generate = stock(given.folder, max(sizes))
    else:
        generate = ours(given.folder, max(sizes), seeded=given.engine == "seeded")
    rates = {}
    for size in sizes:
        generate(requests_of(size + 1, 8)[:size])  # warms up batches of this size, with other prompts
        started = time.monotonic()
        num_tokens = generate(requests_of(size, given.tokens))
        rates[size] = num_tokens / (time.monotonic() - started)
    given.out.write_text(json.dumps(rates), encoding="utf-8")


if __name__ == "__main__":
    main()
