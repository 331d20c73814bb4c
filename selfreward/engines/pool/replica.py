"""What runs inside an actor of Ray: one engine, as in the driver's process, with the driver's settings."""

import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import selfreward
from selfreward.devices import visible_gpus
from selfreward.engines.in_process import InProcessEngine
from selfreward.errors import EngineError
from selfreward.parts import ResumableEngine
from selfreward.records import Checkpoint
from selfreward.requests import GenerationRequest, Sample, ScoreRequest

# Where models are found, and what changes results. None of them is a secret: Ray stores them in its tables.
VARIABLES = (
    "HF_HOME", "HF_HUB_OFFLINE", "SELFREWARD_CACHE", "XDG_CACHE_HOME", "OMP_NUM_THREADS", "TORCH_CPP_LOG_LEVEL",
    "TOKENIZERS_PARALLELISM", "VLLM_USE_V2_MODEL_RUNNER", "VLLM_USE_FLASHINFER_SAMPLER", "VLLM_LOGGING_LEVEL",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What a replica takes over from the process that makes it."""

    num_threads: int
    folder: str = field(default_factory=lambda: str(Path.cwd()))
    variables: Mapping[str, str | None] = field(
        default_factory=lambda: {name: os.environ.get(name) for name in VARIABLES}
    )
    version: str = selfreward.__version__

    def apply(self) -> None:
        for name, value in self.variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        with suppress(OSError):  # the paths of models are absolute; a folder of theirs that is missing is reported
            os.chdir(self.folder)


@dataclass(frozen=True)
class Loaded:
    """`is_synced`: a running engine has other weights than before. `facts` are those of the engine, afterwards."""

    is_synced: bool
    facts: Mapping[str, Any]


class Replica:
    """The methods of an actor. An error that a user can act on is raised in the driver as it is raised here."""

    def __init__(self, engine: InProcessEngine, settings: Settings) -> None:
        settings.apply()
        self._engine, self._settings = engine, settings
        self._has_started = False

    def place(self) -> str:
        """Return where this replica runs. Raises EngineError where another version of the program is installed."""
        host = socket.gethostname()
        if selfreward.__version__ != self._settings.version:
            raise EngineError(
                f"engine replica on {host}: selfreward {selfreward.__version__} is installed; the driver has "
                f"{self._settings.version}; all nodes need the same version; install it there"
            )
        return f"{host}, process {os.getpid()}"

    def load(self, checkpoint: Checkpoint, facts: Mapping[str, Any]) -> Loaded:
        """Load and prove the weights. `facts` are those of the engine with which the run began."""
        for folder in (self._engine.first.path, checkpoint.path):
            _require_visible(folder)
        if not self._has_started:
            _use_threads(self._settings.num_threads)
            if isinstance(self._engine, ResumableEngine):
                self._engine.resume_from(facts, lambda _: None)
        before = self._engine.usage()["num_weight_syncs"]
        self._engine.load(checkpoint)
        self._has_started = True
        return Loaded(self._engine.usage()["num_weight_syncs"] > before, self._engine.facts())

    def generate(self, requests: Sequence[GenerationRequest]) -> list[list[Sample]]:
        return self._engine.generate(requests)

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        return self._engine.score(requests)

    def sleep(self) -> float | None:
        """Release the memory of the device. Return the GiB that it has more than before; None where none is counted."""
        before = _free_gib()
        self._engine.sleep()
        after = _free_gib()
        return None if before is None or after is None else round(after - before, 2)

    def wake(self) -> None:
        self._engine.wake()


def _require_visible(folder: Path) -> None:
    if not folder.is_dir():
        raise EngineError(
            f"engine replica on {socket.gethostname()}: the model folder {folder} is not there; models and the run "
            "folder must be on a file system that all nodes share, under the same path; move output_dir or the cache "
            "(SELFREWARD_CACHE, HF_HOME) there, and run the same command again"
        )


def _use_threads(number: int) -> None:
    """Use as many threads as the driver: the rounding of sums depends on it. Ray would use one."""
    import torch

    torch.set_num_threads(number)


def _free_gib() -> float | None:
    """Return the free memory of the replica's GPUs, None without any."""
    if not (gpus := visible_gpus()):
        return None
    import torch

    return float(sum(torch.cuda.mem_get_info(index)[0] for index in range(len(gpus)))) / 2**30
