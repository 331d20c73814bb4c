"""`run` and `judge` in Python do what the commands do, in a notebook's running event loop too."""

import asyncio
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from cases.command_line import TINY
from fakes.endpoint_server import EndpointServer, answer_to

import selfreward
from selfreward import recipe_file
from selfreward.commands.judge import judge_file
from selfreward.errors import RecipeError

ENGINE = {"engine.kind": "transformers"}
ROWS: list[dict[str, Any]] = [
    {"id": "a", "prompt": "Name a sea.", "response": "The Black Sea."},
    {"id": 7, "prompt": "Name a sea.", "responses": ["The Red Sea.", ""]},
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies of earlier tests, at the same address, are not found."""
    monkeypatch.setenv("SELFREWARD_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"

    async def in_a_cell() -> None:
        selfreward.run(TINY, {"output_dir": str(folder), "iterations.max": 1}, progress=False)

    asyncio.run(in_a_cell())
    return folder


def test_a_run_is_read_from_its_folder(folder: Path) -> None:
    run = selfreward.load_run(folder)
    decision, checkpoint = run.decision, run.checkpoint
    assert decision is not None and checkpoint is not None and (checkpoint / "model.safetensors").is_file()
    assert decision.decision == "INVALID" and run.status["state"] == "finished"
    assert run.report == folder / "report.html" and run.checkpoints == {1: folder / "iteration-01" / "checkpoint"}
    assert run.recipe["iterations"]["max"] == 1 and run.history[0].counts["num_pairs"] == run.pairs.num_rows
    rates = run.metrics.query("metric == 'win_rate_vs_initial'")
    assert rates["mean"].isna().all() and rates["reason"].str.startswith("INVALID: the anchor").all(), "never 0 or 0.5"
    summary = run.summary.set_index("iteration")
    assert list(summary.index) == [0, 1] and summary.loc[1, "decision"] == "INVALID"
    assert summary["win_rate_vs_initial"].isna().all() and summary["pass_rate_high"].notna().all()
    assert run.preference_dataset().num_rows == run.pairs.num_rows


def test_a_repeated_call_repeats_no_work_and_an_override_goes_on(folder: Path) -> None:
    stages: list[str] = []

    def note(what: str, iteration: int, stage: str, details: object) -> None:
        if what == "started" and stage != "decision":
            stages.append(f"{iteration} {stage}")

    overrides = {"output_dir": str(folder)}
    selfreward.run(TINY, {**overrides, "iterations.max": 1}, progress=note)
    assert stages == []
    run = selfreward.run(TINY, {**overrides, "iterations.max": 2}, progress=note)
    assert stages and all(stage.startswith("2 ") for stage in stages)
    assert len(run.decisions) == 2 and set(run.responses["iteration"]) == {1, 2}


@pytest.mark.parametrize("kind", ["list", "dataset", "file"])
def test_judge_returns_what_the_command_writes(tmp_path: Path, kind: str) -> None:
    file, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    given = [{"response": None, "responses": None, **row, "id": str(row["id"])} for row in ROWS]
    file.write_text("".join(json.dumps(row) + "\n" for row in given))
    rows: Any = {"list": given, "dataset": datasets.Dataset.from_list(given), "file": file}[kind]
    judged = selfreward.judge(TINY, rows, ENGINE)
    written = judge_file(recipe_file.load(TINY, ["engine.kind=transformers"]), file, out)
    assert [json.loads(line) for line in out.read_text().splitlines()] == list(judged.rows)
    assert judged.unscored == written.unscored == {"empty_response": 2}
    assert judged.evaluation == written.evaluation
    flat = judged.judgments
    assert flat.num_rows == 6 and flat["score"].count(None) == 2
    assert [row["reason"] for row in flat if row["score"] is None] == ["empty_response"] * 2
    assert [row["response"] for row in flat if row["id"] == "7"] == [0, 0, 1, 1]


def test_a_budget_is_that_of_the_rows_and_replies_are_paid_once() -> None:
    def three(body: dict[str, Any]) -> dict[str, Any]:
        answer = answer_to(body)
        for choice in answer["choices"]:
            choice["message"]["content"] = "It names a sea.\nScore: 3"
        return answer

    with EndpointServer() as server:
        server.answer = three
        price = {"prompt": 1.0, "generated": 1.0}
        endpoint = {"endpoint": server.url, "model": "m", "price": price, "budget": 0.01}
        recipe = {
            "models": {"policy": {"model": "random:tiny"}, "gpt": endpoint},
            "judging": {"kind": "additive", "by": "gpt", "num_draws": 2},
        }
        costs = [selfreward.judge(recipe, rows, ENGINE).cost for rows in (ROWS[:1], ROWS[:1], ROWS[1:])]
    assert costs[0] and not costs[1] and costs[2]
    assert sum(body.get("n", 1) for body in server.answered) == 2 * 2  # two responses have text


def test_a_judge_that_compares_gives_the_other_response(tmp_path: Path) -> None:
    judged = selfreward.judge({"kind": "pairwise"}, ROWS, ENGINE, model="random:tiny")
    others = {row["other"] for row in judged.judgments if row["other"] is not None}
    assert others <= {"a", "7/0", "7/1"} and others
    assert not judged.metrics["valid"].all() and judged.metrics.query("not valid")["mean"].isna().all()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no rows"),
        ([{"prompt": "x"}], "rows, row 1: no response"),
        (["x"], "rows, row 1: its type is str"),
        (ROWS[0], "put a single row into a list"),
        (4, "found int"),
    ],
)
def test_unusable_rows_are_refused(rows: Any, words: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        selfreward.judge(TINY, rows)
    assert words in str(refusal.value)
