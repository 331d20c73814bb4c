"""Devices, precision, and replication or sharding of the model over an update's processes, all by `accelerate`."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    FullyShardedDataParallelPlugin,
    ParallelismConfig,
    broadcast_object_list,
    fsdp2_prepare_model,
)
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from transformers import PreTrainedModel

from selfreward.devices import computes_in_bfloat16
from selfreward.recipe import LaunchSection

T = TypeVar("T")


def make_accelerator(launch: LaunchSection) -> Accelerator:
    """Return an accelerator with bfloat16 autocast on CUDA and float32 on the CPU."""
    on_cuda = torch.cuda.is_available()
    bf16 = computes_in_bfloat16()
    accelerator = Accelerator(
        cpu=not on_cuda,
        mixed_precision="bf16" if bf16 else "no",
        fsdp_plugin=_fsdp_plugin() if launch.is_sharded else None,
        parallelism_config=_mesh(launch),
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )
    if launch.is_sharded and bf16:
        # accelerate's default policy also returns log-probabilities and reduces gradients in bfloat16. Outputs stay as
        # the modules make them: autocast decides, as without sharding.
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32
        )
    return accelerator


def _fsdp_plugin() -> FullyShardedDataParallelPlugin:
    """Return the plugin for FSDP2, which shards each parameter and gathers a layer while it is computed.

    Only the main process has the weights, in its host memory: it sends them to the others parameter by parameter.
    """
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        reshard_after_forward=True,
        state_dict_type="FULL_STATE_DICT",
        cpu_ram_efficient_loading=True,
    )


def _mesh(launch: LaunchSection) -> ParallelismConfig | None:
    """Return (nodes, processes of a node) for a model that is sharded in each node and replicated across nodes."""
    if launch.sharding != "hsdp":
        return None
    return ParallelismConfig(dp_replicate_size=launch.nodes, dp_shard_size=launch.processes_per_node)


def distribute(model: PreTrainedModel, accelerator: Accelerator, *, is_sharded: bool) -> Any:
    """Return the model replicated or sharded over the processes; sharded, only the main process needs its weights.

    Sharded parameters are new objects, so the optimizer is made afterwards. `Accelerator.prepare` would match an
    optimizer's parameters by their addresses, which parameters on the meta device do not have.
    """
    return fsdp2_prepare_model(accelerator, model) if is_sharded else accelerator.prepare(model)


def reshard(model: torch.nn.Module) -> None:
    """Restore the shards after a forward pass without a backward pass, which leaves the last layers gathered."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def broadcast_from_main(make: Callable[[], T]) -> T:
    """Call `make` in the main process and return its result in all processes."""
    made = [make() if PartialState().is_main_process else None]
    result: T = broadcast_object_list(made)[0]
    return result
