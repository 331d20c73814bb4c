"""Shared by tests of the update: a tiny policy that is built here, pairs for it, a job, and its training."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from selfreward.problems import warnings_of
from selfreward.recipe import TrainingSection
from selfreward.records import PreferencePair
from selfreward.store.tables import to_table, write_table
from selfreward.updates.dpo import train as run_job
from selfreward.updates.job import TrainingJob
from selfreward.updates.recipe_problems import settings_problems
from selfreward.updates.settings import Settings

NUM_WORDS, END = 64, 0
TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
SECTION = TrainingSection(learning_rate=1e-3, batch_size=4, micro_batch_size=2, num_epochs=2)


def write_policy(folder: Path, *, seed: int, hidden: int = 32) -> Path:
    words = ["<end>", "<unknown>", *(f"w{i}" for i in range(2, NUM_WORDS))]
    words[2:6] = ["The", "river", "was", "high"]  # so that not all words of the canary text are unknown
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unknown>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", unk_token="<unknown>")
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=NUM_WORDS, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, attention_dropout=0.3,
        eos_token_id=END, bos_token_id=None, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_pairs(num: int, *, seed: int = 0) -> list[PreferencePair]:
    generator = random.Random(seed)

    def words(low: int, high: int) -> tuple[int, ...]:
        return tuple(generator.randrange(2, NUM_WORDS) for _ in range(generator.randint(low, high)))

    return [
        PreferencePair(
            id=f"pair-{i}", prompt_id=f"prompt-{i}", kind="response", chosen_id="a", rejected_id="b",
            prompt_token_ids=words(3, 8), chosen_token_ids=(*words(1, 9), END), rejected_token_ids=(*words(1, 9), END),
            chosen_text="", rejected_text="", chosen_score=4.0, rejected_score=1.0, margin=3.0,
        )
        for i in range(num)
    ]  # fmt: skip


def make_job(folder: Path, pairs: Sequence[PreferencePair], *, name: str = "work", **changes: Any) -> TrainingJob:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "policy").exists():
        write_policy(folder / "policy", seed=1)
    write_table(to_table(PreferencePair, pairs), folder / f"{name}.parquet")
    job = TrainingJob(
        iteration=1, pairs_file=folder / f"{name}.parquet", policy=folder / "policy", initial=folder / "policy",
        work_folder=folder / name, seed=5,
    )  # fmt: skip
    return replace(job, **changes)


def train(job: TrainingJob, section: TrainingSection = SECTION, **changes: Any) -> dict[str, Any]:
    return train_with(job, training=section.model_copy(update=changes))


def train_with(job: TrainingJob, **settings: Any) -> dict[str, Any]:
    """Train as a run does, in this process or in child processes."""
    return dict(run_job(job, Settings(engine_dtype="bfloat16", **settings)))


def check(**settings: Any) -> None:
    """Raise RecipeError for settings that a run would refuse."""
    warnings_of(settings_problems(Settings(engine_dtype="bfloat16", **settings)))


def plain_logp(folder: Path, prompt: Sequence[int], response: Sequence[int]) -> float:
    """Summed log-probability of the response, by transformers and a softmax alone."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([[*prompt, *response]])
    with torch.no_grad():
        logprobs = model(ids).logits[0].log_softmax(-1)
    return sum(logprobs[len(prompt) + i - 1, token].item() for i, token in enumerate(response))


def losses(metrics: dict[str, Any]) -> list[float]:
    return [step["loss"] for step in metrics["steps"]]
