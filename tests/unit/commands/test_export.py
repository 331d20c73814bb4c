"""Exported pairs: the format that other trainers read, unchanged texts, and refusals."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from selfreward.commands.export import export_pairs
from selfreward.errors import RecipeError, StoreError
from selfreward.records import Message, PreferencePair, Prompt
from selfreward.store import Store
from selfreward.tables import PAIRS, PROMPTS

HOSTILE = [
    "plain",
    "",
    'quotes " \\ and \r\n\ttabs',
    "control \x00 \x01 \x07 \x1b[31m \x7f",
    "line ends \u0085 \u2028 \u2029 of other alphabets",
    "Grüße, 你好, שלום, 😀, e\u0301, \ufeff, \U0010ffff",
    "<script>alert(1)</script> {{ template }} <|im_end|>",
    '{"role": "assistant", "content": "not a row"}',
]
SYSTEM = Message("system", "Antworte kurz. \x00")


def pair(prompt: Prompt, chosen: str, rejected: str, score: float = 4.5) -> PreferencePair:
    return PreferencePair(
        id=f"{prompt.id}#pair",
        prompt_id=prompt.id,
        kind="response",
        chosen_id=f"{prompt.id}/0",
        rejected_id=f"{prompt.id}/1",
        prompt_token_ids=(1, 2),
        chosen_token_ids=(3, 4),
        rejected_token_ids=(5,),
        chosen_text=chosen,
        rejected_text=rejected,
        chosen_score=score,
        rejected_score=score - 1.25,
        margin=1.25,
    )


def prompt(name: str, text: str) -> Prompt:
    turns = (SYSTEM, Message("user", "first"), Message("assistant", "reply"), Message("user", text))
    return Prompt(id=name, messages=turns)


def make_run(folder: Path, *iterations: Sequence[tuple[str, str, str]], unpaired: str = "no pair of this") -> Path:
    """Make a run folder whose iteration t has the pairs (prompt, chosen, rejected) of `iterations[t - 1]`."""
    with Store(folder, name="by-hand") as store:
        for number, texts in enumerate(iterations, start=1):
            prompts = [prompt(f"p{number}-{i}", text) for i, (text, _, _) in enumerate(texts)]
            pairs = [pair(p, chosen, rejected) for p, (_, chosen, rejected) in zip(prompts, texts, strict=True)]
            prompts.append(prompt(f"p{number}-dropped", unpaired))
            num_shards = -(-len(prompts) // 2)
            store.stage(number, PROMPTS, num_shards, lambda k, all_=prompts: all_[2 * k : 2 * k + 2])
            store.stage(number, PAIRS, num_shards, lambda k, all_=pairs: all_[2 * k : 2 * k + 2])
    return folder


def rows_of(file: Path) -> list[dict[str, Any]]:
    if file.suffix == ".parquet":
        return pq.read_table(file).to_pylist()
    # As in a JSONL reader, only \n ends a line.
    return [json.loads(line) for line in file.read_bytes().decode().split("\n")[:-1]]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    first = [(text, f"chosen {text}", f"rejected {text}") for text in HOSTILE]
    return make_run(tmp_path / "run", first, [("second", "yes", "no")])


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_every_row_is_a_conversation_and_no_character_is_lost(run: Path, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"pairs{suffix}"
    assert export_pairs(run, file) == len(HOSTILE) + 1
    rows = rows_of(file)
    assert len(rows) == len(HOSTILE) + 1
    for text, row in zip(HOSTILE, rows, strict=False):
        assert row == {
            "prompt": [
                {"role": "system", "content": SYSTEM.content},
                {"role": "user", "content": "first"},
                {"role": "assistant", "content": "reply"},
                {"role": "user", "content": text},
            ],
            "chosen": [{"role": "assistant", "content": f"chosen {text}"}],
            "rejected": [{"role": "assistant", "content": f"rejected {text}"}],
            "chosen_message": {"role": "assistant", "content": f"chosen {text}"},
            "rejected_message": {"role": "assistant", "content": f"rejected {text}"},
            "score_chosen": 4.5,
            "score_rejected": 3.25,
            "iteration": 1,
        }
    assert (rows[-1]["chosen"][0]["content"], rows[-1]["iteration"]) == ("yes", 2)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_the_datasets_library_reads_the_format_that_trl_documents(run: Path, tmp_path: Path, suffix: str) -> None:
    datasets = pytest.importorskip("datasets")
    file = tmp_path / f"pairs{suffix}"
    export_pairs(run, file)
    builder = {".jsonl": "json", ".parquet": "parquet"}[suffix]
    loaded = datasets.load_dataset(builder, data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == len(HOSTILE) + 1
    for column in ("prompt", "chosen", "rejected"):
        # A conversation is a list of messages, each with exactly a role and a content.
        assert all(set(message) == {"role", "content"} for message in loaded[0][column])
    assert [row["prompt"][-1]["content"] for row in loaded][:-1] == HOSTILE
    assert [row["rejected"][0]["content"] for row in loaded][:-1] == [f"rejected {text}" for text in HOSTILE]


def test_one_iteration_alone(run: Path, tmp_path: Path) -> None:
    assert export_pairs(run, tmp_path / "two.jsonl", iteration=2) == 1
    assert [row["prompt"][-1]["content"] for row in rows_of(tmp_path / "two.jsonl")] == ["second"]
    assert export_pairs(run, tmp_path / "one.jsonl", iteration=1) == len(HOSTILE)


def test_an_older_file_is_replaced_atomically(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("an older and longer file\n" * 1000)
    export_pairs(run, file, iteration=2)
    assert len(rows_of(file)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.jsonl", "run"]


def test_a_running_run_can_be_exported(run: Path, tmp_path: Path) -> None:
    with Store(run):
        assert export_pairs(run, tmp_path / "pairs.jsonl") == len(HOSTILE) + 1


@pytest.mark.parametrize("name", ["pairs.csv", "pairs", "pairs.json"])
def test_another_suffix_is_refused(run: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match=r"allowed are \.jsonl and \.parquet"):
        export_pairs(run, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_an_iteration_without_pairs_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"iteration 3 has no pairs; iterations with pairs: \[1, 2\]"):
        export_pairs(run, tmp_path / "pairs.jsonl", iteration=3)
    empty = tmp_path / "empty"
    with Store(empty) as store:
        store.record_event("started")
    with pytest.raises(RecipeError, match="this run has no pairs; iterations with pairs: none"):
        export_pairs(empty, tmp_path / "pairs.jsonl")
    assert not (tmp_path / "pairs.jsonl").exists()


def test_a_folder_that_is_not_a_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no manifest\.json"):
        export_pairs(tmp_path, tmp_path / "pairs.jsonl")
    with pytest.raises(StoreError, match=r"no manifest\.json"):
        export_pairs(tmp_path / "nowhere", tmp_path / "pairs.jsonl")
    assert not (tmp_path / "nowhere").exists()


def test_changed_pairs_are_not_exported(run: Path, tmp_path: Path) -> None:
    stored = run / "iteration-01" / "pairs.parquet"
    stored.write_bytes(stored.read_bytes()[:-1] + b"X")
    with pytest.raises(StoreError, match="changed after it was written"):
        export_pairs(run, tmp_path / "pairs.jsonl")
    assert not (tmp_path / "pairs.jsonl").exists()


def test_a_path_that_is_not_writable_is_reported_with_advice(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/pairs\.jsonl: .*choose a path whose parents are folders"):
        export_pairs(run, tmp_path / "file" / "pairs.jsonl")
    folder = tmp_path / "folder.jsonl"
    folder.mkdir()
    with pytest.raises(StoreError, match=r"folder\.jsonl: .*give a file, not a folder"):
        export_pairs(run, folder)
    assert list(folder.iterdir()) == [] and not list(tmp_path.glob("*.partial"))


def test_pairs_of_a_run_of_the_earlier_version_are_exported(run: Path, tmp_path: Path) -> None:
    num_pairs = export_pairs(run, tmp_path / "now.jsonl")
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "schema": 1}))
    assert export_pairs(run, tmp_path / "earlier.jsonl") == num_pairs
    assert (tmp_path / "earlier.jsonl").read_bytes() == (tmp_path / "now.jsonl").read_bytes()
