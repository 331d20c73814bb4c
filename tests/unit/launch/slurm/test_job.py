"""The next attempt of a batch job: the script in a real bash, with Slurm's commands replaced by note-takers."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from selfreward import recipe_file
from selfreward.launch.slurm.places import places_in
from selfreward.launch.slurm.script import script_of

RUNNING = "JobId=7 JobState=RUNNING StartTime=2026-12-01T15:00:00"
ENDING = "JobId=7 JobState=COMPLETING StartTime=2026-12-01T15:00:00"
OBEDIENT = "trap 'exit 75' USR1; echo ready >>\"$NOTES\"; while :; do /bin/sleep 0.05; done"
STUBBORN = 'trap \'\' USR1; echo ready >>"$NOTES"; until [ -e "$NOTES.end" ]; do /bin/sleep 0.05; done'


class Job:
    """One attempt of a job, whose program is a shell command."""

    def __init__(self, folder: Path, program: str, *, state: str = RUNNING, requeue: str = "exit 0") -> None:
        self.folder, self.run = folder, folder / "run"
        (folder / "bin").mkdir()
        for name in ("logs", "slurm"):
            (self.run / name).mkdir(parents=True)
        self._command("srun", program)
        self._command("squeue", "echo 2030-01-01T00:00:00")
        self._command("scontrol", f'if [ "$1" = show ]; then echo "{state}"; exit; fi; {requeue}')
        self._command(
            "sbatch", 'echo "$SLURM_RESTART_COUNT|$SLURM_MEM_PER_NODE|$SLURM_CONF" >>"$NOTES"; echo "8;cluster"'
        )
        self._command("scancel", "exit 0")
        self._command("sleep", "exit 0")
        text = "models: {policy: {model: random:tiny}}\nprompts: builtin\nlaunch: {slurm: {max_restarts: 3}}\n"
        (folder / "job.sh").write_text(script_of(recipe_file.parse(text), places_in(self.run), working_folder=folder))

    def _command(self, name: str, lines: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>"$NOTES"\n{lines}\n')
        path.chmod(0o755)

    def start(self, *arguments: str, restarts: int | None = None) -> "subprocess.Popen[bytes]":
        environment = os.environ | {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "NOTES": str(self.folder / "notes"),
            "SLURM_JOB_ID": "7", "SLURM_MEM_PER_NODE": "100", "SLURM_CONF": "/etc/slurm.conf",
            **({} if restarts is None else {"SLURM_RESTART_COUNT": str(restarts)}),
        }  # fmt: skip
        return subprocess.Popen(["bash", str(self.folder / "job.sh"), *arguments], env=environment)

    def end(self, *arguments: str, restarts: int | None = None) -> int:
        return self.start(*arguments, restarts=restarts).wait(60)

    def notes(self, *commands: str) -> list[str]:
        path = self.folder / "notes"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(commands) and not line.startswith("scontrol show")]

    def wait_for(self, note: str) -> None:
        end = time.monotonic() + 60
        while not self.notes(note):
            assert time.monotonic() < end, self.log()
            time.sleep(0.05)

    def log(self, attempt: int = 0) -> str:
        return (self.run / "logs" / f"slurm-7-{attempt}.log").read_text()


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 130, 137])
def test_other_codes_than_75_end_the_job(tmp_path: Path, code: int) -> None:
    job = Job(tmp_path, f"exit {code}")
    assert job.end() == code
    assert not job.notes("scontrol", "sbatch")


def test_75_requeues_once(tmp_path: Path) -> None:
    job = Job(tmp_path, "exit 75")
    assert job.end(restarts=1) == 75
    assert job.notes("scontrol", "sbatch") == ["scontrol requeue 7"]
    assert "requeued" in job.log(attempt=1)


def test_a_task_of_an_array_is_requeued_by_its_own_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    job = Job(tmp_path, "exit 75", requeue="exit 1")
    assert job.end() == 75
    assert job.notes("scontrol") == ["scontrol requeue 5_2"]
    assert job.notes("sbatch") == [f"sbatch --parsable --dependency=afterany:5_2 {job.run}/slurm/job.sh 1"]
    assert (job.run / "slurm" / "jobs.jsonl").read_text() == '{"id": "8", "continues": "5_2"}\n'
    assert (job.run / "logs" / "slurm-5_2-0.log").exists()


def test_where_requeueing_is_off_another_job_continues(tmp_path: Path) -> None:
    job = Job(tmp_path, "exit 75", requeue="echo 'Requested operation is presently disabled' >&2; exit 1")
    assert job.end("1", restarts=1) == 75
    sbatch = f"sbatch --parsable --dependency=afterany:7 {job.run}/slurm/job.sh 3"
    assert job.notes("scontrol", "sbatch") == ["scontrol requeue 7", sbatch]
    assert job.notes("|") == ["||/etc/slurm.conf"], "the next job has its own counters and options"
    assert (job.run / "slurm" / "jobs.jsonl").read_text() == '{"id": "8", "continues": "7"}\n'
    assert job.end(restarts=2) == 0, "Slurm started it again all the same"
    assert "another job continues this one" in job.log(attempt=2) and len(job.notes("srun")) == 1


def test_a_job_that_slurm_has_requeued_is_not_continued_too(tmp_path: Path) -> None:
    job = Job(tmp_path, "exit 75", requeue="echo 'Job is pending execution for job 7' >&2; exit 1")
    assert job.end() == 75
    assert not job.notes("sbatch") and "requeued" in job.log()


@pytest.mark.parametrize(("argument", "restarts"), [("0", 3), ("3", None), ("2", 1)])
def test_the_budget_counts_requeues_and_continuations(tmp_path: Path, argument: str, restarts: int | None) -> None:
    job = Job(tmp_path, "exit 75")
    assert job.end(argument, restarts=restarts) == 75
    assert not job.notes("scontrol requeue", "sbatch")
    assert "all 3 restarts are used; raise it" in job.log(restarts or 0)


@pytest.mark.parametrize(
    ("state", "comes_back"),
    [
        (ENDING, False),  # by scancel
        (f"{ENDING} PreemptTime=2026-12-01T14:00:00", False),  # by scancel, after an earlier attempt was preempted
        (f"{ENDING} PreemptTime=2026-12-01T15:30:00", True),
    ],
)
def test_a_cancelled_job_does_not_come_back(tmp_path: Path, state: str, comes_back: bool) -> None:
    process = (job := Job(tmp_path, OBEDIENT, state=state)).start()
    job.wait_for("ready")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    assert bool(job.notes("scontrol requeue")) == comes_back


def test_the_next_attempt_is_arranged_while_the_program_does_not_react(tmp_path: Path) -> None:
    process = (job := Job(tmp_path, STUBBORN)).start()
    job.wait_for("ready")
    process.send_signal(signal.SIGUSR1)
    job.wait_for("scontrol requeue")
    assert process.poll() is None
    (tmp_path / "notes.end").touch()
    assert process.wait(60) == 0
    assert job.notes("scontrol requeue", "sbatch") == ["scontrol requeue 7"]


def test_a_continuation_of_a_run_that_has_finished_is_cancelled(tmp_path: Path) -> None:
    process = (job := Job(tmp_path, STUBBORN, requeue="exit 1")).start()
    job.wait_for("ready")
    process.send_signal(signal.SIGUSR1)
    job.wait_for("sbatch")
    (tmp_path / "notes.end").touch()
    assert process.wait(60) == 0
    assert job.notes("scancel") == ["scancel 8"]
