"""Prompts through the `datasets` library, from local folders: no network."""

import json
from pathlib import Path
from typing import Any

import pytest
from cases.rows import read

from selfreward.errors import RecipeError
from selfreward.prompts import build
from selfreward.prompts.collecting import collect
from selfreward.prompts.dataset import open_dataset
from selfreward.prompts.rows import RowReader
from selfreward.recipe import Columns, DatasetPrompts, EvaluationSection, IterationsSection
from selfreward.records import Prompt


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def _folder(folder: Path, rows: list[dict[str, Any]], *, split: str = "train") -> str:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(data)


def read_dataset(name: str, *, column: str | None = None, **names: Any) -> tuple[list[Prompt], dict[str, int]]:
    columns = Columns(prompt=column)
    found, summary = collect(
        open_dataset(name, **names), RowReader(f"dataset:{name}", columns).read, name=f"dataset {name!r}",
        max_dropped_rate=0.5, section="prompts", columns=columns,
    )  # fmt: skip
    return [each.prompt for each in found], {**summary.dropped, "repeated": summary.num_repeated}


def test_a_local_folder_is_read_and_unusable_rows_are_counted(tmp_path: Path) -> None:
    texts = ["First?", "", "Second\x00 with a control character?", "first", "Third, with an emoji \U0001f40d."]
    name = _folder(tmp_path, [{"question": text, "score": 1} for text in texts])
    prompts, skipped = read_dataset(name, column="question")
    assert [(prompt.id, prompt.messages[0].content) for prompt in prompts] == [
        ("row-1", texts[0]),
        ("row-3", texts[2]),
        ("row-5", texts[4]),
    ]
    assert skipped == {"empty_prompt": 1, "repeated": 1}


def test_conversations_and_checks_are_read(tmp_path: Path) -> None:
    user, assistant = {"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}
    rows: list[dict[str, Any]] = [
        {"prompt": [user], "checks": [{"kind": "punctuation:no_comma", "keywords": None}]},
        {"prompt": [assistant], "checks": None},
        {"prompt": [user, assistant, user], "checks": [{"kind": "keywords:existence", "keywords": ["tree"]}]},
    ]
    prompts, skipped = read_dataset(_folder(tmp_path, rows, split="test"), split="test")
    assert [(prompt.id, len(prompt.messages), prompt.checks) for prompt in prompts] == [
        ("row-1", 1, ({"kind": "punctuation:no_comma"},)),
        ("row-3", 3, ({"kind": "keywords:existence", "keywords": ["tree"]},)),
    ]
    assert skipped == {"empty_prompt": 1, "repeated": 0}


def test_wrong_names_are_explained(tmp_path: Path) -> None:
    name = _folder(tmp_path, [{"prompt": "x", "number": 1}])
    with pytest.raises(RecipeError, match=r"(?s)no column 'text'.*'prompt', 'number'"):
        read_dataset(name, column="text")
    with pytest.raises(RecipeError, match="row 1: 'number' is int"):
        read_dataset(name, column="number")
    with pytest.raises(RecipeError, match="split 'validation'"):
        read_dataset(name, split="validation")
    with pytest.raises(RecipeError, match="config 'none'"):
        read_dataset(name, config="none")
    with pytest.raises(RecipeError, match="cannot be loaded"):
        read_dataset(str(tmp_path / "nothing-here"))


def test_a_dataset_without_usable_prompts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"2 of 2 rows cannot be used \(2 empty prompt\)"):
        read_dataset(_folder(tmp_path, [{"prompt": " "}, {"prompt": ""}]))


def test_a_folder_with_code_is_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(RecipeError):
        read_dataset(str(folder))
    assert not (tmp_path / "ran").exists()


def test_a_source_built_on_a_dataset_reports_what_was_skipped(tmp_path: Path) -> None:
    name = _folder(tmp_path, [{"prompt": f"Question {i}?"} for i in range(12)] + [{"prompt": ""}])
    source = build(
        DatasetPrompts(kind="dataset", name=name, split="train[1:]"),
        evaluation=EvaluationSection(num_prompts=3, verifiable=None),
        iterations=IterationsSection(max=2, num_prompts_per_iteration=4),
        seed=0,
    )
    facts = source.facts()
    assert facts["training"]["num_read"] == 11
    assert facts["training"]["num_skipped"] == {"empty_prompt": 1}
    sets = [source.training_prompts(1), source.training_prompts(2), source.validation_prompts()]
    assert len({prompt.id for prompts in sets for prompt in prompts}) == 11


@pytest.mark.parametrize("content", [b"", b"[]", bytes(range(256))])
def test_a_broken_file_is_an_error_of_the_dataset(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_bytes(content)
    with pytest.raises(RecipeError, match=r"dataset '.*data': cannot be loaded"):
        read_dataset(str(tmp_path / "data"))


def test_a_folder_of_several_formats_is_refused_because_one_would_be_ignored(tmp_path: Path) -> None:
    name = _folder(tmp_path, [{"prompt": "x"}])
    (Path(name) / "more.csv").write_text("prompt\ny\n")
    with pytest.raises(RecipeError, match=r"files of CSV and JSON.*use `kind: file` with `path: "):
        read_dataset(name)


def test_a_folder_of_save_to_disk_is_read(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"prompt": ["A?", "B?"], "id": ["x", "y"]})
    rows.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(str(tmp_path / "splits"))
    datasets.DatasetDict({"test": rows}).save_to_disk(str(tmp_path / "other"))
    for name in ("one", "splits"):
        assert [prompt.id for prompt in read(str(tmp_path / name))[0]] == ["x", "y"]
    with pytest.raises(RecipeError, match="no split 'train'; there are test"):
        read(str(tmp_path / "other"))
    assert [prompt.id for prompt in read_dataset(str(tmp_path / "other"), split="test")[0]] == ["x", "y"]
