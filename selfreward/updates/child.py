"""Training in child processes: `python -m selfreward.updates.child JOB.json`.

With several processes, the child launches them and waits; they are torch.distributed ranks, as `accelerate` expects.
A child prints one JSON object per line to standard output: {"report": [phase, done, total, measured]} or, at the end,
{"error": [class, message]}. Metrics and checkpoint are files. Its standard error is forwarded, and the last lines are
part of the error message when the child dies.
"""

import collections
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from selfreward import errors
from selfreward.errors import SelfRewardError, TrainingError
from selfreward.inherited import inherited_environment
from selfreward.store.files import write_text_atomically
from selfreward.updates.job import TrainingJob
from selfreward.updates.progress import Report, silent
from selfreward.updates.settings import Settings

TAIL_LINES = 50
PARENT = "SELFREWARD_PARENT"  # the process id of the parent process
ALLOCATOR = "PYTORCH_ALLOC_CONF"


def train_in_child(job: TrainingJob, settings: Settings, *, report: Report = silent) -> dict[str, Any]:
    """Run `update.train` in child processes: the same result, and all their memory is released."""
    job_file = job.work_folder / "child.json"
    request = {"job": asdict(job), "settings": settings.model_dump(mode="json")}
    write_text_atomically(job_file, json.dumps(request, indent=1, default=str))
    command = [sys.executable, "-m", "selfreward.updates.child", str(job_file)]
    environment = _environment(settings.launch.num_processes) | {PARENT: str(os.getpid())}
    tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", env=environment,
        start_new_session=True,  # Ctrl-C reaches the driver alone, which ends its children
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None and process.stderr is not None  # both are pipes
            forwarder = threading.Thread(target=_forward_stderr, args=(process.stderr, tail), daemon=True)
            forwarder.start()
            failure = _read_progress(process.stdout, report)
            code = process.wait()
            forwarder.join()
        except BaseException:
            process.kill()
            raise
    if failure is not None:
        raise failure
    if code != 0:
        raise TrainingError(_exit_message(code, tail))
    metrics: dict[str, Any] = json.loads((job.work_folder / "training.json").read_text(encoding="utf-8"))
    return metrics


def _environment(num_processes: int) -> dict[str, str]:
    """Return the child's environment. What the user has set stays; what vLLM has set for itself does not, such as one
    channel between GPUs for `engine.batch_invariant`."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(num_processes))))
    num_threads = str(max(1, len(os.sched_getaffinity(0)) // num_processes))
    inherited = inherited_environment()
    # Micro-batches differ in length: without this setting, freed memory is left in pieces of other lengths.
    allocator = {} if "PYTORCH_CUDA_ALLOC_CONF" in inherited else {ALLOCATOR: "expandable_segments:True"}
    return {
        # torchrun would set 1 for several processes: passes on the CPU, as those before sharding, would take hours.
        "OMP_NUM_THREADS": num_threads,
        **allocator,
        **inherited,
        # As many visible GPUs as processes: libraries may use any visible GPU.
        "CUDA_VISIBLE_DEVICES": ",".join(gpus.split(",")[:num_processes]),
        "TOKENIZERS_PARALLELISM": "false",
    }


def _forward_stderr(stream: IO[str], tail: collections.deque[str]) -> None:
    for line in stream:
        tail.append(line.rstrip("\n"))
        sys.stderr.write(line)


def _read_progress(stream: IO[str], report: Report) -> SelfRewardError | None:
    """Report progress until the child closes its output; return the error that it reported, if any."""
    failure = None
    for line in stream:
        try:
            message = json.loads(line)
        except ValueError:
            sys.stderr.write(line)  # printed by a library
            continue
        if not isinstance(message, dict):
            sys.stderr.write(line)
        elif "report" in message:
            report(*message["report"])
        elif "error" in message:
            name, text = message["error"]
            failure = getattr(errors, name)(text)
    return failure


def _exit_message(code: int, tail: collections.deque[str]) -> str:
    how = f"ended with exit code {code}"
    advice = "read the end of its log below; the same command continues from the last save"
    if code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            advice = (
                "often the machine ran out of memory: lower training.micro_batch_tokens; the same command continues "
                "from the last save"
            )
    return "\n".join([f"training: the process {how}; it must end with exit code 0; {advice}", *tail])


def main(arguments: list[str]) -> int:
    _die_with_parent()
    request = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    settings = Settings.model_validate_json(json.dumps(request["settings"]))
    if settings.launch.num_processes > 1 and "RANK" not in os.environ:
        return _run_in_processes(settings.launch.num_processes, arguments)
    fields: dict[str, Any] = request["job"]
    fields |= {key: Path(value) for key, value in fields.items() if isinstance(value, str)}
    fields["samples_files"] = tuple(map(Path, fields["samples_files"]))
    from selfreward.updates.update import train

    try:
        train(TrainingJob(**fields), settings, report=lambda *progress: _emit({"report": progress}))
    except SelfRewardError as error:
        _emit({"error": [type(error).__name__, str(error)]})
        return error.exit_code
    return 0


def _run_in_processes(num_processes: int, arguments: list[str]) -> int:
    """Run this module in each of `num_processes` processes, which connect through torch's environment variables."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as launch

    here = ["--module", "selfreward.updates.child", *arguments]
    os.environ[PARENT] = str(os.getpid())
    try:
        launch(["--standalone", "--nproc-per-node", str(num_processes), *here])
    except ChildFailedError as error:
        first = error.get_first_failure()[1].exitcode
        if first < 0:  # a rank was killed: end by the same signal, so that the parent process can report it
            if -first != signal.SIGKILL:
                signal.signal(-first, signal.SIG_DFL)
            os.kill(os.getpid(), -first)
        return first or 1
    return 0


def _emit(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def _die_with_parent() -> None:
    """End with the parent: when a driver is killed, no child may be left writing into the work folder."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.environ.get(PARENT, str(os.getppid())) != str(os.getppid()):
            os.kill(os.getpid(), signal.SIGKILL)  # the parent was killed before prctl took effect


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
