"""A real Slurm on this machine for the tests, and runs as its jobs."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TINY = ROOT / "recipes" / "tiny.yaml"
# Generation in eight shards of about a second, training in many steps with a save after each.
RECIPE = (
    "iterations.max=1", "iterations.shard_prompts=1", "sampling.max_tokens=200", "sampling.num_responses=8",
    "training.batch_size=1", "training.save_every_steps=1",
)  # fmt: skip
WAIT_S = 120.0


class Cluster:
    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "PATH": f"{os.environ['PATH']}:/usr/sbin", "SLURM_CONF": str(folder / "slurm.conf"),
            "SLURM_TEST_PORT": str(_free_ports()), "PYTHONPATH": str(ROOT), "SELFREWARD_CACHE": str(cache),
            "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        }  # fmt: skip

    def start(self) -> None:
        self.run("bash", str(HERE / "start_cluster.sh"), str(self.folder))

    def stop(self) -> None:
        self.run("bash", str(HERE / "stop_cluster.sh"), str(self.folder), "--purge")

    def run(self, *command: str, code: int = 0) -> str:
        """Run a command that ends with this exit code; return what it printed, errors last."""
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=self.environment, cwd=ROOT)
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def selfreward(self, *arguments: str, code: int = 0) -> str:
        return self.run(sys.executable, "-m", "selfreward", *arguments, code=code)

    def submit(self, folder: Path, *overrides: str, recipe: Path = TINY) -> str:
        """Submit a run; return the id of its job."""
        printed = self.selfreward("submit", str(recipe), *RECIPE, f"output_dir={folder}", *overrides)
        return printed.splitlines()[0].split()[1]

    def status(self, folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.selfreward("status", str(folder), "--json"))
        return found

    def job(self, job_id: str, field: str = "%T") -> str:
        """Return one field of squeue about a job."""
        return self.run("squeue", "-h", "-t", "all", "-j", job_id, "-o", field).strip()

    def is_queue_empty(self) -> bool:
        return not self.run("squeue", "-h").strip()

    def occupy(self, node: str, *, seconds: int = 3) -> None:
        """Let a job of the partition that preempts others take a whole node."""
        self.run("sbatch", "-p", "high", "--exclusive", "-w", node, "-o", "/dev/null", "--wrap", f"sleep {seconds}")

    def restart_controller(self) -> None:
        recorded = self.folder / "pids" / "slurmctld"
        pid = int(recorded.read_text().split()[0])
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: _start_time(pid) is None, "the controller to end")
        log = (self.folder / "log" / "slurmctld.out").open("a")
        controller = shutil.which("slurmctld", path=self.environment["PATH"])
        assert controller
        command = [controller, "-D", "-f", self.environment["SLURM_CONF"]]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, start_new_session=True
        )
        recorded.write_text(f"{process.pid} {_start_time(process.pid)}\n")
        wait_until(lambda: "is UP" in self.run("bash", "-c", "scontrol ping || true"), "the controller to answer")


def wait_until(holds: Callable[[], object], what: str, *, log: Path | None = None) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        if time.monotonic() > end:
            logs = [f"--- {path}\n{path.read_text()[-3000:]}" for path in (log.glob("logs/*") if log else ())]
            raise AssertionError(f"waited {WAIT_S:.0f} s for {what}\n" + "\n".join(logs))
        time.sleep(0.05)


def hashes(folder: Path) -> dict[str, str]:
    """Return the hash of each stage file of a run."""
    files = folder.glob("iteration-*/*.parquet")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _free_ports() -> int:
    """Return the first port of a block of which the controller and two nodes take one each."""
    for first in range(17817, 20000, 20):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in (first, first + 10, first + 11):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise AssertionError("no free ports")


def _start_time(pid: int) -> str | None:
    """Return the start time of a process; None when it is gone, or only its parent has not noticed."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else rest[18]
