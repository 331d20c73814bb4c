"""Judgments per second of this library's judges, compared with direct vLLM calls and with the usual script.

    python benchmarks/judging.py [--quick] [--json FILE]

SmolLM2-135M on vLLM's CPU build judges its own responses (at most 80 tokens) to built-in prompts: 4 responses per
prompt, 4 draws of at most 64 tokens. The contenders run in interleaved rounds in one process, on one engine, and the
prefix cache is emptied before each; a ratio is the median of the ratios of single rounds, which are printed in
brackets. There are 3 rounds, fewer when that would take too long, and one round of 3 prompts instead of 6 with --quick.

`share_of_raw_engine`: judgments per second of the complete call of the additive judge (rendering, encoding, generation,
decoding, parsing, records), divided by those of `llm.generate` with the same token ids and SamplingParams. Both must
give the same token ids in every round, or the exit code is 1. `share_inside_vllm` is a less noisy form: the share of a
judge call's seconds spent in vLLM.
`seeds_cost`: seconds of these requests with seeds, divided by seconds without.
`ratio_vs_passes`: judgments per second of the judge call, divided by those of the usual script: a template with the
response first (the same words; the prompts' mean lengths must agree to 2 %, or the exit code is 1), and for each draw
a pass with n = 1, a seed and an emptied prefix cache. In the script's favour, its prompts are rendered and encoded
before timing starts, and its verdicts are not parsed. Draws end where the model ends them, so the texts differ:
`ratio_vs_passes_per_token` is the ratio of generated tokens per second, and where the numbers of generated tokens
differ by more than 10 %, `ratio_vs_passes_equal_lengths` is also measured, vLLM alone with every draw at its limit.
`ratio_vs_passes_cache_kept`: the cache is retained between the passes. Here it contains all prompts of a pass, but not
with the thousands of prompts of a run, where the least recently used ones are evicted before the next pass needs them.
`ratio_prefill`: responses per second of the expected-score judge with its default two draws, divided by those of the
same script; `ratio_prefill_one_draw` with one draw.
Names that end in `_cpu` are the same ratios of processor seconds, which other processes disturb less than wall time.

The table of reliability: r (`selfreward.statistics.reliability`) of the scores of each way of judging, with its
interval and time. A small model seldom reaches a verdict within 64 tokens; `expected_score, reasoning` samples as many
tokens and then reads the score's probabilities. r of one prefill is computed from that of two by Spearman-Brown.
r / (1 - r), the signal-to-noise ratio of the mean score, is proportional to the number of draws, so per second it
compares ways with different numbers. The draws of expected_score are different prompt variants, all others repeat one
variant: an effect of the variant counts as noise only for the former. Two dozen responses to six prompts give wide
intervals. r shows whether a judge is consistent, never whether it is right; a judge of length alone is consistent.

Predictions before the first run. A judge prompt here has about 540 tokens (rubric 376, conversation 62, response 100),
one of expected_score 445 (rubric 280); the CPU build's prefix cache shares blocks of 128. A prompt's 16 judgments
compute 16 * 540 = 8,640 prompt tokens in the script; here 128 for the conversation, 4 * 156 for the responses and
12 * 28 for further draws, 1,088; both generate 1,024. With 1,340 prompt tokens and 315 generated tokens per second
(measured on another day, with larger batches) that is 9.7 s and 4.1 s: `ratio_vs_passes` 2.4. Two prefills of 4
responses compute 8 * 189 = 1,512: 1.1 s, `ratio_prefill` 9, one draw 17. Each run makes and prints
new predictions, from counted tokens and rates measured before the rounds, with every draw at its limit.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from judging_contenders import Contenders, Job, Run, Size, of_equal_length, unseeded
from judging_prediction import Plan, measure_rates, predict
from judging_summary import LENGTHS_DIFFER, Runs, complaints, ratios, repeats, row

FULL = Size(num_prompts=6, num_responses=4, num_draws=4, max_tokens=64)
QUICK = Size(num_prompts=3, num_responses=4, num_draws=4, max_tokens=64)
TINY = Size(num_prompts=2, num_responses=2, num_draws=2, max_tokens=8)
MAX_ROUNDS, ROUNDS_S = 3, 500


def plans(contenders: Contenders, passes: Sequence[Sequence[Job]]) -> dict[str, Plan]:
    judged: Plan = [(contenders.plan("additive"), contenders.size.num_draws)]
    in_passes: Plan = [(one, 1) for one in passes]
    return {
        **dict.fromkeys(("ours", "raw", "unseeded", "ours_equal_length"), judged),
        **dict.fromkeys(("passes", "passes_equal_length"), in_passes),
        "passes_cache_kept": [([job for one in passes for job in one], 1)],
        **{name: [(contenders.plan(name), 1)] for name in ("expected_score", "expected_score_1")},
    }


def run_all(contenders: Contenders, passes: Sequence[Sequence[Job]], *, quick: bool) -> Runs:
    """Run rounds of all contenders, at least one, as long as the next is likely to end within `ROUNDS_S`."""
    runs: Runs = {}

    def keep(name: str, run: Run) -> None:
        runs.setdefault(name, []).append(run)
        print(f"  {name:20s} {run.seconds:7.2f} s, {run.num_generated} tokens generated", flush=True)

    started = time.monotonic()
    for number in range(1, (1 if quick else MAX_ROUNDS) + 1):
        print(f"round {number}")
        keep("ours", contenders.judge("additive"))
        jobs = contenders.engine.jobs
        keep("raw", contenders.raw(jobs))
        if not quick:
            keep("unseeded", contenders.raw(unseeded(jobs)))
        keep("passes", contenders.passes(passes))
        keep("expected_score", contenders.judge("expected_score"))
        keep("expected_score_1", contenders.judge("expected_score_1"))
        if (time.monotonic() - started) * (number + 1) / number > ROUNDS_S:
            break
    if not quick:
        print("once")
        keep("passes_cache_kept", contenders.passes(passes, keep_cache=True))
        keep("reasoning", contenders.judge("reasoning"))
    ours, theirs = runs["ours"][0].num_generated, runs["passes"][0].num_generated
    if abs(ours - theirs) > LENGTHS_DIFFER * max(ours, theirs):
        keep("ours_equal_length", contenders.raw(of_equal_length(jobs)))
        keep("passes_equal_length", contenders.passes([of_equal_length(one) for one in passes]))
    return runs


def show(result: dict[str, Any]) -> None:
    print(f"{'contender':20s} prompt tokens  computed  generated  predicted s  seconds    cpu s  inside vLLM s")
    for each in result["contenders"]:
        expected = each["expected"]
        counts = ("", "", "") if expected is None else (
            expected["prompt_tokens"], expected["computed_tokens"], f"{expected['seconds']:.1f}"
        )  # fmt: skip
        print(
            f"{each['contender']:20s} {counts[0]:>13} {counts[1]:>9} {each['generated_tokens']:10d} {counts[2]:>12} "
            f"{each['seconds']:8.1f} {each['cpu_seconds']:8.1f} {each['vllm_seconds']:14.1f}"
        )
    for name, by_round in result["in_turns"].items():
        shown = "not measured" if result[name] is None else f"{result[name]:.3g}"
        each = f" ({', '.join(format(ratio, '.3g') for ratio in by_round)})" if len(by_round) > 1 else ""
        guess = f"; predicted {result['predicted'][name]:.3g}" if name in result["predicted"] else ""
        print(f"  {name}: {shown}{each}{guess}")
    print("way                       draws  scored  seconds  r                  r / (1 - r) per s")
    for each in result["reliability"]:
        r = each["r"]
        shown = each["not_measured"] or f"{r['mean']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"
        rate = "" if each["per_second"] is None else f"{each['per_second']:.3g}"
        share = f"{each['scored_share']:.0%}"
        print(f"{each['way']:25s} {each['draws']:5d} {share:>7s} {each['seconds']:8.1f}  {shown:17s}  {rate}")


def measure(size: Size, *, quick: bool) -> dict[str, Any]:
    contenders = Contenders(size)
    try:
        passes = contenders.response_first(contenders.plan("additive"))
        planned, block_size = plans(contenders, passes), contenders.block_size
        rates = measure_rates(contenders, planned["ours"][0][0], passes[0])
        expected = {name: predict(plan, rates, block_size=block_size) for name, plan in planned.items()}
        lengths = {
            name: statistics.mean(len(ids) for jobs, _ in planned[name] for ids, _ in jobs)
            for name in ("ours", "passes", "expected_score")
        }
        print(f"{len(contenders.responses)} responses to {size.num_prompts} prompts; mean prompt tokens: ", end="")
        print(", ".join(f"{name} {length:.0f}" for name, length in lengths.items()))
        print(f"blocks of {block_size} tokens; {rates.prefill:.0f} prompt and {rates.decode:.0f} generated tokens/s")
        print("predicted:", ", ".join(f"{name} {each.seconds:.1f} s" for name, each in expected.items()), flush=True)
        runs = run_all(contenders, passes, quick=quick)
        return {
            "schema": 1,
            **ratios(runs, expected),
            "reliability": [asdict(each) for each in repeats(runs, contenders.num_draws)],
            "contenders": [asdict(row(name, found, expected.get(name))) for name, found in runs.items()],
            "rates": asdict(rates),
            "block_size": block_size,
            "mean_prompt_tokens": lengths,
            "num_responses": len(contenders.responses),
            "size": asdict(size),
            "turns": len(runs["ours"]),
            "engine": dict(contenders.engine.facts()),
            "complaints": complaints(runs, lengths),
        }
    finally:
        contenders.engine.close()


def main() -> int:
    """Run the benchmark and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 minutes on two slow cores: 3 prompts, one round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to this file")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TORCH_CPP_LOG_LEVEL="ERROR")
    started = time.monotonic()
    size = TINY if arguments.tiny else QUICK if arguments.quick else FULL
    quick = arguments.quick or arguments.tiny
    result = measure(size, quick=quick)
    result["seconds"] = time.monotonic() - started
    show(result)
    print(f"{result['seconds']:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for complaint in result["complaints"]:
        print(complaint, file=sys.stderr)
    return 1 if result["complaints"] else 0


if __name__ == "__main__":
    sys.exit(main())
