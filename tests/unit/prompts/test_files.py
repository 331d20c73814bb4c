"""Rows of files: formats and their dialects, encodings, compressed files, folders, and files that are broken."""

import bz2
import gzip
import json
import lzma
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cases.rows import read, write

from selfreward.errors import RecipeError
from selfreward.prompts.files import open_rows
from selfreward.prompts.gold import read_gold
from selfreward.prompts.reading import read_prompts
from selfreward.recipe import FilePrompts
from selfreward.records import Message, Prompt

LINES = b'{"prompt": "One?"}\n{"prompt": "Tw\xc3\xb6?"}\n'
ARRAY = '[{"prompt": "One?"},\n\n {"prompt": "Twö?"}]'


def texts(path: Path | str, **columns: str) -> list[str]:
    return [prompt.messages[-1].content for prompt in read(str(path), **columns)[0]]


def test_text_and_conversations_are_read(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."},
             {"role": "user", "content": "Name a tree."}]  # fmt: skip
    checks = [{"kind": "punctuation:no_comma"}]
    path = write(tmp_path, {"prompt": "Why?", "id": 7}, "", {"prompt": turns, "checks": checks, "reference": "Oak."})
    first, second = read(path)[0]
    assert first == Prompt("7", (Message("user", "Why?"),), source=f"file:{path}")
    assert (second.id, second.checks, second.reference) == ("line-3", tuple(checks), "Oak.")
    assert second.messages == tuple(Message(turn["role"], turn["content"]) for turn in turns)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("bom.jsonl", b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n").rstrip()),
        ("a.ndjson", LINES),
        ("A.JSONL", LINES),
        ("utf16.jsonl", LINES.decode().encode("utf-16")),
        ("array.json", ARRAY.encode()),
        ("array.jsonl", ARRAY.encode()),
        ("rows-in-a-key.json", f'{{"version": 1, "data": {ARRAY}}}'.encode()),
        ("bom.json", ARRAY.encode("utf-8-sig")),
        ("utf16.json", ARRAY.encode("utf-16")),
        ("no-bom.json", ARRAY.encode("utf-16-le")),
        ("lines.json", LINES),
        ("values.json", b'{\n "prompt": "One?"\n}\n{"prompt": "Tw\xc3\xb6?"}'),
        ("a.csv", 'prompt,x\n"One?",1\nTwö?,2\n'.encode()),
        ("excel.csv", "Prompt;x\r\nOne?;1\r\nTwö?;2\r\n".encode("utf-8-sig")),
        ("named.csv", "sep=|\nx|prompt\n1|One?\n2|Twö?\n".encode()),
        ("mac.csv", "prompt,x\rOne?,1\rTwö?,2\r".encode()),
        ("utf16.tsv", "x\tprompt\n1\tOne?\n2\tTwö?\n".encode("utf-16")),
        ("a.txt", "\nOne?\r\n \n Twö? ".encode()),
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0)),
        ("a.json.xz", lzma.compress(ARRAY.encode())),
        ("a.csv.bz2", bz2.compress("prompt\nOne?\nTwö?\n".encode())),
        ("a.jsonl.zst", bytes(pa.compress(LINES, codec="zstd"))),
    ],
)
def test_every_format_and_encoding_gives_the_same_prompts(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert texts(tmp_path / name) == ["One?", "Twö?"]


def test_ids_are_lines_of_text_and_rows_of_tables(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["A?", "B?"]}), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text('prompt\n"A\n\nB?"\nC?\n')
    (tmp_path / "t.json").write_text('[\n{"prompt": "A?"},\n{"prompt": "B?"}]')
    by_name = {name: [row.id for row in open_rows(str(tmp_path / name))] for name in ("t.parquet", "t.csv", "t.json")}
    assert by_name == {"t.parquet": ["row-1", "row-2"], "t.csv": ["line-2", "line-5"], "t.json": ["row-1", "row-2"]}
    assert [row.where.rpartition("/")[2] for row in open_rows(str(tmp_path / "t.json"))] == [
        "t.json, row 1 (line 2)",
        "t.json, row 2 (line 3)",
    ]


def test_cells_with_separators_quotes_and_line_ends(tmp_path: Path) -> None:
    long = "word " * 100_000
    (tmp_path / "a.csv").write_text(f'x,prompt\n1,"a, ""b"";\nc"\n2,"{long}"\n3,"[not, a list"\n')
    assert texts(tmp_path / "a.csv") == ['a, "b";\nc', long, "[not, a list"]


def test_control_characters_unicode_and_html_are_data(tmp_path: Path) -> None:
    odd = ["\x00\x07 bell \x1b[31m", "a\u2028b\u0085c", "emoji \U0001f40d and \u200b", "<script>alert(1)</script>"]
    assert texts(write(tmp_path, *({"prompt": text} for text in odd))) == odd


def test_reading_is_a_stream(tmp_path: Path) -> None:
    big = json.dumps({"prompt": "One?", "x": "y" * 2**20})
    (tmp_path / "a.json").write_text(f"[{big}, {big}, {{")
    rows = open_rows(str(tmp_path / "a.json"))
    assert next(rows).columns["prompt"] == "One?"
    assert next(rows).id == "row-2"
    with pytest.raises(RecipeError, match="line 1: not JSON"):
        next(rows)


def test_a_folder_is_read_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path, {"prompt": "A?", "id": 1}, {"prompt": "B?"}, name="a.jsonl")
    write(tmp_path / "in", {"prompt": "C?", "id": 1}, {"prompt": "D?"}, name="a.jsonl")
    (tmp_path / "b.csv").write_text("question\nE?\n")
    for other in ("README.md", "dataset_infos.json", ".cache.jsonl"):
        (tmp_path / other).write_text("{")
    prompts, summary = read(str(tmp_path))
    assert [prompt.id for prompt in prompts] == ["1", "a-line-2", "b-line-2", "1-in-a-line-1", "in-a-line-2"]
    assert dict(summary.shapes) == {"prompt": 4, "question": 1} and summary.num_changed_ids == 1


def test_parquet_gives_what_jsonl_gives(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "a", "prompt": [{"role": "user", "content": "x"}], "checks": [{"kind": "punctuation:no_comma"}]},
        {"id": None, "prompt": [{"role": "user", "content": "y\x00"}],
         "checks": [{"kind": "keywords:existence", "keywords": ["k"]}]},
        {"id": "c", "prompt": [{"role": "user", "content": "z"}], "checks": None},
    ]  # fmt: skip
    pq.write_table(pa.table({key: [row[key] for row in rows] for key in rows[0]}), tmp_path / "a.parquet")
    from_parquet, _ = read(str(tmp_path / "a.parquet"))
    from_jsonl, _ = read(write(tmp_path, *rows))
    # Parquet gives all checks of the column all keys: arguments that were not given are removed again.
    assert [(prompt.messages, prompt.checks) for prompt in from_parquet] == [
        (prompt.messages, prompt.checks) for prompt in from_jsonl
    ]
    assert [prompt.id for prompt in from_parquet] == ["a", "row-2", "c"]


def test_columns_of_parquet_that_are_no_text_are_not_decoded(tmp_path: Path) -> None:
    table = pa.table({
        "prompt": pa.array(["A?", "B?", "A?"]).dictionary_encode(),
        "image": [{"bytes": b"x", "path": "p"}, None, None],
        "vector": [[0.5] * 3] * 3,
        "id": [1.0, None, 3.0],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    prompts, summary = read(str(tmp_path / "a.parquet"), rate=0.5)
    assert [(prompt.id, prompt.messages[0].content) for prompt in prompts] == [("row-2", "B?"), ("3", "A?")]
    assert dict(summary.dropped) == {"not_text": 1} and summary.unused == ["image", "vector"]


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "bytes of a program": ("a.json", bytes(range(256)), "line 1: not JSON"),
    "nested without end": ("a.json", b"[" * 300_000, "nested too deep"),
    "nested in a row": ("a.json", b'[{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]", "nested too deep"),
    "digits without end": ("a.json", b'[{"prompt": ' + b"9" * 5000 + b"}]", "line 1: not JSON"),
    "truncated array": ("a.json", b'[{"prompt": "a"},\n{"prompt": "b"', "line 2: not JSON"),
    "comma at the end": ("a.json", b'[{"prompt": "a"},\n]', "line 2: not JSON"),
    "more after the end": ("a.json", b'[{"prompt": "a"}]\n{}', "line 2: not JSON (there is more"),
    "numbers": ("a.json", b"[1, 23]", "2 of 2 rows cannot be used (2 wrong type)"),
    "texts": ("a.json", b'["A?", "B?"]', "row 2 (line 1): a JSON str"),
    "null": ("a.json", b"null", "a JSON NoneType"),
    "lists of one object": ("a.json", b'{"prompt": ["A?", "B?"]}', "message 1 is str 'A?'"),
    "rows in an unknown key": ("a.json", b'{"mine": [{"prompt": "A?"}]}', "the columns are 'mine'"),
    "no rows in a key": ("a.json", b'{"data": ["A?"]}', "the columns are 'data'"),
    "empty array": ("a.json", b"[]", "no row at all"),
    "empty": ("a.jsonl", b"", "no row at all"),
    "blank": ("a.jsonl", b"\xef\xbb\xbf\n \n", "no row at all"),
    "heading alone": ("a.csv", b"prompt,x\n", "no row at all"),
    "quote without end": ("a.csv", b'prompt,x\nA?,1\n"B?,1\nC?,2\n', "line 3: not CSV"),
    "quotes of another dialect": ("a.csv", b'prompt,x\n"say \\"hi\\"",1\n', "line 2: not CSV"),
    "a column twice": ("a.csv", b"prompt,prompt\nA?,B?\n", "the column 'prompt' occurs twice"),
    "no heading": ("a.csv", b"What is it?,1\nWhy?,2\n", "the columns are 'What is it?', '1'"),
    "commas in cells": ("a.csv", b"prompt,x\na, b and c,1\n", "line 2: 3 cells, but the heading has 2"),
    "not UTF-8": ("a.csv", b"prompt,x\nCaf\xe9?,1\n", "the byte 0xE9, which is not UTF-8, at character 4"),
    "truncated": ("a.jsonl.gz", gzip.compress(LINES * 1000)[:-20], "cannot be read (Compressed file ended"),
    "not compressed": ("a.jsonl.gz", LINES, "cannot be read (Not a gzipped file"),
    "not compressed either": ("a.jsonl.zst", LINES, "cannot be read"),
    "a bomb of a line": ("a.jsonl.gz", gzip.compress(b"x" * 2**25), "line 1: it has more than 16,777,216 characters"),
    "a bomb of lines": ("a.jsonl.gz", gzip.compress(b"\n" * 2**25), "more than 100,000 blank lines"),
    "not Parquet": ("a.parquet", b"PAR1xx", "not readable as Parquet"),
    "unknown": ("a.docx", b"PK", "unknown suffix '.docx'; files end in .jsonl"),
    "compressed Parquet": ("a.parquet.gz", b"PK", "unknown suffix"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_explained(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecipeError) as raised:
        read(str(tmp_path / name))
    message = str(raised.value)
    assert words in message and str(tmp_path / name) in message and len(message) < 1500
    message.encode()  # no lone surrogate reaches the terminal


def test_a_compressed_file_may_not_grow_without_end(tmp_path: Path) -> None:
    line = b'{"x": "' + b"a" * (2**24 - 20) + b'"}\n'
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line * 5, 1))
    with pytest.raises(RecipeError, match="more than 50 times its size"):
        read(str(tmp_path / "a.jsonl.gz"))


def test_bytes_that_are_not_utf8_spoil_only_their_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "A?"}\n{"prompt": "Caf\xe9?"}\n{"prompt": "B?", "x": "\xff"}\n')
    prompts, summary = read(str(tmp_path / "a.jsonl"), rate=0.5)
    assert [prompt.id for prompt in prompts] == ["line-1", "line-3"] and dict(summary.dropped) == {"invalid_unicode": 1}


def test_parquet_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    text = pa.array([b"fine", b"caf\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": text}), tmp_path / "a.parquet")
    with pytest.raises(RecipeError, match="not UTF-8"):
        read(str(tmp_path / "a.parquet"))


def test_a_line_without_end_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "one-value.jsonl"
    path.write_bytes(b'{"prompt": "x"}\n')
    with path.open("r+b") as file:
        file.truncate(10**11)  # sparse: it takes no space
    with pytest.raises(RecipeError, match="line 2: it has more than 16,777,216 characters"):
        read(str(path))


@pytest.mark.parametrize("path", ["none.jsonl", "a\0.jsonl", "x" * 5000 + ".jsonl", "~nobody-of-this-name/x.jsonl"])
def test_a_path_of_nothing_is_explained(path: str) -> None:
    with pytest.raises(RecipeError, match="no such file"):
        read(path)


def test_a_file_that_is_missing_is_answered_with_its_key_and_what_is_beside_it(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Say 1."}')
    section = FilePrompts(kind="file", path=str(tmp_path / "promts.jsonl"))
    with pytest.raises(RecipeError) as caught:
        read_prompts(section, key="evaluation.prompts")
    assert str(caught.value).startswith(f"evaluation.prompts: {section.path}: no such file; ")
    assert str(caught.value).endswith(f"did you mean '{tmp_path / 'prompts.jsonl'}'?")
    with pytest.raises(RecipeError, match=r"^evaluation.gold: .*/x.csv: no such file.* has prompts.jsonl; correct the"):
        read_gold(str(tmp_path / "x.csv"))
    with pytest.raises(RecipeError, match=f"there is no folder {tmp_path}/date; {tmp_path} has prompts.jsonl"):
        read(str(tmp_path / "date" / "of" / "x.csv"))


def test_a_pipe_or_an_empty_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a folder without a data file \\(it contains nothing\\)"):
        read(str(tmp_path))
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(RecipeError, match="a pipe or a device"):
        read(str(tmp_path / "pipe.jsonl"))
