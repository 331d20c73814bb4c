"""A copy of a checkpoint's weights in the engine's dtype, which the engine reads in place of float32 ones.

The engine reads a checkpoint at its start, at each weight sync and at each wake: three times an iteration or more. Half
the bytes are read in half the time, for half more space on the disk. So the copy is written where the engine's numbers
are smaller than the checkpoint's and at least a quarter of the bytes is saved, and nowhere else. Only large matrices
are cast: vectors and small matrices, such as the router of experts, are what some models keep in float32, and they are
a small part. The rounding is that of the engine, so its weights are the same to the bit with and without the copy; they
are always proved against the checkpoint itself.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

from selfreward.errors import EngineError
from selfreward.model_files.json_file import read_json_object
from selfreward.records import Checkpoint
from selfreward.store.files import sha256_of, weight_file_sha256, weights_sha256, write_text_atomically
from selfreward.store.model_folder import changed_files

RECORD: Final = "engine_copy.json"
MIN_ELEMENTS: Final = 2**22
MIN_SAVED_SHARE: Final = 0.25
_BESIDE: Final = ("config.json", "generation_config.json", "*.index.json", "*.py")
_DTYPES: Final = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def write_engine_copy(folder: Path, *, dtype: str, min_elements: int | None = None) -> bool:
    """Write the copy into a subfolder of the checkpoint, and a record with the hashes of its files; return whether it
    pays. One tensor at a time is in memory, and files are hashed while they are written."""
    files = sorted(folder.glob("*.safetensors"))
    before = sum(path.stat().st_size for path in files)
    entries = {path.name: _header(path, dtype, min_elements or MIN_ELEMENTS) for path in files}
    after = sum(max(end for _, end in (entry["data_offsets"] for entry in file.values())) for file in entries.values())
    if after > (1 - MIN_SAVED_SHARE) * before:
        return False
    copy = folder / f"engine-{dtype}"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    hashes = {path.name: _write(path, copy / path.name, entries[path.name]) for path in files}
    for path in (path for pattern in _BESIDE for path in folder.glob(pattern)):
        shutil.copyfile(path, copy / path.name)
        hashes[path.name] = sha256_of(path)
    record = {"weights_sha256": weights_sha256(folder), "files": hashes}
    write_text_atomically(folder / RECORD, json.dumps(record, indent=2) + "\n")
    return True


def _header(path: Path, dtype: str, min_elements: int) -> dict[str, dict[str, Any]]:
    """Return the header of the copy of a file: dtype, shape and place of each tensor."""
    from safetensors import safe_open

    entries: dict[str, dict[str, Any]] = {}
    offset, target = 0, _DTYPES[dtype]
    with safe_open(path, framework="pt") as tensors:
        for name in sorted(tensors.keys()):
            part = tensors.get_slice(name)
            shape, stored = part.get_shape(), part.get_dtype()
            num_elements = math.prod(shape)
            is_cast = stored == "F32" and target != "F32" and len(shape) > 1 and num_elements >= min_elements
            size = 2 * num_elements if is_cast else tensors.get_tensor(name).nbytes
            kept = target if is_cast else stored
            entries[name] = {"dtype": kept, "shape": shape, "data_offsets": [offset, offset + size]}
            offset += size
    return entries


def _write(source: Path, target: Path, entries: dict[str, dict[str, Any]]) -> str:
    """Write a safetensors file of a header and the tensors of `source`; return its SHA-256."""
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for block in chain((len(header).to_bytes(8, "little"), header), _tensors(source, entries)):
            file.write(block)
            digest.update(block)
    return digest.hexdigest()


def _tensors(source: Path, entries: dict[str, dict[str, Any]]) -> Iterator[bytes]:
    import torch
    from safetensors import safe_open

    of_name = {short: getattr(torch, name) for name, short in _DTYPES.items()}
    with safe_open(source, framework="pt") as tensors:
        for name, entry in entries.items():
            tensor = tensors.get_tensor(name)
            tensor = tensor.to(of_name.get(entry["dtype"], tensor.dtype))
            yield tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def weights_folder(checkpoint: Checkpoint, *, dtype: str) -> Path:
    """Return the folder from which an engine of this dtype reads a checkpoint: the copy, or the checkpoint itself.

    The latter without a copy (of another trainer, or of a run that began before there were copies), and for a copy of
    other weights. Raises EngineError for a copy that was changed after it was written.
    """
    record, copy = checkpoint.path / RECORD, checkpoint.path / f"engine-{dtype}"
    if not record.is_file() or not copy.is_dir():
        return checkpoint.path
    content = read_json_object(record)
    if str(content.get("weights_sha256", ""))[: len(checkpoint.id)] != checkpoint.id:
        return checkpoint.path
    now = _hashes(copy)
    if changed := changed_files(content.get("files") or {}, now):
        raise EngineError(
            f"{copy / changed[0]}: it is not as {record} describes it, so it was changed after it was written; all "
            f"weights must be those that were trained; remove the folder {copy} and run the same command again: the "
            "checkpoint itself is read then"
        )
    return copy


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: weight_file_sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
