"""An NVIDIA GPU that torch cannot use is an error, not a reason to compute on the CPU without a word."""

import os
import re
import shutil
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

from selfreward.errors import InstallationError

_NONE_VISIBLE = {"", "-1", "NoDevFiles"}  # values of CUDA_VISIBLE_DEVICES with which the CPU is used on purpose


@dataclass(frozen=True)
class System:
    """Where the driver shows itself: `devices` has the files nvidia0, nvidia1, ...; `version` is a file of its own."""

    devices: Path = Path("/dev")
    version: Path = Path("/proc/driver/nvidia/version")
    visible: str | None = field(default_factory=lambda: os.environ.get("CUDA_VISIBLE_DEVICES"))

    def num_gpus(self) -> int:
        """Return the number of GPUs that this process may use, as far as the driver's files tell."""
        if self.visible is not None and self.visible.strip() in _NONE_VISIBLE:
            return 0
        return sum(bool(re.fullmatch(r"nvidia\d+", path.name)) for path in self.devices.glob("nvidia*"))

    def driver_version(self) -> str:
        try:
            text = self.version.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return "unknown"
        found = re.search(r"\b\d{3}\.\d+(?:\.\d+)?\b", text)
        return found[0] if found else "unknown"


def require_usable_gpu(system: System | None = None) -> None:
    """Raise InstallationError when this machine has an NVIDIA GPU that torch cannot use."""
    import torch

    system = system or System()
    num_gpus = system.num_gpus()
    if not num_gpus or torch.cuda.is_available():
        return
    found = f"{num_gpus} NVIDIA GPU{'s' if num_gpus > 1 else ''}, driver {system.driver_version()}"
    on_purpose = "to use the CPU on purpose, set CUDA_VISIBLE_DEVICES to nothing: CUDA_VISIBLE_DEVICES= selfreward ..."
    if torch.version.cuda is None:
        raise InstallationError(
            f"{found}: torch {torch.__version__} is a build for the CPU, so none of them would be used; install the "
            "build for CUDA: in a checkout with make setup on this machine, elsewhere with pip install "
            f"'selfreward-lm[cuda]' in a new environment; {on_purpose}"
        )
    raise InstallationError(
        f"{found}: torch {torch.__version__}, built for CUDA {torch.version.cuda}, cannot use them ({_reason()}); CUDA "
        "13 needs driver 580 or newer, CUDA 12 driver 525; install a newer driver, or torch and vLLM for the CUDA "
        f"version of this driver (docs/install.md, An older driver); {on_purpose}"
    )


def _reason() -> str:
    import torch

    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return " ".join(str(error).split())[:300]
    return "torch.cuda.is_available() is False"


def missing_for_triton(headers: Path | None = None) -> list[str]:
    """Return what Triton needs to compile kernels, and this machine lacks."""
    headers = headers or Path(sysconfig.get_paths()["include"])
    compilers = [name for name in (os.environ.get("CC"), "gcc", "clang") if name]
    missing = [] if any(shutil.which(name) for name in compilers) else ["a C compiler (gcc, or the one named by CC)"]
    if not (headers / "Python.h").is_file():
        missing.append(f"Python's headers ({headers / 'Python.h'})")
    return missing


def require_triton() -> None:
    """Raise InstallationError when Triton, with which vLLM and FlexAttention compile kernels, cannot compile."""
    if missing := missing_for_triton():
        raise InstallationError(
            f"{' and '.join(missing)}: missing; on a GPU vLLM and FlexAttention compile kernels with Triton, which "
            "needs both; install them, on Debian and Ubuntu with: apt-get install gcc python3-dev"
        )
