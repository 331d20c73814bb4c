"""One size of `driver_overhead.py`: an iteration with an engine and a trainer that take no time, in this process."""

import json
import resource
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.driver_overhead import MODEL
from selfreward import engines, loop
from selfreward.launch import local
from selfreward.model_files import ChatTokenizer
from selfreward.recipe import Recipe
from selfreward.records import Checkpoint
from selfreward.requests import GenerationRequest, Sample, ScoreRequest
from selfreward.steps import Block, Iteration, Update
from selfreward.store import Store

NUM_RESPONSES, NUM_TOKENS, NUM_DRAWS = 4, 256, 1
SHARD_PROMPTS = 1024
JUDGE_TOKENS = 128
VERDICT = (
    "The response is about what the user asked for and gives a correct overview. It mentions the main steps and one "
    "figure, {} degrees, which is helpful. However, it leaves out how long they take, and a sentence is repeated. "
    "The tone is friendly and clear, and the text is well organised.\n\nScore: {}"
)
WORDS = ("river", "stone", "garden", "winter", "music", "letter", "engine", "market", "silver", "summer", "window")


class InstantEngine:
    """The chat template and tokenizer of the model; samples are random tokens, new objects each time as an engine's."""

    enforces_schema = False
    context_tokens = 2048

    def __init__(self, *_: Any, chat: ChatTokenizer, **__: Any) -> None:
        self._chat = chat
        self.encode, self.encode_text = chat.encode, chat.encode_text
        self.control_tokens = chat.control_tokens
        self._random = np.random.default_rng(0)
        self._end = chat.end_token_ids[0]
        self._texts = [_words(self._random, NUM_TOKENS - 20) for _ in range(256)]
        self.seconds = 0.0
        self._counts = {"num_requests": 0, "num_prompt_tokens": 0, "num_generated_tokens": 0}

    def load(self, checkpoint: Checkpoint) -> None: ...
    def sleep(self) -> None: ...
    def wake(self) -> None: ...
    def close(self) -> None: ...

    def generate(self, requests: Sequence[GenerationRequest]) -> list[list[Sample]]:
        started = time.perf_counter()
        found = [[self._sample(request) for _ in range(request.n)] for request in requests]
        self._counts["num_requests"] += len(requests)
        self._counts["num_prompt_tokens"] += sum(len(request.prompt_token_ids) for request in requests)
        self._counts["num_generated_tokens"] += sum(len(s.token_ids) for samples in found for s in samples)
        self.seconds += time.perf_counter() - started
        return found

    def _sample(self, request: GenerationRequest) -> Sample:
        length = max(1, min(request.max_tokens, NUM_TOKENS))
        ids = (*self._random.integers(100, 40_000, length - 1).tolist(), self._end)
        logps = tuple((-self._random.random(length)).tolist())
        number = int(self._random.integers(0, 1 << 30))
        if request.max_tokens == JUDGE_TOKENS:
            text = VERDICT.format(number % 90, number % 6)
        else:
            text = f"{self._texts[number % len(self._texts)]} {number}"
        choices = np.log(self._random.dirichlet(np.ones(len(request.choice_token_ids) or 1))).tolist()
        return Sample(ids, logps, text, "stop", tuple(choices[: len(request.choice_token_ids)]))

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        return [tuple((-self._random.random(len(request.token_ids))).tolist()) for request in requests]

    def usage(self) -> Mapping[str, float]:
        return dict(self._counts)

    def facts(self) -> Mapping[str, Any]:
        return {}


class InstantLearner:
    """Its weights are the ones it starts from."""

    def learn(self, block: Block) -> Mapping[str, Any]:
        self._start = block.start.path
        return {"num_pairs": 1, "loss": 0.7}

    def save(self, folder: Path) -> None:
        shutil.copytree(self._start, folder, dirs_exist_ok=True)

    def close(self) -> None: ...


def recipe_of(folder: Path, num_responses: int, *, model: str = MODEL, engine: str = "transformers") -> Recipe:
    num_prompts = num_responses // NUM_RESPONSES
    file = folder / "prompts.jsonl"
    random = np.random.default_rng(1)
    with file.open("w", encoding="utf-8") as lines:
        for number in range(num_prompts + 256):
            text = f"Question {number}: {_words(random, 40)} {number * 7919}?"
            lines.write(json.dumps({"prompt": text}) + "\n")
    return Recipe.model_validate(
        {
            "name": "overhead", "output_dir": str(folder / "run"), "models": {"policy": {"model": model}},
            "engine": {"kind": engine, "context_tokens": 2048},
            "iterations": {"max": 1, "num_prompts_per_iteration": num_prompts, "shard_prompts": SHARD_PROMPTS},
            "prompts": {"kind": "file", "path": str(file)},
            "sampling": {"num_responses": NUM_RESPONSES, "max_tokens": NUM_TOKENS},
            "judging": {"kind": "additive", "by": "policy", "num_draws": NUM_DRAWS, "max_tokens": JUDGE_TOKENS},
            "pairing": {"kind": "best_vs_worst"},
            "evaluation": {"num_prompts": 64, "max_tokens": 64},
            "monitor": {"mode": "report_only", "max_unscored_rate": 1.0},
        }
    )  # fmt: skip


def _words(random: np.random.Generator, number: int) -> str:
    """Return a text of words that are about a token each."""
    return " ".join(random.choice(WORDS, number).tolist())


def run(folder: Path, num_responses: int) -> dict[str, Any]:
    made: list[InstantEngine] = []

    def build(*arguments: Any, **named: Any) -> InstantEngine:
        made.append(InstantEngine(*arguments, **named))
        return made[0]

    engines.build = build  # type: ignore[assignment]
    recipe = recipe_of(folder, num_responses)
    start_mib, started = _resident_mib(), time.perf_counter()
    with Store(Path(recipe.output_dir), name="overhead") as store:
        recipe = local._stored_recipe(store, recipe)
        tools = local.prepare(recipe, store)
        parts = local.parts_of(recipe, store, tools)
        prepared_s, prepared_mib = time.perf_counter() - started, _resident_mib()
        parts = replace(parts, compose=lambda t, decisions, made=parts.compose: _without_training(made(t, decisions)))
        loop.run(parts, store)
        seconds = store.seconds_by_stage(1)
        entries = {Path(name).stem: entry.get("num_records", 0) for name, entry in store.manifest["files"].items()}
    return {
        "num_responses": num_responses, "prepare_s": prepared_s, "seconds": seconds, "engine_s": made[0].seconds,
        "num_records": {name: entries.get(name, 0) for name in seconds},
        "total_s": time.perf_counter() - started,
        "start_mib": start_mib, "prepared_mib": prepared_mib,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


def _without_training(iteration: Iteration) -> Iteration:
    steps = (replace(step, open=InstantLearner) if isinstance(step, Update) else step for step in iteration.steps)
    return replace(iteration, steps=tuple(steps))


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]))))
