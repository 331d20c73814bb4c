"""Prompt files: parsing, and errors in the input with their location."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selfreward.errors import RecipeError
from selfreward.prompts.file import read_file
from selfreward.records import Message, Prompt


def _write(folder: Path, *lines: object, name: str = "prompts.jsonl") -> str:
    """Lines that are not text are written as JSON."""
    file = folder / name
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    file.write_bytes("".join(text + "\n" for text in texts).encode())
    return str(file)


def _texts(prompts: list[Prompt]) -> list[str]:
    return [prompt.messages[-1].content for prompt in prompts]


def test_text_and_conversations_are_read(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Name a tree."},
    ]
    checks = [{"kind": "punctuation:no_comma"}]
    path = _write(tmp_path, {"prompt": "Why?", "id": 7}, "", {"prompt": turns, "checks": checks, "note": "kept out"})
    first, second = read_file(path)
    assert first == Prompt("7", (Message("user", "Why?"),), source=f"file:{path}")
    assert second.id == "line-3"
    assert second.messages == tuple(Message(turn["role"], turn["content"]) for turn in turns)
    assert second.checks == ({"kind": "punctuation:no_comma"},)


def test_another_column_is_read(tmp_path: Path) -> None:
    path = _write(tmp_path, {"question": "One?", "prompt": "not this"})
    assert _texts(list(read_file(path, column="question"))) == ["One?"]


def test_byte_order_mark_and_crlf_and_no_final_newline(tmp_path: Path) -> None:
    file = tmp_path / "windows.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"prompt": "One?"}\r\n\r\n{"prompt": "Two?"}')
    assert [(prompt.id, prompt.messages[0].content) for prompt in read_file(str(file))] == [
        ("line-1", "One?"),
        ("line-3", "Two?"),
    ]


def test_control_characters_unicode_and_html_are_data(tmp_path: Path) -> None:
    texts = [
        "\x00\x07 bell \x1b[31m",
        "a\u2028b\u0085c",
        "emoji \U0001f40d and \u200b",
        "<script>alert(1)</script>",
        "2+2?",
        "2-2?",
    ]
    path = _write(tmp_path, *({"prompt": text} for text in texts))
    assert _texts(list(read_file(path))) == texts


def test_reading_is_a_stream(tmp_path: Path) -> None:
    path = _write(tmp_path, {"prompt": "One?"}, "{broken")
    prompts = read_file(path)
    assert next(prompts).messages[0].content == "One?"
    with pytest.raises(RecipeError):
        next(prompts)


GOOD = {"prompt": "A good one?"}
BAD_LINES: dict[str, tuple[object, str]] = {
    "broken JSON": ('{"prompt": "no end', "not JSON"),
    "digits without end": ('{"prompt": ' + "9" * 5000 + "}", "not JSON"),
    "nested without end": ("[" * 200_000, "not JSON"),
    "not an object": ([1, 2], "a JSON list"),
    "missing column": ({"text": "x"}, "no column 'prompt'"),
    "null": ({"prompt": None}, "'prompt' is null"),
    "number": ({"prompt": 5}, "'prompt' is int"),
    "object": ({"prompt": {"role": "user"}}, "'prompt' is dict"),
    "empty": ({"prompt": ""}, "is empty"),
    "blank": ({"prompt": " \t\n "}, "is empty"),
    "no message": ({"prompt": []}, "has no message"),
    "message of text": ({"prompt": ["hello"]}, "message 1 is str"),
    "unknown role": ({"prompt": [{"role": "human", "content": "x"}]}, "the role 'human'"),
    "content of parts": ({"prompt": [{"role": "user", "content": [{"type": "text"}]}]}, "has the content"),
    "empty turn": (
        {"prompt": [{"role": "system", "content": ""}, {"role": "user", "content": "x"}]},
        "message 1 is empty",
    ),
    "last turn of the assistant": (
        {"prompt": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
        "is from the assistant",
    ),
    "system turn in the middle": (
        {
            "prompt": [
                {"role": "user", "content": "x"},
                {"role": "system", "content": "y"},
                {"role": "user", "content": "z"},
            ]
        },
        "not the first",
    ),
    "lone surrogate": ('{"prompt": "half \\ud83d of it"}', "lone surrogate U+D83D at character 6"),
    "lone surrogate in a check": ('{"prompt": "x", "checks": [{"kind": "exact", "expected": ["\\ud800"]}]}', "line 2"),
    "id with a slash": ({"prompt": "x", "id": "../x"}, "the id is '../x'"),
    "id with a line end": ({"prompt": "x", "id": "x\n"}, "the id is"),
    "id of the wrong type": ({"prompt": "x", "id": True}, "the id is True"),
    "empty id": ({"prompt": "x", "id": ""}, "the id is ''"),
    "checks of the wrong type": ({"prompt": "x", "checks": "no_comma"}, "checks are 'no_comma'"),
    "unknown check": ({"prompt": "x", "checks": [{"kind": "punctuation:no_coma"}]}, "line 2, check 1"),
}


@pytest.mark.parametrize(("line", "found"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named(tmp_path: Path, line: object, found: str) -> None:
    path = _write(tmp_path, GOOD, line)
    with pytest.raises(RecipeError) as raised:
        list(read_file(path))
    message = str(raised.value)
    assert message.startswith(f"{path}, line 2")
    assert found in message
    assert len(message) < 1000
    message.encode()  # no lone surrogate reaches the terminal


def test_a_missing_column_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'text', 'score'.*`column`"):
        list(read_file(_write(tmp_path, {"text": "x", "score": 1})))


def test_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    file = tmp_path / "latin.jsonl"
    file.write_bytes(b'{"prompt": "ok"}\n{"prompt": "caf\xe9"}\n')
    with pytest.raises(RecipeError, match=r"line 2: byte 16 is not UTF-8"):
        list(read_file(str(file)))


@pytest.mark.parametrize("again", ["why is the SKY  blue", "Why is the sky blue?", "Ｗhy is the sky blue?"])
def test_the_same_prompt_twice_names_both_lines(tmp_path: Path, again: str) -> None:
    path = _write(tmp_path, {"prompt": "Why is the sky blue?"}, GOOD, {"prompt": again})
    with pytest.raises(RecipeError, match="line 3: the same prompt as line 1"):
        list(read_file(path))


def test_prompts_that_differ_in_the_system_turn_or_a_sign_are_different(tmp_path: Path) -> None:
    asked = {"role": "user", "content": "Hello?"}
    path = _write(
        tmp_path,
        {"prompt": "Hello?"},
        {"prompt": [{"role": "system", "content": "Sing."}, asked]},
        {"prompt": "?"},
        {"prompt": "!"},
    )
    assert len(list(read_file(path))) == 4


def test_the_same_id_twice_names_both_lines(tmp_path: Path) -> None:
    path = _write(tmp_path, {"prompt": "x", "id": "line-2"}, {"prompt": "y"})
    with pytest.raises(RecipeError, match="line 2: the id 'line-2' is also used in line 1"):
        list(read_file(path))


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "empty.jsonl"
    file.write_bytes(content)
    with pytest.raises(RecipeError, match="the file contains no prompt"):
        list(read_file(str(file)))


@pytest.mark.parametrize("name", ["x.csv", "x.json", "x", "x.jsonl.gz"])
def test_an_unknown_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match=r"unknown suffix .* \.jsonl or \.parquet"):
        list(read_file(_write(tmp_path, GOOD, name=name)))


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such file"):
        list(read_file(str(tmp_path / "none.jsonl")))
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(RecipeError, match="is a folder"):
        list(read_file(str(tmp_path / "folder.jsonl")))


def _parquet(folder: Path, columns: dict[str, Any]) -> str:
    file = folder / "prompts.parquet"
    pq.write_table(pa.table(columns), file)
    return str(file)


def test_parquet_gives_what_jsonl_gives(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "a", "prompt": [{"role": "user", "content": "x"}], "checks": [{"kind": "punctuation:no_comma"}]},
        {
            "id": None,
            "prompt": [{"role": "user", "content": "y\x00"}],
            "checks": [{"kind": "keywords:existence", "keywords": ["k"]}],
        },
        {"id": "c", "prompt": [{"role": "user", "content": "z"}], "checks": None},
    ]
    from_parquet = list(read_file(_parquet(tmp_path, {key: [row[key] for row in rows] for key in rows[0]})))
    from_jsonl = list(read_file(_write(tmp_path, *rows)))
    # Parquet gives all checks of the column all keys: arguments that were not given are removed again.
    assert [(prompt.messages, prompt.checks) for prompt in from_parquet] == [
        (prompt.messages, prompt.checks) for prompt in from_jsonl
    ]
    assert [prompt.id for prompt in from_parquet] == ["a", "row-2", "c"]


def test_bad_parquet_is_named(tmp_path: Path) -> None:
    path = _parquet(tmp_path, {"prompt": ["x", "", "z"]})
    with pytest.raises(RecipeError, match="row 2: 'prompt' message 1 is empty"):
        list(read_file(path))
    with pytest.raises(RecipeError, match="no column 'text'"):
        list(read_file(path, column="text"))
    with pytest.raises(RecipeError, match="the file contains no prompt"):
        list(read_file(_parquet(tmp_path, {"prompt": pa.array([], pa.string())})))
    Path(path).write_bytes(Path(path).read_bytes()[:-20])
    with pytest.raises(RecipeError, match="not readable as Parquet"):
        list(read_file(path))


def test_parquet_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    text = pa.array([b"fine", b"caf\xe9"], pa.binary()).view(pa.string())
    with pytest.raises(RecipeError, match="not UTF-8"):
        list(read_file(_parquet(tmp_path, {"prompt": text})))


def test_a_line_without_end_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "one-value.jsonl"
    path.write_bytes(b'{"prompt": "x"}\n')
    with path.open("r+b") as file:
        file.truncate(10**11)  # sparse: it takes no space
    with pytest.raises(RecipeError, match="line 2: it has more than 16,777,216 bytes"):
        list(read_file(str(path)))
