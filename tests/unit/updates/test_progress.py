"""Progress of a training: lines at a sensible rate, and every step in the log."""

import logging
import re

import pytest

from selfreward.updates import progress
from selfreward.updates.progress import Display

STEP = re.compile(r"training: update (\d+)/40  loss 0\.6931  margin \+0\.012  rate 4\.7e-07  about \d+ s left")


def step(display: Display, number: int) -> None:
    display("update", number, 40, {"loss": 0.69314, "reward_margin": 0.0121, "learning_rate": 4.7e-7})


def test_every_step_is_logged_and_few_lines_are_printed(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, logger="selfreward")
    with Display() as display:
        for done in (4, 8):
            display("reference", done, 8, {})
        for number in range(1, 41):
            step(display, number)
        display("measure", 8, 8, {})
    logged = [STEP.fullmatch(record.getMessage()) for record in caplog.records]
    assert [int(found[1]) for found in logged if found] == list(range(1, 41))
    printed = [STEP.fullmatch(line) for line in capsys.readouterr().err.splitlines()]
    assert [found and found[1] for found in printed] == ["1", "40"]


def test_hidden_progress_is_only_in_the_log(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, logger="selfreward")
    with Display() as display:
        with progress.hidden():
            step(display, 1)
        assert (capsys.readouterr().err, len(caplog.records)) == ("", 1)
        step(display, 40)
    assert STEP.fullmatch(capsys.readouterr().err.strip())


def test_a_line_is_printed_again_after_some_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with Display() as display:
        for done in (2, 8):
            display("reference", done, 8, {})
        step(display, 2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("training: reference 2/8  about") and len(lines) == 2
    assert STEP.fullmatch(lines[1])


def test_the_time_left_counts_only_what_was_done_since_the_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A resumed training begins at a later step."""
    caplog.set_level(logging.INFO, logger="selfreward")
    now = iter((0.0, 2.0, 4.0))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    display = Display()
    for number in (31, 32):
        step(display, number)
    ends = [record.getMessage().rpartition("  ")[2] for record in caplog.records]
    assert ends == ["about 18 s left", "about 16 s left"]
