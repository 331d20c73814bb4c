"""Memory of an update, counted on fake tensors, against the measured peak of real steps and against known sizes."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from cases.packing import COMMON, EXPERTS
from cases.peak_memory import PeakMemory
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from selfreward.recipe import LaunchSection, LoraSection, TrainingSection
from selfreward.updates.batches import PairBlock
from selfreward.updates.budgets import MAX_PASS_TOKENS, Budgets, budgets_of
from selfreward.updates.memory import TrainingMemory, training_memory
from selfreward.updates.packing.layout import PairTokens, lay_out_pairs
from selfreward.updates.packing.micro_batches import Budget
from selfreward.updates.settings import Settings
from selfreward.updates.trainer import Trainer

GIB = 2**30
SMALL = {
    "vocab_size": 4000, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 6, "num_attention_heads": 8,
    "num_key_value_heads": 4, "tie_word_embeddings": True, "max_position_embeddings": 4096,
}  # fmt: skip
LLAMA_1B = {
    "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True,
}  # fmt: skip
QWEN_7B = {
    "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False,
}  # fmt: skip


def settings_of(*, lora: str | None = None, launch: LaunchSection | None = None, **training: Any) -> Settings:
    section = TrainingSection(**training)
    return Settings(
        training=section,
        engine_dtype="bfloat16",
        lora=LoraSection(base_dtype=lora) if lora else None,  # type: ignore[arg-type]
        launch=launch or LaunchSection(),
    )


def random_pairs(num: int, lengths: tuple[int, int, int], *, share_prompt: bool = False) -> tuple[PairTokens, ...]:
    """Pairs of random tokens; `lengths` are those of prompt, chosen and rejected response."""
    generator = torch.Generator().manual_seed(0)

    def tokens(number: int) -> tuple[int, ...]:
        return tuple(torch.randint(2, SMALL["vocab_size"] - 1, (number,), generator=generator).tolist())

    prompts = [tokens(lengths[0])] * num if share_prompt else [tokens(lengths[0]) for _ in range(num)]
    return tuple(PairTokens(prompt, tokens(lengths[1]), tokens(lengths[2])) for prompt in prompts)


def measured(config: PretrainedConfig, settings: Settings, pairs: tuple[PairTokens, ...]) -> int:
    """The peak of two steps on all pairs."""
    ones = torch.ones(len(pairs))
    block = PairBlock(tuple(map(str, range(len(pairs)))), pairs, ones, ones)
    trainer = Trainer(AutoModelForCausalLM.from_config(config), settings=settings, first=block, num_steps=2, seed=0)
    logps = [-10.0] * len(pairs)
    with PeakMemory() as memory:
        memory.count(*trainer.model.parameters())
        for _ in range(2):
            trainer.step(block, (logps, logps), [*range(len(pairs))])
    trainer.close()
    return memory.peak


def half(num_tokens: int) -> tuple[int, int, int]:
    """Lengths of a pair of which half is the prompt."""
    return num_tokens // 2, num_tokens // 4, num_tokens // 4


@pytest.mark.parametrize(
    ("changes", "num_tokens"),
    [
        ({}, 512),
        ({}, 1024),
        ({"gradient_checkpointing": True}, 1024),
        ({"optimizer": "adafactor"}, 1024),
        ({"lora": "float32"}, 1024),
    ],
)
def test_the_predicted_peak_is_the_measured_one(changes: dict[str, Any], num_tokens: int) -> None:
    config = AutoConfig.for_model("llama", **SMALL)
    settings = settings_of(batch_size=2, micro_batch_size=1, **changes)
    predicted = training_memory(config, settings, on_cuda=False).peak(num_tokens, num_tokens // 2, num_tokens * 3 // 4)
    found = measured(config, settings, random_pairs(2, half(num_tokens)))
    assert 0.93 < predicted / found < 1.07, f"predicted {predicted / 1e6:.0f} MB, measured {found / 1e6:.0f} MB"


@pytest.mark.parametrize("kv_heads", [2, 8])
def test_keys_that_are_copied_for_segments_are_counted(kv_heads: int) -> None:
    """Sixteen responses to one prompt: attention keeps its keys and values sixteen times, in each layer."""
    config = AutoConfig.for_model("llama", **SMALL | {"num_key_value_heads": kv_heads})
    pairs = random_pairs(8, (400, 20, 20), share_prompt=True)
    budget = Budget(None)
    num_tokens, num_keys = budget.num_tokens(pairs), lay_out_pairs(pairs).num_keys
    assert (num_tokens, num_keys) == (400 + 16 * 20, 15 * 420)
    memory = training_memory(config, settings_of(), on_cuda=False)
    found = measured(config, settings_of(batch_size=8, micro_batch_tokens=None), pairs)
    predicted = memory.peak(num_tokens, 320, num_keys)
    assert 0.93 < predicted / found < 1.07, f"predicted {predicted / 1e6:.0f} MB, measured {found / 1e6:.0f} MB"
    assert memory.peak(num_tokens, 320) < 0.95 * predicted


@pytest.mark.parametrize("lengths", [(200, 56, 56), (200, 20, 56)])
@pytest.mark.parametrize("vocabulary", [4000, 40_000])
def test_padded_batches_are_counted(vocabulary: int, lengths: tuple[int, int, int]) -> None:
    """TRL's fused head, without Triton, makes float32 tiles of all positions; rows of one length need no mask."""
    config = AutoConfig.for_model("llama", **SMALL | {"vocab_size": vocabulary})
    settings = settings_of(batch_size=2, packing="padded")
    predicted = training_memory(config, settings, on_cuda=False).peak(4 * 256, 4 * 56)
    found = measured(config, settings, random_pairs(2, lengths))
    assert 0.93 < predicted / found < 1.2, f"predicted {predicted / 1e6:.0f} MB, measured {found / 1e6:.0f} MB"


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {}), ("qwen2", {}), ("qwen3", {"head_dim": 8}), ("gemma3_text", {"head_dim": 8}), ("phi3", {}),
        ("gpt2", {"n_embd": 16, "n_layer": 2, "n_head": 4}),
    ],
)  # fmt: skip
def test_models_of_many_architectures_are_counted(kind: str, changes: dict[str, Any]) -> None:
    config = AutoConfig.for_model(kind, **COMMON | changes)
    found = training_memory(config, settings_of(), on_cuda=True)
    assert found.per_token > 4 * 16 * config.num_hidden_layers and found.fixed > found.weights > 0


def test_sizes_of_known_models_on_cuda() -> None:
    """In float32 with autocast: 16 bytes a parameter, 2 for the copies, and about 40 hidden and 8 inner values of 16
    and 32 bits for each token and layer."""
    one, seven = (AutoConfig.for_model(*x[:1], **x[1]) for x in (("llama", LLAMA_1B), ("qwen2", QWEN_7B)))
    small = training_memory(one, settings_of(), on_cuda=True)
    assert small.weights / 4 == small.gradients / 4 == small.states / 8 == pytest.approx(1_235_814_400)
    assert small.copies == pytest.approx(2 * (1_235_814_400 - 128256 * 2048), rel=1e-3)
    assert 2048 * small.per_token / GIB == pytest.approx(4.1, abs=0.2)
    large = training_memory(seven, settings_of(), on_cuda=True)
    assert large.fixed / GIB == pytest.approx(126, abs=1)
    # A tile of 0.5 GiB and the gradient of the head, beside all activations.
    matrix = 152064 * 3584
    assert large.head == GIB // 2 + 4 * matrix
    half = training_memory(seven, settings_of(weights_dtype="bfloat16"), on_cuda=True)
    assert half.head == GIB // 2 + 6 * matrix
    frozen = training_memory(seven, settings_of(lora="nf4"), on_cuda=True)
    assert frozen.head == GIB // 2
    # Embeddings and head stay in 16 bits; 20 million adapters of 16 bytes.
    adapters = frozen.weights - (0.53 * (7_615_616_512 - 2 * matrix) + 2 * 2 * matrix)
    assert adapters == pytest.approx(4 * 40_370_176, rel=1e-6)
    assert 2048 * large.per_token / GIB == pytest.approx(14.4, abs=1)
    checkpointed = training_memory(seven, settings_of(gradient_checkpointing=True), on_cuda=True)
    assert 2048 * checkpointed.per_token / GIB == pytest.approx(
        0.77, abs=0.1
    )  # 16 or 32 bits of one hidden state a layer
    shards = training_memory(
        seven, settings_of(launch=LaunchSection(processes_per_node=8, sharding="fsdp")), on_cuda=True
    )
    assert shards.weights * 8 == pytest.approx(large.weights, rel=1e-6)
    assert shards.copies == 8 * 233_057_792 + 2 * matrix  # the head stays gathered
    assert shards.head == GIB // 2 + 10 * matrix


# --- Budgets ---

MEMORY = TrainingMemory(weights=10 * GIB, gradients=0, states=0, copies=0, per_token=1.9e6, per_token_in_layer=1e5)


def test_auto_takes_what_the_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfreward.updates.budgets.countable_memory", lambda *_args, **_options: MEMORY)
    monkeypatch.setattr("selfreward.updates.budgets.free_memory", lambda _device: 40 * GIB)
    config = AutoConfig.for_model("llama", **SMALL)
    found = budgets_of(settings_of(), config, device=torch.device("cuda"))
    assert found.step.max_tokens == int((0.9 * 40 - 10) * GIB / 2e6) == 13958
    assert found.forward.max_tokens == MAX_PASS_TOKENS and "40.0 GiB are free" in found.reason
    monkeypatch.setattr("selfreward.updates.budgets.free_memory", lambda _device: 5 * GIB)
    assert budgets_of(settings_of(), config, device=torch.device("cuda")).step.max_tokens == 1
    assert budgets_of(settings_of(), config, device=torch.device("cpu")).step.max_tokens == 2048
    limited = budgets_of(settings_of(micro_batch_tokens=500), config, device=torch.device("cuda"))
    assert (limited.step.max_tokens, limited.forward.max_tokens) == (500, 10_000)
    assert limited.step.key_cost == 0, "a number in the recipe is one of tokens"
    with_keys = replace(MEMORY, per_key=1.9e6, per_key_in_layer=1e5)  # a key takes what a token takes
    monkeypatch.setattr("selfreward.updates.budgets.countable_memory", lambda *_args, **_options: with_keys)
    monkeypatch.setattr("selfreward.updates.budgets.free_memory", lambda _device: 40 * GIB)
    found = budgets_of(settings_of(), config, device=torch.device("cuda"))
    assert found.step.max_tokens == 13958 // 2 and found.step.key_cost == found.forward.key_cost == 0.5
    none = budgets_of(settings_of(micro_batch_tokens=None), config, device=torch.device("cuda"))
    assert none.step.max_tokens is None and none.forward.max_tokens is None


def test_a_model_that_cannot_be_traced_has_the_default() -> None:
    """On fake tensors a grouped product of matrices, as of experts, has no shape in float32."""
    config = AutoConfig.for_model("qwen3_moe", **COMMON | {"head_dim": 8, **EXPERTS})
    found = budgets_of(settings_of(), config, device=torch.device("cuda"))
    assert found.step.max_tokens == found.forward.max_tokens == 2048 and "cannot be counted" in found.reason


@pytest.mark.parametrize(("tokens", "is_halved"), [("auto", True), (4096, False)])
def test_a_step_that_runs_out_of_memory_begins_again_with_half(
    tokens: Any, is_halved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is the same, only its division is finer; a number that the recipe sets is not changed."""
    config = AutoConfig.for_model("llama", **SMALL)
    pairs = tuple(PairTokens((5,) * 20, (6 + i,) * 40, (7, 8 + i) * 20) for i in range(8))
    block = PairBlock(tuple("abcdefgh"), pairs, torch.ones(8), torch.ones(8))

    def step(budgets: Budgets | None) -> tuple[Any, Trainer]:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        settings = settings_of(batch_size=8, micro_batch_tokens=tokens)
        trainer = Trainer(model, settings=settings, first=block, num_steps=1, seed=0)
        trainer.budgets = budgets or trainer.budgets
        return trainer.step(block, ([-10.0] * 8, [-10.0] * 8), [*range(8)]), trainer

    whole, _ = step(None)
    forward, num_fails = Trainer._loss_and_margin, []

    def short(self: Trainer, *args: Any) -> Any:
        if len(args[2]) > 3:
            num_fails.append(len(args[2]))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, *args)

    monkeypatch.setattr(Trainer, "_loss_and_margin", short)
    if not is_halved:
        with pytest.raises(torch.OutOfMemoryError):
            step(None)
        return
    budget = Budget(2048)
    found, trainer = step(Budgets(budget, budget, "for this test"))
    assert num_fails and trainer.budgets.step.max_tokens is not None and trainer.budgets.step.max_tokens < 1024
    assert "before step 1: the memory did not suffice" in trainer.budgets.reason
    assert found.loss == pytest.approx(whole.loss, rel=1e-6) and found.grad_norm == pytest.approx(
        whole.grad_norm, rel=1e-5
    )


@pytest.mark.parametrize(("tokens", "is_halved"), [("auto", True), (4096, False)])
def test_a_pass_without_gradients_that_runs_out_of_memory_goes_on_with_half(
    tokens: Any, is_halved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had computed is kept."""
    torch.manual_seed(0)
    pairs = tuple(PairTokens((5,) * 20, (6 + i,) * 40, (7, 8 + i) * 20) for i in range(8))
    block = PairBlock(tuple("abcdefgh"), pairs, torch.ones(8), torch.ones(8))
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SMALL))
    settings = settings_of(batch_size=8, micro_batch_tokens=tokens)
    trainer = Trainer(model, settings=settings, first=block, num_steps=1, seed=0)
    whole = trainer.logps(block, [*range(8)], phase="reference")
    forward, computed = Trainer._forward, list[int]()

    def short(self: Trainer, inputs: dict[str, Any]) -> Any:
        if inputs["input_ids"].shape[0] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        computed.append(inputs["input_ids"].shape[0] // 2)
        return forward(self, inputs)

    monkeypatch.setattr(Trainer, "_forward", short)
    if not is_halved:
        with pytest.raises(torch.OutOfMemoryError):
            trainer.logps(block, [*range(8)], phase="reference")
        return
    trainer.budgets = Budgets(Budget(2048), Budget(2048), "for this test")
    found = trainer.logps(block, [*range(8)], phase="reference")
    assert sum(computed) == 8 and max(computed) <= 2
    assert trainer.budgets.reason == "halved in the reference pass: the memory did not suffice"
    assert found[0] == pytest.approx(whole[0], rel=1e-5) and found[1] == pytest.approx(whole[1], rel=1e-5)
