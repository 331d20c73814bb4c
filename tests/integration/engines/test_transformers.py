"""The transformers engine on `random:tiny`: the tests of all engines, and its tokens, batches and verification."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cases.engine_tests import CONTEXT_TOKENS, EngineTests, ask, changed_copy, tiny_checkpoint, with_canary
from hypothesis import given
from hypothesis import strategies as st

from selfreward.engines import build
from selfreward.engines.decoding import Row, _sample_token_ids, generation_batches, generation_rows
from selfreward.engines.stopping import Stopping
from selfreward.engines.transformers import TransformersEngine
from selfreward.errors import EngineError, RecipeError
from selfreward.model_files.tokenizer import ChatTokenizer
from selfreward.parts import Engine
from selfreward.recipe import EngineSection
from selfreward.records import Checkpoint, Message
from selfreward.requests import GenerationRequest

SECTION = EngineSection(kind="transformers", dtype="float32", context_tokens=CONTEXT_TOKENS, batch_tokens=2048)


@pytest.fixture(scope="module")
def first() -> Checkpoint:
    return tiny_checkpoint()


@pytest.fixture(scope="module")
def engine(first: Checkpoint) -> Iterator[Engine]:
    engine = build(SECTION, first=first)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def second(first: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return changed_copy(first, tmp_path_factory.mktemp("models") / "second", scale=0.01)


class TestEngine(EngineTests):
    tolerance_nats = 1e-4


TEXTS = ["", "plain", "déjà vu 日本語 😀", "tab\tbell\x07null\x00", "<b>&amp;</b>", "  spaces  \n\n"]


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_tokens_and_back(first: Checkpoint, text: str) -> None:
    chat = ChatTokenizer(first.path)
    ids = chat.encode_text(text)
    assert ids == tuple(text.encode())  # One token per byte: this tokenizer can encode every text.
    assert chat.decode(ids) == text


def test_a_lone_surrogate_does_not_stop_a_run(engine: Engine) -> None:
    assert engine.encode_text("a\ud83db") == engine.encode_text("a?b")
    assert engine.encode([Message("user", "a\ud83db")]) == engine.encode([Message("user", "a?b")])


def test_any_token_ids_have_a_text(first: Checkpoint) -> None:
    chat = ChatTokenizer(first.path)

    @given(st.lists(st.integers(0, 258), max_size=40))
    def decodes(ids: list[int]) -> None:
        expected = bytes(token for token in ids if token < 256).decode(errors="replace")
        assert chat.decode(ids) == expected

    decodes()


def test_a_conversation_ends_ready_for_the_assistant(engine: Engine, first: Checkpoint) -> None:
    ids = engine.encode([Message("system", "Be kind."), Message("user", "Hi")])
    chat = ChatTokenizer(first.path)
    assert chat.decode(ids) == "system\nBe kind.\nuser\nHi\nassistant\n"
    assert chat.end_token_ids[0] in ids


def test_a_template_that_refuses_a_role_is_a_recipe_error(first: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "strict"
    shutil.copytree(first.path, folder)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no system turn here') }}")
    with pytest.raises(RecipeError, match="no system turn here"):
        ChatTokenizer(folder).encode([Message("system", "x")])


def test_a_sample_does_not_depend_on_its_batch(engine: Engine, first: Checkpoint) -> None:
    alone = engine.generate([ask(engine, "hello", seed=7)])
    others = [ask(engine, "x" * (5 * i), n=2, seed=50 + i, max_tokens=10 + i) for i in range(20)]
    crowd = engine.generate([*others[:10], ask(engine, "hello", seed=7), *others[10:]])
    assert [sample.token_ids for sample in crowd[10]] == [sample.token_ids for sample in alone[0]]
    small = build(SECTION.model_copy(update={"batch_tokens": 200}), first=first)
    (cut,) = small.generate([ask(small, "hello", seed=7)])
    assert [sample.token_ids for sample in cut] == [sample.token_ids for sample in alone[0]]


def test_a_stop_string_that_is_one_token_is_an_end_token(first: Checkpoint) -> None:
    """Special tokens have no text in which a stop string could be found."""
    stopping = Stopping.of(ChatTokenizer(first.path), ["<|start|>", "zz"])
    word = stopping.chat.encode_text("fizz")
    (start,) = stopping.chat.encode_text("<|start|>")
    assert stopping.strings == ("zz",)
    assert [stopping.has_ended(word[:size]) for size in range(5)] == [False, False, False, False, True]
    assert stopping.has_ended((*word[:2], start))
    assert stopping.text((*word[:2], start)) == stopping.text(word) == "fi"


def test_unseeded_samples_differ_between_calls(first: Checkpoint) -> None:
    engine = build(SECTION.model_copy(update={"seeded": False}), first=first)
    assert engine.generate([ask(engine, "hello")]) != engine.generate([ask(engine, "hello")])


def test_the_nucleus_has_the_fewest_tokens_that_reach_top_p() -> None:
    logits = torch.log(torch.tensor([[0.05, 0.5, 0.15, 0.3]]))
    count = 4000
    picks = {}
    for top_p in (0.8, 0.81, 1.0, 0.01):
        row = Row(0, 0, GenerationRequest((1,), max_tokens=1, top_p=top_p))
        uniform = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        picked = _sample_token_ids(logits.expand(count, -1), [row] * count, uniform)
        picks[top_p] = [round(float((picked == token).double().mean()), 3) for token in range(4)]
    assert picks[0.8] == [0, 0.625, 0, 0.375]
    assert picks[0.81] == pytest.approx([0, 0.5 / 0.95, 0.15 / 0.95, 0.3 / 0.95], abs=1e-3)
    assert picks[1.0] == [0.05, 0.5, 0.15, 0.3]
    assert picks[0.01] == [0, 1, 0, 0]


def test_a_flat_distribution_is_sampled_over_the_complete_vocabulary() -> None:
    vocabulary, count = 5000, 5000
    rows = [Row(0, 0, GenerationRequest((1,), max_tokens=1, top_p=1.0))] * count
    uniform = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    picked = _sample_token_ids(torch.zeros(count, vocabulary), rows, uniform)
    assert len(set(picked.tolist())) > 4900


def test_batches_contain_every_sample_once_and_respect_their_limits() -> None:
    requests = [GenerationRequest((1,) * (1 + i * 7 % 50), max_tokens=10, n=1 + i % 4) for i in range(40)]
    rows = generation_rows(requests)
    cut = generation_batches(rows, batch_tokens=300, max_rows=8)
    drawn = sorted((row.request_index, row.draw) for batch in cut for row in batch)
    assert drawn == [(index, draw) for index, request in enumerate(requests) for draw in range(request.n)]
    for batch in cut:
        assert len(batch) <= 8
        assert len(batch) * (max(len(row.request.prompt_token_ids) for row in batch) + 10) <= 300
    huge = generation_rows([GenerationRequest((1,) * 500, max_tokens=10)])
    assert generation_batches(huge, batch_tokens=300, max_rows=8) == [huge]


def test_a_first_load_of_another_checkpoint_needs_no_weight_sync(first: Checkpoint, second: Checkpoint) -> None:
    engine = build(SECTION, first=first)
    engine.load(second)
    assert engine.facts()["last_weight_sync"]["checkpoint_id"] == second.id
    assert engine.usage()["num_weight_syncs"] == 0


class SkippingEngine(TransformersEngine):
    """An engine that skips reading the weights in a weight sync."""

    def _reload(self, checkpoint: Checkpoint) -> None:
        pass


@pytest.mark.parametrize("scale", [0.01, 1e-5])
def test_a_skipped_weight_sync_is_detected_for_any_size_of_update(
    first: Checkpoint, tmp_path: Path, scale: float
) -> None:
    engine = SkippingEngine(SECTION, first=first)
    engine.load(first)
    third = changed_copy(first, tmp_path / "third", scale=scale)
    with pytest.raises(EngineError, match="sampled tensors differ from the checkpoint's"):
        engine.load(third)
    with pytest.raises(EngineError, match="last weight sync failed"):
        engine.generate([ask(engine, "hello")])


def test_an_unreadable_canary_is_reported(first: Checkpoint, tmp_path: Path) -> None:
    third = changed_copy(first, tmp_path / "third", scale=0.01)
    third = with_canary(third, [1, 2, 3], [-0.5])
    with pytest.raises(EngineError, match=r"canary\.json"):
        build(SECTION, first=first).load(third)


def test_weights_that_are_not_finite_are_detected(first: Checkpoint, tmp_path: Path) -> None:
    broken = changed_copy(first, tmp_path / "broken", scale=float("nan"))
    with pytest.raises(EngineError, match="not finite"):
        build(SECTION, first=first).load(broken)
