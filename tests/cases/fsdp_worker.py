"""A rank of an update, run by tests in a process of its own; sharded on the CPU too, where accelerate would not.

accelerate does not support FSDP on the CPU and silently trains complete copies there, while torch shards on any device.
So accelerate's state is set to FSDP; everything else goes through accelerate and torch as in a run.
"""

import functools
import json
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch


def rank(job_file: Path, environment: dict[str, str], output: Connection, log: Path) -> None:
    """`environment` is what torchrun would set; `output` receives the standard output. With sharding, for each forward
    pass a line about its weights is added to `shards-RANK.jsonl` next to the job."""
    os.environ.update(environment)
    os.dup2(output.fileno(), 1)
    with log.open("a") as file:
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    torch.set_num_threads(1)
    if json.loads(job_file.read_text())["settings"]["launch"]["sharding"] != "none":
        _shard_on_cpu()
        _analyse(job_file.with_name(f"shards-{environment['RANK']}.jsonl"))
    from selfreward.updates.child import main

    sys.exit(main([str(job_file)]))


def _shard_on_cpu() -> None:
    from accelerate import state
    from accelerate.utils import DistributedType

    original = state.AcceleratorState.__init__

    @functools.wraps(original)
    def init(self: Any, *args: Any, fsdp_plugin: Any = None, **options: Any) -> None:
        original(self, *args, fsdp_plugin=fsdp_plugin, **options)
        # accelerate sets the kind of distribution again each time.
        if plugin := fsdp_plugin or getattr(self, "fsdp_plugin", None):
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, plugin

    state.AcceleratorState.__init__ = init


def _analyse(file: Path) -> None:
    """The parameters of the layers, when the model's forward pass begins: each is gathered later, in its own layer."""
    from torch._subclasses.fake_tensor import FakeTensor
    from torch.distributed.tensor import DTensor, Shard
    from torch.nn.modules.module import register_module_forward_pre_hook
    from transformers import LlamaForCausalLM

    def record(module: torch.nn.Module, _args: Any) -> None:
        if not isinstance(module, LlamaForCausalLM):
            return
        weights = list(module.model.layers.parameters())
        if any(isinstance(w, FakeTensor) for w in weights):  # memory is counted on fake tensors
            return
        sharded = all(isinstance(w, DTensor) and isinstance(w.placements[-1], Shard) for w in weights)
        local = sum(w.to_local().numel() if isinstance(w, DTensor) else w.numel() for w in weights)
        whole = sum(w.numel() for w in weights)
        found = {"step": torch.is_grad_enabled(), "sharded": sharded, "share": local / whole}
        with file.open("a") as lines:
            lines.write(json.dumps(found) + "\n")

    register_module_forward_pre_hook(record)
