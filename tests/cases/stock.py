"""The oracle for the update: TRL's stock `DPOTrainer` on pairs as text, with its own reference model and collator."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from selfreward.records import PreferencePair
from selfreward.updates.job import TrainingJob


def stock_trainer(
    job: TrainingJob, pairs: Sequence[PreferencePair], *, output_dir: Path, reference: Path | None = None, **args: Any
) -> DPOTrainer:
    """A trainer of `job.policy` with `reference`, or the policy itself, as reference model.

    Responses must end with the end token.
    """
    from datasets import Dataset

    tokenizer = AutoTokenizer.from_pretrained(job.policy)
    texts = [
        {
            "prompt": tokenizer.decode(p.prompt_token_ids),
            "chosen": " " + tokenizer.decode(p.chosen_token_ids[:-1]),
            "rejected": " " + tokenizer.decode(p.rejected_token_ids[:-1]),
        }
        for p in pairs
    ]
    folders = job.policy, reference or job.policy
    models = [AutoModelForCausalLM.from_pretrained(folder, attention_dropout=0.0) for folder in folders]
    return DPOTrainer(
        models[0],
        models[1],
        args=DPOConfig(
            output_dir=str(output_dir), per_device_train_batch_size=len(pairs), bf16=False, use_cpu=True,
            report_to="none", save_strategy="no", gradient_checkpointing=False, logging_steps=1, **args,
        ),
        train_dataset=Dataset.from_list(texts),
        processing_class=tokenizer,
    )  # fmt: skip
