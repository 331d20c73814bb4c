"""The processes of an update: devices, precision, and how the model is copied or sharded, all by `accelerate`."""

from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, FullyShardedDataParallelPlugin, broadcast_object_list
from torch.distributed.fsdp import MixedPrecisionPolicy

from selfreward.recipe import LaunchSection

T = TypeVar("T")


def accelerator_of(launch: LaunchSection) -> Accelerator:
    """With bfloat16 autocast on CUDA, all float32 on the CPU."""
    on_cuda = torch.cuda.is_available()
    bf16 = on_cuda and torch.cuda.is_bf16_supported()
    accelerator = Accelerator(
        cpu=not on_cuda,
        mixed_precision="bf16" if bf16 else "no",
        fsdp_plugin=_sharding() if launch.sharding == "fsdp" else None,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=False)],
    )
    if launch.sharding == "fsdp" and bf16:
        # accelerate's own policy also returns log-probabilities and adds gradients up in bfloat16.
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=torch.float32
        )
    return accelerator


def _sharding() -> FullyShardedDataParallelPlugin:
    """Version 2 shards each parameter by itself; every layer of the model is gathered when it is computed."""
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        reshard_after_forward=True,
        state_dict_type="FULL_STATE_DICT",
        cpu_ram_efficient_loading=False,
    )


def on_main(make: Callable[[], T]) -> T:
    """What `make` returns in the main process, in all of them."""
    made = [make() if PartialState().is_main_process else None]
    result: T = broadcast_object_list(made)[0]
    return result
