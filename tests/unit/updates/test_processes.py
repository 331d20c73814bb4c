"""Environment and memory of training processes."""

import os
from pathlib import Path

import pytest
import torch
from cases.training import write_policy

from selfreward.inherited import for_this_process_alone
from selfreward.updates.child_process import ALLOCATOR, environment
from selfreward.updates.models import load_model


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", ALLOCATOR, "PYTORCH_CUDA_ALLOC_CONF", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def test_processes_share_the_cores_and_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(24)))
    found = environment(8)
    assert found["OMP_NUM_THREADS"] == "3"
    assert found["CUDA_VISIBLE_DEVICES"] == "0,1,2,3,4,5,6,7"
    assert found[ALLOCATOR] == "expandable_segments:True"
    assert environment(100)["OMP_NUM_THREADS"] == "1"


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64")
    found = environment(2)
    assert (found["OMP_NUM_THREADS"], found["CUDA_VISIBLE_DEVICES"]) == ("5", "6,7")
    assert ALLOCATOR not in found  # torch would prefer it to the older name
    monkeypatch.setenv(ALLOCATOR, "backend:native")
    assert environment(2)[ALLOCATOR] == "backend:native"


def test_what_vllm_has_set_for_itself_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfreward.inherited._set_here", {})
    monkeypatch.setenv("NCCL_PROTO", "LL")
    monkeypatch.delenv("TORCHINDUCTOR_COMPILE_THREADS", raising=False)
    with for_this_process_alone():
        monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
        monkeypatch.setenv("NCCL_PROTO", "Simple")
        monkeypatch.setenv("NCCL_MAX_NCHANNELS", "1")
    found = environment(1)
    assert found["NCCL_PROTO"] == "LL" and not {"TORCHINDUCTOR_COMPILE_THREADS", "NCCL_MAX_NCHANNELS"} & found.keys()
    monkeypatch.setenv("NCCL_MAX_NCHANNELS", "4")  # by the user, later
    assert environment(1)["NCCL_MAX_NCHANNELS"] == "4"


def test_a_model_without_weights_takes_no_memory_and_has_its_buffers(tmp_path: Path) -> None:
    folder = write_policy(tmp_path / "policy", seed=0)
    whole = load_model(folder, dtype="bfloat16", trust_remote_code=False)
    (folder / "model.safetensors").unlink()
    empty = load_model(folder, dtype="bfloat16", trust_remote_code=False, with_weights=False)
    assert all(parameter.is_meta and parameter.dtype == torch.bfloat16 for parameter in empty.parameters())
    expected = {name: (weights.shape, weights.dtype) for name, weights in whole.named_parameters()}
    assert {name: (weights.shape, weights.dtype) for name, weights in empty.named_parameters()} == expected
    buffers = dict(whole.named_buffers())
    assert buffers.keys() == dict(empty.named_buffers()).keys() and buffers
    for name, buffer in empty.named_buffers():
        torch.testing.assert_close(buffer, buffers[name])
    assert empty.config.attention_dropout == 0.0
