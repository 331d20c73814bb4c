"""Which tensors of a checkpoint a module of vLLM holds: fused and sharded layers, embeddings, experts.

vLLM stacks q, k and v, and gate and up, by rows; a checkpoint may have them apart. Of a layer that is parallel over
tensors, each rank has some of the rows (of each stacked part) or of the columns. The attributes are those of the layers
in vLLM 0.31 (`model_executor/layers/linear.py`, `vocab_parallel_embedding.py`, `fused_moe/routed_experts.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from selfreward.engines.weight_samples import TensorSlice, spread

NUM_EXPERTS: Final = 3  # sampled of each matrix of experts
# Kernels whose matrices are stored as they are loaded; others reorder or pack them.
_PLAIN_EXPERTS: Final = frozenset({"TRITON", "BATCHED_TRITON"})


def sources_of(
    name: str, module: Any, parameter: str, num_rows: int, packed: Mapping[str, Sequence[str]]
) -> list[list[TensorSlice]]:
    """Return what the parameter of a module may consist of, first under its own name, then by its stacked parts."""
    parent, _, own = name.rpartition(".")
    prefix = f"{parent}." if parent else ""
    if parameter == "weight" and _is_sharded_by_columns(module):
        size = module.input_size_per_partition
        return [[TensorSlice(f"{name}.weight", 1, module.tp_rank * size, size, module.input_size)]]
    parts = _rows(module, num_rows)
    offsets = accumulate((total for *_, total in parts), initial=0)
    whole_size = sum(total for *_, total in parts)
    fused = [
        TensorSlice(f"{prefix}{own}.{parameter}", 0, offset + start, size, whole_size)
        for (start, size, _), offset in zip(parts, offsets, strict=False)
    ]
    if own not in packed or len(packed[own]) != len(parts):
        return [fused]
    apart = [
        TensorSlice(f"{prefix}{part}.{parameter}", 0, start, size, total)
        for part, (start, size, total) in zip(packed[own], parts, strict=True)
    ]
    return [fused, apart]


def _is_sharded_by_columns(module: Any) -> bool:
    """Return whether a rank has some columns of the matrix (and the whole bias): a row-parallel layer of vLLM."""
    size = getattr(module, "input_size_per_partition", None)
    return size is not None and size < module.input_size


def _rows(module: Any, num_rows: int) -> list[tuple[int, int, int]]:
    """Return start, size and total of the rows of each stacked part."""
    if shard := getattr(module, "shard_indices", None):  # an embedding or output layer, padded to a multiple of 64
        start = shard.org_vocab_start_index
        return [(start, shard.org_vocab_end_index - start, module.org_vocab_size)]
    sizes = getattr(module, "output_partition_sizes", None)
    if sizes is None or sum(sizes) != num_rows:
        return [(0, num_rows, num_rows)]
    rank, count = module.tp_rank, module.tp_size
    if count == 1 or _is_sharded_by_columns(module) or not hasattr(module, "output_size_per_partition"):
        return [(0, size, size) for size in sizes]
    replicas = getattr(module, "num_kv_head_replicas", 1)
    # Where there are fewer heads of keys than ranks, several ranks have the same ones.
    shared = [1, *([replicas] * (len(sizes) - 1))]
    return [(rank // copies * size, size, count // copies * size) for size, copies in zip(sizes, shared, strict=True)]


def expert_backend(module: Any) -> str | None:
    """Return the name of the kernel that computes the experts of a module."""
    backend = getattr(module.quant_method, "unquantized_backend", None)
    return getattr(backend, "name", None)


def expert_slices(name: str, module: Any) -> Iterator[tuple[str, int, list[TensorSlice]]]:
    """Yield (parameter, index of the expert, slices) of some experts that are stored as they are loaded."""
    if expert_backend(module) not in _PLAIN_EXPERTS:
        return
    before, _, _ = name.partition(".experts")
    names: dict[tuple[str, int], dict[str, str]] = {}
    for _, source, expert, shard in module.get_expert_mapping():
        kind = "w2" if shard == "w2" else "w13"
        names.setdefault((kind, expert), {})[shard] = f"{before}.{source}weight"
    parallel = module.moe_config.moe_parallel_config
    for expert in spread(module.w13_weight.shape[0], NUM_EXPERTS):
        size = module.w2_weight.shape[2]
        start, total = parallel.tp_rank * size, parallel.tp_size * size
        for kind, dim in (("w13", 0), ("w2", 1)):
            found = names.get((kind, expert), {})  # by rows, the gate (w1) before up (w3)
            slices = [TensorSlice(found[shard], dim, start, size, total) for shard in sorted(found)]
            if slices:
                yield f"{kind}_weight", expert, slices
