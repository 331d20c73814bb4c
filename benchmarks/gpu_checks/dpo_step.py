"""The update against stock TRL, by `benchmarks/dpo_step.py`."""

import json
import subprocess
import sys
from pathlib import Path

from step import Step, main

BENCHMARK = Path(__file__).resolve().parents[1] / "dpo_step.py"
MIN_RATIOS = {"chat": 2.5, "judge": 4.0}


def run(step: Step) -> None:
    file = step.folder / "dpo_step.json"
    command = [sys.executable, str(BENCHMARK), "--quick", "--device", step.device, "--json", str(file)]
    if step.on_cuda:
        command += ["--random-llama", "1b", "--pairs-per-step", "16", "--micros", "4", "--threads", "8"]
    else:
        command += ["--model", "random:tiny", "--sets", "chat", "--steps", "2"]
    command += ["--contenders", "trl", "ours_sampler"]
    done = subprocess.run(command, check=False)  # its output is in this step's log; 1: the contenders differ
    step.check("exit code", done.returncode, limit="0", ok=done.returncode == 0)
    found = json.loads(file.read_text())
    for kind, least in MIN_RATIOS.items():
        if kind not in found:
            continue
        result = found[kind]
        step.figure(f"{kind}: TRL / ours", result["ratio_vs_trl"])
        if step.on_cuda:
            step.at_least(f"{kind}: TRL / ours, seconds per pair", result["ratio_vs_trl"], least)
        for name in ("tokens_per_s", "flops_share", "peak_gib", "max_loss_diff", "max_grad_norm_relative_diff"):
            step.figure(f"{kind}: {name}", result[name])
    for complaint in found["complaints"]:
        step.figure("complaint", complaint)


if __name__ == "__main__":
    main(run)
