"""Training in processes of its own: `python -m selfreward.updates.child JOB.json`.

With several processes the child starts them and waits; they are ranks of torch.distributed, as `accelerate` expects.
A child writes one JSON object a line to standard output: {"report": [phase, done, total]} or, at the end,
{"error": [class, message]}; metrics and checkpoint are files. What it writes to standard error is passed on, and its
end is part of the error when it dies.
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
from selfreward.store.files import write_text_atomically
from selfreward.updates.job import TrainingJob
from selfreward.updates.progress import Report, silent
from selfreward.updates.settings import Settings

TAIL_LINES = 50
PARENT = "SELFREWARD_PARENT"  # the process id of who started this one


def train_in_child(job: TrainingJob, settings: Settings, *, report: Report = silent) -> dict[str, Any]:
    """`update.train` in child processes: the same result, and all of their memory given back."""
    job_file = job.work_folder / "child.json"
    asked = {"job": asdict(job), "settings": settings.model_dump(mode="json")}
    write_text_atomically(job_file, json.dumps(asked, indent=1, default=str))
    command = [sys.executable, "-m", "selfreward.updates.child", str(job_file)]
    environment = _environment(settings.launch.num_processes) | {PARENT: str(os.getpid())}
    tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", env=environment
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None  # because they are pipes
            passing_on = threading.Thread(target=_pass_on, args=(process.stderr, tail), daemon=True)
            passing_on.start()
            failure = _follow(process.stdout, report)
            code = process.wait()
            passing_on.join()
        except BaseException:
            process.kill()
            raise
    if failure is not None:
        raise failure
    if code != 0:
        raise TrainingError(_death(code, tail))
    metrics: dict[str, Any] = json.loads((job.work_folder / "training.json").read_text(encoding="utf-8"))
    return metrics


def _environment(num_processes: int) -> dict[str, str]:
    """As many GPUs as processes: what a process sees, its libraries may use."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(num_processes))))
    return {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": ",".join(gpus.split(",")[:num_processes]),
        "TOKENIZERS_PARALLELISM": "false",
    }


def _pass_on(stream: IO[str], tail: collections.deque[str]) -> None:
    for line in stream:
        tail.append(line.rstrip("\n"))
        sys.stderr.write(line)


def _follow(stream: IO[str], report: Report) -> SelfRewardError | None:
    """Reports progress until the child closes its output; the error it told of, if it told of one."""
    failure = None
    for line in stream:
        try:
            told = json.loads(line)
        except ValueError:
            sys.stderr.write(line)  # a library's print
            continue
        if not isinstance(told, dict):
            sys.stderr.write(line)
        elif "report" in told:
            report(*told["report"])
        elif "error" in told:
            name, message = told["error"]
            failure = getattr(errors, name)(message)
    return failure


def _death(code: int, tail: collections.deque[str]) -> str:
    how = f"ended with exit code {code}"
    advice = "read the end of its log below; the same command goes on from the last save"
    if code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            advice = "often the machine ran out of memory: lower training.micro_batch_tokens; the same command goes on"
    return "\n".join([f"training: the process {how}; it ends with 0; {advice}", *tail])


def main(arguments: list[str]) -> int:
    _die_with_parent()
    asked = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    settings = Settings.model_validate_json(json.dumps(asked["settings"]))
    if settings.launch.num_processes > 1 and "RANK" not in os.environ:
        return _run_in_processes(settings.launch.num_processes, arguments)
    fields: dict[str, Any] = asked["job"]
    fields |= {key: Path(value) for key, value in fields.items() if isinstance(value, str)}
    fields["samples_files"] = tuple(map(Path, fields["samples_files"]))
    from selfreward.updates.update import train

    try:
        train(TrainingJob(**fields), settings, report=lambda *progress: _tell({"report": progress}))
    except SelfRewardError as error:
        _tell({"error": [type(error).__name__, str(error)]})
        return error.exit_code
    return 0


def _run_in_processes(num_processes: int, arguments: list[str]) -> int:
    """This module once more in each of `num_processes`, which find each other by torch's environment variables."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as launch

    here = ["--module", "selfreward.updates.child", *arguments]
    os.environ[PARENT] = str(os.getpid())
    try:
        launch(["--standalone", "--nproc-per-node", str(num_processes), *here])
    except ChildFailedError as error:
        first = error.get_first_failure()[1].exitcode
        if first < 0:  # killed: dies the same way, so that whoever waits sees how
            if -first != signal.SIGKILL:
                signal.signal(-first, signal.SIG_DFL)
            os.kill(os.getpid(), -first)
        return first or 1
    return 0


def _tell(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


def _die_with_parent() -> None:
    """A driver that is killed must not leave a child behind that goes on writing into its work folder."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.environ.get(PARENT, str(os.getppid())) != str(os.getppid()):
            os.kill(os.getpid(), signal.SIGKILL)  # it was killed before it could matter


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
