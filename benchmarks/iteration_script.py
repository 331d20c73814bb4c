"""The script of `iteration.py`, as people write it: a process per stage, files between them.

    python benchmarks/iteration_script.py generate|judge|train FOLDER

`workload.json` in the folder has model, prompts and sizes. Each stage prints one line of JSON: the seconds until it
could work (imports, model, engine) and the seconds of its work. vLLM and TRL have their defaults, except for what the
workload states and what vLLM needs on a CPU.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

STARTED = time.monotonic()


def generate(folder: Path, work: dict[str, Any]) -> tuple[float, float]:
    """Sample the responses of every prompt."""
    engine = _engine(work)
    from vllm import SamplingParams

    ready = time.monotonic()
    params = SamplingParams(
        n=work["num_responses"],
        max_tokens=work["max_tokens"],
        temperature=work["temperature"],
        top_p=work["top_p"],
        seed=0,
    )  # fmt: skip
    chats = [[{"role": "user", "content": prompt}] for prompt in work["prompts"]]
    outputs = engine.chat(chats, params, use_tqdm=False)
    rows = [
        {"prompt": prompt, "responses": [each.text for each in output.outputs]}
        for prompt, output in zip(work["prompts"], outputs, strict=True)
    ]
    _write(folder / "responses.jsonl", rows)
    return ready, time.monotonic()


def judge(folder: Path, work: dict[str, Any]) -> tuple[float, float]:
    """Sample the judgments of every response: a prompt with the response first, n draws in one call."""
    engine = _engine(work)
    from judging_contenders import RESPONSE_FIRST
    from vllm import SamplingParams

    ready = time.monotonic()
    rows = _read(folder / "responses.jsonl")
    texts = [
        RESPONSE_FIRST.replace("{{response}}", response).replace("{{prompt}}", row["prompt"])
        for row in rows
        for response in row["responses"]
    ]
    params = SamplingParams(n=work["num_draws"], max_tokens=work["judge_tokens"], temperature=1.0, seed=0)
    outputs = engine.chat([[{"role": "user", "content": text}] for text in texts], params, use_tqdm=False)
    _write(folder / "judgments.jsonl", [{"texts": [each.text for each in output.outputs]} for output in outputs])
    return ready, time.monotonic()


def train(folder: Path, work: dict[str, Any]) -> tuple[float, float]:
    """Train on the pairs of pairs.jsonl with TRL's DPOTrainer, padded."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(work["model"])
    model = AutoModelForCausalLM.from_pretrained(work["model"], dtype="float32")
    config = DPOConfig(
        output_dir=str(folder / "trl"), num_train_epochs=1, learning_rate=work["learning_rate"], beta=0.1,
        per_device_train_batch_size=4, gradient_accumulation_steps=work["batch_size"] // 4, use_cpu=True,
        bf16=False, gradient_checkpointing=False, save_strategy="no", report_to="none", disable_tqdm=True,
        logging_steps=1000,
    )  # fmt: skip
    pairs = Dataset.from_list(_read(folder / "pairs.jsonl"))
    ready = time.monotonic()
    trainer = DPOTrainer(model=model, args=config, train_dataset=pairs, processing_class=tokenizer)
    trainer.train()
    trainer.save_model(str(folder / "next"))
    return ready, time.monotonic()


def _engine(work: dict[str, Any]) -> Any:
    from vllm import LLM

    return LLM(
        model=work["model"], dtype=work["dtype"], max_model_len=work["context_tokens"], disable_log_stats=True,
        enable_prefix_caching=True,
    )  # fmt: skip


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    where = Path(sys.argv[2])
    stage = {"generate": generate, "judge": judge, "train": train}[sys.argv[1]]
    at, end = stage(where, json.loads((where / "workload.json").read_text(encoding="utf-8")))
    print(json.dumps({"start_s": at - STARTED, "work_s": end - at}), flush=True)
    os._exit(0)  # vLLM's engine process is not waited for, as the script has no more work
