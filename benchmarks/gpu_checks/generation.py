"""Tokens per second of the engine, as a share of vLLM by itself and of the limit by memory bandwidth.

Each engine starts in a process of its own (`rates.py`), because settings of vLLM hold for a whole process.
"""

import json
import subprocess
import sys
from pathlib import Path

from models import LLAMA_1B, tiny, write_model
from rates import requests_of
from speed import copy_bandwidth
from step import Step, main

MIN_SHARE_OF_VLLM = 0.95
ENGINES = ("stock", "seeded", "unseeded")


def run(step: Step) -> None:
    bandwidth = copy_bandwidth(step.device)
    step.figure("bandwidth", bandwidth / 1e9, "GB/s")
    folder, sizes, num_tokens = tiny(), (4, 8), 16
    if step.on_cuda:
        folder = write_model(step.folder / "model", "llama", LLAMA_1B, device="cuda", tokenizer_of=tiny())
        _release_gpu()
        sizes, num_tokens = (256, 1024), 256
    rates: dict[str, dict[str, float]] = {}
    for engine in ENGINES:
        with step.attempt(engine):
            rates[engine] = _rates(step.folder, engine, folder, sizes, num_tokens)
            for size in sizes:
                name = {"stock": ": vLLM itself", "seeded": "", "unseeded": ": without seeds"}[engine]
                step.figure(f"{size} sequences{name}", rates[engine][str(size)], "tokens/s")
    for size in sizes:
        with step.attempt(f"{size} sequences"):
            _compare(step, rates, size)
            limit = _limit(folder, size, num_tokens, bandwidth)
            step.figure(f"{size} sequences: share of the limit by bandwidth", rates["seeded"][str(size)] / limit)


def _release_gpu() -> None:
    """Free what this process holds of the GPU, so that the engines find all of it."""
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()


def _rates(work: Path, engine: str, folder: Path, sizes: tuple[int, ...], num_tokens: int) -> dict[str, float]:
    """Return tokens per second by number of sequences. Raises RuntimeError with the last line of what went wrong."""
    out = work / f"{engine}.json"
    out.unlink(missing_ok=True)
    command = [sys.executable, str(Path(__file__).with_name("rates.py")), engine, "--folder", str(folder),
               "--out", str(out), "--sizes", ",".join(map(str, sizes)), "--tokens", str(num_tokens)]  # fmt: skip
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    print(done.stderr, flush=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    found: dict[str, float] = json.loads(out.read_text(encoding="utf-8"))
    return found


def _compare(step: Step, rates: dict[str, dict[str, float]], size: int) -> None:
    stock, seeded, unseeded = (rates[engine][str(size)] for engine in ENGINES)
    step.figure(f"{size} sequences: share of vLLM, with seeds", seeded / stock)
    step.figure(f"{size} sequences: share of vLLM, without seeds", unseeded / stock)
    if step.on_cuda:
        step.at_least(f"{size} sequences: share of vLLM", seeded / stock, MIN_SHARE_OF_VLLM)
    step.check(f"{size} sequences: tokens", seeded, limit="more than 0 per second", ok=seeded > 0)


def _limit(folder: Path, size: int, num_tokens: int, bandwidth: float) -> float:
    """Return tokens/s when each step reads all weights and the keys and values of all sequences once, in 16 bits."""
    config = json.loads((folder / "config.json").read_text())
    weights = (folder / "model.safetensors").stat().st_size  # in 16 bits
    head_size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    per_token = 2 * 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * head_size
    (request,) = requests_of(1, num_tokens)
    length = len(request.prompt_token_ids) + num_tokens / 2
    return size * bandwidth / (weights + size * length * per_token)


if __name__ == "__main__":
    main(run)
