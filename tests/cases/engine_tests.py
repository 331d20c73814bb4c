"""Tests that every engine must pass, on `random:tiny`, with plain transformers as the oracle; and their checkpoints.

A test class of an engine inherits `EngineTests` and gives the fixtures `first` (a checkpoint) and `engine` (on
`first`, float32, a context of `CONTEXT_TOKENS`), and `tolerance_nats`: how far its log-probabilities may be off.
"""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from selfreward.errors import EngineError
from selfreward.model_files import checkpoint_of, materialise
from selfreward.model_files.tokenizer import ChatTokenizer
from selfreward.parts import Engine
from selfreward.recipe import ModelSection
from selfreward.records import Checkpoint, Message
from selfreward.requests import GenerationRequest, ScoreRequest

CONTEXT_TOKENS = 512


def tiny_checkpoint() -> Checkpoint:
    return checkpoint_of(materialise(ModelSection(model="random:tiny")), 0)


def changed_copy(checkpoint: Checkpoint, folder: Path, *, scale: float) -> Checkpoint:
    """Return a checkpoint like after an update: every matrix differs a little."""
    shutil.copytree(checkpoint.path, folder)
    file = folder / "model.safetensors"
    generator = torch.Generator().manual_seed(1)
    tensors = load_file(file)
    for name, tensor in tensors.items():
        tensors[name] = tensor * (1 + scale * torch.randn(tensor.shape, generator=generator))
    save_file(tensors, file, metadata={"format": "pt"})
    return checkpoint_of(folder, checkpoint.iteration + 1)


def with_canary(checkpoint: Checkpoint, token_ids: Sequence[int], logprobs: Sequence[float]) -> Checkpoint:
    content = {"token_ids": list(token_ids), "token_logprobs": list(logprobs)}
    (checkpoint.path / "canary.json").write_text(json.dumps(content))
    return checkpoint_of(checkpoint.path, checkpoint.iteration)


def plain_logprobs(folder: Path, token_ids: Sequence[int]) -> list[float]:
    """Return the log-probabilities of `token_ids[1:]` by transformers alone: one sequence, no padding, no cache."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logprobs = model(torch.tensor([list(token_ids)])).logits[0].log_softmax(-1)
    return [float(logprobs[position, token]) for position, token in enumerate(token_ids[1:])]


def ask(engine: Engine, text: str, **settings: object) -> GenerationRequest:
    prompt = engine.encode([Message("user", text)])
    return GenerationRequest(prompt, **({"max_tokens": 40, "n": 3, "temperature": 0.7, "top_p": 0.9} | settings))  # type: ignore[arg-type]


def penalised_tokens(folder: Path, request: GenerationRequest) -> tuple[int, ...]:
    """Return the greedy tokens of plain transformers with its own repetition penalty."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt = torch.tensor([request.prompt_token_ids])
    made = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=request.max_tokens,
        repetition_penalty=request.repetition_penalty,
    )  # fmt: skip
    return tuple(made[0, prompt.shape[1] :].tolist())


class EngineTests:
    tolerance_nats: float

    @pytest.fixture(scope="class")
    def second(self, first: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
        return changed_copy(first, tmp_path_factory.mktemp("models") / "second", scale=0.01)

    def test_samples_have_the_tokens_and_their_raw_log_probabilities(self, engine: Engine, first: Checkpoint) -> None:
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
            assert len(sample.token_ids) == 40 or sample.finish_reason == "stop"
            assert sample.text == chat.decode(sample.token_ids)
            # Temperature and top-p affect the sampling, not the reported log-probabilities.
            whole = (*request.prompt_token_ids, *sample.token_ids)
            expected = plain_logprobs(first.path, whole)[len(request.prompt_token_ids) - 1 :]
            assert sample.token_logprobs == pytest.approx(expected, abs=self.tolerance_nats)

    def test_scores_equal_those_of_plain_transformers(self, engine: Engine, first: Checkpoint) -> None:
        requests = [
            ScoreRequest(engine.encode_text("a longer beginning"), engine.encode_text("and its end")),
            ScoreRequest(engine.encode_text("b"), engine.encode_text("c")),
            ScoreRequest(engine.encode_text("nothing is asked"), ()),
            ScoreRequest(engine.encode_text("x" * 12), engine.encode_text("y" * (CONTEXT_TOKENS - 12))),
        ]
        for request, score in zip(requests, engine.score(requests), strict=True):
            whole = (*request.prompt_token_ids, *request.token_ids)
            expected = plain_logprobs(first.path, whole)[len(request.prompt_token_ids) - 1 :]
            assert score == pytest.approx(expected if request.token_ids else [], abs=self.tolerance_nats)

    def test_sample_i_has_seed_plus_i_and_samples_differ(self, engine: Engine) -> None:
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

    def test_greedy_takes_the_most_probable_token_in_every_sample(self, engine: Engine) -> None:
        letters = tuple(range(ord("a"), ord("z") + 1))
        (draws,) = engine.generate([ask(engine, "hello", temperature=0.0, max_tokens=1, choice_token_ids=letters)])
        assert len(draws) == 3
        assert len({sample.token_ids for sample in draws}) == 1
        assert draws[0].token_logprobs[0] == pytest.approx(max(draws[0].choice_logprobs))

    def test_a_stop_string_ends_the_text_before_it_and_the_tokens_after_it(
        self, engine: Engine, first: Checkpoint
    ) -> None:
        (before,) = engine.generate([ask(engine, "hello", seed=11)])
        stop = before[0].text[5:8]
        (after,) = engine.generate([ask(engine, "hello", seed=11, stop=("never written", stop))])
        chat = ChatTokenizer(first.path)
        assert after[0].finish_reason == "stop"
        for old, new in zip(before, after, strict=True):
            size = len(new.token_ids)
            assert new.token_ids == old.token_ids[:size]
            assert new.token_logprobs == pytest.approx(old.token_logprobs[:size], abs=1e-4)
            assert new.text == old.text.partition(stop)[0]
            if stop in old.text:
                assert chat.decode(new.token_ids).endswith(stop), "what was sampled is what is trained on"

    def test_one_remaining_token_is_the_most_probable_one(self, engine: Engine) -> None:
        (greedy,) = engine.generate([ask(engine, "hello", n=1, temperature=0.0)])
        for only in ({"top_k": 1}, {"min_p": 1.0}):
            (draws,) = engine.generate([ask(engine, "hello", n=1, temperature=1.5, top_p=1.0, **only)])
            assert draws[0].token_ids == greedy[0].token_ids
            assert draws[0].token_logprobs == pytest.approx(greedy[0].token_logprobs, abs=1e-4), "raw, not 0"

    def test_few_remaining_tokens_are_the_most_probable_ones(self, engine: Engine) -> None:
        request = ask(engine, "hello", n=60, max_tokens=1, temperature=2.0, top_p=1.0, top_k=3)
        (draws,) = engine.generate([request])
        tokens = range(258)
        logprobs = [score for (score,) in engine.score([ScoreRequest(request.prompt_token_ids, (t,)) for t in tokens])]
        best = sorted(tokens, key=lambda token: -logprobs[token])[:3]
        assert {sample.token_ids[0] for sample in draws} == set(best)
        floor = max(logprobs) + math.log(0.5)  # min-p counts after the temperature: at temperature 1 directly
        (draws,) = engine.generate([replace(request, temperature=1.0, top_k=0, min_p=0.5)])
        assert all(logprobs[sample.token_ids[0]] >= floor for sample in draws)

    def test_the_repetition_penalty_is_that_of_transformers(self, engine: Engine, first: Checkpoint) -> None:
        request = ask(engine, "aaaaaa", n=1, temperature=0.0, max_tokens=12, repetition_penalty=1.7)
        ((sample,),) = engine.generate([request])
        assert sample.token_ids == penalised_tokens(first.path, request)
        ((plain,),) = engine.generate([replace(request, repetition_penalty=1.0)])
        assert plain.token_ids != sample.token_ids

    def test_choices_have_the_same_log_probabilities_as_score(self, engine: Engine) -> None:
        # Different numbers of choices in one call, including token 0, which vLLM also uses as padding.
        choices = (*engine.encode_text("54321"), 0)
        requests = [
            ask(engine, "hello", n=2, max_tokens=3, temperature=1.3, choice_token_ids=choices),
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

    def test_a_request_beyond_the_context_is_refused_without_side_effects(self, engine: Engine) -> None:
        with pytest.raises(EngineError, match=rf"request 1 of 2.*{CONTEXT_TOKENS} are allowed"):
            engine.generate([ask(engine, "short"), ask(engine, "x" * 500)])
        assert engine.generate([ask(engine, "short")])

    def test_a_weight_sync_changes_the_model_and_can_be_reversed(
        self, engine: Engine, first: Checkpoint, second: Checkpoint
    ) -> None:
        request = ask(engine, "hello", seed=3)
        before, num_weight_syncs = engine.generate([request]), engine.usage()["num_weight_syncs"]
        engine.load(second)
        sync = engine.facts()["last_weight_sync"]
        assert sync["checkpoint_id"] == second.id
        assert sync["changed_rate"] > 0.9
        assert sync["num_tensors_not_comparable"] == 0
        assert 0 < sync["reload_s"] < sync["weight_sync_s"]
        assert engine.generate([request]) != before
        engine.load(second)
        assert engine.usage()["num_weight_syncs"] == num_weight_syncs + 1
        engine.sleep()  # No-op on the CPU; on a GPU the weights must be restored automatically.
        assert engine.generate([request]) != before
        engine.load(first)
        assert engine.generate([request]) == before

    def test_the_canary_must_match_the_trainers(self, engine: Engine, first: Checkpoint, tmp_path: Path) -> None:
        third = changed_copy(first, tmp_path / "third", scale=0.01)
        token_ids = engine.encode_text("a fixed text")
        logprobs = plain_logprobs(third.path, token_ids)
        engine.load(third := with_canary(third, token_ids, logprobs))
        assert engine.facts()["last_weight_sync"]["canary_difference_nats"] < self.tolerance_nats
        engine.load(first)
        third = with_canary(third, token_ids, [logprob - 0.5 for logprob in logprobs])
        with pytest.raises(EngineError, match=r"differs from the trainer's by 0\.(5|49)"):
            engine.load(third)
        engine.load(first)  # The engine remains usable after a failed verification.
        assert engine.generate([ask(engine, "hello")])

    def test_a_truncated_checkpoint_is_detected_before_the_weights_are_changed(
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

    def test_facts_contain_the_engine_and_its_guarantee(self, engine: Engine) -> None:
        facts = engine.facts()
        assert facts["engine"] in facts["versions"]
        assert {"torch", "transformers"} <= facts["versions"].keys()
        assert "the same bytes" in facts["determinism"] and facts["seeded"]
        assert facts["context_tokens"] == engine.context_tokens == CONTEXT_TOKENS
