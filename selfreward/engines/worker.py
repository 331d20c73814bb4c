"""Code that runs inside vLLM's workers: the weight sync, samples and checksums of the weights that the engine uses."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, Final

import torch

from selfreward.engines.checksums import state_of
from selfreward.engines.weight_layout import expert_backend, expert_slices, sources_of
from selfreward.engines.weight_samples import NUM_ROWS, TensorSample, TensorSlice, chosen_names, sample_of, spread

NUM_KERNEL_ROWS: Final = 256  # of a packed matrix, of which few columns are read


class WeightProof:
    """A mixin for vLLM's worker (`worker_extension_cls`), whose `model_runner` and `rank` it reads."""

    model_runner: Any
    rank: int
    reload_weights: Callable[..., None]

    def swap_weights(self, *, weights_path: str) -> None:
        """Load the weights of a folder into the model in place."""
        # Without a path vLLM would read the checkpoint that it was started with.
        self.reload_weights(weights_path=weights_path)
        with torch.inference_mode():
            for module in self.model_runner.get_model().modules():
                _finish_on_cpu(module)

    def attention_backends(self) -> list[str]:
        """Return the names of the kernels that compute attention."""
        layers = self.model_runner.get_model().modules()
        return sorted({layer.attn_backend.get_name() for layer in layers if hasattr(layer, "attn_backend")})

    def weight_state(self) -> dict[str, dict[str, str]]:
        """Return a checksum of every parameter and buffer. Matrices that the CPU build has packed are neither."""
        return state_of(self.model_runner.get_model())

    def sample_weights(self) -> list[dict[str, Any]]:
        """Return `TensorSample`s of the rank's weights as dictionaries."""
        model = self.model_runner.get_model()
        packed = getattr(model, "packed_modules_mapping", None) or {}
        modules = dict(model.named_modules())
        # Each is asked for its parameters, or, on the CPU, for the weight that its kernel packed and then discarded.
        names = [
            f"{name}.{own}"
            for name, module in modules.items()
            for own, tensor in module.named_parameters(recurse=False, remove_duplicate=False)
            if tensor.numel() or hasattr(module, "cpu_linear")
        ]
        tied: dict[int, list[str]] = {}
        for name in names:
            if (tensor := model.get_parameter(name)).numel():
                tied.setdefault(tensor.data_ptr(), []).append(name)
        samples: list[TensorSample] = []
        with torch.inference_mode():
            for name in chosen_names(names):
                owner, _, own = name.rpartition(".")
                # A tied output layer has no tensor in the checkpoint: it is compared under the embedding's name.
                others = tied.get(model.get_parameter(name).data_ptr(), [])
                samples += self._samples(owner, modules[owner], own, packed=packed, others=others)
        return [asdict(sample) for sample in samples]

    def _samples(
        self, name: str, module: Any, parameter: str, *, packed: dict[str, list[str]], others: list[str]
    ) -> Iterator[TensorSample]:
        tensor = getattr(module, parameter)
        if tensor.dim() > 2:
            for own, expert, slices in expert_slices(name, module) if hasattr(module, "get_expert_mapping") else ():
                if own == parameter:
                    yield sample_of(f"{name}.{own}[{expert}]", tensor[expert], sources=[slices], rank=self.rank)
            return
        values: list[tuple[str, torch.Tensor, int, int | None]] = (
            [(parameter, _as_loaded(module, tensor), NUM_ROWS, None)] if tensor.numel() else []
        )
        if parameter == "weight" and hasattr(module, "cpu_linear"):
            values.append(("kernel", *_kernel(module)))
        num_rows = values[0][1].shape[0]
        sources = sources_of(name, module, parameter, num_rows, packed)
        for other in others:
            sources.append([TensorSlice(other, s.dim, s.start, s.size, s.total) for s in sources[0]])
        for form, value, rows, columns in values:
            yield sample_of(
                f"{name}.{form}", value, sources=sources, rank=self.rank, max_rows=rows, max_columns=columns
            )


def _finish_on_cpu(module: Any) -> None:
    """Do what vLLM 0.31's CPU build does at its start, and leaves out when weights are loaded again."""
    if hasattr(module, "cpu_linear"):
        # A tied output layer has a packed copy, and no tensor of its name in the checkpoint.
        if module.weight.numel():
            module.quant_method.process_weights_after_loading(module)
        # A kernel has its bias in float32; the start loads it in the model's dtype first, which rounds it.
        if getattr(module, "bias", None) is not None:
            module.bias.copy_(_as_loaded(module, module.bias))
    # The matrices of experts are not packed again, so that their kernel would read them in the wrong order.
    if hasattr(module, "w13_weight") and expert_backend(module) == "CPU":
        module.quant_method.moe_kernel.fused_experts.process_weights_after_loading(module)


def _as_loaded(module: Any, tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in the dtype in which it was loaded: a kernel of the CPU build widens its bias to float32."""
    return tensor.to(module.params_dtype) if hasattr(module, "cpu_linear") and tensor.dim() == 1 else tensor


def _kernel(module: Any) -> tuple[torch.Tensor, int, int]:
    """Return some columns of the matrix that a kernel of the CPU build has packed, and the rows and columns to sample.

    The build discards a matrix once its kernel has packed it: the product with one-hot rows gives exact columns of the
    packed matrix, since all other terms of each sum are zero.
    """
    weight = module.weight
    width = weight.shape[1] if weight.dim() == 2 else _num_inputs(module)
    columns = spread(width, NUM_ROWS)
    one_hot = torch.zeros(len(columns), width, dtype=weight.dtype, device=weight.device)
    one_hot[range(len(columns)), columns] = 1
    return module.quant_method.apply(module, one_hot, None).t(), NUM_KERNEL_ROWS, len(columns)


def _num_inputs(module: Any) -> int:
    """Return the width of a discarded matrix; a layer that every rank holds whole has no size per partition."""
    size: int = module.input_size_per_partition if hasattr(module, "input_size_per_partition") else module.input_size
    return size
