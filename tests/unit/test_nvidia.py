"""GPUs that torch cannot use, on simulated machines: at set-up (a false nvidia-smi) and at the start of a run."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from selfreward.errors import InstallationError
from selfreward.nvidia import System, missing_for_triton, require_triton, require_usable_gpu

ROOT = Path(__file__).parents[2]
NVRM = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Tue Mar  5 22:42:15 UTC 2024\nGCC version:  gcc 12.3.0\n"


def system(folder: Path, *, gpus: int = 2, driver: str | None = "535.161.08", visible: str | None = None) -> System:
    devices = folder / "dev"
    devices.mkdir()
    for name in ("nvidiactl", "nvidia-uvm", *(f"nvidia{i}" for i in range(gpus))):
        (devices / name).touch()
    version = folder / "version"
    if driver is not None:
        version.write_text(NVRM.format(driver))
    return System(devices=devices, version=version, visible=visible)


@pytest.fixture
def cuda_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch as its build for CUDA is with a driver that is too old."""

    def fail() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12020).\nPlease update")

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", fail)


def test_a_driver_that_is_too_old_is_named_with_all_versions(tmp_path: Path, cuda_build: None) -> None:
    with pytest.raises(InstallationError) as raised:
        require_usable_gpu(system(tmp_path))
    message = str(raised.value)
    assert message.startswith("2 NVIDIA GPUs, driver 535.161.08: ")
    assert f"torch {torch.__version__}, built for CUDA 13.0" in message
    assert "is too old (found version 12020)" in message and "driver 580 or newer" in message
    assert "CUDA_VISIBLE_DEVICES= selfreward" in message


def test_a_build_for_the_cpu_beside_a_gpu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InstallationError, match=r"1 NVIDIA GPU, driver unknown: .* is a build for the CPU.*\[cuda\]"):
        require_usable_gpu(system(tmp_path, gpus=1, driver=None))


@pytest.mark.parametrize("visible", ["", "-1", " ", "NoDevFiles"])
def test_a_gpu_that_is_hidden_on_purpose_is_left_alone(tmp_path: Path, cuda_build: None, visible: str) -> None:
    require_usable_gpu(system(tmp_path, visible=visible))


def test_a_machine_without_a_gpu_and_one_that_works_pass(
    tmp_path: Path, cuda_build: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    none, some = tmp_path / "none", tmp_path / "some"
    none.mkdir()
    some.mkdir()
    require_usable_gpu(system(none, gpus=0))  # the driver's control files alone, as in a container without a GPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    require_usable_gpu(system(some, visible="0"))


def test_what_triton_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert len(missing_for_triton(tmp_path)) == 2
    with pytest.raises(InstallationError, match=r"a C compiler .*: missing; on a GPU"):
        require_triton()
    (tmp_path / "Python.h").touch()
    gcc = tmp_path / "gcc"
    gcc.touch(mode=0o755)
    assert missing_for_triton(tmp_path) == []


# --- make setup ---


def build_with(tmp_path: Path, script: str | None) -> subprocess.CompletedProcess[str]:
    """The answer of the set-up's script where `nvidia-smi` is this shell script, or missing."""
    for name in ("sh", "head"):
        (tmp_path / name).symlink_to(Path("/bin") / name if (Path("/bin") / name).exists() else Path("/usr/bin") / name)
    if script is not None:
        smi = tmp_path / "nvidia-smi"
        smi.write_text(f"#!/bin/sh\n{script}\n")
        smi.chmod(0o755)
    return subprocess.run(
        ["sh", str(ROOT / "scripts/build_of_this_machine.sh")],
        env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("script", "build"),
    [(None, "cpu"), ("echo 580.95.05; echo 580.95.05", "cuda"), ("echo 'No devices were found'; exit 6", "cpu")],
)
def test_the_build_of_a_machine(tmp_path: Path, script: str | None, build: str) -> None:
    result = build_with(tmp_path, script)
    assert (result.stdout, result.stderr, result.returncode) == (f"{build}\n", "", 0)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver'; exit 9",
         ["nvidia-smi fails: NVIDIA-SMI has failed", "make setup BUILD=cpu"]),
        ("echo 535.161.08", ["is version 535.161.08", "needs 580 or newer", "make setup BUILD=cpu"]),
        ("echo '[N/A]'", ["names no driver version but '[N/A]'"]),
        ("true", ["names no driver version but ''"]),
    ],
)  # fmt: skip
def test_a_machine_whose_driver_cannot_be_used_has_no_build(tmp_path: Path, script: str, words: list[str]) -> None:
    result = build_with(tmp_path, script)
    assert (result.stdout, result.returncode) == ("", 1)
    assert all(word in result.stderr for word in words)


@pytest.mark.parametrize(("setting", "words"), [([], "nvidia-smi fails: broken"), (["BUILD=gpu"], "BUILD is 'gpu'")])
def test_make_setup_stops_before_it_installs_anything(tmp_path: Path, setting: list[str], words: str) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho broken; exit 9\n")
    smi.chmod(0o755)
    result = subprocess.run(
        ["make", "-C", str(ROOT), "setup", f"VENV={tmp_path}/venv", *setting],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "MAKEFLAGS": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode != 0 and words in result.stderr
    assert not (tmp_path / "venv").exists()


def test_an_environment_of_another_build_is_made_anew() -> None:
    recipe = subprocess.run(
        ["make", "-C", str(ROOT), "-n", "setup", "VENV=/nonexistent/venv", "BUILD=cuda"],
        env={**os.environ, "MAKEFLAGS": ""}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "test -e /nonexistent/venv/.build-cuda || rm -rf /nonexistent/venv" in recipe
    assert "-e '.[cuda,dev]'" in recipe and "torch==" not in recipe
