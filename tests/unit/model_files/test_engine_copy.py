"""The copy of a checkpoint in the engine's dtype: what it contains, where it pays, and when it is not used."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from selfreward.errors import EngineError
from selfreward.model_files import checkpoint_of, engine_copy, materialise
from selfreward.model_files.engine_copy import RECORD, weights_folder, write_engine_copy
from selfreward.recipe import ModelSection
from selfreward.store.files import sha256_of
from selfreward.store.model_folder import files_sha256
from selfreward.updates.checkpoint import rounded_update_metrics, write_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of two files, with an index."""
    source = materialise(ModelSection(model="random:tiny"))
    shutil.copytree(source, tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    model.save_pretrained(tmp_path / "m", max_shard_size="200KB")
    assert len(list((tmp_path / "m").glob("*.safetensors"))) > 1
    return tmp_path / "m"


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_large_matrices_are_rounded_and_all_else_stays(folder: Path, dtype: str) -> None:
    before = checkpoint_of(folder, 1)
    assert write_engine_copy(folder, dtype=dtype, min_elements=5000)
    copy = weights_folder(checkpoint_of(folder, 1), dtype=dtype)
    assert copy == folder / f"engine-{dtype}"
    found, expected = tensors_of(copy), tensors_of(folder)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        is_large = tensor.dim() > 1 and tensor.numel() >= 5000
        assert torch.equal(found[name], tensor.to(getattr(torch, dtype)) if is_large else tensor), name
    assert {tensor.dtype for tensor in found.values()} == {torch.float32, getattr(torch, dtype)}
    # Any reader of safetensors reads the files, and their hashes are those that were computed while writing.
    AutoModelForCausalLM.from_pretrained(copy, dtype=torch.bfloat16)
    files = json.loads((folder / RECORD).read_text())["files"]
    assert files == {path.name: sha256_of(path) for path in copy.iterdir()}
    assert checkpoint_of(folder, 1).id == before.id, "the checkpoint is the same one"
    assert RECORD in files_sha256(folder) and all("engine-" not in name for name in files_sha256(folder))


def test_it_is_written_only_where_it_saves_a_quarter(folder: Path) -> None:
    assert not write_engine_copy(folder, dtype="float32", min_elements=1)
    assert not write_engine_copy(folder, dtype="bfloat16")  # no matrix of this model is large
    for file in folder.glob("*.safetensors"):
        save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    for dtype in ("bfloat16", "float16", "float32"):
        assert not write_engine_copy(folder, dtype=dtype, min_elements=1)
    assert not (folder / RECORD).exists() and not list(folder.glob("engine-*"))


def test_other_dtypes_other_weights_and_folders_without_a_copy_are_read_themselves(folder: Path) -> None:
    assert weights_folder(checkpoint_of(folder, 1), dtype="bfloat16") == folder
    write_engine_copy(folder, dtype="bfloat16", min_elements=1)
    assert weights_folder(checkpoint_of(folder, 1), dtype="float16") == folder
    file = next(folder.glob("*.safetensors"))
    save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    assert weights_folder(checkpoint_of(folder, 1), dtype="bfloat16") == folder, "a copy of other weights"
    shutil.rmtree(folder / "engine-bfloat16")  # as an export leaves it
    assert weights_folder(checkpoint_of(folder, 1), dtype="bfloat16") == folder


@pytest.mark.parametrize("change", ["bit", "missing", "more", "config"])
def test_a_copy_that_was_changed_is_named(folder: Path, change: str) -> None:
    write_engine_copy(folder, dtype="bfloat16", min_elements=1)
    checkpoint = checkpoint_of(folder, 1)
    weights_folder(checkpoint, dtype="bfloat16")
    copy = folder / "engine-bfloat16"
    file = sorted(copy.glob("*.safetensors"))[0]
    if change == "bit":
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    elif change == "missing":
        file.unlink()
    elif change == "more":
        shutil.copyfile(file, copy / "model-more.safetensors")
    else:
        (copy / "config.json").write_text("{}")
    with pytest.raises(EngineError, match=r"was changed after it was written.*remove the folder .*engine-bfloat16"):
        weights_folder(checkpoint, dtype="bfloat16")
    shutil.rmtree(copy)
    assert weights_folder(checkpoint, dtype="bfloat16") == folder


def test_a_training_writes_it_and_the_next_one_does_not_inherit_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_copy, "MIN_ELEMENTS", 1)
    metrics = rounded_update_metrics(folder, folder, dtype="bfloat16", trust_remote_code=False)
    assert metrics["changed_weight_share"] == 0
    assert weights_folder(checkpoint_of(folder, 1), dtype="bfloat16") == folder / "engine-bfloat16"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    write_model(model, tmp_path / "next", state=None, policy=folder, dtype="float32")
    assert not (tmp_path / "next" / RECORD).exists() and not (tmp_path / "next" / "engine-bfloat16").exists()
