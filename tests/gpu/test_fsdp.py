"""FSDP2 on one GPU and on two: the loss curve of a whole copy."""

import socket
from pathlib import Path

import pytest
import torch
from cases.training import SECTION, losses, make_job, make_pairs, train_with

from selfreward.recipe import LaunchSection

TOLERANCE = 0.02  # bfloat16; the sharded weights are rounded before they are gathered


@pytest.mark.timeout(600)
@pytest.mark.parametrize("num_gpus", [1, 2])
def test_a_sharded_update_is_that_of_a_whole_copy(
    num_gpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.device_count() < num_gpus:
        pytest.skip(f"needs {num_gpus} CUDA devices")
    pairs = make_pairs(11)
    whole = train_with(make_job(tmp_path, pairs, name="whole"), training=SECTION)
    if num_gpus == 1:  # a run refuses to shard over one process, and starts none for it: here it is rank 0 of 1
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for name, value in rank.items():
            monkeypatch.setenv(name, value)
    launch = LaunchSection(processes_per_node=num_gpus, sharding="fsdp")
    sharded = train_with(make_job(tmp_path, pairs, name="sharded"), training=SECTION, launch=launch)
    assert len(losses(sharded)) == len(losses(whole)) > 2
    assert losses(sharded) == pytest.approx(losses(whole), abs=TOLERANCE)
    assert (tmp_path / "sharded" / "checkpoint" / "model.safetensors").exists()
