"""Logs of attempts: one file each, never written over; a batch job writes its own."""

import os
from pathlib import Path

import pytest

from selfreward.launch import run_log
from selfreward.launch.attempts import last_lines, new_local_log, newest_log


def test_each_attempt_has_a_log_with_its_lines(tmp_path: Path) -> None:
    for attempt in ("first", "second"):
        with run_log.run_log(tmp_path) as logger:
            logger.info("%s", attempt)
        run_log.append(tmp_path, f"end of the {attempt}")
    found = {path.name: [line[21:] for line in path.read_text().splitlines()] for path in tmp_path.glob("logs/*")}
    assert found == {"local-01.log": ["first", "end of the first"], "local-02.log": ["second", "end of the second"]}
    lines = [line[21:] for line in (tmp_path / "run.log").read_text().splitlines()]
    assert lines == ["first", "end of the first", "second", "end of the second"]


def test_a_removed_log_does_not_give_its_number_to_another(tmp_path: Path) -> None:
    assert [new_local_log(tmp_path), new_local_log(tmp_path)] == [tmp_path / f"logs/local-0{n}.log" for n in (1, 2)]
    (tmp_path / "logs/local-01.log").unlink()
    assert new_local_log(tmp_path) == tmp_path / "logs/local-03.log"


def test_a_batch_job_keeps_its_own_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFREWARD_LOG", str(tmp_path / "logs" / "slurm-7-0.log"))
    assert new_local_log(tmp_path) is None
    assert new_local_log(tmp_path / "another-run-in-the-job") is not None


def test_the_newest_log_is_that_of_the_last_attempt(tmp_path: Path) -> None:
    assert newest_log(tmp_path) is None
    (tmp_path / "logs").mkdir()
    names = ("local-01.log", "slurm-12-0.log", "slurm-12-1.log", "slurm-9-0.log", "slurm-12.log", "mine.log")
    for age, name in enumerate(reversed(names)):
        (tmp_path / "logs" / name).write_text(name)
        os.utime(tmp_path / "logs" / name, (1000 + age, 1000 + age))
    assert newest_log(tmp_path) == tmp_path / "logs" / "local-01.log"
    assert newest_log(tmp_path, "12") == tmp_path / "logs" / "slurm-12-0.log"
    assert newest_log(tmp_path, "1") is None


def test_the_last_lines_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\n".join(b"line %d" % n for n in range(100_000)) + b"\nnot UTF-8 \xff")
    assert last_lines(log, 3) == ["line 99998", "line 99999", "not UTF-8 \\xff"]
    assert last_lines(tmp_path / "none", 3) == []
