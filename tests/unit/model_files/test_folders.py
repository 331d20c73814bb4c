"""Model names and their refusals; the cache of converted folders; checkpoint ids."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from selfreward.errors import RecipeError, StoreError
from selfreward.model_files import checkpoint_of, materialise
from selfreward.model_files.cache import cached_folder
from selfreward.recipe import ModelSection
from selfreward.store.files import weights_sha256


def refusal(name: str) -> str:
    with pytest.raises(RecipeError) as caught:
        materialise(ModelSection(model=name))
    return str(caught.value)


def model_folder(folder: Path, *, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


HEADER = '{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  '
WEIGHTS, OTHER_WEIGHTS = (f"{chr(len(HEADER))}{chr(0) * 7}{HEADER}{value * 4}" for value in "xy")
WHOLE = {
    "config.json": "{}",
    "model.safetensors": WEIGHTS,
    "tokenizer_config.json": '{"chat_template": "{{ messages }}"}',
}


def test_a_complete_local_folder_is_used_unchanged(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", files=WHOLE)
    assert materialise(ModelSection(model=str(folder))) == folder


def test_a_chat_template_in_its_own_file_is_found(tmp_path: Path) -> None:
    files = WHOLE | {"tokenizer_config.json": "{}", "chat_template.jinja": "{{ messages }}"}
    folder = model_folder(tmp_path / "model", files=files)
    assert materialise(ModelSection(model=str(folder))) == folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokenizer_config.json": "{}"}, "no chat template"),
        ({"tokenizer_config.json": "not JSON"}, "tokenizer_config.json"),
        ({"model.safetensors": None, "pytorch_model.bin": "x"}, "only pickled weights"),
        ({"model.safetensors": None}, "no weights"),
        ({"config.json": None}, "config.json is missing"),
        ({"config.json": None, "adapter_config.json": "{}"}, "an adapter"),
    ],
)
def test_an_incomplete_folder_is_refused(tmp_path: Path, change: dict[str, str | None], said: str) -> None:
    files = {name: content for name, content in (WHOLE | change).items() if content is not None}
    assert said in refusal(str(model_folder(tmp_path / "model", files=files)))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("./no/such/model.gguf", "no such file"),
        ("random:huge", "random:tiny"),
        ("package:no_such_package_here/model.gguf", "no_such_package_here"),
        ("package:json/model.gguf", "no file matches"),
        ("package:json/../model.gguf", "outside of the package"),
        ("package:json", "package:NAME/FILE.gguf"),
        ("/no/such/folder", "it looks like a path, and there is no such folder; there is no folder /no;"),
        ("nobody/no-such-model", "run `hf download nobody/no-such-model`"),
        ("a/b/c", "not a hub id"),
    ],
)
def test_an_unknown_name_is_refused(name: str, said: str) -> None:
    message = refusal(name)
    assert said in message
    assert name in message


@pytest.fixture
def a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "site" / "holds_a_model"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('it was imported')")
    monkeypatch.syspath_prepend(str(package.parent))
    return package


def test_a_packages_file_is_found_without_importing_it(a_package: Path) -> None:
    (a_package / "deep" / "model.Q4.gguf").write_text("not a model")
    # The file is found and read; its content is refused.
    assert "a GGUF file: cannot be read" in refusal("package:holds_a_model/deep/*.gguf")
    assert "a GGUF file: cannot be read" in refusal("package:holds_a_model.deep/*.gguf")
    assert "no package" in refusal("package:holds_a_model.shallow/*.gguf")


def test_a_subpackage_is_found_in_a_package_without_init(a_package: Path) -> None:
    (a_package / "__init__.py").unlink()
    assert "no file matches" in refusal("package:holds_a_model.deep/*.gguf")


def test_a_pattern_must_match_one_file(a_package: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (a_package / name).write_text("x")
    assert "2 files match" in refusal("package:holds_a_model/*.gguf")
    assert "a.gguf, b.gguf" in refusal("package:holds_a_model/c.gguf")


def test_a_link_out_of_the_package_is_not_followed(a_package: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.gguf").write_text("x")
    (a_package / "model.gguf").symlink_to(tmp_path / "secret.gguf")
    assert "no file matches" in refusal("package:holds_a_model/model.gguf")


def test_a_hub_model_comes_from_the_hubs_own_cache(tmp_path: Path) -> None:
    commit = "0" * 40
    repo = tmp_path / "hub" / "models--somebody--tiny"
    snapshot = model_folder(repo / "snapshots" / commit, files=WHOLE)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    code = (
        "from selfreward.model_files import materialise; from selfreward.recipe import ModelSection; "
        "print(materialise(ModelSection(model='somebody/tiny')))"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == snapshot


def test_checkpoint_ids_follow_the_weights_alone(tmp_path: Path) -> None:
    one = model_folder(tmp_path / "one", files=WHOLE)
    same = model_folder(tmp_path / "same", files=WHOLE | {"config.json": '{"other": 1}'})
    other = model_folder(tmp_path / "other", files=WHOLE | {"model.safetensors": OTHER_WEIGHTS})
    ids = [checkpoint_of(folder, 3).id for folder in (one, same, other)]
    assert ids[0] == ids[1] != ids[2]
    assert ids[0] == weights_sha256(one)[:16], "what a run adopts as a checkpoint has the same id when it is given"
    assert checkpoint_of(one, 3).path == one
    assert checkpoint_of(one, 3).iteration == 3
    with pytest.raises(RecipeError, match="safetensors"):
        checkpoint_of(tmp_path, 0)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELFREWARD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# Makes a folder in the cache, reports when it is half done, and continues on a signal.
MAKER = """
import sys
from pathlib import Path
from selfreward.model_files.cache import cached_folder

def write(folder):
    (folder / "first").write_text("whole")
    print("in the middle", flush=True)
    sys.stdin.readline()
    (folder / "second").write_text("whole")

cached_folder("model", write)
"""


def maker_in_the_middle() -> "subprocess.Popen[str]":
    maker = subprocess.Popen([sys.executable, "-c", MAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert maker.stdout is not None
    assert maker.stdout.readline() == "in the middle\n"
    return maker


def write_both(folder: Path) -> None:
    (folder / "first").write_text("ours")
    (folder / "second").write_text("ours")


def test_a_killed_process_leaves_no_incomplete_folder_in_use(cache: Path) -> None:
    with maker_in_the_middle() as maker:
        maker.kill()
    assert not (cache / "model").exists()
    folder = cached_folder("model", write_both)
    assert (folder / "first").read_text() == (folder / "second").read_text() == "ours"
    assert [path.name for path in cache.iterdir() if path.is_dir()] == ["model"]


def test_a_second_process_waits_for_the_first(cache: Path) -> None:
    got: list[Path] = []
    with maker_in_the_middle() as maker:
        waiting = threading.Thread(target=lambda: got.append(cached_folder("model", write_both)))
        waiting.start()
        maker.communicate("continue\n")
    waiting.join(timeout=60)
    assert got == [cache / "model"]
    assert (got[0] / "first").read_text() == "whole"


def test_a_failed_write_leaves_no_folder(cache: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "first").write_text("half")
        raise RecipeError("model: it cannot be read")

    with pytest.raises(RecipeError, match="cannot be read"):
        cached_folder("model", fail)
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_an_unwritable_cache_is_reported_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SELFREWARD_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StoreError, match="SELFREWARD_CACHE"):
        cached_folder("model", write_both)


def test_importing_the_package_imports_no_heavy_library() -> None:
    code = "import sys, json, selfreward.engines; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "vllm", "trl", "datasets", "huggingface_hub"} & set(json.loads(done.stdout))
