"""Requests that no engine can serve; the sampler on a fake engine; the tensors that a weight check samples."""

from pathlib import Path

import pytest
from fakes.engine import FakeEngine, shown

from selfreward.engines.requests import check_generation, check_scores
from selfreward.errors import EngineError, RecipeError
from selfreward.evaluation import evaluator
from selfreward.evaluation.responding import respond
from selfreward.recipe import SamplingSection
from selfreward.recipe_file import parse
from selfreward.records import Checkpoint, Message, Prompt
from selfreward.requests import GenerationRequest, Sample, ScoreRequest
from selfreward.sampling import Sampler

GOOD = GenerationRequest((1, 2, 3), max_tokens=5)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (GenerationRequest((1, 2, 3, 4), max_tokens=5), "9 tokens; 8 are allowed"),
        (GenerationRequest((), max_tokens=5), "no tokens"),
        (GenerationRequest((1,), max_tokens=0), "max_tokens 0"),
        (GenerationRequest((1,), max_tokens=1, n=0), "n is 0"),
        (GenerationRequest((1,), max_tokens=1, choice_token_ids=(4, 4)), "choice tokens"),
        (GenerationRequest((1,), max_tokens=1, choice_token_ids=tuple(range(200))), "choice tokens"),
    ],
)
def test_a_generation_request_that_cannot_be_served_is_named(bad: GenerationRequest, said: str) -> None:
    check_generation([GOOD, GOOD], context_tokens=8)
    with pytest.raises(EngineError, match=said) as caught:
        check_generation([GOOD, bad], context_tokens=8)
    assert "request 1 of 2" in str(caught.value)


def test_a_score_request_may_fill_the_context_and_no_more() -> None:
    check_scores([ScoreRequest((1, 2, 3), (4, 5)), ScoreRequest((1,), ())], context_tokens=5)
    with pytest.raises(EngineError, match="request 0 of 1"):
        check_scores([ScoreRequest((1, 2, 3), (4, 5, 6))], context_tokens=5)
    with pytest.raises(EngineError, match="no tokens"):
        check_scores([ScoreRequest((), (4,))], context_tokens=5)


def echo(request: GenerationRequest, draw: int) -> Sample:
    """The prompt's own tokens and the number of the draw."""
    return Sample((*request.prompt_token_ids, draw), (-1.0,), f"draw {draw}", "length")


def prompt(identifier: str, text: str) -> Prompt:
    return Prompt(id=identifier, messages=(Message("user", text),))


SECTION = SamplingSection(num_responses=2, max_tokens=10)
MODEL = Checkpoint(id="m0", path=Path("m0"), iteration=0)


def test_responses_follow_the_prompts_and_carry_their_seeds() -> None:
    engine = FakeEngine(echo)
    prompts = [prompt("b", "hey"), prompt("a", "hello")]
    sampler = Sampler(SECTION, engine=engine, run_seed=5)
    responses = sampler.sample(prompts, model=MODEL, iteration=1)
    assert [response.id for response in responses] == ["b/0", "b/1", "a/0", "a/1"]
    assert [response.prompt_id for response in responses] == ["b", "b", "a", "a"]
    assert engine.loaded == [MODEL]
    (requests,) = engine.calls  # One engine call for the whole shard.
    assert ["hey" in shown(request) for request in requests] == [True, False]
    assert responses[2].prompt_token_ids == engine.encode(prompts[1].messages)
    assert responses[3].token_ids == (*responses[3].prompt_token_ids, 1)
    assert responses[3].text == "draw 1"
    assert {response.checkpoint_id for response in responses} == {"m0"}
    assert [response.seed for response in responses] == [request.seed + i for request in requests for i in range(2)]
    assert abs(requests[0].seed - requests[1].seed) > 2

    other = Sampler(SECTION, engine=FakeEngine(echo), run_seed=5).sample(prompts, model=MODEL, iteration=2)
    assert {response.seed for response in other}.isdisjoint(response.seed for response in responses)


def test_a_prompt_longer_than_the_context_is_named_before_anything_runs() -> None:
    fits, too_long = prompt("fits", "x" * 10), prompt("long", "x" * 11)
    allowed = len(FakeEngine(echo).encode(fits.messages))
    engine = FakeEngine(echo, context_tokens=allowed + SECTION.max_tokens)
    sampler = Sampler(SECTION, engine=engine, run_seed=0)
    assert len(sampler.sample([fits], model=MODEL, iteration=1)) == 2
    with pytest.raises(RecipeError, match=f"'long': {allowed + 1} tokens.*; {allowed} are allowed"):
        sampler.sample([fits, too_long], model=MODEL, iteration=1)
    assert len(engine.calls) == 1


def test_no_prompts_need_no_engine() -> None:
    engine = FakeEngine(echo)
    assert Sampler(SECTION, engine=engine, run_seed=0).sample([], model=MODEL, iteration=1) == []
    assert engine.calls == engine.loaded == []


def test_what_is_left_out_and_where_a_response_stops_reach_training_and_held_out_requests_alike() -> None:
    section = SamplingSection(top_k=40, min_p=0.05, repetition_penalty=1.1, stop="###")  # type: ignore[arg-type]
    engine = FakeEngine(echo)
    Sampler(section, engine=engine, run_seed=0).sample([prompt("a", "hey")], model=MODEL, iteration=1)
    text = "output_dir: runs/x\nmodels: {policy: {model: random:tiny}}\nprompts: builtin\n"
    recipe = parse(text, name="x.yaml").model_copy(update={"sampling": section})
    decoding = evaluator(recipe, source=None, engine=engine, anchor=None).decoding  # type: ignore[arg-type]
    for shape in (decoding, decoding.unaltered()):
        respond(engine, [prompt("a", "hey")], model=MODEL, stage="s", decoding=shape, run_seed=0)
    drawn, held_out, unaltered = (
        (request.top_p, request.top_k, request.min_p, request.repetition_penalty, request.stop)
        for (request,) in engine.calls
    )
    assert drawn == held_out == (0.95, 40, 0.05, 1.1, ("###",))
    assert unaltered == (1.0, 0, 0.0, 1.0, ("###",)), "KL is of the model's own distribution, up to the same end"


@pytest.mark.parametrize("bad", [{"top_k": -2}, {"min_p": 1.5}, {"repetition_penalty": 0.0}, {"stop": [""]}])
def test_values_without_a_meaning_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        SamplingSection(**bad)  # type: ignore[arg-type]
