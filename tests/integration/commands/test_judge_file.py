"""`selfreward judge` on real parts: the public output format, bad rows, kills, and an endpoint that is paid once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.endpoint_server import EndpointServer, Exchange, answer_to, status

from selfreward import recipe_file
from selfreward.cli import main
from selfreward.commands.judge import judge_file
from selfreward.commands.judge_input import read_rows
from selfreward.errors import EngineError, RecipeError
from selfreward.prompts.files import open_rows
from selfreward.recipe import Recipe
from selfreward.records import Message

ROWS: list[dict[str, Any]] = [
    {"id": "a", "prompt": "Name a sea.", "response": "The Black Sea."},
    {"id": 7, "prompt": "Name a sea.", "responses": ["The Red Sea.", "", "<b>The Red Sea</b> and the Baltic Sea."]},
    {"id": "c", "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
     "response": "Hello\u2028there", "checks": [{"kind": "regex", "pattern": "Hello"}]},
]  # fmt: skip


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def recipe_of(*overrides: str) -> Recipe:
    return recipe_file.load(Path("recipes/tiny.yaml"), overrides)


def read(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n") if line]


def test_each_row_gives_a_line_in_the_public_format(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    judged = judge_file(recipe_of(), written(tmp_path, ROWS), out)
    lines = read(out)
    assert [line["id"] for line in lines] == ["a", 7, "c"]
    for line in lines:
        for judgment in line["judgments"]:
            assert {"score", "reason", "text"} <= judgment.keys()
            assert (judgment["score"] is None) != (judgment["reason"] is None)
    assert [judgment["draw"] for judgment in lines[0]["judgments"]] == [0, 1]
    assert [(j["response"], j["reason"]) for j in lines[1]["judgments"]] == [
        (0, None), (0, None), (1, "empty_response"), (1, "empty_response"), (2, None), (2, None),
    ]  # fmt: skip
    assert (judged.num_responses, judged.num_judgments, judged.unscored) == (5, 10, {"empty_response": 2})
    assert judged.dtype == "float32 (set in the recipe)"
    # Rows a and 7 share a prompt, so r can be measured; row c is alone.
    assert judged.evaluation.metrics["judge_unscored_rate"].mean == pytest.approx(0.2, abs=0.2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "rows.jsonl"]


def test_scores_of_members_are_separate_from_the_judges_own(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    section = "judging={kind: ensemble, normalise: false, members: [{kind: expected_score}, {kind: verifier}]}"
    judge_file(recipe_of(section), written(tmp_path, [ROWS[2]]), out)
    (line,) = read(out)
    assert len(line["judgments"]) == 2 and {part["part"] for part in line["parts"]} == {
        "expected_score@policy",
        "verifier",
    }
    by_name = [part["score"] for part in line["parts"] if part["part"] == "verifier"]
    assert by_name == [1.0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("[1]", "a JSON list"),
        ('{"id": "a", "prompt": "x", "response": "y"}', "'a' occurs twice"),
        ('{"id": [1], "prompt": "x", "response": "y"}', "the id is [1]"),
        ('{"id": "\\ud800", "prompt": "x", "response": "y"}', "the id has"),
        ('{"prompt": "x"}', "no response; a row has a prompt and either `response`"),
        ('{"prompt": "x", "response": "y", "responses": []}', "has `response` and `responses`"),
        ('{"prompt": "x", "response": 4}', "the response is int"),
        ('{"prompt": "x", "responses": ["a", null]}', "the response is null"),
        ('{"prompt": "x", "responses": "a"}', "`responses` is str"),
        ('{"prompt": "", "response": "y"}', "is empty"),
        ('{"prompt": [{"role": "assistant", "content": "x"}], "response": "y"}', "no message"),
        ('{"prompt": "x", "response": "\\ud800"}', "lone surrogate"),
        ('{"prompt": "x", "response": "y", "reference": 5}', "reference is int"),
        ('{"instruction": "x", "generator": "m"}', "no response"),
        ('{"answer": "x"}', "no column with a prompt"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{json.dumps(ROWS[0])}\n{line}\n")
    with pytest.raises(RecipeError) as refusal:
        read_rows(open_rows(str(file)), name="rows.jsonl")
    assert f"\n  {file}, line 2: " in str(refusal.value) and words in str(refusal.value)
    assert "`column`" not in str(refusal.value)


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Name a sea.", "output": "The Red Sea.", "generator": "m"},
        {"messages": [{"role": "user", "content": "Name a sea."}, {"role": "assistant", "content": "The Red Sea."}]},
        {"conversations": [{"from": "human", "value": "Name a sea."}, {"from": "gpt", "value": "The Red Sea."}]},
        {"prompt": "Name a sea.", "completion": [{"role": "assistant", "content": "The Red Sea."}]},
        {"prompt": "Name a sea.", "response": {"role": "assistant", "content": "The Red Sea."}},
        {"question": "Name a sea.", "response": "The Red Sea.", "answer": None},
    ],
)
def test_rows_of_other_programs_are_read(tmp_path: Path, row: dict[str, Any]) -> None:
    for name, content in (("a.jsonl", json.dumps(row)), ("a.json", f"[{json.dumps(row)}]"), ("none", json.dumps(row))):
        (tmp_path / name).write_text(content)
        rows = read_rows(open_rows(str(tmp_path / name), other=".json"), name=name)
        assert [rows.texts[i] for i in rows.rows[0].response_ids] == [("p0", "The Red Sea.")]
        assert rows.prompts["p0"].messages == (Message("user", "Name a sea."),) and rows.rows[0].id == 1
        assert rows.prompts["p0"].reference == ""


@pytest.mark.parametrize("name", ["answer", "final_answer", "ground_truth"])
def test_the_answer_of_a_row_is_a_check_of_its_responses(tmp_path: Path, name: str) -> None:
    file = written(tmp_path, [{"question": "What is 3 + 6?", "responses": ["9", "The answer is 8."], name: "9"}])
    (prompt,) = read_rows(open_rows(str(file)), name="rows").prompts.values()
    (check,) = prompt.checks
    assert check["kind"] in ("numeric", "math", "exact") and "9" in map(str, check.values())


def test_an_empty_response_is_one(tmp_path: Path) -> None:
    file = written(tmp_path, [{"instruction": "Name a sea.", "output": ""}])
    assert list(read_rows(open_rows(str(file)), name="rows").texts.values()) == [("p0", "")]


def test_invalid_files_are_refused_with_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    for file, words in ((empty, "no rows"), (tmp_path / "none.jsonl", "no such file")):
        assert main(["judge", "recipes/tiny.yaml", str(file), "--out", str(tmp_path / "o.jsonl")]) == 2
        assert words in capsys.readouterr().err


def endpoint_recipe(server: EndpointServer, *overrides: str) -> Recipe:
    model = f"models.gpt={{endpoint: '{server.url}', model: m, timeout_s: 5, max_attempts: 2, max_concurrency: 2}}"
    return recipe_of(model, "judging={kind: additive, by: gpt, num_draws: 2}", "iterations.shard_prompts=1", *overrides)


def says_three(body: dict[str, Any]) -> dict[str, Any]:
    answer = answer_to(body)
    for choice in answer["choices"]:
        choice["message"]["content"] = "It names a sea.\nScore: 3"
    return answer


def test_a_judge_behind_an_endpoint_is_paid_once(tmp_path: Path) -> None:
    """The server dies during the run; stored replies are not requested again."""
    rows, out = written(tmp_path, ROWS), tmp_path / "out.jsonl"
    with EndpointServer() as server:
        server.answer = says_three
        recipe = endpoint_recipe(server)
        served = server.answer

        def dies_after_two(body: dict[str, Any]) -> dict[str, Any]:
            if len(server.answered) >= 2:
                raise ConnectionResetError
            return served(body)

        server.answer = dies_after_two
        with pytest.raises(EngineError, match="no answer after 2 attempts"):
            judge_file(recipe, rows, out)
        assert not out.exists()
        num_paid = len(server.answered)
        assert num_paid >= 2
        server.answer = says_three
        judge_file(recipe, rows, out)
        assert len({json.dumps(body, sort_keys=True) for body in server.answered}) == len(server.answered)
        assert sum(body.get("n", 1) for body in server.answered) == 2 * 4  # four responses have text
    scores = [judgment["score"] for line in read(out) for judgment in line["judgments"]]
    assert sorted(scores, key=str) == [3.0] * 8 + [None] * 2


def test_a_key_that_is_left_out_is_told_and_a_blocked_row_is_unscored(tmp_path: Path) -> None:
    rows, out = written(tmp_path, [*ROWS, {"id": "flagged", "prompt": "FLAGME", "response": "yes"}]), tmp_path / "o"

    def refuse(exchange: Exchange, body: dict[str, Any]) -> None:
        exchange.owner.misbehaviours.append(refuse)
        if "temperature" in body:
            status(400, "Unsupported value: 'temperature' does not support 0.7 with this model.")(exchange, body)
        elif "FLAGME" in json.dumps(body):
            status(400, "Invalid prompt: it was flagged under our usage policy.")(exchange, body)
        else:
            exchange.send(200, says_three(body))

    with EndpointServer() as server:
        server.misbehaviours.extend([refuse] * 2)
        recipe = endpoint_recipe(server)
        first, second = judge_file(recipe, rows, out), judge_file(recipe, rows, out)
    assert len(server.answered) == 4  # the second time all replies and the note are stored
    for judged in (first, second):
        (note,) = [warning for warning in judged.warnings if "temperature" in warning]
        assert "does not support temperature, so it is left out" in note
        assert {judgment["reason"] for judgment in read(out)[-1]["judgments"]} == {"refused"}
        assert judged.unscored["refused"] == 2


def test_more_draws_pay_only_for_new_replies(tmp_path: Path) -> None:
    rows, out = written(tmp_path, ROWS[:1]), tmp_path / "out.jsonl"
    with EndpointServer() as server:
        server.answer = says_three
        for num_draws, num_paid in ((2, 2), (2, 2), (3, 3)):
            price = f"models.gpt.price={{prompt: 1.0, generated: {1.0}}}"
            judged = judge_file(endpoint_recipe(server, f"judging.num_draws={num_draws}", price), rows, out)
            assert sum(body.get("n", 1) for body in server.answered) == num_paid
            assert len(read(out)[0]["judgments"]) == num_draws
        assert judged.dtype is None, "the endpoint chooses its own"
        assert judged.cost is not None and judged.cost > 0
        assert f"Cost of new replies: {judged.cost:,.6g}" in str(judged)


def test_only_newlines_end_a_row(tmp_path: Path) -> None:
    """Unicode line ends are legal in JSON texts; Windows writes a byte order mark at the beginning."""
    file = tmp_path / "rows.jsonl"
    row = {"id": 1, "prompt": "a\u2028b\u0085c", "response": "d", "reference": None, "responses": None}
    file.write_text("\ufeff" + json.dumps(row, ensure_ascii=False) + "\r\n\n", encoding="utf-8")
    judge_file(recipe_of(), file, tmp_path / "out.jsonl")
    assert len(read(tmp_path / "out.jsonl")) == 1


@pytest.mark.parametrize(
    ("judging", "words"),
    [
        ("{kind: intrinsic, by: gpt}", "gpt is an endpoint"),
        ("{kind: intrinsic, reference: gpt}", "gpt is an endpoint"),
        ("{kind: reward_model, by: gpt}", "gpt is an endpoint"),
        ("{kind: reward_model, by: policy}", "policy is a generative model"),
        ("{kind: ensemble, members: [{kind: verifier}, {kind: reward_model, by: gpt}]}", "members (reward_model@gpt)"),
        ("{kind: additive, structured: true}", "transformers cannot enforce"),
        ("{kind: rubric, structured: true, by: initial, criteria: [{name: a, description: b}]}", "structured: false"),
        ("{kind: additive, by: gtp}", "did you mean 'gpt'"),
    ],
)
def test_invalid_judges_are_refused_before_anything_is_made(tmp_path: Path, judging: str, words: str) -> None:
    recipe = recipe_of("models.gpt={endpoint: 'http://127.0.0.1:9/v1', model: m}", f"judging={judging}")
    with pytest.raises(RecipeError) as refusal:
        judge_file(recipe, written(tmp_path, ROWS), tmp_path / "out.jsonl")
    assert words in str(refusal.value)


def test_a_killed_command_resumes(tmp_path: Path) -> None:
    rows = written(tmp_path, [{"id": n, "prompt": f"Name sea {n}.", "response": f"Sea {n}."} for n in range(6)])
    out = tmp_path / "out.jsonl"
    with EndpointServer() as server:
        server.answer = says_three
        model = f"models.gpt={{endpoint: '{server.url}', model: m, max_concurrency: 1}}"
        command = [
            sys.executable, "-m", "selfreward", "judge", "recipes/tiny.yaml", str(rows), "--out", str(out),
            "--set", model, "--set", "judging={kind: additive, by: gpt, num_draws: 1}",
            "--set", "iterations.shard_prompts=2",
        ]  # fmt: skip
        held = server.answer

        def third_waits(body: dict[str, Any]) -> dict[str, Any]:
            if len(server.answered) == 3:
                process.kill()
                process.wait()
            return held(body)

        server.answer = third_waits
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert process.wait(timeout=120) != 0 and not out.exists()
        server.answer = says_three
        before = len(server.answered)
        assert before >= 3
        finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert finished.returncode == 0, finished.stderr
        asked_again = [json.dumps(body["messages"]) for body in server.answered[before:]]
        # The fourth was in flight when the process died; the three before it are not requested again.
        assert len(asked_again) == 3 and not set(asked_again) & {json.dumps(b["messages"]) for b in server.answered[:3]}
    assert [line["judgments"][0]["score"] for line in read(out)] == [3.0] * 6
    assert "6 responses" in finished.stdout
