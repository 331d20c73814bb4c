"""What a run says when a micro-batch does not fit: an update of files, in a process that may take little memory."""

from pathlib import Path

import torch
from models import TINY, config_of, random_model, random_pairs

from selfreward.errors import TrainingError
from selfreward.recipe import TrainingSection
from selfreward.records import PreferencePair
from selfreward.store.tables import to_table, write_table
from selfreward.updates.job import TrainingJob
from selfreward.updates.settings import Settings
from selfreward.updates.update import train

LIMIT_GIB = 1.0


def message_when_memory_is_short(folder: Path) -> str:
    """Train with micro-batches of 64k tokens where 1 GiB of the GPU may be used; return the error's message."""
    config = config_of("llama", TINY | {"vocab_size": 512, "num_hidden_layers": 8})
    random_model(config, device="cuda").save_pretrained(folder / "policy")
    pairs = [
        PreferencePair(
            id=f"pair-{i}", prompt_id=f"prompt-{i}", kind="response", chosen_id="a", rejected_id="b",
            prompt_token_ids=pair.prompt, chosen_token_ids=pair.chosen, rejected_token_ids=pair.rejected,
            chosen_text="", rejected_text="", chosen_score=1.0, rejected_score=0.0, margin=1.0,
        )
        for i, pair in enumerate(random_pairs(16, 4096, vocabulary=512))
    ]  # fmt: skip
    write_table(to_table(PreferencePair, pairs), folder / "pairs.parquet")
    work = folder / "training"
    work.mkdir(exist_ok=True)
    job = TrainingJob(iteration=1, pairs_file=folder / "pairs.parquet", policy=folder / "policy",
                      initial=folder / "policy", work_folder=work, seed=0)  # fmt: skip
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(LIMIT_GIB * 2**30 / total)
    try:
        train(job, Settings(training=TrainingSection(micro_batch_tokens=65536), engine_dtype="bfloat16"))
    except TrainingError as error:
        return str(error)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return "the update needed less than 1 GiB"
