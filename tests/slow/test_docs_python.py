"""The first example of docs/python.md as it stands: a small real model whose win rate is valid."""

from pathlib import Path
from typing import Any

import pytest
from cases.python_page import run_examples


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_first_example_measures_a_win_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run: Any = run_examples({}, last=1)["run"]
    last = run.summary.iloc[-1]
    assert last["win_rate_vs_initial_low"] > 0.45 and last["num_pairs"] >= 20
    assert run.decision.decision not in ("INVALID", "STARVED")
