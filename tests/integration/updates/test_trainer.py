"""The trainer alone: open between blocks, with each optimizer, and continued from a saved state bit for bit."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.stock import stock_trainer
from cases.training import SECTION, make_job, make_pairs, train, train_with, write_policy
from torch import Tensor
from transformers import AutoModelForCausalLM

from selfreward.errors import TrainingError
from selfreward.recipe import LoraSection, TrainingSection
from selfreward.records import PreferencePair
from selfreward.store.tables import to_table, write_table
from selfreward.updates.batches import Batch, PairBlock, batches
from selfreward.updates.checkpoint import write_model
from selfreward.updates.models import load_model
from selfreward.updates.pairs import read_pairs
from selfreward.updates.settings import Settings
from selfreward.updates.trainer import Logps, Trainer

COSINE = SECTION.model_copy(update={"lr_scheduler": "cosine", "min_lr_ratio": 0.1, "warmup_steps": 1})
LORA = LoraSection(rank=4, alpha=8.0)
OPTIMIZERS = ["adamw", "adamw_8bit", "adamw_offload", "adafactor"]
LARGE = 80  # its matrices have more than 4096 elements; smaller ones are not stored in 8 bits


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return write_policy(tmp_path / "policy", seed=1, hidden=LARGE)


def block_of(pairs: Sequence[PreferencePair], folder: Path) -> PairBlock:
    file = folder / "block.parquet"
    write_table(to_table(PreferencePair, pairs), file)
    return PairBlock.of(read_pairs(file, max_pairs=None, seed=0)[0])


def open_trainer(
    policy: Path,
    first: PairBlock,
    *,
    num_steps: int,
    section: TrainingSection = COSINE,
    lora: LoraSection | None = None,
) -> Trainer:
    settings = Settings(training=section, engine_dtype="float32", lora=lora)
    model = load_model(policy, dtype=section.weights_dtype, trust_remote_code=False)
    return Trainer(model, settings=settings, first=first, num_steps=num_steps, seed=3)


def weights_of(trainer: Trainer, policy: Path) -> dict[str, Tensor]:
    model, _ = trainer.full_model(policy)
    return {name: weights.detach().clone() for name, weights in model.named_parameters()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(weights, other[name]) for name, weights in one.items())


def all_batches(num_pairs: int) -> list[Batch]:
    return [*batches(num_pairs, batch_size=4, num_epochs=2, seed=7)]


@pytest.mark.parametrize("lora", [None, LORA])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_blocks_of_one_batch_equal_training_on_one_block(
    tmp_path: Path, policy: Path, optimizer: Any, lora: Any
) -> None:
    """Bit for bit; each block has its own pairs and reference, and a checkpoint is written between blocks."""
    pairs, section = make_pairs(10), COSINE.model_copy(update={"optimizer": optimizer})
    everything, order = block_of(pairs, tmp_path), all_batches(10)
    at_once = open_trainer(policy, everything, num_steps=len(order), section=section, lora=lora)
    reference = at_once.logps(everything, range(10), phase="reference")
    for batch in order:
        at_once.step(everything, reference, batch)

    blocks = [block_of([pairs[i] for i in batch], tmp_path) for batch in order]
    stays_open = open_trainer(policy, blocks[0], num_steps=len(order), section=section, lora=lora)
    for number, (batch, block) in enumerate(zip(order, blocks, strict=True)):
        own: Logps = tuple([side[i] for i in batch] for side in reference)  # type: ignore[assignment]
        stays_open.step(block, own, [*range(len(batch))])
        model, state = stays_open.full_model(policy)
        write_model(model, tmp_path / f"{number}", state=state, policy=policy, dtype="float32")
    assert len(stays_open.steps) == 6 and stays_open.steps == at_once.steps
    # The first step may have a rate of 0, so that the second loss is ln 2 again, on some processors to the last bit.
    assert len({step.loss for step in at_once.steps}) >= 5 and len({step.learning_rate for step in at_once.steps}) == 6
    assert_same(weights_of(stays_open, policy), weights_of(at_once, policy))

    last = AutoModelForCausalLM.from_pretrained(tmp_path / "5").state_dict()
    for name, weights in weights_of(at_once, policy).items():
        assert torch.equal(last[name], weights), name
    before = AutoModelForCausalLM.from_pretrained(tmp_path / "4").state_dict()
    assert not all(torch.equal(weights, before[name]) for name, weights in last.items())


def test_a_schedule_that_decays_is_not_taken_beyond_its_end(tmp_path: Path, policy: Path) -> None:
    block = block_of(make_pairs(4), tmp_path)
    decaying = open_trainer(policy, block, num_steps=1)
    constant = SECTION.model_copy(update={"lr_scheduler": "constant"})
    endless = open_trainer(policy, block, num_steps=1, section=constant)
    reference = endless.logps(block, range(4), phase="reference")
    for trainer in (decaying, endless):
        trainer.step(block, reference, [0, 1])
    endless.step(block, reference, [2, 3])
    with pytest.raises(TrainingError, match="training step 2: the schedule cosine spans 1 steps"):
        decaying.step(block, reference, [2, 3])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_saved_state_is_continued_bit_for_bit(tmp_path: Path, policy: Path, optimizer: Any, dtype: Any) -> None:
    """Weights, optimizer and position in the schedule; without the optimizer's state the result differs."""
    section = COSINE.model_copy(update={"optimizer": optimizer, "weights_dtype": dtype})
    block, order = block_of(make_pairs(8), tmp_path), all_batches(8)
    unbroken = open_trainer(policy, block, num_steps=4, section=section)
    reference = unbroken.logps(block, range(8), phase="reference")
    for batch in order[:2]:
        unbroken.step(block, reference, batch)
    unbroken.save_state(tmp_path / "save")
    halfway = weights_of(unbroken, policy)
    for batch in order[2:]:
        unbroken.step(block, reference, batch)

    resumed = open_trainer(policy, block, num_steps=4, section=section)
    resumed.load_state(tmp_path / "save")
    assert_same(weights_of(resumed, policy), halfway)
    for batch in order[2:]:
        resumed.step(block, reference, batch)
    assert resumed.steps == unbroken.steps
    assert_same(weights_of(resumed, policy), weights_of(unbroken, policy))

    without_optimizer = open_trainer(policy, block, num_steps=4, section=section)
    without_optimizer.load_state(tmp_path / "save")
    without_optimizer.optimizer.state.clear()
    for batch in order[2:]:
        without_optimizer.step(block, reference, batch)
    assert any(
        not torch.equal(w, weights_of(without_optimizer, policy)[name])
        for name, w in weights_of(unbroken, policy).items()
    )


def test_a_state_that_needs_unpickling_is_refused(tmp_path: Path, policy: Path) -> None:
    block = block_of(make_pairs(4), tmp_path)
    trainer = open_trainer(policy, block, num_steps=1)
    trainer.step(block, trainer.logps(block, range(4), phase="reference"), [0, 1, 2, 3])
    trainer.save_state(tmp_path / "save")

    class Planted:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    state = torch.load(tmp_path / "save" / "state.pt", weights_only=True)
    torch.save(state | {"planted": Planted()}, tmp_path / "save" / "state.pt")
    with pytest.raises(Exception, match="Weights only load failed"):
        trainer.load_state(tmp_path / "save")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("ours", "theirs"), [("adamw", "adamw_torch_fused"), ("adafactor", "adafactor"), ("adamw_8bit", "adamw_bnb_8bit")]
)
def test_optimizers_equal_those_of_transformers(tmp_path: Path, ours: Any, theirs: str) -> None:
    """Against stock TRL: losses, gradient norms, learning rates, and weights after 4 steps."""
    write_policy(tmp_path / "policy", seed=1, hidden=LARGE)
    pairs = make_pairs(6)
    job = make_job(tmp_path, pairs)
    section = SECTION.model_copy(update={"batch_size": 6, "micro_batch_size": None, "num_epochs": 4})
    section = section.model_copy(update={"weight_decay": 0.1, "max_grad_norm": 0.5, "warmup_steps": 2})
    metrics = train(job, section, optimizer=ours, packing="padded")
    stock = stock_trainer(
        job, pairs, output_dir=tmp_path / "stock", num_train_epochs=4, learning_rate=1e-3, optim=theirs,
        weight_decay=0.1, max_grad_norm=0.5, warmup_steps=2,
    )  # fmt: skip
    stock.train()
    history = [row for row in stock.state.log_history if "loss" in row]
    assert len(history) == len(metrics["steps"]) == 4
    for step, row in zip(metrics["steps"], history, strict=True):
        assert step["loss"] == pytest.approx(row["loss"], abs=1e-4)
        assert step["grad_norm"] == pytest.approx(row["grad_norm"], rel=1e-3)
        assert step["learning_rate"] == row["learning_rate"]
    trained = AutoModelForCausalLM.from_pretrained(job.work_folder / "checkpoint").state_dict()
    for name, weights in stock.model.state_dict().items():
        torch.testing.assert_close(trained[name], weights, atol=1e-4, rtol=1e-3)


def test_optimizers_differ_and_all_of_them_learn(tmp_path: Path, policy: Path) -> None:
    job = make_job(tmp_path, make_pairs(8))
    margins = {}
    for optimizer in OPTIMIZERS:
        metrics = train(replace(job, work_folder=tmp_path / optimizer), optimizer=optimizer, num_epochs=4)
        margins[optimizer] = metrics["reward_margin_after"]
    assert len(set(margins.values())) == 4
    assert min(margins.values()) > 0.05


def test_moments_of_matrices_have_eight_bits_and_those_of_embeddings_do_not(tmp_path: Path, policy: Path) -> None:
    block = block_of(make_pairs(4), tmp_path)
    trainer = open_trainer(policy, block, num_steps=2, section=SECTION.model_copy(update={"optimizer": "adamw_8bit"}))
    trainer.step(block, trainer.logps(block, range(4), phase="reference"), [0, 1, 2, 3])
    dtypes = {name: trainer.optimizer.state[w]["state1"].dtype for name, w in trainer.model.named_parameters()}
    assert dtypes["model.layers.0.mlp.up_proj.weight"] == torch.uint8
    assert dtypes["model.embed_tokens.weight"] == torch.float32
    assert dtypes["model.norm.weight"] == torch.float32


def test_moments_that_may_leave_the_gpu_are_those_of_adamw(tmp_path: Path, policy: Path) -> None:
    """On a CPU they are in host memory; a loaded state is in memory that the optimizer made, not the given tensors."""
    weights = {}
    for optimizer in ("adamw", "adamw_offload"):
        block = block_of(make_pairs(4), tmp_path)
        section = SECTION.model_copy(update={"optimizer": optimizer, "weight_decay": 0.1})
        trainer = open_trainer(policy, block, num_steps=4, section=section)
        reference = trainer.logps(block, range(4), phase="reference")
        for _ in range(4):
            trainer.step(block, reference, [0, 1, 2, 3])
        weights[optimizer] = weights_of(trainer, policy)
    for name, expected in weights["adamw"].items():
        torch.testing.assert_close(weights["adamw_offload"][name], expected, atol=2e-5, rtol=1e-4)
    made = []
    paged: Any = trainer.optimizer
    original = paged.get_state_buffer
    paged.get_state_buffer = lambda *args, **options: made.append(original(*args, **options)) or made[-1]
    trainer.save_state(tmp_path / "save")
    trainer.load_state(tmp_path / "save")
    states = [state[name] for state in paged.state.values() for name in ("state1", "state2")]
    assert len(made) == len(states) and all(one is other for one, other in zip(made, states, strict=True))
    assert all(state.count_nonzero() and state.dtype == torch.float32 for state in states)


def test_learning_rates_of_an_update_follow_its_schedule(tmp_path: Path) -> None:
    job = make_job(tmp_path, make_pairs(8))
    metrics = train_with(job, training=COSINE.model_copy(update={"lr_scheduler": "linear"}))
    found = [step["learning_rate"] for step in metrics["steps"]]
    assert found == pytest.approx([0.0, 1e-3, 1e-3 * (1 - 0.9 / 3), 1e-3 * (1 - 0.9 * 2 / 3)])


def test_errors_name_the_pairs_of_the_current_block(tmp_path: Path, policy: Path) -> None:
    pairs = make_pairs(4)
    good, bad = block_of(pairs[:2], tmp_path), block_of([replace(p, weight=1e39) for p in pairs[2:]], tmp_path)
    trainer = open_trainer(policy, good, num_steps=2)
    trainer.step(good, trainer.logps(good, [0, 1], phase="reference"), [0, 1])
    weights = weights_of(trainer, policy)
    with pytest.raises(TrainingError, match=r"training step 2: the loss is inf on pairs pair-[23], pair-[23];"):
        trainer.step(bad, trainer.logps(bad, [0, 1], phase="reference"), [0, 1])
    assert_same(weights_of(trainer, policy), weights)
