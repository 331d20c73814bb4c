"""The files of a model folder that influence results: their hashes, and changes within a process."""

from pathlib import Path

import pytest

from selfreward.errors import RecipeError, StoreError
from selfreward.records import Checkpoint
from selfreward.store.model_folder import changed_files, files_sha256, leaves, require_unchanged, stamp_of

FILES = {
    "config.json": '{"hidden_size": 64, "transformers_version": "5.17.0"}',
    "tokenizer.json": "{}",
    "chat_template.jinja": "{{ messages }}",
    "custom.py": "x = 1",
    "model.safetensors": "weights",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")
    return tmp_path


def test_every_file_that_is_read_has_a_hash_and_the_weights_have_their_own(folder: Path) -> None:
    expected = {*FILES, "additional_chat_templates/tool_use.jinja"} - {"model.safetensors"}
    assert set(files_sha256(folder)) == expected
    for name in (".gitattributes", "README.md", "LICENSE", "pytorch_model.bin", "model.gguf"):
        (folder / name).write_text("x")
    assert set(files_sha256(folder)) == expected


@pytest.mark.parametrize("name", sorted({*FILES, "additional_chat_templates/tool_use.jinja"} - {"model.safetensors"}))
def test_a_changed_removed_or_added_file_is_named(folder: Path, name: str) -> None:
    before = files_sha256(folder)
    (folder / name).write_text("[]")
    assert changed_files(before, files_sha256(folder)) == [name]
    (folder / name).unlink()
    assert changed_files(before, files_sha256(folder)) == [name]
    assert changed_files(files_sha256(folder), before) == [name]


def test_the_version_that_wrote_a_configuration_does_not_count(folder: Path) -> None:
    before = files_sha256(folder)
    (folder / "config.json").write_text('{"transformers_version": "6.0.0",\n "hidden_size": 64}')
    assert files_sha256(folder) == before
    (folder / "config.json").write_text('{"hidden_size": 32}')
    assert files_sha256(folder) != before


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    import os

    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")
    assert "tokenizer.json" not in files_sha256(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "chat_template.jinja"])
@pytest.mark.parametrize(("iteration", "kind"), [(0, RecipeError), (2, StoreError)])
def test_a_change_within_the_run_is_noticed(folder: Path, name: str, iteration: int, kind: type[Exception]) -> None:
    checkpoint = Checkpoint("id", folder, iteration, stamp_of(folder))
    require_unchanged(checkpoint)
    (folder / "README.md").write_text("x")
    (folder / "__pycache__").mkdir()
    require_unchanged(checkpoint)
    (folder / name).write_text(FILES.get(name, "") + "changed")
    with pytest.raises(kind, match="were changed during the run"):
        require_unchanged(checkpoint)
    require_unchanged(Checkpoint("id", folder, iteration))  # its state is not known


def test_a_snapshot_may_link_to_the_blobs_of_its_own_cache_only(tmp_path: Path) -> None:
    repo = tmp_path / "models--a--b"
    snapshot = repo / "snapshots" / "0"
    for folder in (snapshot, repo / "blobs"):
        folder.mkdir(parents=True)
    assert not leaves(repo / "blobs" / "x", snapshot)
    assert leaves(tmp_path / "models--c--d" / "blobs" / "x", snapshot)
    assert leaves(repo / "blobs" / "x", repo / "elsewhere")
