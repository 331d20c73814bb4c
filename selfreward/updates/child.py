"""What runs in the processes of an update: `python -m selfreward.updates.child JOB.json [RENDEZVOUS]`.

With several processes, the child starts torchrun, whose ranks run this module again; RENDEZVOUS (JSON) says where the
launchers of several nodes meet. A child prints one JSON object per line to standard output: {"report": [phase, done,
total, measured]}, or at the end {"error": [class, message]} or {"failed": [rank, exit code]}. Metrics and checkpoint
are files. It is asked to stop by the end of its standard input.
"""

import ctypes
import json
import os
import select
import signal
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from selfreward.errors import SelfRewardError
from selfreward.recipe import LaunchSection
from selfreward.signals import PREEMPTED, Preempted
from selfreward.updates.job import TrainingJob
from selfreward.updates.settings import Settings

MODULE = "selfreward.updates.child"
PARENT = "SELFREWARD_PARENT"  # the process id of the parent process
STOPS = "SELFREWARD_STOPS_AT_END_OF_INPUT"
RANK_PREFIX = "[rank {}] "


@dataclass(frozen=True)
class Rendezvous:
    """Where the launchers of several nodes meet, the address of this node, and whether they meet on it.

    torchrun would look for the endpoint among the addresses of the host's name, which may not have it.
    """

    endpoint: str
    id: str
    address: str
    is_host: bool


def request_of(job: TrainingJob, settings: Settings) -> str:
    """Return the contents of JOB.json, with absolute paths."""
    fields = {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in asdict(job).items()}
    fields["samples_files"] = [str(path.absolute()) for path in job.samples_files]
    return json.dumps({"job": fields, "settings": settings.model_dump(mode="json")}, indent=1)


def command_of(job_file: Path, rendezvous: Rendezvous | None = None) -> list[str]:
    meeting = [] if rendezvous is None else [json.dumps(asdict(rendezvous))]
    return [sys.executable, "-m", MODULE, str(job_file), *meeting]


def torchrun_arguments(launch: LaunchSection, job_file: Path, rendezvous: Rendezvous | None) -> list[str]:
    """Return the arguments that start this node's ranks; each writes its standard error to a file too."""
    where = ["--standalone"]
    if rendezvous is not None:
        where = [
            f"--nnodes={launch.nodes}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={rendezvous.endpoint}",
            f"--rdzv-id={rendezvous.id}",
            f"--rdzv-conf=is_host={str(rendezvous.is_host).lower()}",
            f"--local-addr={rendezvous.address}",
        ]
    logs = job_file.parent / "logs"
    return [
        *where,
        f"--nproc-per-node={launch.processes_per_node}",
        "--tee=2",
        f"--log-dir={logs}",
        "--module",
        MODULE,
        str(job_file),
    ]


def main(arguments: list[str]) -> int:
    _die_with_parent()
    _leave_preemption_to_the_driver()
    job_file = Path(arguments[0])
    request = json.loads(job_file.read_text(encoding="utf-8"))
    settings = Settings.model_validate_json(json.dumps(request["settings"]))
    if settings.launch.num_processes > 1 and "RANK" not in os.environ:
        rendezvous = Rendezvous(**json.loads(arguments[1])) if len(arguments) > 1 else None
        return _run_ranks(torchrun_arguments(settings.launch, job_file, rendezvous))
    fields: dict[str, Any] = request["job"]
    fields |= {key: Path(value) for key, value in fields.items() if isinstance(value, str)}
    fields["samples_files"] = tuple(map(Path, fields["samples_files"]))
    from selfreward.updates.update import train

    try:
        train(TrainingJob(**fields), settings, report=lambda *progress: _emit({"report": progress}), is_asked=_is_asked)
    except SelfRewardError as error:
        _emit({"error": [type(error).__name__, str(error)]})
        return error.exit_code
    except Preempted:  # as the driver has asked
        # The main rank is the last one to have saved. Where it stops alone, its launcher ends the others.
        return 0 if int(os.environ.get("RANK", "0")) else PREEMPTED
    return 0


def _run_ranks(arguments: list[str]) -> int:
    """Run this module in each of the node's processes, which connect through torch's environment variables."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as launch

    os.environ[PARENT] = str(os.getpid())
    os.environ["TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE"] = RANK_PREFIX.format("${rank}")
    try:
        launch(arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        _emit({"failed": [rank, failure.exitcode]})
        return 1
    return 0


def _is_asked() -> bool:
    """Return whether the driver has closed the standard input of this node's processes."""
    return STOPS in os.environ and bool(select.select([sys.stdin], [], [], 0)[0])


def _emit(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def _die_with_parent() -> None:
    """End with the parent: when a driver is killed, no child may be left writing into the work folder."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.environ.get(PARENT, str(os.getppid())) != str(os.getppid()):
            os.kill(os.getpid(), signal.SIGKILL)  # the parent was killed before prctl took effect


def _leave_preemption_to_the_driver() -> None:
    """Ignore SIGTERM and SIGUSR1, unless the parent sends them, as torchrun does to end its ranks.

    Schedulers send them to every process of a job. The driver gets them too, and asks for a save. A thread receives
    them, because the main thread may wait for other ranks.
    """
    if sys.platform != "linux":
        return
    signals = {signal.SIGTERM, signal.SIGUSR1}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def receive() -> None:
        while signal.sigwaitinfo(signals).si_pid != os.getppid():
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=receive, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
