"""What is read from a source: rows that are dropped up to a rate, repeated prompts, ids."""

from pathlib import Path

import pytest
from cases.rows import read, write

from selfreward.errors import RecipeError
from selfreward.prompts import collecting

GOOD = [{"prompt": f"Question {i}?"} for i in range(18)]
TOOL = {"messages": [{"role": "user", "content": "Call it."}, {"role": "tool", "content": "42"}]}


def test_rows_that_cannot_be_used_are_dropped_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path, *GOOD[:9], TOOL, *GOOD[9:], "{broken")
    prompts, summary = read(path, rate=0.1)
    assert len(prompts) == 18 and summary.num_rows == 20 and dict(summary.dropped) == {"tool_turn": 1, "not_json": 1}
    (note,) = summary.notes()
    assert note.startswith(f"{path}: 2 of 20 rows are dropped (1 tool turn, 1 not json); for example {path}, line 10: ")
    with pytest.raises(RecipeError) as raised:
        read(path, rate=0.09)
    first, *lines = str(raised.value).split("\n")
    assert "2 of 20 rows cannot be used" in first and "at most a share of 0.09" in first and "max_dropped_rate" in first
    assert [line.split(": ")[0] for line in lines] == [f"  {path}, line 10", f"  {path}, line 20"]


def test_all_problems_are_told_at_once_and_the_many_are_counted(tmp_path: Path) -> None:
    roles = [{"prompt": [{"role": f"role {number}", "content": "x"}]} for number in range(25)]
    path = write(tmp_path, *GOOD, *roles)
    with pytest.raises(RecipeError) as raised:
        read(path)
    lines = str(raised.value).split("\n")[1:]
    assert len(lines) == 11 and lines[0].startswith(f"  {path}, line 19: ") and lines[-1] == "  ... and 15 more"


def test_rows_with_the_same_defect_share_a_line(tmp_path: Path) -> None:
    path = write(tmp_path, TOOL, *GOOD, *([TOOL] * 2), {"prompt": None}, *([TOOL] * 9))
    with pytest.raises(RecipeError) as raised:
        read(path)
    first, second = str(raised.value).split("\n")[1:]
    assert first.startswith(f"  {path}, line 1, line 20, line 21, line 23, ") and " and 2 more rows: " in first
    assert second == f"  {path}, line 22: 'prompt' is null; a prompt must be text or turns; remove the row"


def test_a_source_without_any_prompt_is_refused_at_any_rate(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="2 of 2 rows cannot be used"):
        read(write(tmp_path, TOOL, TOOL), rate=1)


def test_hopeless_rows_are_not_read_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "MAX_HOPELESS_ROWS", 5)
    with pytest.raises(RecipeError, match="5 of 5 rows cannot be used"):
        read(write(tmp_path, *([TOOL] * 9)))


@pytest.mark.parametrize("again", ["why is the SKY  blue", "Why is the sky blue?", "Ｗhy is the sky blue?"])
def test_a_repeated_prompt_is_left_out_and_no_defect(tmp_path: Path, again: str) -> None:
    prompts, summary = read(write(tmp_path, {"prompt": "Why is the sky blue?"}, {"prompt": again}, {"prompt": "B?"}))
    assert [prompt.id for prompt in prompts] == ["line-1", "line-3"]
    assert (summary.num_repeated, summary.num_dropped) == (1, 0) and "1 repeated prompts" in summary.notes()[0]


def test_prompts_that_differ_in_the_system_turn_an_input_or_a_sign_are_different(tmp_path: Path) -> None:
    asked = {"role": "user", "content": "Hello?"}
    rows = [
        {"prompt": "Hello?"}, {"prompt": [{"role": "system", "content": "Sing."}, asked]},
        {"prompt": "?"}, {"prompt": "!"},
        {"instruction": "Hello?", "input": "1"}, {"instruction": "Hello?", "input": "2"},
    ]  # fmt: skip
    prompts, summary = read(write(tmp_path, *rows))
    assert len(prompts) == 6
    assert dict(summary.shapes) == {"prompt": 4, "instruction and input": 2}


def test_repeated_ids_are_completed(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": "x", "id": "line-2"}, {"prompt": "y"}, {"prompt": "z", "id": "line-2"})
    prompts, summary = read(path)
    assert [prompt.id for prompt in prompts] == ["line-2", "line-2-line-2", "line-2-line-3"]
    assert summary.num_changed_ids == 2 and "2 ids are changed" in summary.notes()[0]


def test_a_named_column_must_exist_somewhere(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": "x", "ref": "X"}, {"prompt": "y"})
    assert [prompt.reference for prompt in read(path, reference="ref")[0]] == ["X", ""]
    with pytest.raises(
        RecipeError, match=r"no column 'rfe', which columns.reference names; the columns are 'prompt', 'ref'"
    ):
        read(path, reference="rfe")
    with pytest.raises(RecipeError, match=r"no column 'question'; the columns are 'prompt'"):
        read(path, prompt="question")


def test_columns_that_are_not_used_are_known(tmp_path: Path) -> None:
    _, summary = read(write(tmp_path, {"Question": "x", "answer": "4", "context": "Ann came.", "id": 1}))
    assert summary.unused == ["context"]
