"""What a GPU must show, in less than 25 minutes: correctness, memory and speed, step by step.

    python benchmarks/gpu_check.py [--device cuda|cpu] [--quick] [--out FOLDER] [--steps a,b] [--again]

Each step is a process of its own with a time limit. It writes FOLDER/STEP.json after every number, and FOLDER/STEP.log.
A step that is complete is not repeated, so the same command continues after an interruption; --again repeats. A step
that fails, hangs or crashes does not stop the others. FOLDER is gpu_check, and FOLDER/summary.json has all results.
`--device cpu --quick` is the same script with tiny sizes on a machine without a GPU.

Exit code: 0 all steps are ok or skipped, 1 a check has failed, 2 nothing could begin.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks" / "gpu_checks")]
NUM_LAST_LINES = 30
ON_CPU = 5  # times the limits of CUDA: machines without a GPU are slow and shared


@dataclass(frozen=True)
class Plan:
    """`limit_s` is the time limit on CUDA; `shown` are the figures for the table."""

    name: str
    file: str
    limit_s: int
    shown: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    needs_vllm: bool = False
    not_on_cpu: str = ""


V1 = (("VLLM_USE_V2_MODEL_RUNNER", "0"),)
ONE_RUNNER = "vLLM's build for the CPU has one model runner"
ALLOCATOR = (("PYTORCH_ALLOC_CONF", "expandable_segments:True"),)  # as an update's own process has it
PLANS = (
    Plan("environment", "environment", 60, ("GPU", "matrix products, bfloat16 on CUDA", "copies, read and written")),
    Plan("attention", "attention", 160, ("segments ms at 32768", "varlen ms at 32768", "flex ms at 32768")),
    Plan("packing", "packing", 60),
    Plan("engine_smollm2", "engine", 120, ("model_runner", "start", "swap", "in use awake"),
         ("--model", "smollm2"), needs_vllm=True),
    Plan("engine_qwen2", "engine", 80, ("model_runner", "start", "swap", "in use awake"),
         ("--model", "qwen2"), needs_vllm=True),
    Plan("engine_smollm2_v1", "engine", 80, ("model_runner", "start", "swap"),
         ("--model", "smollm2"), V1, needs_vllm=True, not_on_cpu=ONE_RUNNER),
    Plan("run", "run", 150, ("until training", "from there to the end")),
    Plan("generation", "generation", 210, (
        "1024 sequences", "1024 sequences: share of vLLM, with seeds",
        "1024 sequences: share of vLLM, without seeds", "1024 sequences: share of the limit by bandwidth",
    ), needs_vllm=True),
    Plan("memory", "memory", 110, ("auto: tokens of a micro-batch", "auto: reserved, share of the GPU"),
         environment=ALLOCATOR),
    Plan("training", "training", 90, ("best MFU", "16384 tokens: tokens/s", "16384 tokens: peak"),
         environment=ALLOCATOR),
    Plan("dpo_step", "dpo_step", 150, ("chat: TRL / ours", "judge: TRL / ours")),
    Plan("reference_gap", "reference_gap", 60, ("autocast: gap per token", "autocast, float32 head: gap per token"),
         needs_vllm=True),
    Plan("large", "large", 110, ("LoRA, bfloat16 base: tokens/s", "float32, adamw: predicted"), environment=ALLOCATOR),
)  # fmt: skip


def main() -> int:
    """Run the steps, show the table, and return the exit code."""
    arguments = _parse()
    from machine import machine_of

    needs_vllm = any(plan.needs_vllm or plan.name == "run" for plan in arguments.plans)
    machine = machine_of(arguments.device, needs_vllm=needs_vllm)
    for line in machine.missing:
        print(f"cannot begin: {line}", file=sys.stderr)
    if machine.missing:
        return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    if machine.no_vllm:
        print(f"the engine's steps are skipped: {machine.no_vllm}", flush=True)
    results = {plan.name: _result(plan, arguments, machine.no_vllm) for plan in arguments.plans}
    (arguments.out / "summary.json").write_text(json.dumps(stored(arguments) | results, indent=1) + "\n", "utf-8")
    print("\n".join(table(results, arguments.plans)))
    return int(any(result["verdict"] == "FAILED" for result in results.values()))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="%(default)s")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), metavar="FOLDER", help="%(default)s")
    parser.add_argument("--steps", metavar="A,B", help=f"of {', '.join(plan.name for plan in PLANS)} (all)")
    parser.add_argument("--again", action="store_true", help="repeat steps that are complete")
    arguments = parser.parse_args()
    names = arguments.steps.split(",") if arguments.steps else [plan.name for plan in PLANS]
    if unknown := sorted({*names} - {plan.name for plan in PLANS}):
        parser.error(f"--steps: {unknown[0]} is no step; there are {', '.join(plan.name for plan in PLANS)}")
    arguments.plans = [plan for plan in PLANS if plan.name in names]
    return arguments


def _result(plan: Plan, arguments: argparse.Namespace, no_vllm: str | None) -> dict[str, Any]:
    """Return the stored result of a step, or run it."""
    file = arguments.out / f"{plan.name}.json"
    before = _read(file)
    if _is_complete(before, arguments) and not arguments.again:
        print(f"{plan.name}: complete, not repeated", flush=True)
        return before
    reason = no_vllm if plan.needs_vllm else None
    if arguments.device == "cpu":
        reason = reason or plan.not_on_cpu
    if reason:  # decided anew each time: it is quick, and what was missing may have been installed
        return {"verdict": "skipped", "reason": reason, "seconds": 0.0, "checks": [], "figures": []}
    limit_s = plan.limit_s * (1 if arguments.device == "cuda" else ON_CPU)
    print(f"{plan.name}: at most {limit_s} s", flush=True)
    file.unlink(missing_ok=True)
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_checks" / f"{plan.file}.py"), *plan.arguments,
               "--device", arguments.device, "--out", str(file)]  # fmt: skip
    command += ["--quick"] * arguments.quick + ["--no-vllm"] * bool(no_vllm)
    return run_step(command, file=file, limit_s=limit_s, environment=dict(plan.environment),
                    of={"device": arguments.device, "quick": arguments.quick})  # fmt: skip


def run_step(
    command: list[str], *, file: Path, limit_s: float, environment: dict[str, str], of: dict[str, Any]
) -> dict[str, Any]:
    """Run a step in a session of its own, end it with all its children at the limit, and complete its `file`."""
    started = time.monotonic()
    log = file.with_suffix(".log")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")])
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **environment, "PYTHONPATH": paths},
        )  # fmt: skip
        try:
            code = process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    result = {"checks": [], "figures": [], "reason": "", **of, **_read(file)}
    if code is None:
        result["reason"] = f"no end within its limit of {limit_s:.0f} s"
    elif code != 0:
        result["reason"] = f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
    elif result.get("state") != "done":
        result["reason"] = "ended without a result"
    is_whole = code == 0 and result.get("state") == "done"
    if not is_whole:
        result["last_lines"] = log.read_text(encoding="utf-8", errors="replace").splitlines()[-NUM_LAST_LINES:]
    failed = [check["name"] for check in result["checks"] if not check["ok"]]
    if is_whole and result["reason"] and not result["checks"]:
        verdict = "skipped"
    else:
        verdict = "FAILED" if failed or not is_whole else "ok"
    result |= {"exit_code": code, "verdict": verdict, "seconds": round(time.monotonic() - started, 1)}
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{file.stem}: {verdict} after {result['seconds']:.0f} s {result['reason']}".rstrip(), flush=True)
    return result


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the process with its group, and its children that are in groups of their own."""
    import psutil

    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # also what the step has left in its group
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()
    psutil.wait_procs(children, timeout=20)  # until then they hold memory of the GPU


def stored(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the results of all steps that are complete, also of those that this call was not asked for."""
    found = {plan.name: _read(arguments.out / f"{plan.name}.json") for plan in PLANS}
    return {name: result for name, result in found.items() if _is_complete(result, arguments)}


def _is_complete(result: dict[str, Any], arguments: argparse.Namespace) -> bool:
    same = (result.get("device"), result.get("quick")) == (arguments.device, arguments.quick)
    return bool(result.get("verdict")) and same


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def table(results: dict[str, dict[str, Any]], plans: list[Plan]) -> list[str]:
    """Return the lines of the table: step, verdict, seconds, and what failed or the key figures."""
    lines = ["", f"{'step':20s} {'verdict':8s} {'seconds':>7s}  "]
    for plan in plans:
        result = results[plan.name]
        failed = [f"{c['name']}: {c['value']} ({c['limit']})" for c in result["checks"] if not c["ok"]]
        told = [result["reason"]] * bool(result["reason"]) + failed[:3]
        if len(failed) > 3:
            told.append(f"and {len(failed) - 3} more failed checks")
        if not told or result["verdict"] == "ok":
            figures = {figure["name"]: figure for figure in result["figures"]}
            told += [f"{f['name']} {f['value']} {f['unit']}".strip() for n, f in figures.items() if n in plan.shown]
        lines.append(f"{plan.name:20s} {result['verdict']:8s} {result['seconds']:7.0f}  {'; '.join(told)}")
    seconds = sum(result["seconds"] for result in results.values())
    return [*lines, f"{'':20s} {'':8s} {seconds:7.0f}  in all"]


if __name__ == "__main__":
    sys.exit(main())
