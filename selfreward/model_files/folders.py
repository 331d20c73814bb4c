"""Model names to model folders: `materialise` returns a local folder that transformers and vLLM load.

A model name is a hub id, a local folder, a .gguf file, `package:NAME/FILE.gguf` (a file in an installed Python package)
or `random:tiny`. GGUF files are dequantised once, into the cache.
"""

import re
from functools import partial
from pathlib import Path

from selfreward.errors import RecipeError
from selfreward.model_files.cache import cached_folder
from selfreward.model_files.folder_check import require_usable_files
from selfreward.model_files.hub_errors import missing_folder, not_from_hub
from selfreward.model_files.own_template import with_template
from selfreward.model_files.packaged import packaged_file
from selfreward.model_files.quiet import quiet_transformers
from selfreward.model_files.reading import reading_model
from selfreward.model_files.template_check import require_usable_template
from selfreward.model_files.weights import require_complete_weights
from selfreward.recipe import ModelSection
from selfreward.recipe.nearby import beside
from selfreward.recipe.paths import looks_like_a_path
from selfreward.records import Checkpoint
from selfreward.store.files import sha256_of, weights_sha256
from selfreward.store.model_folder import stamp_of

ALLOWED_NAMES = "a hub id, a local folder, a .gguf file, package:NAME/FILE.gguf or random:tiny"
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]


def materialise(section: ModelSection, *, dtype: str = "float32", key: str = "models.NAME") -> Path:
    """Return the folder of the named model: config, safetensors, tokenizer with chat template.

    `dtype` (float32, bfloat16, float16) is the dtype of weights converted from GGUF files; `key` is the model's key in
    the recipe, for messages.
    Raises RecipeError when there is no such model, or when it has no chat template or no safetensors.
    """
    folder = _located(section, dtype=dtype)
    if section.chat_template is not None:
        return with_template(folder, section, key=key)
    if not section.model.startswith("random:"):
        require_usable_template(folder, section.model, key=key, variables=section.chat_template_kwargs)
    return folder


def _located(section: ModelSection, *, dtype: str) -> Path:
    """Return the folder of the named model, whose chat template is not yet checked."""
    name = section.model
    if name.startswith("random:"):
        return _random(name)
    if name.startswith("package:"):
        return _from_gguf(packaged_file(name), section, dtype=dtype)
    path = _path(name)
    if path.is_dir():
        return _checked(path, name)
    if name.endswith(".gguf"):
        if not path.is_file():
            raise RecipeError(f"model {name!r}: there is no such file; {beside(name)}")
        return _from_gguf(path, section, dtype=dtype)
    return _checked(from_hub(section), name)


def checkpoint_of(folder: Path, iteration: int) -> Checkpoint:
    """Return the checkpoint in `folder`; its id is the first 16 hex digits of its weights' hash, as in the loop."""
    if not any(folder.glob("*.safetensors")):
        raise RecipeError(
            f"checkpoint {folder}: it has no .safetensors file; a checkpoint is a folder that transformers loads; "
            "give such a folder"
        )
    stamp = stamp_of(folder)  # before the weights are read, so that a change meanwhile is noticed
    return Checkpoint(weights_sha256(folder)[:16], folder, iteration, stamp)


def _path(name: str) -> Path:
    try:
        path = Path(name).expanduser()
        path.is_dir()
    except (ValueError, OSError, RuntimeError) as error:  # a null byte, a name that is too long, an unknown user
        raise RecipeError(f"model {name!r:.120}: {error}; allowed is {ALLOWED_NAMES}; correct the name") from error
    return path


def _random(name: str) -> Path:
    if name != "random:tiny":
        raise RecipeError(f"model {name!r}: no such random model; random:tiny is allowed; use random:tiny")
    from selfreward.model_files import random_tiny

    # The key is the hash of the code: a changed model never comes from an older version's cache.
    made_by = sha256_of(Path(random_tiny.__file__))
    return cached_folder(f"random-tiny-{made_by[:16]}", random_tiny.write_random_tiny)


def _from_gguf(file: Path, section: ModelSection, *, dtype: str) -> Path:
    with reading_model(f"model {section.model!r}"):
        key = f"gguf-{sha256_of(file)[:32]}-{dtype}"
    write = partial(_dequantise, file=file, name=section.model, trust=section.trust_remote_code, dtype=dtype)
    return _checked(cached_folder(key, write), section.model)


def _dequantise(folder: Path, *, file: Path, name: str, trust: bool, dtype: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    wanted = "a complete GGUF file of an architecture that transformers dequantises is needed"
    with quiet_transformers(on_a_terminal_too=False), reading_model(f"model {name!r}, a GGUF file", wanted):
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=trust)
        model = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            dtype=getattr(torch, dtype),
            trust_remote_code=trust,
            # Without this, transformers retains the packed weights, which can neither be saved nor trained.
            quantization_config=GgufConfig(dequantize=True),
        )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def from_hub(section: ModelSection, *, weights: bool = True) -> Path:
    """Return the folder of a hub's model, downloaded unless it is there; without its weights if they are not needed.

    Raises RecipeError.
    """
    from huggingface_hub import snapshot_download

    name = section.model
    if looks_like_a_path(name):
        raise missing_folder(name)
    if not _HUB_ID.match(name) or name.endswith((".safetensors", ".bin", ".pt")):
        raise RecipeError(
            f"model {name!r}: there is no such folder, and it is not a hub id; allowed is {ALLOWED_NAMES}; "
            "correct the name"
        )
    patterns = _HUB_FILES if weights else [pattern for pattern in _HUB_FILES if pattern != "*.safetensors"]
    patterns = [*patterns, "*.py"] if section.trust_remote_code else patterns
    try:
        folder = snapshot_download(
            name, revision=section.revision, allow_patterns=patterns, ignore_patterns=["*/*", "consolidated*"]
        )
    except (OSError, ValueError) as error:  # all errors of the hub's library are one or the other
        raise not_from_hub(name, section.revision, error) from error
    return Path(folder)


def _checked(folder: Path, name: str) -> Path:
    """Return the folder if it contains a complete model; else raise RecipeError."""
    require_usable_files(folder, name)
    if not (folder / "config.json").is_file():
        is_adapter = (folder / "adapter_config.json").is_file()
        what = "it contains an adapter, not a model" if is_adapter else "config.json is missing"
        raise RecipeError(
            f"model {name!r}: {what}; it must be a folder that transformers loads; give the folder with config.json"
        )
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
        found = f"it has only pickled weights ({', '.join(pickled[:3])})" if pickled else "it has no weights"
        raise RecipeError(
            f"model {name!r}: {found}; weights must be .safetensors files, since a pickle can run code when it is "
            "loaded; convert the model with save_pretrained or use one that has safetensors"
        )
    require_complete_weights(folder)
    return folder
