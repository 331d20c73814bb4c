"""Code that runs inside vLLM's workers: the weight sync, and hashes of the weights that the engine uses."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch

from selfreward.engines.weight_verification import TensorSample, chosen_names, hash_of, sampled_columns


class WeightProof:
    """A mixin for vLLM's worker (`worker_extension_cls`), whose `model_runner` it reads."""

    model_runner: Any
    reload_weights: Callable[..., None]

    def swap_weights(self, *, weights_path: str) -> None:
        """Load the weights of a folder into the model in place."""
        # Without a path vLLM would read the checkpoint that it was started with.
        self.reload_weights(weights_path=weights_path)
        with torch.inference_mode():
            for module in self.model_runner.get_model().modules():
                # vLLM 0.31's CPU build does not update the packed copy of a tied output layer, since the checkpoint
                # has no tensor of its name: the model would continue to use its old output layer.
                if hasattr(module, "cpu_linear") and module.weight.numel():
                    module.quant_method.process_weights_after_loading(module)

    def sample_weights(self) -> list[dict[str, Any]]:
        """Return `TensorSample`s as dictionaries, of the rank's weights, which are all weights on one device."""
        model = self.model_runner.get_model()
        packed = getattr(model, "packed_modules_mapping", None) or {}
        modules = {name: module for name, module in model.named_modules() if _has_weight(module)}
        stored: dict[int, list[str]] = {}
        for name, module in modules.items():
            stored.setdefault(module.weight.data_ptr(), []).append(name)
        samples: list[TensorSample] = []
        with torch.inference_mode():
            for name in chosen_names(list(modules)):
                # A tied output layer has no tensor in the checkpoint: it is compared under the embedding's name.
                tied = stored[modules[name].weight.data_ptr()] if modules[name].weight.numel() else []
                sources = [*_sources(name, packed), *((f"{other}.weight",) for other in tied)]
                samples += _samples(name, modules[name], sources=sources)
        return [asdict(sample) for sample in samples]


def _has_weight(module: torch.nn.Module) -> bool:
    return isinstance(getattr(module, "weight", None), torch.Tensor)


def _sources(name: str, packed: dict[str, list[str]]) -> list[tuple[str, ...]]:
    """Return the possible names: vLLM stacks q, k and v, and gate and up; a checkpoint may have them separately."""
    parent, _, own = name.rpartition(".")
    prefix = f"{parent}." if parent else ""
    apart = [tuple(f"{prefix}{part}.weight" for part in packed[own])] if own in packed else []
    return [(f"{name}.weight",), *apart]


def _samples(name: str, module: Any, *, sources: list[tuple[str, ...]]) -> Iterator[TensorSample]:
    for form, columns, values in _forms(module):
        yield TensorSample(
            name=f"{name}.{form}",
            sources=tuple(sources),
            columns=columns,
            num_rows=values.shape[0],
            dtype=str(values.dtype).removeprefix("torch."),
            sha256=hash_of(values),
        )


def _forms(module: Any) -> Iterator[tuple[str, tuple[int, ...] | None, torch.Tensor]]:
    """Yield (form, columns, values) of the stored weight and, on the CPU, of the kernel's packed weight."""
    weight = module.weight
    # Embeddings are padded to a multiple of 64 rows.
    num_rows = getattr(module, "org_vocab_size", None)
    if weight.dim() == 1 and weight.numel():
        yield "weight", None, weight
    elif weight.dim() == 2:
        columns = sampled_columns(weight.shape[1])
        yield "weight", columns, weight[:num_rows, list(columns)]
    if hasattr(module, "cpu_linear"):
        width = weight.shape[1] if weight.dim() == 2 else module.input_size_per_partition
        columns = sampled_columns(width)
        # The CPU build discards a matrix once its kernel has packed it: the product with one-hot rows gives exact
        # columns of the packed matrix, since all other terms of each sum are zero.
        one_hot = torch.zeros(len(columns), width, dtype=weight.dtype, device=weight.device)
        one_hot[range(len(columns)), list(columns)] = 1
        yield "kernel", columns, module.quant_method.apply(module, one_hot, None).t()[:num_rows]
