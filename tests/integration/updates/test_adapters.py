"""Adapters on a base of fewer bits: same model for policy and reference, and merged without the base's rounding."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.training import SECTION, check, make_job, make_pairs, train_with, write_policy
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from selfreward.devices import Gpu
from selfreward.errors import RecipeError
from selfreward.recipe import LaunchSection, LoraSection, TrainingSection
from selfreward.updates.adapters import add_adapters, base_dtype
from selfreward.updates.models import load_model
from selfreward.updates.settings import Settings
from selfreward.updates.trainer import Trainer
from selfreward.updates.update import train as update

BASES = ["float32", "bfloat16", "nf4"]
WEIGHTS = "checkpoint/model.safetensors"


def lora(base: Any) -> LoraSection:
    return LoraSection(rank=4, alpha=8.0, base_dtype=base)


def products(trainer: Trainer) -> dict[str, Tensor]:
    """alpha / rank times B times A for each adapted weight, from the names that PEFT gives its parameters."""
    named = {name.removeprefix("base_model.model."): w.detach() for name, w in trainer.model.named_parameters()}
    suffix = ".lora_A.default.weight"
    return {
        f"{name.removesuffix(suffix)}.weight": 2.0 * named[name.replace("lora_A", "lora_B")].double() @ a.double()
        for name, a in named.items()
        if name.endswith(suffix)
    }


@pytest.mark.parametrize("base", BASES)
def test_merged_weights_are_those_of_the_policy_plus_the_products(
    tmp_path: Path, base: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_policy(tmp_path / "policy", seed=1, hidden=64)
    job = make_job(tmp_path, make_pairs(8))
    trained: dict[str, Tensor] = {}
    dtypes: set[torch.dtype] = set()
    close = Trainer.close

    def keep(self: Trainer) -> None:
        trained.update(products(self))
        dtypes.update(w.dtype for name, w in self.model.named_parameters() if "_proj.base_layer" in name)
        assert {w.dtype for w in self.model.parameters() if w.requires_grad} == {torch.float32}
        close(self)

    monkeypatch.setattr(Trainer, "close", keep)
    metrics = train_with(job, training=SECTION.model_copy(update={"num_epochs": 6}), lora=lora(base))
    assert dtypes == {{"float32": torch.float32, "bfloat16": torch.bfloat16, "nf4": torch.uint8}[base]}
    # The reference pass and the steps are computed by the same rounded model.
    assert metrics["steps"][0]["reward_margin"] == pytest.approx(0.0, abs=5e-3 if base == "bfloat16" else 1e-6)
    assert metrics["reward_margin_before"] == 0.0 and metrics["reward_margin_after"] > 0.05
    old, new = load_file(job.policy / "model.safetensors"), load_file(job.work_folder / WEIGHTS)
    assert trained and trained.keys() == {name for name in old if name.endswith("_proj.weight")}
    for name, weights in old.items():
        expected = weights.double() + trained.get(name, 0.0)
        torch.testing.assert_close(new[name].double(), expected, atol=1e-6, rtol=1e-6)
        if name in trained:
            assert (new[name] - weights).abs().max() > 1e-3
    assert AutoModelForCausalLM.from_pretrained(job.work_folder / "checkpoint").dtype == torch.float32


def test_gradients_over_four_bits_are_those_over_the_same_numbers_in_float32(tmp_path: Path) -> None:
    """Also after a pass without gradients, for which bitsandbytes may pack the weights."""
    from bitsandbytes.functional import dequantize_4bit

    policy = write_policy(tmp_path / "policy", seed=1, hidden=64)
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    gradients = []
    for dtype in ("nf4", "float32"):
        model = load_model(policy, dtype=dtype, trust_remote_code=False)
        if dtype == "nf4":
            base = {name: w for name, w in model.named_parameters() if "_proj" in name}
            values = {name: dequantize_4bit(w.data, w.quant_state) for name, w in base.items()}
        else:
            model.load_state_dict(values, strict=False)
        adapted = add_adapters(model, lora(dtype), seed=1)
        for name, weights in adapted.named_parameters():
            if "lora_B" in name:
                weights.data.fill_(0.01)
        with torch.no_grad():
            adapted.eval()(ids)
        adapted.train()(ids, labels=ids).loss.backward()
        gradients.append({n: w.grad for n, w in adapted.named_parameters() if w.requires_grad})
    assert len(gradients[0]) == 28 and all(g.count_nonzero() for g in gradients[1].values())
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("base", BASES)
def test_an_interrupted_training_is_continued_to_the_same_bytes(tmp_path: Path, base: Any) -> None:
    write_policy(tmp_path / "policy", seed=1, hidden=64)
    job = make_job(tmp_path, make_pairs(8))
    section = SECTION.model_copy(update={"num_epochs": 2, "save_every_steps": 2})
    unbroken = replace(job, work_folder=tmp_path / "unbroken")
    expected = train_with(unbroken, training=section, lora=lora(base))

    def interrupt(phase: str, done: int, *_: Any) -> None:
        if (phase, done) == ("update", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update(job, Settings(training=section, engine_dtype="float32", lora=lora(base)), report=interrupt)
    assert train_with(job, training=section, lora=lora(base))["steps"] == expected["steps"]
    assert (job.work_folder / WEIGHTS).read_bytes() == (unbroken.work_folder / WEIGHTS).read_bytes()


def test_the_base_is_bfloat16_where_the_gpu_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = (Gpu("GPU", 2**34, capability) for capability in ((7, 5), (8, 0)))
    for gpus, expected in (((), "float32"), ((old,), "float32"), ((new, old), "float32"), ((new, new), "bfloat16")):
        monkeypatch.setattr("selfreward.devices.visible_gpus", lambda value=gpus: value)
        assert base_dtype(LoraSection()) == expected
        assert base_dtype(lora("nf4")) == "nf4"


def test_four_bits_take_an_eighth_of_the_memory(tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "policy", seed=1, hidden=256)
    sizes = {}
    for dtype in ("float32", "nf4"):
        model = load_model(policy, dtype=dtype, trust_remote_code=False)
        sizes[dtype] = sum(w.nbytes for name, w in model.named_parameters() if "_proj" in name)
    assert sizes["float32"] == 8 * sizes["nf4"]


def test_what_four_bits_need_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    sharded = LaunchSection(processes_per_node=2, sharding="fsdp")
    with pytest.raises(RecipeError, match=r"nf4 with launch\.sharding: fsdp; .* cannot be sharded; use bfloat16"):
        check(training=TrainingSection(), lora=lora("nf4"), launch=sharded)
    check(training=TrainingSection(), lora=lora("bfloat16"), launch=sharded)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"nf4, but the package bitsandbytes is not installed; float32 and bfloat16"):
        check(training=TrainingSection(), lora=lora("nf4"))
    check(training=TrainingSection(), lora=lora("bfloat16"))
