"""The transformers engine on `random:tiny`: tokens, seeds, log-probabilities, batches, swaps and their proof."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from selfreward.engines import build, checkpoint_of, materialise
from selfreward.engines.chat import ChatTokenizer
from selfreward.engines.decoding import Row, _pick, generation_batches, generation_rows
from selfreward.engines.transformers import TransformersEngine
from selfreward.errors import EngineError, RecipeError
from selfreward.parts import Engine, GenerationRequest, ScoreRequest
from selfreward.recipe import EngineSection, ModelSection
from selfreward.records import Checkpoint, Message

SECTION = EngineSection(kind="transformers", dtype="float32", context_tokens=512, batch_tokens=2048)


def tiny_checkpoint() -> Checkpoint:
    return checkpoint_of(materialise(ModelSection(model="random:tiny")), 0)


def changed_copy(checkpoint: Checkpoint, folder: Path, *, scale: float) -> Checkpoint:
    """A checkpoint as an update would leave it: every matrix a little different."""
    shutil.copytree(checkpoint.path, folder)
    file = folder / "model.safetensors"
    generator = torch.Generator().manual_seed(1)
    tensors = load_file(file)
    for name, tensor in tensors.items():
        tensors[name] = tensor * (1 + scale * torch.randn(tensor.shape, generator=generator))
    save_file(tensors, file, metadata={"format": "pt"})
    return checkpoint_of(folder, checkpoint.iteration + 1)


def write_canary(checkpoint: Checkpoint, token_ids: Sequence[int], logprobs: Sequence[float]) -> None:
    content = {"token_ids": list(token_ids), "token_logprobs": list(logprobs)}
    (checkpoint.path / "canary.json").write_text(json.dumps(content))


def plain_logprobs(folder: Path, token_ids: Sequence[int]) -> list[float]:
    """Log-probabilities of `token_ids[1:]` by transformers alone: one sequence, no padding, no cache."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logprobs = model(torch.tensor([list(token_ids)])).logits[0].log_softmax(-1)
    return [float(logprobs[position, token]) for position, token in enumerate(token_ids[1:])]


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


def ask(engine: Engine, text: str, **settings: object) -> GenerationRequest:
    prompt = engine.encode([Message("user", text)])
    return GenerationRequest(prompt, **({"max_tokens": 40, "n": 3, "temperature": 0.7, "top_p": 0.9} | settings))  # type: ignore[arg-type]


TEXTS = ["", "plain", "déjà vu 日本語 😀", "tab\tbell\x07null\x00", "<b>&amp;</b>", "  spaces  \n\n"]


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_tokens_and_back(first: Checkpoint, text: str) -> None:
    chat = ChatTokenizer(first.path)
    ids = chat.encode_text(text)
    assert ids == tuple(text.encode())  # One token a byte: no text is beyond this tokenizer.
    assert chat.decode(ids) == text


def test_half_a_surrogate_pair_does_not_stop_a_run(engine: Engine) -> None:
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


def test_samples_hold_the_tokens_and_their_raw_log_probabilities(engine: Engine, first: Checkpoint) -> None:
    requests = [ask(engine, text, n=4, seed=100 * i) for i, text in enumerate(["a", "a much longer prompt " * 5, "b"])]
    results = engine.generate(requests)
    assert [len(draws) for draws in results] == [4, 4, 4]
    (end,) = ChatTokenizer(first.path).end_token_ids
    samples = [(request, sample) for request, draws in zip(requests, results, strict=True) for sample in draws]
    assert {sample.finish_reason for _, sample in samples} == {"stop", "length"}
    for request, sample in samples:
        assert (sample.token_ids[-1] == end) == (sample.finish_reason == "stop")
        assert end not in sample.token_ids[:-1]
        assert len(sample.token_ids) == 40 or sample.finish_reason == "stop"
        assert sample.text == ChatTokenizer(first.path).decode(sample.token_ids)
        # Temperature and top-p moved the draw, not what is reported of it.
        whole = (*request.prompt_token_ids, *sample.token_ids)
        expected = plain_logprobs(first.path, whole)[len(request.prompt_token_ids) - 1 :]
        assert sample.token_logprobs == pytest.approx(expected, abs=1e-4)


def test_scores_are_those_of_the_model_alone(engine: Engine, first: Checkpoint) -> None:
    requests = [
        ScoreRequest(engine.encode_text("a longer beginning"), engine.encode_text("and its end")),
        ScoreRequest(engine.encode_text("b"), engine.encode_text("c")),
        ScoreRequest(engine.encode_text("nothing is asked"), ()),
        ScoreRequest(engine.encode_text("x"), engine.encode_text("y" * 300)),
    ]
    for request, score in zip(requests, engine.score(requests), strict=True):
        whole = (*request.prompt_token_ids, *request.token_ids)
        expected = plain_logprobs(first.path, whole)[len(request.prompt_token_ids) - 1 :]
        assert score == pytest.approx(expected if request.token_ids else [], abs=1e-4)


def test_draw_i_is_the_draw_of_seed_plus_i_and_draws_differ(engine: Engine) -> None:
    (three,) = engine.generate([ask(engine, "hello", seed=7)])
    assert len({sample.token_ids for sample in three}) == 3
    for i, sample in enumerate(three):
        ((alone,),) = engine.generate([ask(engine, "hello", n=1, seed=7 + i)])
        assert alone.token_ids == sample.token_ids
    assert engine.generate([ask(engine, "hello", seed=1000)]) != [three]


def test_a_draw_does_not_depend_on_its_batch(engine: Engine, first: Checkpoint) -> None:
    alone = engine.generate([ask(engine, "hello", seed=7)])
    others = [ask(engine, "x" * (5 * i), n=2, seed=50 + i, max_tokens=10 + i) for i in range(20)]
    crowd = engine.generate([*others[:10], ask(engine, "hello", seed=7), *others[10:]])
    assert [sample.token_ids for sample in crowd[10]] == [sample.token_ids for sample in alone[0]]
    small = build(SECTION.model_copy(update={"batch_tokens": 200}), first=first)
    (cut,) = small.generate([ask(small, "hello", seed=7)])
    assert [sample.token_ids for sample in cut] == [sample.token_ids for sample in alone[0]]


def test_the_same_call_gives_the_same_bytes(engine: Engine) -> None:
    requests = [ask(engine, "x" * i, seed=i) for i in range(12)]
    assert engine.generate(requests) == engine.generate(requests)


def test_unseeded_draws_are_new_ones(first: Checkpoint) -> None:
    engine = build(SECTION.model_copy(update={"seeded": False}), first=first)
    assert engine.generate([ask(engine, "hello")]) != engine.generate([ask(engine, "hello")])


def test_greedy_takes_the_most_probable_token_in_every_draw(engine: Engine) -> None:
    letters = tuple(range(ord("a"), ord("z") + 1))
    (draws,) = engine.generate([ask(engine, "hello", temperature=0.0, max_tokens=1, choice_token_ids=letters)])
    assert len(draws) == 3
    assert len({sample.token_ids for sample in draws}) == 1
    assert draws[0].token_logprobs[0] == pytest.approx(max(draws[0].choice_logprobs))


def test_choices_have_the_log_probabilities_that_score_gives(engine: Engine) -> None:
    choices = engine.encode_text("54321")
    request = ask(engine, "hello", n=1, max_tokens=3, temperature=1.3, choice_token_ids=choices)
    plain, (sample,) = engine.generate([ask(engine, "other", n=1), request])
    assert plain[0].choice_logprobs == ()
    scores = engine.score([ScoreRequest(request.prompt_token_ids, (choice,)) for choice in choices])
    assert sample.choice_logprobs == pytest.approx([score[0] for score in scores], abs=1e-5)


def test_a_request_beyond_the_context_is_refused(engine: Engine) -> None:
    with pytest.raises(EngineError, match=r"request 1 of 2.*512 are allowed"):
        engine.generate([ask(engine, "short"), ask(engine, "x" * 500)])


def test_the_nucleus_holds_the_fewest_tokens_that_reach_top_p() -> None:
    logits = torch.log(torch.tensor([[0.05, 0.5, 0.15, 0.3]]))
    count = 4000
    picks = {}
    for top_p in (0.8, 0.81, 1.0, 0.01):
        row = Row(0, 0, GenerationRequest((1,), max_tokens=1, top_p=top_p))
        uniform = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        picked = _pick(logits.expand(count, -1), [row] * count, uniform)
        picks[top_p] = [round(float((picked == token).double().mean()), 3) for token in range(4)]
    assert picks[0.8] == [0, 0.625, 0, 0.375]
    assert picks[0.81] == pytest.approx([0, 0.5 / 0.95, 0.15 / 0.95, 0.3 / 0.95], abs=1e-3)
    assert picks[1.0] == [0.05, 0.5, 0.15, 0.3]
    assert picks[0.01] == [0, 1, 0, 0]


def test_a_flat_distribution_wider_than_the_first_look_is_sampled_whole() -> None:
    vocabulary, count = 5000, 5000
    rows = [Row(0, 0, GenerationRequest((1,), max_tokens=1, top_p=1.0))] * count
    uniform = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    picked = _pick(torch.zeros(count, vocabulary), rows, uniform)
    assert len(set(picked.tolist())) > 4900


def test_batches_hold_every_draw_once_and_keep_to_their_limits() -> None:
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


def test_a_swap_changes_the_model_and_swapping_back_restores_it(first: Checkpoint, second: Checkpoint) -> None:
    engine = build(SECTION, first=first)
    request = ask(engine, "hello", seed=3)
    before = engine.generate([request])
    engine.load(second)
    swapped = engine.facts()["last_swap"]
    assert swapped["checkpoint_id"] == second.id
    assert swapped["changed_rate"] > 0.9
    assert swapped["num_tensors_not_comparable"] == 0
    assert engine.generate([request]) != before
    engine.load(second)
    assert engine.usage()["num_swaps"] == 1
    engine.load(first)
    assert engine.usage()["num_swaps"] == 2
    assert engine.generate([request]) == before


def test_a_first_load_of_another_checkpoint_needs_no_swap(first: Checkpoint, second: Checkpoint) -> None:
    engine = build(SECTION, first=first)
    engine.load(second)
    assert engine.facts()["last_swap"]["checkpoint_id"] == second.id
    assert engine.usage()["num_swaps"] == 0


class ForgetfulEngine(TransformersEngine):
    """Forgets to read the weights when it is asked to swap them."""

    def _reload(self, checkpoint: Checkpoint) -> None:
        pass


@pytest.mark.parametrize("scale", [0.01, 1e-5])
def test_a_skipped_swap_is_found_however_small_the_update(first: Checkpoint, tmp_path: Path, scale: float) -> None:
    engine = ForgetfulEngine(SECTION, first=first)
    engine.load(first)
    third = changed_copy(first, tmp_path / "third", scale=scale)
    with pytest.raises(EngineError, match="sampled tensors are not those of the checkpoint"):
        engine.load(third)
    with pytest.raises(EngineError, match="last swap of weights failed"):
        engine.generate([ask(engine, "hello")])


def test_the_canary_must_sing_as_the_trainers(first: Checkpoint, tmp_path: Path) -> None:
    third = changed_copy(first, tmp_path / "third", scale=0.01)
    engine = build(SECTION, first=first)
    token_ids = engine.encode_text("a fixed text")
    logprobs = plain_logprobs(third.path, token_ids)
    write_canary(third, token_ids, logprobs)
    engine.load(third)
    assert engine.facts()["last_swap"]["canary_difference_nats"] < 1e-4
    engine.load(first)
    write_canary(third, token_ids, [logprob - 0.5 for logprob in logprobs])
    with pytest.raises(EngineError, match=r"differs from the trainer's by 0\.500 nats"):
        engine.load(third)


def test_a_canary_that_cannot_be_read_is_named(first: Checkpoint, tmp_path: Path) -> None:
    third = changed_copy(first, tmp_path / "third", scale=0.01)
    write_canary(third, [1, 2, 3], [-0.5])
    with pytest.raises(EngineError, match=r"canary\.json"):
        build(SECTION, first=first).load(third)


def test_weights_that_are_not_numbers_are_found(first: Checkpoint, tmp_path: Path) -> None:
    broken = changed_copy(first, tmp_path / "broken", scale=float("nan"))
    with pytest.raises(EngineError, match="not finite"):
        build(SECTION, first=first).load(broken)


def test_a_truncated_checkpoint_is_an_engine_error(first: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(first.path, folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    engine = build(SECTION, first=first)
    request = ask(engine, "hello")
    before = engine.generate([request])
    with pytest.raises(EngineError, match="cannot be read"):
        engine.load(checkpoint_of(folder, 1))
    # Found before anything was touched.
    assert engine.generate([request]) == before
