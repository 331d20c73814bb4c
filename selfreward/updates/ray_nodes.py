"""Training on several nodes of a Ray cluster: an actor on each node starts torchrun there, and the ranks meet.

The actors reserve no GPUs. Those of the nodes belong to the engines, which sleep meanwhile and have freed them.
"""

import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import selfreward
from selfreward.devices import visible_gpus
from selfreward.errors import TrainingError
from selfreward.ray_cluster import Cluster, ray
from selfreward.recipe import LaunchSection
from selfreward.updates.child import Rendezvous
from selfreward.updates.child_process import ChildProcess, Printed

FILES_S = 30.0
"""How long a new file may take to appear on a shared file system."""
_NAMES = ("HF_HOME", "HF_HUB_OFFLINE", "SELFREWARD_CACHE", "XDG_CACHE_HOME", "OMP_NUM_THREADS")
_PREFIXES = ("NCCL_", "GLOO_", "TORCH_", "PYTORCH_")


@dataclass(frozen=True)
class Settings:
    """What a node takes over from the driver. None of the variables is a secret: Ray stores them in its tables."""

    launch: LaunchSection
    job_file: Path
    request: str
    version: str = selfreward.__version__
    files_s: float = field(default_factory=lambda: FILES_S)
    variables: Mapping[str, str | None] = field(default_factory=lambda: variables_of(os.environ))


def variables_of(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Return the variables that say where files are and how ranks connect and compute; None unsets one."""
    found: dict[str, str | None] = {name: environment.get(name) for name in _NAMES}
    return found | {name: value for name, value in environment.items() if name.startswith(_PREFIXES)}


class NodeActor:
    """The methods of an actor. An error that a user can act on is raised in the driver as it is raised here."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._child: ChildProcess | None = None

    def place(self) -> tuple[str, int]:
        """Check what this node has; return its address and a free port."""
        for name, value in self._settings.variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        _require_node(self._settings)
        with socket.create_server(("", 0)) as free:
            return ray().util.get_node_ip_address(), free.getsockname()[1]

    def start(self, rendezvous: Rendezvous) -> None:
        launch = self._settings.launch
        self._child = ChildProcess(
            self._settings.job_file, num_processes=launch.processes_per_node, rendezvous=rendezvous
        )

    def read(self) -> Printed:
        return Printed() if self._child is None else self._child.read()

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()


def _require_node(settings: Settings) -> None:
    host, launch = socket.gethostname(), settings.launch
    if selfreward.__version__ != settings.version:
        raise TrainingError(
            f"launch.nodes: selfreward {selfreward.__version__} is installed on {host}; the driver has "
            f"{settings.version}; all nodes need the same version; install it there"
        )
    until = time.monotonic() + settings.files_s
    while not _has(settings.job_file, settings.request):
        if time.monotonic() > until:
            raise TrainingError(
                f"launch.nodes: {host} cannot read {settings.job_file}; models and the run folder must be on a file "
                "system that all nodes share, under the same path; move output_dir there, or set launch.nodes to 1"
            )
        time.sleep(0.2)
    num_gpus = len(visible_gpus())
    if num_gpus < launch.processes_per_node and (num_gpus or launch.is_sharded):
        raise TrainingError(
            f"launch.processes_per_node: {launch.processes_per_node}, but {host} has {num_gpus} GPUs; one process per "
            "GPU is allowed; lower it"
        )


def _has(file: Path, text: str) -> bool:
    try:
        return file.read_text(encoding="utf-8") == text
    except OSError:
        return False


class RayNode:
    """A `launcher.Node` on another machine, or on this one."""

    def __init__(self, actor: Any, name: str) -> None:
        self._actor, self.name = actor, name

    def call(self, method: str, *arguments: Any) -> Any:
        """Return the result of a method of the actor. Raises TrainingError when the node is lost."""
        try:
            return ray().get(getattr(self._actor, method).remote(*arguments))
        except ray().exceptions.RayTaskError as error:
            raise error.cause from error
        except ray().exceptions.RayError as error:
            raise TrainingError(
                f"training: the node {self.name} was lost before it began ({type(error).__name__}); see to it; the "
                "same command continues from the last save"
            ) from error

    def read(self) -> Printed:
        try:
            printed: Printed = ray().get(self._actor.read.remote())
        except ray().exceptions.RayError as error:
            return Printed(lost=type(error).__name__)
        return printed

    def stop(self) -> None:
        self._actor.stop.remote()

    def kill(self) -> None:
        ray().kill(self._actor)


@contextmanager
def started(job_file: Path, request: str, launch: LaunchSection) -> Iterator[list[RayNode]]:
    """Start the launchers on as many nodes as `launch` says; raises TrainingError where that is not possible."""
    cluster = Cluster(launch.ray.address, num_cpus=1, num_gpus=0, key="launch.nodes")
    try:
        settings = Settings(launch=launch, job_file=job_file, request=request)
        nodes = [_node(found, settings) for found in _chosen(cluster.nodes(), launch)]
        try:
            places = [node.call("place") for node in nodes]
            endpoint = f"{places[0][0]}:{places[0][1]}"
            meeting = f"{job_file.parent.name}-{secrets.token_hex(4)}"
            for node, (address, _) in zip(nodes, places, strict=True):
                node.call("start", Rendezvous(endpoint, meeting, address, is_host=node is nodes[0]))
            yield nodes
        finally:
            for node in nodes:
                node.kill()
    finally:
        cluster.close()


def _chosen(nodes: Sequence[Mapping[str, Any]], launch: LaunchSection) -> list[Mapping[str, Any]]:
    """Return the nodes that will train: the driver's first, those with enough GPUs where there are any."""
    here = ray().get_runtime_context().get_node_id()
    has_gpus = any(node["Resources"].get("GPU", 0) for node in nodes)
    least = launch.processes_per_node if has_gpus else 0
    able = [node for node in nodes if node["Resources"].get("GPU", 0) >= least]
    if len(able) < launch.nodes:
        raise TrainingError(
            f"launch.nodes: {launch.nodes}, but the Ray cluster has {len(able)} nodes"
            + (f" with {least} GPUs or more" if least else "")
            + "; each node runs launch.processes_per_node processes; add nodes (`ray start`), or lower one of the two"
        )
    return sorted(able, key=lambda node: (node["NodeID"] != here, node["NodeID"]))[: launch.nodes]


def _node(found: Mapping[str, Any], settings: Settings) -> RayNode:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    where = NodeAffinitySchedulingStrategy(found["NodeID"], soft=False)
    actor = ray().remote(NodeActor).options(num_cpus=0, num_gpus=0, max_restarts=0, scheduling_strategy=where)
    return RayNode(actor.remote(settings), found["NodeManagerHostname"])
