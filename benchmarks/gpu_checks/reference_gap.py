"""Log-probabilities of the engine against those of the trainer, with both precisions of the output layer."""

from typing import Any

import torch
from engines import QUESTIONS, ask, engine_on, section_of
from models import smollm2, tiny
from step import Step, main

from selfreward.model_files import checkpoint_of
from selfreward.recipe import TrainingSection
from selfreward.updates.models import load_model

MAX_GAP_MARGIN = 0.1  # `training.max_reference_gap`: the root mean square error of a pair's margin


def run(step: Step) -> None:
    folder = (None if step.quick else smollm2()) or tiny()
    step.figure("model", folder.name)
    first = checkpoint_of(folder, 0)
    engine = engine_on(section_of(), first)
    repeats = 1 if step.quick else 6
    requests = [ask(engine, text, n=2, seed=1000 * repeat, max_tokens=8 if step.quick else 128, top_p=1.0)
                for repeat in range(repeats) for text in QUESTIONS]  # fmt: skip
    results = engine.generate(requests)
    step.figure("engine", engine.facts()["dtype"])
    engine.close()
    rows = [
        (request.prompt_token_ids, draw) for request, draws in zip(requests, results, strict=True) for draw in draws
    ]
    model = load_model(folder, dtype="float32", trust_remote_code=False).to(step.device).eval()
    for name, autocast, wide_head in (
        ("float32", False, True),
        ("autocast", True, False),
        ("autocast, float32 head", True, True),
    ):
        with step.attempt(name):
            gaps = [
                _gap(model, prompt, draw, step.device, autocast=autocast, wide_head=wide_head) for prompt, draw in rows
            ]
            _record(step, name, torch.tensor(gaps), [len(draw.token_ids) for _, draw in rows])


def _record(step: Step, name: str, gap_B: torch.Tensor, lengths: list[int]) -> None:
    """Rows 2i and 2i + 1 are responses to one prompt, as a pair."""
    step.figure(f"{name}: gap per token", float((gap_B.abs() / torch.tensor(lengths)).mean()), "nats")
    step.figure(f"{name}: bias per token", float((gap_B / torch.tensor(lengths)).mean()), "nats")
    margin_B = TrainingSection().beta * (gap_B[0::2] - gap_B[1::2])
    step.at_most(f"{name}: error of the margin", float(margin_B.square().mean().sqrt()), MAX_GAP_MARGIN)


def _gap(model: Any, prompt: tuple[int, ...], draw: Any, device: str, *, autocast: bool, wide_head: bool) -> float:
    """Return engine minus trainer, in nats of a response."""
    ids_1T = torch.tensor([[*prompt, *draw.token_ids]], device=device)
    head = model.get_output_embeddings().weight
    with torch.no_grad():
        with torch.autocast(device, dtype=torch.bfloat16, enabled=autocast):
            hidden_TH = model.base_model(ids_1T, use_cache=False).last_hidden_state[0, len(prompt) - 1 : -1]
            narrow_TV = None if wide_head else hidden_TH @ head.T
        logits_TV = hidden_TH.float() @ head.float().T if narrow_TV is None else narrow_TV.float()
    logps_T = logits_TV.log_softmax(-1).gather(1, ids_1T[0, len(prompt) :, None])[:, 0]
    return sum(draw.token_logprobs) - float(logps_T.double().sum())


if __name__ == "__main__":
    main(run)
