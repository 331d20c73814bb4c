"""What a run says when a micro-batch does not fit: an update of files, in a process that may take little memory."""

import shutil
from pathlib import Path

import torch
from models import TINY, random_pairs, tiny, write_model
from speed import reset_peak

from selfreward.errors import TrainingError
from selfreward.recipe import TrainingSection
from selfreward.records import PreferencePair
from selfreward.store.tables import to_table, write_table
from selfreward.updates.job import TrainingJob
from selfreward.updates.settings import Settings
from selfreward.updates.update import train

LIMIT_GIB = 1.0
ENOUGH = "the memory sufficed"


def message_when_memory_is_short(folder: Path, *, device: str) -> str:
    """Train with micro-batches of 64k tokens where 1 GiB of the GPU may be used; return the error's message.

    On a CPU, where memory has no such limit, the update is small and succeeds.
    """
    num_pairs, num_tokens = (16, 4096) if device == "cuda" else (2, 64)
    write_model(folder / "policy", "llama", TINY | {"num_hidden_layers": 8}, device=device, tokenizer_of=tiny())
    pairs = [
        PreferencePair(
            id=f"pair-{i}", prompt_id=f"prompt-{i}", kind="response", chosen_id="a", rejected_id="b",
            prompt_token_ids=pair.prompt, chosen_token_ids=pair.chosen, rejected_token_ids=pair.rejected,
            chosen_text="", rejected_text="", chosen_score=1.0, rejected_score=0.0, margin=1.0,
        )
        for i, pair in enumerate(random_pairs(num_pairs, num_tokens, vocabulary=512))
    ]  # fmt: skip
    write_table(to_table(PreferencePair, pairs), folder / "pairs.parquet")
    work = folder / "training"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    job = TrainingJob(iteration=1, pairs_file=folder / "pairs.parquet", policy=folder / "policy",
                      initial=folder / "policy", work_folder=work, seed=0)  # fmt: skip
    try:
        if device == "cuda":
            reset_peak(device)
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(LIMIT_GIB * 2**30 / total)
        train(job, Settings(training=TrainingSection(micro_batch_tokens=65536), engine_dtype="bfloat16"))
    except TrainingError as error:
        return str(error)
    finally:
        if device == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0)
    return ENOUGH
