"""The connection to Ray: a cluster that runs already, or one on this machine that ends with this process.

Nothing is sent out (usage statistics are off), there is no dashboard, and what is written into Ray's tables has no
secret: settings, paths, and the requests themselves.
"""

import importlib.util
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from selfreward.errors import EngineError, InstallationError
from selfreward.inherited import for_this_process_alone

INSTALL = "pip install 'selfreward-lm[cluster]'"
OBJECT_STORE_BYTES = 2**27  # a block of requests, and its results: some megabytes
_MAX_FOLDER = 40  # characters: below it are sockets, whose paths may have 107
_ANSWER_S = 10.0
NODES_S = 300.0
_FAILURES = (RuntimeError, ValueError, OSError, TimeoutError)


class Cluster:
    """A connection to Ray, which `key` of the recipe needs. Without an address, Ray is started on this machine, with
    these resources. With one, the cluster must have `num_nodes` nodes, which may still be starting."""

    def __init__(
        self, address: str | None, *, num_cpus: int, num_gpus: int, num_nodes: int = 1, key: str = "engine.replicas"
    ) -> None:
        if not has_ray():
            raise InstallationError(
                f"{key}: more than 1 needs Ray, which is not installed; install it with {INSTALL}, or set {key} to 1"
            )
        self._key = key
        self._folder: Path | None = None
        self._is_ours = False
        if not ray().is_initialized():
            self._connect(address, num_cpus, num_gpus)
            self._is_ours = True
            _keep_standard_output_clean()
        if address is not None:
            self._wait_for_nodes(num_nodes)

    def _connect(self, address: str | None, num_cpus: int, num_gpus: int) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is None:
            self._folder = _short_folder()
            where: dict[str, Any] = {
                "address": "local",
                "num_cpus": num_cpus,
                "num_gpus": num_gpus,
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES,
                "_temp_dir": str(self._folder),
            }
        else:
            where = {"address": address}
        with for_this_process_alone(), _kept_signal_handlers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            if address is None and "RAY_AUTH_TOKEN_PATH" not in os.environ:
                # Ray requires one of whoever sends it work, and would write it into the home folder.
                os.environ.setdefault("RAY_AUTH_TOKEN", _token())
            try:
                _require_answer(address)
                ray().init(**where, **quiet)
            except (*_FAILURES, ray().exceptions.RayError) as error:
                self._remove_folder()
                raise _unreachable(self._key, address, error) from error

    def _wait_for_nodes(self, number: int) -> None:
        end = time.monotonic() + NODES_S
        while (found := len(self.nodes())) < number:
            if time.monotonic() > end:
                self.close()
                raise EngineError(
                    f"launch.ray.nodes: the cluster has {found} nodes, and no other came within {NODES_S:.0f} seconds; "
                    f"{number} are needed; what Ray says on the nodes of a batch job is in logs/ray-*.log of the run "
                    "folder; put right what it says, or lower the number, then run the same command again"
                )
            time.sleep(0.5)

    def capacity(self, times_in: Callable[[dict[str, float]], int]) -> int:
        """Return how many replicas the living nodes can hold, whether their resources are in use or not."""
        return sum(times_in(node["Resources"]) for node in self.nodes())

    def nodes(self) -> list[dict[str, Any]]:
        """Return what Ray knows of the living nodes."""
        return [node for node in ray().nodes() if node["Alive"]]

    def has_gpus(self) -> bool:
        return any(node["Resources"].get("GPU", 0) for node in self.nodes())

    def close(self) -> None:
        """Disconnect, which ends the Ray of this machine if it was started here."""
        if self._is_ours and ray().is_initialized():
            with _kept_signal_handlers():
                ray().shutdown()
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def has_ray() -> bool:
    return importlib.util.find_spec("ray") is not None


def ray() -> Any:
    """Return the package, which takes a second to import."""
    import ray

    return ray


@cache
def _token() -> str:
    """Return the password of this process's Ray, which reads it once."""
    return secrets.token_hex(32)


def _short_folder() -> Path:
    """Return a new folder for Ray's files, where its sockets' paths are not too long."""
    parent = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="selfreward-ray-", dir=parent if len(parent) < _MAX_FOLDER else "/tmp"))


def _require_answer(address: str | None) -> None:
    """Raise OSError where nothing listens: Ray would try for minutes."""
    if address not in (None, "auto"):
        host, _, port = str(address).rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()


@contextmanager
def _kept_signal_handlers() -> Iterator[None]:
    """Keep our handlers of the signals that end a run, which Ray replaces by handlers that exit at once."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _keep_standard_output_clean() -> None:
    """Drop the messages of Ray 2.60 about lost processes, which it prints in between the output of a command.

    What was lost is in run.log and in the facts of the engine.
    """
    from ray._private import worker

    worker.print_to_stdstream = lambda *_, **__: None


def _unreachable(key: str, address: str | None, error: Exception) -> EngineError:
    cause = " ".join(str(error).split())[:300]
    if address is None:
        return EngineError(
            f"{key}: Ray cannot be started on this machine ({cause}); more than 1 needs it; set {key} to 1, or "
            " launch.ray.address to a cluster that runs; then run the same command again"
        )
    return EngineError(
        f"launch.ray.address: {address}: no connection to this Ray cluster ({cause}); a cluster is needed of which "
        "this machine is a node, with the same versions of Ray and Python; see `ray status`, correct the address, and "
        "run the same command again"
    )
