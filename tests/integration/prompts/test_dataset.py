"""Prompts through the `datasets` library, from local folders: no network."""

import json
from pathlib import Path
from typing import Any

import pytest

from selfreward.errors import RecipeError
from selfreward.prompts import build
from selfreward.prompts.dataset import read_dataset
from selfreward.recipe import DatasetPrompts, EvaluationSection, IterationsSection


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def _folder(folder: Path, rows: list[dict[str, Any]], *, split: str = "train") -> str:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(data)


def test_a_local_folder_is_read_and_unusable_rows_are_counted(tmp_path: Path) -> None:
    texts = ["First?", "", "Second\x00 with a control character?", "first", "Third, with an emoji \U0001f40d."]
    name = _folder(tmp_path, [{"question": text, "score": 1} for text in texts])
    prompts, skipped = read_dataset(name, column="question")
    assert [(prompt.id, prompt.messages[0].content) for prompt in prompts] == [
        ("row-1", texts[0]),
        ("row-3", texts[2]),
        ("row-5", texts[4]),
    ]
    assert skipped == {"empty_prompt": 1, "same_prompt": 1}


def test_conversations_and_checks_are_read(tmp_path: Path) -> None:
    user, assistant = {"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}
    rows: list[dict[str, Any]] = [
        {"prompt": [user], "checks": [{"kind": "punctuation:no_comma", "keywords": None}]},
        {"prompt": [user, assistant], "checks": None},
        {"prompt": [user, assistant, user], "checks": [{"kind": "keywords:existence", "keywords": ["tree"]}]},
    ]
    prompts, skipped = read_dataset(_folder(tmp_path, rows, split="test"), split="test")
    assert [(prompt.id, len(prompt.messages), prompt.checks) for prompt in prompts] == [
        ("row-1", 1, ({"kind": "punctuation:no_comma"},)),
        ("row-3", 3, ({"kind": "keywords:existence", "keywords": ["tree"]},)),
    ]
    assert skipped == {"last_turn_not_user": 1}


def test_wrong_names_are_explained(tmp_path: Path) -> None:
    name = _folder(tmp_path, [{"prompt": "x", "number": 1}])
    with pytest.raises(RecipeError, match=r"no column 'text'.*prompt, number"):
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
    with pytest.raises(RecipeError, match=r"no usable prompt in the split 'train' \(empty_prompt: 2\)"):
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
