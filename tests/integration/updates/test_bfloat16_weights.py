"""Training of bfloat16 weights: small updates arrive when weights are rounded at random, and are lost to nearest."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from cases.training import SECTION, check, make_job, make_pairs, train
from safetensors.torch import load_file
from torch import Tensor, nn

from selfreward.errors import RecipeError
from selfreward.recipe import LoraSection, TrainingSection
from selfreward.updates import stochastic_rounding
from selfreward.updates.optimizers import optimizer_of, set_rate
from selfreward.updates.settings import Settings
from selfreward.updates.stochastic_rounding import seeded
from selfreward.updates.update import train as update

BFLOAT16 = TrainingSection(weights_dtype="bfloat16", learning_rate=1e-5)
NEAREST = BFLOAT16.model_copy(update={"stochastic_rounding": False})


@pytest.fixture(autouse=True)
def after_vllm_on_a_cpu() -> Iterator[None]:
    """Its engine switches compilation off in the process in which the update then runs."""
    with torch._dynamo.config.patch(disable=True):
        yield


def small_model() -> nn.Sequential:
    """Weights are bfloat16 numbers. Few shapes, because each is compiled, and more than 4096 elements for 8 bits."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(64, 80), nn.Linear(80, 160, bias=False))
    for weights in model.parameters():
        nn.init.normal_(weights, std=0.02)
    return model.to(torch.bfloat16)


def update_of(section: TrainingSection, *, num_steps: int = 20, seed: int = 1) -> Tensor:
    """The change of all weights in steps on the same random gradients."""
    model = small_model().to(getattr(torch, section.weights_dtype))
    before = flat(model)
    optimizer = optimizer_of(section, model)
    set_rate(optimizer, 1e-6)
    generator = torch.Generator().manual_seed(7)
    for step in range(num_steps):
        for weights in model.parameters():
            weights.grad = torch.randn(weights.shape, generator=generator).to(weights.dtype)
        with seeded(seed, step, torch.device("cpu")):
            optimizer.step()
    return flat(model) - before


def flat(model: torch.nn.Module) -> Tensor:
    return torch.cat([weights.detach().float().flatten() for weights in model.parameters()])


def share(update: Tensor, wanted: Tensor) -> float:
    return float(torch.dot(update, wanted) / torch.dot(wanted, wanted))


def test_small_updates_arrive_when_weights_are_rounded_at_random() -> None:
    wanted = update_of(TrainingSection())
    eight_bit = BFLOAT16.model_copy(update={"optimizer": "adamw_8bit"})
    assert share(update_of(NEAREST), wanted) < 0.2
    rounded = update_of(BFLOAT16)
    assert share(rounded, wanted) == pytest.approx(1, abs=0.1)
    assert share(update_of(eight_bit), wanted) == pytest.approx(1, abs=0.1)
    assert torch.equal(update_of(BFLOAT16), rounded)
    assert not torch.equal(update_of(BFLOAT16, seed=2), rounded)


def test_a_changed_rate_is_not_compiled_again_and_embeddings_keep_32_bits() -> None:
    model = small_model()
    optimizer = optimizer_of(BFLOAT16.model_copy(update={"optimizer": "adamw_8bit"}), model)
    counts = []
    for rate in (1e-3, 1e-2):
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        set_rate(optimizer, rate)
        weights_before = flat(model)
        for weights in model.parameters():
            weights.grad = torch.ones_like(weights)
        optimizer.step()
        counts.append(torch._dynamo.utils.counters["stats"]["unique_graphs"] - before)
        assert float((flat(model) - weights_before).mean()) == pytest.approx(-rate, rel=0.1)
    assert counts[1] == 0
    embedding, matrix = (optimizer.state[weights]["exp_avg_sq"] for weights in model.parameters())
    assert type(matrix).__name__ == "OptimState8bit"
    assert type(embedding) is Tensor and embedding.dtype == torch.float32


def test_a_resumed_run_rounds_as_the_unbroken_one(tmp_path: Path) -> None:
    """Also when torch compiles the step anew in between, as a new process does."""
    job = make_job(tmp_path, make_pairs(8))
    section = SECTION.model_copy(update={"weights_dtype": "bfloat16", "num_epochs": 4, "save_every_steps": 2})
    unbroken = replace(job, work_folder=tmp_path / "unbroken")
    expected = train(unbroken, section)

    def interrupt(phase: str, done: int, *_: Any) -> None:
        if (phase, done) == ("update", 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update(job, Settings(training=section, engine_dtype="float32"), report=interrupt)
    torch._dynamo.reset()
    torch.manual_seed(99)
    assert train(job, section)["steps"] == expected["steps"]
    weights = [load_file(done.work_folder / "checkpoint/model.safetensors") for done in (job, unbroken)]
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())


def test_an_installed_torchao_prints_nothing() -> None:
    code = "import selfreward, transformers.quantizers.auto, sys; assert 'torchao' in sys.modules"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout + found.stderr == ""


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw_offload"])
def test_optimizers_that_cannot_round_at_random_are_refused(optimizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    changes = {"optimizer": optimizer}
    with pytest.raises(RecipeError, match=rf"stochastic_rounding: true with optimizer: {optimizer}, .* adamw_8bit"):
        check(training=BFLOAT16.model_copy(update=changes))
    check(training=NEAREST.model_copy(update=changes))


def test_what_the_compiled_step_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    for on_cuda, gone, text in (
        (False, {"torchao"}, r"torchao is missing.*pip install 'selfreward-lm\[optimizers\]'.*rounding: false"),
        (False, {"g++", "clang++"}, r"a C\+\+ compiler is missing.*install g\+\+"),
        (True, {"triton"}, r"triton is missing"),
        (True, {"gcc", "clang"}, r"a C compiler \(gcc, or .*\) is missing.*install gcc"),  # Triton knows no `cc`
        (True, {"Python.h"}, r"Python's headers \(.*Python.h\) is missing.*python3-dev"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr("torch.cuda.is_available", lambda value=on_cuda: value)
            patch.setattr("pathlib.Path.is_file", lambda path, gone=gone: path.name not in gone)
            patch.setattr("importlib.util.find_spec", lambda name, gone=gone: None if name in gone else name)
            patch.setattr(stochastic_rounding.shutil, "which", lambda name, gone=gone: None if name in gone else name)
            with pytest.raises(RecipeError, match=text):
                check(training=BFLOAT16)
            check(training=NEAREST)
            check(training=BFLOAT16, lora=LoraSection())  # adapters are float32
            check(training=TrainingSection())
