"""run.log: appended, with times, on a full disk without an error of its own, and gone from logging afterwards."""

import logging
import re
from pathlib import Path

import pytest

from selfreward.errors import StoreError
from selfreward.launch.run_log import LOGGER, RUN_LOG, run_log


def test_lines_of_all_loggers_of_ours_are_appended_with_their_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        with run_log(tmp_path):
            logging.getLogger("selfreward.training").info("step %s", number)
            logging.getLogger("other").error("not ours")
            LOGGER.info("lone surrogate \ud800")
    lines = (tmp_path / RUN_LOG).read_text(encoding="utf-8").splitlines()
    assert [line[21:] for line in lines] == ["step 1", "lone surrogate \\ud800", "step 2", "lone surrogate \\ud800"]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", line) for line in lines)
    assert [record.getMessage() for record in caplog.records] == ["not ours"] * 2, "no other handler shows them again"


def test_logging_is_as_before_after_an_error(tmp_path: Path) -> None:
    before = (LOGGER.level, LOGGER.propagate, list(LOGGER.handlers))
    with pytest.raises(KeyError), run_log(tmp_path):
        raise KeyError
    assert (LOGGER.level, LOGGER.propagate, list(LOGGER.handlers)) == before


def test_a_log_that_cannot_be_opened_is_an_error_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / RUN_LOG).mkdir()
    with pytest.raises(StoreError, match=RUN_LOG), run_log(tmp_path):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_does_not_end_the_run_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / RUN_LOG).symlink_to("/dev/full")
    with run_log(tmp_path):
        LOGGER.info("lost")
    assert capsys.readouterr().err == ""
