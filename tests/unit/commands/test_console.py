"""Console output of a run: a line for each finished stage, and a table that fits and contains only plain text."""

import io
import json
import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases.reporting import HOSTILE, MadeRun, interval, make_run, without, write

from selfreward.commands.console import Console
from selfreward.launch.local import RunResult
from selfreward.records import Evaluation


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a wide terminal unless a test sets its width; a test runner may set COLUMNS."""
    monkeypatch.setenv("COLUMNS", "2000")


def lines_of(*events: tuple[str, int, str, dict[str, Any]]) -> list[str]:
    stream = io.StringIO()
    console = Console(stream)
    for event in events:
        console(*event)
    return stream.getvalue().splitlines()


def entry(seconds: float, **more: Any) -> dict[str, Any]:
    return {"seconds": seconds, "usage": {}, **more}


def test_a_stage_is_printed_once_with_its_cost() -> None:
    usage = {"num_generated_tokens": 3000, "num_prompt_tokens": 1000}
    lines = lines_of(
        ("started", 0, "evaluation", {}),
        ("finished", 0, "evaluation", entry(1.25)),
        ("started", 1, "responses", {"shard": 0}),
        ("shard", 1, "responses", entry(2.0, shard=0, num_records=96, usage=usage)),
        ("started", 1, "responses", {"shard": 1}),
        ("shard", 1, "responses", entry(1.0, shard=1, num_records=32)),
        ("finished", 1, "responses", entry(3.0, num_records=128, shard_records=[96, 32])),
        ("started", 1, "training", {}),
        ("finished", 1, "training", entry(123.4)),
        ("started", 2, "prompts", {"shard": 0}),
    )
    heads = [line for line in lines if line.startswith("──")]
    assert [head.strip("─ ") for head in heads] == ["the initial model", "iteration 1", "iteration 2"]
    stages = [line.split() for line in lines if line not in heads]
    assert stages == [
        ["evaluation", "1.2", "s"],
        ["responses", "96", "records", "2.0", "s", "2,000", "tokens/s"],
        ["responses,", "shard", "1", "32", "records", "1.0", "s"],
        ["training", "123.4", "s"],
    ]
    assert all(len(line) <= 80 for line in lines)
    columns = {found.start() for line in lines if (found := re.search(r"\d s\b", line))}
    assert len(columns) == 1, "seconds are aligned"


def test_the_run_folder_and_warnings_are_named() -> None:
    assert lines_of(("opened", 0, "runs/mine-0", {}), ("warning", 0, "few prompts", {})) == [
        "run folder runs/mine-0",
        "warning: few prompts",
    ]


def test_a_stored_stage_of_a_resumed_run_prints_nothing() -> None:
    assert lines_of(("finished", 1, "responses", entry(3.0, num_records=128, shard_records=[96, 32]))) == []


def test_a_stage_that_took_no_time_has_no_rate() -> None:
    (line,) = lines_of(("finished", 1, "training", entry(0.0, usage={"num_generated_tokens": 5})))
    assert "tokens/s" not in line


def closing(run: MadeRun, *, banner: str | None = None) -> str:
    write(run, banner=banner)
    return Console(io.StringIO()).closing(RunResult(run.store.folder, run.decisions[-1]))


def rows_of(text: str) -> dict[str, list[str]]:
    """Return the cells of each model in the table, without empty cells."""
    lines = text.split("\n\n")[0].splitlines()
    return {line.split()[0]: line.split() for line in lines if line.strip().startswith("M_")}


def test_the_table_has_every_model_with_its_rates(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_iterations=3)
    first = run.history[0]
    metrics = dict(first.evaluation.metrics) | {
        "win_rate_vs_previous": interval(0.55, 0.03),
        "win_rate_vs_initial": interval(0.65, 0.04),
        "pass_rate": interval(1.0, 0.0),
        "response_tokens": interval(99.6, 5.0),
    }
    counts = {**first.counts, "num_pairs": 17, "num_judgments": 200, "num_unscored_judgments": 50}
    run.history[0] = replace(first, counts=counts, evaluation=Evaluation(1, metrics))
    text = closing(run)
    rows = rows_of(text)
    assert list(rows) == ["M_0", "M_1", "M_2", "M_3"]
    assert rows["M_0"] == ["M_0", "31%", "[24–38]", "94"]
    assert rows["M_1"] == [
        *("M_1", "17", "25%", "55%", "[52–58]", "65%", "[61–69]", "100%", "[100–100]", "100", "CONTINUE")
    ]
    assert rows["M_3"][-1] == run.decisions[-1].decision
    heads = text.splitlines()[2]
    assert heads.index("vs previous") < heads.index("vs M_0") < heads.index("pass rate") < heads.index("tokens")
    assert run.decisions[-1].reason in text
    places = dict(line.split(maxsplit=1) for line in text.splitlines()[-4:])
    assert list(places) == ["model", "pairs", "report", "next"]
    assert places["report"] == str((tmp_path / "report.html").resolve())
    table = text.split("\n\n")[0].splitlines()
    assert max(map(len, table)) <= 82, "100% [100–100] is three wider than most"
    assert len({len(line) for line in table[2:] if "M_0" not in line.split()}) == 1, "the columns are aligned"


def test_the_table_fits_into_80_columns_with_the_longest_decision(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_iterations=3)
    for t in range(3):
        run.decisions[t] = replace(run.decisions[t], decision="INCONCLUSIVE")
    table = closing(run).split("\n\n")[0].splitlines()
    assert table[-1].endswith("INCONCLUSIVE")
    assert max(map(len, table)) <= 80


def test_where_greedy_responses_are_measured_their_pass_rate_replaces_the_length(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_iterations=1)
    metrics = dict(run.history[0].evaluation.metrics) | {"greedy_pass_rate": interval(0.81, 0.05)}
    run.history[0] = replace(run.history[0], evaluation=Evaluation(1, metrics))
    text = closing(run)
    assert "greedy" in text.splitlines()[2] and "tokens" not in text.splitlines()[2]
    assert rows_of(text)["M_1"][-2] == "81%" and rows_of(text)["M_0"][-1] == "-"


def test_missing_measurements_are_a_dash(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_iterations=1)
    run.history[0] = replace(without(run.history[0], reason="too few pairs"), counts={})
    run = replace(run, initial=Evaluation(0, {"response_tokens": interval(float("nan"), 1.0), "pass_rate": 0.5}))
    rows = rows_of(closing(run))
    assert rows == {"M_0": ["M_0", "50%", "-"], "M_1": ["M_1", "0", "-", "-", "-", "-", "-", run.decisions[0].decision]}


def test_rates_of_an_invalid_anchor_are_not_shown_as_numbers(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_iterations=1)
    metrics = dict(run.history[0].evaluation.metrics) | {"anchor_valid": 0.0, "pass_rate": interval(0.5, 0.1)}
    del metrics["win_rate_vs_previous"]
    run.history[0] = replace(run.history[0], evaluation=Evaluation(1, metrics))
    assert rows_of(closing(run))["M_1"][3:7] == ["-", "invalid", "50%", "[40–60]"]


@pytest.mark.parametrize("text", [HOSTILE, "\x1b]0;title\x07 two\nlines \x9b31m"])
def test_foreign_text_cannot_control_the_terminal(tmp_path: Path, text: str) -> None:
    run = make_run(tmp_path / "run \x1b[31m", num_iterations=1, hostile=text)
    shown = closing(run, banner=text)
    shown.encode()  # a lone surrogate cannot be printed
    assert {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")} <= {"\n"}
    assert "⟦" in shown, "hidden characters are named"
    assert json.loads((run.store.folder / "report.json").read_text())["note"] == text, "the file has the original text"


def test_a_long_note_is_broken_between_words_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    note = "The pass rate is measured on few prompts, so its interval is wide. " * 4
    shown = closing(make_run(tmp_path, num_iterations=1), banner=note + "\nA second line.")
    said = shown.split("\n\n")[2]
    assert max(map(len, said.splitlines())) <= 60
    assert said.split() == (note + "A second line.").split()
    assert said.endswith("\nA second line.")
