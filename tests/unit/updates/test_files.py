"""Pairs, saves and settings, without a model."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cases.training import check

from selfreward.errors import RecipeError, StoreError, TrainingError
from selfreward.recipe import LaunchSection, TrainingSection, TrlLoss
from selfreward.records import PreferencePair
from selfreward.store.tables import to_table, write_table
from selfreward.updates import saves
from selfreward.updates.pairs import check_fits, num_tokens, read_pairs


def pair(i: int, **changes: Any) -> PreferencePair:
    one = PreferencePair(
        id=f"p{i}", prompt_id=f"q{i}", kind="response", chosen_id="a", rejected_id="b", prompt_token_ids=(1, i),
        chosen_token_ids=(2, 3), rejected_token_ids=(4,), chosen_text="", rejected_text="", chosen_score=2.0,
        rejected_score=1.0, margin=1.0,
    )  # fmt: skip
    return replace(one, **changes)


def written(folder: Path, *pairs: PreferencePair) -> Path:
    write_table(to_table(PreferencePair, pairs), folder / "pairs.parquet")
    return folder / "pairs.parquet"


def read(path: Path, *, max_pairs: int | None = None, seed: int = 0) -> pa.Table:
    return read_pairs(path, max_pairs=max_pairs, seed=seed)[0]


def test_reading_preserves_ids_and_order(tmp_path: Path) -> None:
    table, available = read_pairs(written(tmp_path, *(pair(i) for i in range(5))), max_pairs=5, seed=0)
    assert available == 5
    assert table.to_pylist() == [
        {
            "id": f"p{i}", "chosen_id": "a", "rejected_id": "b", "prompt_ids": [1, i], "chosen_ids": [2, 3],
            "rejected_ids": [4], "weight": 1.0, "label": 1.0,
        }
        for i in range(5)
    ]  # fmt: skip
    assert num_tokens(table) == 5 * (2 * 2 + 2 + 1)


def test_subset_is_seeded_and_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, *(pair(i) for i in range(40)))
    subsets = [[int(name[1:]) for name in read(path, max_pairs=7, seed=s)["id"].to_pylist()] for s in (0, 0, 1)]
    assert subsets[0] == subsets[1] != subsets[2]
    assert all(len(set(s)) == 7 and s == sorted(s) for s in subsets)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"weight": -0.5}, TrainingError, "pair p1: weight is -0.5; it must be a finite number from 0 to inf"),
        ({"weight": float("inf")}, TrainingError, "pair p1: weight is inf"),
        ({"label": float("nan")}, TrainingError, "pair p1: label is nan; it must be a finite number from 0 to 1"),
        ({"label": 1.5}, TrainingError, "pair p1: label is 1.5"),
        ({"chosen_token_ids": ()}, TrainingError, "pair p1: chosen_token_ids is empty"),
        ({"rejected_token_ids": ()}, TrainingError, "pair p1: rejected_token_ids is empty"),
        ({"prompt_token_ids": ()}, TrainingError, "pair p1: prompt_token_ids is empty"),
    ],
)
def test_pairs_that_cannot_be_trained_on(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read(written(tmp_path, pair(0), pair(1, **changes), pair(2)))


def test_files_that_are_not_pairs(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no pairs"):
        read(written(tmp_path))
    with pytest.raises(StoreError, match=r"missing\.parquet"):
        read(tmp_path / "missing.parquet")
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(
        StoreError, match="no column chosen_id, rejected_id, prompt_token_ids, chosen_token_ids, rejected_token_ids"
    ):
        read(tmp_path / "other.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(StoreError, match=r"torn\.parquet"):
        read(tmp_path / "torn.parquet")


def test_pairs_longer_than_the_context_are_refused_and_not_truncated(tmp_path: Path) -> None:
    table = read(written(tmp_path, pair(0), pair(1, rejected_token_ids=(5, 6, 7)), pair(2)))
    check_fits(table, vocabulary=8, context_tokens=5)
    with pytest.raises(TrainingError, match="pair p1: 5 tokens of prompt and rejected_ids; the model's context is 4"):
        check_fits(table, vocabulary=8, context_tokens=4)
    with pytest.raises(TrainingError, match="pair p1: token id 7 in rejected_ids; ids of this model are 0 to 6"):
        check_fits(table, vocabulary=7, context_tokens=None)


def save(folder: Path, step: int, *, complete: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "optimizer.pt").write_bytes(b"x" * 100)
    if complete:
        saves.mark_complete(path, step=step, seconds=1.5)
    return path


def test_newest_complete_save_is_used_and_all_others_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "saves"
    assert saves.newest(folder) is None
    save(folder, 2)
    ten = save(folder, 10)  # by number, not by name
    save(folder, 12, complete=False)
    truncated = save(folder, 14)
    (truncated / "optimizer.pt").write_bytes(b"x" * 99)
    garbled = save(folder, 16)
    (garbled / "complete.json").write_text("{")
    found = saves.newest(folder)
    assert found is not None and found[0] == ten and found[1]["seconds"] == 1.5
    assert [p.name for p in folder.iterdir()] == ["checkpoint-10"]


def test_failed_writes_are_store_errors_and_leave_no_folder(tmp_path: Path) -> None:
    folder = save(tmp_path, 1, complete=False)
    with pytest.raises(StoreError, match="same command again"), saves.writing(folder):
        Path("/dev/full").write_bytes(b"x")
    assert not folder.exists()
    folder = save(tmp_path, 2, complete=False)
    with pytest.raises(RuntimeError, match="a bug"), saves.writing(folder):
        raise RuntimeError("a bug")


UNDIVIDED_STEP = {"packing": "padded", "micro_batch_tokens": None, "batch_size": 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr_scheduler": "constant", "warmup_ratio": 0.1}, r"training\.warmup_ratio: 0\.1 has no effect"),
        ({"lr_scheduler": "constant", "warmup_steps": 5}, r"training\.warmup_steps: 5 has no effect"),
        (
            {"warmup_steps": 5, "warmup_ratio": 0.1},
            r"training\.warmup_steps: 5, and warmup_ratio: 0\.1, both set the warm-up; .*remove the other",
        ),
        ({"warmup_steps": 0, "warmup_ratio": 0.1}, r"training\.warmup_steps: 0, and warmup_ratio: 0\.1"),
        ({"lr_scheduler": "constant", "min_lr_ratio": 0.1}, r"training\.min_lr_ratio: 0\.1 has no effect.*: constant,"),
        ({"lr_scheduler": "constant_with_warmup"}, "constant_with_warmup without a warm-up is constant"),
        (
            {"lr_scheduler": "constant_with_warmup", "warmup_steps": 1, "min_lr_ratio": 0.1},
            r"training\.min_lr_ratio: 0\.1 has no effect",
        ),
        ({"losses": [TrlLoss(kind="aot")]}, "aot is not a mean over pairs.*use training.packing: padded"),
        ({"losses": [TrlLoss(kind="aot")], "packing": "padded"}, "aot is not a mean over pairs"),
        ({"losses": [TrlLoss(kind="aot")], **UNDIVIDED_STEP, "micro_batch_size": 2}, "aot is not a mean over pairs"),
        ({"losses": [TrlLoss(kind="sft")]}, "sft is not a mean over pairs.*or use kind: nll"),
    ],
)
def test_settings_without_effect_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check(training=TrainingSection(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"lr_scheduler": "constant", "warmup_steps": 0},
        {"lr_scheduler": "constant_with_warmup", "warmup_steps": 5},
        {"lr_scheduler": "cosine", "warmup_steps": 5, "min_lr_ratio": 0.1},
        {"lr_scheduler": "linear", "warmup_ratio": 0.1, "min_lr_ratio": 0.1},
        {"optimizer": "adafactor"},
        {"optimizer": "adafactor", "weights_dtype": "bfloat16", "stochastic_rounding": False},
        {"optimizer": "adamw_8bit", "weights_dtype": "bfloat16"},
    ],
)
def test_schedules_and_optimizers_that_are_allowed(changes: dict[str, Any]) -> None:
    check(training=TrainingSection(**changes))


def test_an_optimizer_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"adamw_8bit.*bitsandbytes is not installed.*selfreward-lm\[optimizers\]"):
        check(training=TrainingSection(optimizer="adamw_8bit"))
    check(training=TrainingSection(optimizer="adafactor"))


def test_nothing_is_offloaded_from_a_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    section = TrainingSection(optimizer="adamw_offload")
    with pytest.raises(RecipeError, match=r"adamw_offload on a machine without a GPU.*in host memory already"):
        check(training=section)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    check(training=section)


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw_8bit", "adamw_offload"])
def test_only_the_state_of_adamw_can_be_sharded(optimizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    launch = LaunchSection(processes_per_node=2, sharding="fsdp")
    with pytest.raises(RecipeError, match=rf"training\.optimizer: {optimizer} with launch\.sharding: fsdp"):
        check(training=TrainingSection(optimizer=optimizer), launch=launch)
    check(training=TrainingSection(), launch=launch)


def test_losses_that_couple_pairs_are_allowed_when_a_step_is_one_micro_batch() -> None:
    for kind in ("aot", "aot_unpaired", "sft"):
        check(training=TrainingSection(losses=[TrlLoss(kind=kind)], **UNDIVIDED_STEP))


def test_building_imports_nothing_heavy() -> None:
    code = (
        "import sys, json; from selfreward import compose, recipe_file; from selfreward.updates import dpo;"
        "from pathlib import Path;"
        "dpo(recipe_file.load(Path('recipes/tiny.yaml')), (), pairs=lambda lengths: []).open();"
        "print(json.dumps([m for m in ('torch', 'transformers', 'trl', 'datasets', 'vllm') if m in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(found) == []
