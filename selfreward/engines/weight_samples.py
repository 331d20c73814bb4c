"""Samples of an engine's weights, which name the part of a checkpoint that they must equal."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

MAX_TENSORS: Final = 192
NUM_ROWS: Final = 16


@dataclass(frozen=True)
class TensorSlice:
    """Rows (`dim` 0) or columns (`dim` 1) `start` to `start + size` of the tensor `name` of a checkpoint, which has
    `total` of them. One rank of several has a slice, a single one the whole tensor."""

    name: str
    dim: int
    start: int
    size: int
    total: int


def whole(name: str, size: int) -> TensorSlice:
    """Return all of a tensor that has `size` rows."""
    return TensorSlice(name, 0, 0, size, size)


@dataclass(frozen=True)
class TensorSample:
    """Some values of one tensor of one rank.

    `sources`: what it may consist of in a checkpoint, each the slices that are stacked by rows. Of each slice up to
    `max_rows` rows and `max_columns` columns (None: all) are sampled, evenly spaced.
    """

    name: str
    rank: int
    sources: tuple[tuple[TensorSlice, ...], ...]
    num_dims: int
    max_rows: int | None
    max_columns: int | None
    dtype: str
    sha256: str

    @property
    def where(self) -> str:
        return f"{self.name} (rank {self.rank})" if self.rank else self.name


def spread(size: int, count: int | None) -> list[int]:
    """Return up to `count` evenly spaced numbers below `size`, including the first and the last."""
    if count is None or size <= count:
        return list(range(size))
    return sorted({round(i * (size - 1) / max(count - 1, 1)) for i in range(count)})


def sample_of(
    name: str,
    values: Any,
    *,
    sources: Sequence[Sequence[TensorSlice]],
    rank: int = 0,
    max_rows: int | None = NUM_ROWS,
    max_columns: int | None = None,
) -> TensorSample:
    """Return the sample of a vector or a matrix. Of a matrix, `values` has only the sampled columns."""
    import torch

    max_rows = None if values.dim() == 1 else max_rows
    blocks, offset = [], 0
    for part in sources[0]:
        size = part.size if part.dim == 0 else values.shape[0]
        blocks.append(values[offset : offset + size][spread(size, max_rows)])
        offset += size
    sampled = torch.cat(blocks)
    return TensorSample(
        name=name,
        rank=rank,
        sources=tuple(map(tuple, sources)),
        num_dims=values.dim(),
        max_rows=max_rows,
        max_columns=max_columns,
        dtype=str(values.dtype).removeprefix("torch."),
        sha256=hash_of(sampled),
    )


def expected_values(sample: TensorSample, source: Sequence[TensorSlice], read: Callable[[str], Any]) -> Any:
    """Return the sampled values by a checkpoint, in the dtype of the engine; None when a tensor has another shape.

    `read(name)` returns a lazy tensor of safetensors, of which only the rows that are needed are read.
    """
    import torch

    blocks = []
    for part in source:
        tensor = read(part.name)
        shape = tensor.get_shape()
        if len(shape) != sample.num_dims or shape[part.dim] != part.total:
            return None
        starts, sizes = [0] * len(shape), list(shape)
        starts[part.dim], sizes[part.dim] = part.start, part.size
        rows = [starts[0] + row for row in spread(sizes[0], sample.max_rows)]
        is_all = len(rows) == sizes[0]
        block = tensor[starts[0] : starts[0] + sizes[0]] if is_all else torch.cat([tensor[r : r + 1] for r in rows])
        if sample.num_dims == 2:
            block = block[:, [starts[1] + column for column in spread(sizes[1], sample.max_columns)]]
        blocks.append(block)
    return torch.cat(blocks).to(getattr(torch, sample.dtype))


def chosen_names(names: Sequence[str]) -> list[str]:
    """Return all names, or MAX_TENSORS of a large model over all kinds and layers, with the first and last ones."""
    if len(names) <= MAX_TENSORS:
        return list(names)
    ranked = sorted(names[2:-8], key=lambda name: hashlib.sha256(name.encode()).digest())
    kept = {*names[:2], *names[-8:], *ranked[: MAX_TENSORS - 10]}
    return [name for name in names if name in kept]


def hash_of(values: Any) -> str:
    """Return the SHA-256 of a tensor's bytes, with unsigned zeros and subnormals set to zero: a matrix kernel that is
    read with one-hot inputs preserves neither."""
    import torch

    values = values.detach().to("cpu")
    values = torch.where(values.abs() < torch.finfo(values.dtype).tiny, torch.zeros_like(values), values)
    return hashlib.sha256(values.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
