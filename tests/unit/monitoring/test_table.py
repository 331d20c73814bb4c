"""Tables of outcomes as read by the monitor: their evidence, and errors with their location."""

import csv
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selfreward.errors import RecipeError
from selfreward.monitoring.table import read_table

HEADING = "iteration,prompt_id,anchor_outcome"


def table(folder: Path, text: str, name: str = "outcomes.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def simulated_rows(*, num_prompts: int, num_iterations: int, seed: int) -> list[dict[str, Any]]:
    """Every column, with prompts of the second validation set in iteration 2, unscored anchors and verifiable
    prompts."""
    chance = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for t in range(1, num_iterations + 1):
        for i in range(num_prompts):
            rows.append({
                "iteration": t, "prompt_id": f"p{i}", "set": "validation", "against": None, "verifiable_outcome": None,
                "anchor_outcome": None if chance.random() < 0.01 else float(chance.choice([0, 0.25, 0.5, 0.75, 1])),
                "self_outcome": float(chance.choice([0, 0.5, 1])), "length_delta_tokens": int(chance.normal(20, 60)),
            })  # fmt: skip
        if t == 2:
            rows += [
                {**row, "prompt_id": f"r-{row['prompt_id']}", "set": "second_validation"} for row in rows[-num_prompts:]
            ]
        for i in range(num_prompts // 2):
            rows.append({
                "iteration": t, "prompt_id": f"v{i}", "set": None, "against": None, "anchor_outcome": None,
                "self_outcome": None, "length_delta_tokens": None,
                "verifiable_outcome": float(chance.choice([0, 0.5, 1])),
            })  # fmt: skip
    return rows


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_columns_become_outcomes_by_judge_set_and_checkpoint(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "iteration,prompt_id,anchor_outcome,self_outcome,verifiable_outcome,length_delta_tokens,set,against\n"
        "1,a,1,0.5,,12,,\n"
        "1,b,,1,,,validation,\n"  # unscored by the anchor
        "1,c,,,,-3,,\n"  # unscored too: the row has no other outcome
        "1,d,,,0,,,\n"  # a verifiable prompt, which the anchor did not compare
        "2.0,a,0.25,,,,,\n"
        "2,r,0.75,,,,second_validation,\n"
        "2,a,1,,,,,0\n",
    )
    first, second = read_table(path).evidence
    assert (first.iteration, first.previous, second.iteration, second.previous) == (1, 0, 2, 1)
    anchor = first.of("anchor", 0)
    assert anchor is not None and anchor.prompt_ids == ("a",) and anchor.num_unscored == 2
    assert anchor.values.tolist() == [1.0] and anchor.length_deltas_tokens is not None
    assert anchor.length_deltas_tokens.tolist() == [12.0]
    own, checks = first.of("self", 0), first.of("checks", 0, "verifiable")
    assert own is not None and dict(zip(own.prompt_ids, own.values, strict=True)) == {"a": 0.5, "b": 1.0}
    assert checks is not None and checks.values.tolist() == [0.0] and checks.prompt_ids == ("d",)
    found = {key: outcomes.values.tolist() for key, outcomes in second.outcomes.items()}
    assert found == {
        ("anchor", "validation", 1): [0.25],
        ("anchor", "second_validation", 1): [0.75],
        ("anchor", "validation", 0): [1.0],
    }
    # The second validation set is one and the same in all iterations, so that the budget is split in all of them.
    assert first.num_second_validation == second.num_second_validation == 1
    assert not first.anchor_examined  # a table does not show whether the anchor is valid


def test_rows_of_one_prompt_are_averaged_and_lengths_with_them(tmp_path: Path) -> None:
    path = table(tmp_path, f"{HEADING},length_delta_tokens\n1,doc,1,10\n1,doc,0.5,\n1,doc,,40\n1,other,0,4\n")
    outcomes = read_table(path).evidence[0].of("anchor", 0)
    assert outcomes is not None and outcomes.prompt_ids == ("doc", "other")
    assert outcomes.values.tolist() == [0.75, 0.0] and outcomes.num_unscored == 0


def test_order_of_rows_and_columns_and_the_kind_of_file_do_not_matter(tmp_path: Path) -> None:
    rows = simulated_rows(num_prompts=60, num_iterations=3, seed=1)
    written = read_table(write_csv(tmp_path / "a.csv", rows)).evidence
    random.Random(0).shuffle(rows)
    turned = [dict(reversed(row.items())) for row in rows]
    pq.write_table(pa.Table.from_pylist(turned), tmp_path / "b.parquet")
    for other in (write_csv(tmp_path / "c.csv", turned), tmp_path / "b.parquet"):
        read = read_table(other).evidence
        assert len(read) == len(written) == 3
        for one, two in zip(written, read, strict=True):
            assert (
                one.outcomes.keys() == two.outcomes.keys()
                and one.num_second_validation == two.num_second_validation == 60
            )
            for key, outcomes in one.outcomes.items():
                against = two.outcomes[key]
                assert against.num_unscored == outcomes.num_unscored
                assert dict(zip(against.prompt_ids, against.values, strict=True)) == dict(
                    zip(outcomes.prompt_ids, outcomes.values, strict=True)
                )


@pytest.mark.parametrize(
    "text", [f"\ufeff{HEADING}\r\n1,a,1\r\n", f"\n {HEADING.replace(',', ' , ')}\n\n1, a ,1\n,,\n"]
)
def test_artefacts_of_spreadsheets_are_ignored(tmp_path: Path, text: str) -> None:
    outcomes = read_table(table(tmp_path, text)).evidence[0].of("anchor", 0)
    assert outcomes is not None and outcomes.prompt_ids == ("a",)


def test_notes_name_what_is_ignored_and_prompts_that_change(tmp_path: Path) -> None:
    path = table(tmp_path, f",{HEADING},judge\n0,1,a,1,x\n1,1,b,0,x\n2,2,a,1,x\n3,2,b,1,x\n4,3,a,1,x\n")
    ignored, changed = read_table(path).notes
    assert "(no name), judge" in ignored and "anchor_outcome" not in ignored
    assert "iteration 3 and iteration 1 have different validation prompts" in changed
    assert read_table(table(tmp_path, f"{HEADING}\n1,a,1\n2,a,1\n")).notes == ()


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ("", ":1", "no column iteration; found are none"),
        (f"{HEADING}\n", "", "no rows"),
        ("iteration,prompt,anchor_outcome\n1,a,1\n", ":1", "rename 'prompt' if it is that"),
        ("iteration,prompt_id\n1,a\n", ":1", "no column anchor_outcome; found are iteration, prompt_id"),
        (f"{HEADING},prompt_id\n1,a,1,a\n", ":1", "the column prompt_id is duplicated"),
        (f"{HEADING.replace(',', ';')}\n1;a;0,5\n", ":1", "separated by semicolons; commas are needed"),
        (f"{HEADING.replace(',', chr(9))}\n1\ta\t1\n", ":1", "separated by tabs"),
        (f"{HEADING}\n1,a,0.5\n1,b,1.01\n", ":3", "anchor_outcome is 1.01; outcomes lie in [0, 1]"),
        (f"{HEADING}\n1,a,-0.01\n", ":2", "anchor_outcome is -0.01"),
        (f"{HEADING}\n1,a,1e400\n", ":2", "leave the cell blank where nothing was measured"),
        (f"{HEADING}\n1,a,0_5\n", ":2", "anchor_outcome is '0_5'"),
        (f"{HEADING}\n1,a,-inf\n", ":2", "anchor_outcome is '-inf'"),
        (f'{HEADING}\n1,a,"0,5"\n', ":2", "use a decimal point, not a comma"),
        (f"{HEADING}\n1,a,win\n", ":2", "anchor_outcome is 'win'; a number"),
        (f"{HEADING},self_outcome\n1,a,1,2\n", ":2", "self_outcome is 2"),
        (f"{HEADING},verifiable_outcome\n1,a,1,x\n", ":2", "verifiable_outcome is 'x'"),
        (f"{HEADING},length_delta_tokens\n1,a,1,long\n", ":2", "length_delta_tokens is 'long'"),
        (f"{HEADING}\n0,a,1\n", ":2", "iteration is '0'; iterations are integers, 1 to 1,000,000"),
        (f"{HEADING}\n1e308,a,1\n", ":2", "iteration is '1e308'; iterations are integers, 1 to 1,000,000"),
        (f"{HEADING}\n1.5,a,1\n", ":2", "iteration is '1.5'"),
        (f"{HEADING}\n,a,1\n", ":2", "iteration is blank"),
        (f"{HEADING}\nnan,a,1\n", ":2", "iteration is blank"),
        (f"{HEADING}\n1, ,1\n", ":2", "prompt_id is blank"),
        (f"{HEADING},set\n1,a,1,reserve\n", ":2", "which was renamed; it is called second_validation now"),
        (f"{HEADING},set\n1,a,1,second_valid\n", ":2", "did you mean 'second_validation'?"),
        (f"{HEADING},against\n2,a,1,2\n", ":2", "against is '2'; checkpoints before M_2 are 0 to 1"),
        (
            f"{HEADING},set\n1,a,1,validation\n1,a,1,second_validation\n",
            "",
            "the prompt 'a' is in the sets validation and second_validation",
        ),
        (f"{HEADING}\n1,a,1\n1,a\n", ":3", "2 cells, but the header has 3"),
        (f"{HEADING}\n1,a,b,1\n", ":2", "quote texts with commas"),
        (f'{HEADING}\n1,"two\nlines",x\n', ":3", "anchor_outcome is 'x'"),
        (f"{HEADING}\n1,a,1\n2,a,1\n4,a,1\n", "", "no rows of iteration 3, although there are rows of iteration 4"),
        (f"{HEADING}\n2,a,1\n", "", "no rows of iteration 1, although there are rows of iteration 2"),
        (f"{HEADING}\n1,a,1\n999999,a,1\n", "", "no rows of iteration 2, although"),
    ],
)
def test_an_invalid_table_is_refused_with_the_location(tmp_path: Path, text: str, where: str, said: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        read_table(path)
    message = str(caught.value)
    assert message.startswith(f"{path}{where}: ") and said in message
    assert message.count("; ") >= 2 and caught.value.exit_code == 2


def test_the_first_five_wrong_rows_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    path = table(tmp_path, f"{HEADING}\n" + "1,a,2\n" * 1203)
    with pytest.raises(RecipeError) as caught:
        read_table(path)
    lines = str(caught.value).splitlines()
    assert [line.partition(": ")[0] for line in lines[:5]] == [f"{path}:{n}" for n in range(2, 7)]
    assert lines[5:] == ["... and 1,198 more"]


def test_files_that_are_not_tables_are_refused(tmp_path: Path) -> None:
    (tmp_path / "utf16.csv").write_bytes(HEADING.encode("utf-16"))
    (tmp_path / "no.parquet").write_bytes(b"iteration")
    (tmp_path / "wide.csv").write_text(f"{HEADING}\n1,{'x' * 2**24},1\n")
    (tmp_path / "tall.csv").write_text(f'{HEADING}\n1,"' + ("x" * 99 + "\n") * 2**18 + '",1\n')
    pq.write_table(pa.table({"iteration": [1], "prompt_id": ["a"], "anchor_outcome": [1.0]}), tmp_path / "good.parquet")
    raw = (tmp_path / "good.parquet").read_bytes()
    (tmp_path / "is_parquet.csv").write_bytes(raw)
    (tmp_path / "truncated.parquet").write_bytes(raw[:-10])
    (tmp_path / "flipped.parquet").write_bytes(raw[:200] + bytes(b ^ 255 for b in raw[200:260]) + raw[260:])
    (tmp_path / "empty.PARQUET").touch()
    (tmp_path / "folder.parquet").mkdir()
    for name, said in {
        "none.csv": "no such file; CSV in UTF-8 is needed",
        "none.parquet": "no such file; a Parquet file is needed",
        "utf16.csv": "cannot be read",
        "no.parquet": "a Parquet file is needed",
        "wide.csv": "the line is longer than 16,777,216 characters",
        "tall.csv": "cannot be read .*field larger than field limit",
        "is_parquet.csv": "a Parquet file, by its first bytes; CSV in UTF-8 is needed; rename it to .parquet",
        "truncated.parquet": "a Parquet file is needed",
        "flipped.parquet": "a Parquet file is needed",
        "empty.PARQUET": "a Parquet file is needed",
        "folder.parquet": "it is a folder",
        ".": "it is a folder",
    }.items():
        with pytest.raises(RecipeError, match=said) as caught:
            read_table(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)


def test_values_of_parquet_are_checked_as_text_is(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.parquet"
    whole = {"iteration": [1, 1], "prompt_id": [7, 8], "anchor_outcome": [1, 0]}
    pq.write_table(pa.table(whole), path)
    outcomes = read_table(path).evidence[0].of("anchor", 0)
    assert outcomes is not None and outcomes.prompt_ids == ("7", "8")
    pq.write_table(pa.table({**whole, "anchor_outcome": [1.0, float("inf")]}), path)
    with pytest.raises(RecipeError, match=r"outcomes\.parquet: row 2: anchor_outcome is inf"):
        read_table(path)


MISSING = [
    "NA",
    "na",
    "N/A",
    "n/a",
    "#N/A",
    "nan",
    "NaN",
    "NAN",
    "null",
    "NULL",
    "None",
    "none",
    "<NA>",
    ".",
    "-",
    "n.a.",
    "(null)",
    "1.#QNAN",
    "",
    "  ",
    " NA ",
]


def outcomes_of(path: Path) -> tuple[list[float], int]:
    outcomes = read_table(path).evidence[0].of("anchor", 0)
    assert outcomes is not None
    return outcomes.values.tolist(), outcomes.num_unscored


@pytest.mark.parametrize("word", MISSING)
def test_a_missing_outcome_in_the_words_of_other_programs_is_unscored(tmp_path: Path, word: str) -> None:
    every = f"{HEADING},self_outcome,verifiable_outcome,length_delta_tokens,set,against"
    path = table(tmp_path, f"{every}\n1,a,1,{word},{word},{word},{word},{word}\n1,NA,{word},,,,,\n")
    assert outcomes_of(path) == ([1.0], 1)
    assert read_table(path).evidence[0].of("self", 0) is None


def test_a_missing_outcome_in_parquet_is_null_or_nan_or_a_word(tmp_path: Path) -> None:
    path = tmp_path / "OUTCOMES.PARQUET"
    columns = {"iteration": [1.0, 1.0], "prompt_id": ["a", "b"]}
    for missing in (pa.array([1.0, None]), pa.array([1.0, float("nan")]), pa.array(["1", "NA"])):
        pq.write_table(pa.table({**columns, "anchor_outcome": missing, "set": pa.nulls(2)}), path)
        assert outcomes_of(path) == ([1.0], 1)


def test_ignored_columns_may_hold_anything(tmp_path: Path) -> None:
    long = table(tmp_path, f'{HEADING},text,text\n1,a,1,"{"x" * 500_000}, ""quoted""\n2",\x00\n', "LONG.CSV")
    assert outcomes_of(long) == ([1.0], 0)
    path = tmp_path / "nested.parquet"
    known = {"iteration": [1], "prompt_id": ["a"], "anchor_outcome": [1.0]}
    pq.write_table(pa.table({**known, "text": ["x" * 500_000], "list": [[{"a": 1}]]}), path)
    assert outcomes_of(path) == ([1.0], 0)
    assert read_table(path).notes == ("columns that the monitor does not use are ignored: text, list",)


def test_names_of_columns_are_printable_and_short_in_messages(tmp_path: Path) -> None:
    odd = "\x1b[31m" + "y" * 5000
    path = table(tmp_path, ",".join([odd, *(f"c{i}" for i in range(3000))]) + "\n")
    with pytest.raises(RecipeError, match="no column iteration") as caught:
        read_table(path)
    assert len(str(caught.value)) < 1000 and "\x1b" not in str(caught.value)
    (note,) = read_table(table(tmp_path, f"{HEADING},{odd}\n1,a,1,\n")).notes
    assert len(note) < 200 and note.isprintable()


def test_values_of_odd_types_in_parquet_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.parquet"
    for column, value in (
        ("iteration", pa.array([[1]])), ("iteration", pa.array([2**63], pa.uint64())), ("iteration", pa.array([-1])),
        ("iteration", pa.array([0], pa.timestamp("s"))), ("anchor_outcome", pa.array([{"a": 1}])),
        ("anchor_outcome", pa.array([b"x"])), ("anchor_outcome", pa.array([1e300])), ("prompt_id", pa.nulls(1)),
        ("prompt_id", pa.array([float("nan")])), ("against", pa.array([2**60])),
    ):  # fmt: skip
        known = {"iteration": [1], "prompt_id": ["a"], "anchor_outcome": [1.0], column: value}
        pq.write_table(pa.table(known), path)
        with pytest.raises(RecipeError, match=f"{column}|iteration 1"):
            read_table(path)
