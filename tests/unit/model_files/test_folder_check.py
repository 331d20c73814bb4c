"""Every file of a model folder, missing, damaged or replaced: an error that names the model, or a usable model."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from selfreward.errors import RecipeError
from selfreward.model_files import materialise
from selfreward.model_files.tokenizer import ChatTokenizer
from selfreward.recipe import ModelSection
from selfreward.records import Message

FILES = (
    "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
    "tokenizer_config.json",
)  # fmt: skip
USABLE = {  # what may change without making the model unusable
    ("generation_config.json", "delete"), ("generation_config.json", "object"), ("tokenizer_config.json", "delete"),
    ("tokenizer_config.json", "object"), ("model.safetensors", "flip"), ("generation_config.json", "flip"),
    ("model.safetensors", "link out"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    shutil.copytree(materialise(ModelSection(model="random:tiny")), made)
    return made


def use(folder: Path) -> None:
    """Use the model as the check of a recipe does."""
    tokenizer = ChatTokenizer(materialise(ModelSection(model=str(folder))))
    assert tokenizer.context_tokens(2048) == 2048
    assert tokenizer.end_token_ids
    assert tokenizer.encode([Message("user", "Name a sea.")])


def replace_by(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x41
    path.write_bytes(content)


def link_out(path: Path) -> None:
    secret = path.parent.parent / "secret"
    path.rename(secret)
    path.symlink_to(secret)


def instead(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


CHANGES: dict[str, Callable[[Path], object]] = {
    "delete": Path.unlink,
    "empty": replace_by(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flip": flip,
    "list": replace_by(b"[]"),
    "object": replace_by(b"{}"),
    "text": replace_by(b'"x"'),
    "number": replace_by(b"1"),
    "null": replace_by(b"null"),
    "deep": replace_by(b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "binary": replace_by(bytes(range(256)) * 20),
    "folder": instead(Path.mkdir),
    "pipe": instead(os.mkfifo),
    "loop": instead(lambda path: path.symlink_to(path.name)),
    "broken link": instead(lambda path: path.symlink_to("nothing")),
    "link out": link_out,
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_file_is_an_error_that_names_the_folder(folder: Path, name: str, change: str) -> None:
    CHANGES[change](folder / name)
    if (name, change) in USABLE:
        use(folder)
        return
    with pytest.raises(RecipeError) as caught:
        use(folder)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value)) < 1200


def test_an_enormous_file_is_refused_without_being_read(folder: Path) -> None:
    for name, size in (("chat_template.jinja", 10**8), ("config.json", 10**10), ("tokenizer.json", 10**11)):
        before = (folder / name).read_bytes()
        os.truncate(folder / name, size)  # sparse: it takes no space
        with pytest.raises(RecipeError, match=rf"{name}: it has {size:,} bytes"):
            use(folder)
        (folder / name).write_bytes(before)


def test_a_socket_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("merges.txt")
        with pytest.raises(RecipeError, match="a pipe, a socket or a device"):
            use(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"num_hidden_layers": 2', '"num_hidden_layers": 3'), "it describes 3 layers; the weights have 2"),
        (
            ('"hidden_size": 64', '"hidden_size": 32'),
            r"an embedding of \[259, 32\]; that of the weights is \[259, 64\]",
        ),
        (('"vocab_size": 259', '"vocab_size": 300'), r"an embedding of \[300, 64\]"),
    ],
)
def test_a_configuration_of_another_shape_is_refused(folder: Path, change: tuple[str, str], said: str) -> None:
    config = folder / "config.json"
    before = config.read_text()
    config.write_text(before.replace(*change))
    assert config.read_text() != before
    with pytest.raises(RecipeError, match=said):
        use(folder)


def test_a_missing_part_of_the_weights_is_named(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    )
    with pytest.raises(RecipeError, match=r"it names 'model-00002-of-00002\.safetensors', which is missing"):
        use(folder)
    index.write_text('{"weight_map": []}')
    with pytest.raises(RecipeError, match="it has no `weight_map`"):
        use(folder)


def test_links_within_the_hubs_cache_are_followed_and_others_are_not(folder: Path, tmp_path: Path) -> None:
    repo = tmp_path / "models--somebody--tiny"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    folder.rename(repo / "blobs")
    for path in (repo / "blobs").iterdir():
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    use(snapshot)
    (tmp_path / "secret").write_text("{}")
    (snapshot / "added_tokens.json").symlink_to("../../../secret")
    with pytest.raises(RecipeError, match="it is a link out of the folder"):
        use(snapshot)


def test_a_linked_folder_of_templates_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "tool_use.jinja").write_text("{{ messages }}")
    (folder / "additional_chat_templates").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecipeError, match="it is a link out of the folder"):
        use(folder)


def test_documents_and_hidden_files_are_not_looked_at(folder: Path) -> None:
    (folder / "README.md").symlink_to("/etc/passwd")
    (folder / ".git").mkdir()
    (folder / "pytorch_model.bin").symlink_to("nothing")
    use(folder)
