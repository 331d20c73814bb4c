"""Responses of one checkpoint to held-out prompts, and their log-probabilities under another checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass

from selfreward.errors import RecipeError
from selfreward.evaluation.records import ResponseLogprob
from selfreward.parts import Engine
from selfreward.records import Checkpoint, Prompt, Response
from selfreward.requests import GenerationRequest, ScoreRequest, response_record
from selfreward.seeding import seed_of
from selfreward.statistics.divergence import sequence_logprob


@dataclass(frozen=True)
class Decoding:
    """Decoding parameters of `GenerationRequest`; temperature 0 is greedy, `max_tokens` includes the end token."""

    temperature: float
    top_p: float
    max_tokens: int
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()

    def unaltered(self) -> "Decoding":
        """Return the model's own distribution over responses that end at the same places."""
        return Decoding(temperature=1.0, top_p=1.0, max_tokens=self.max_tokens, stop=self.stop)


def respond(
    engine: Engine, prompts: Sequence[Prompt], *, model: Checkpoint, stage: str, decoding: Decoding, run_seed: int
) -> list[Response]:
    """Sample one response to each prompt. Raises RecipeError for a prompt that fills the context.

    The seed of a prompt is the same in every iteration. Two similar checkpoints then often sample the same tokens, so
    that a difference between them is due to their weights rather than to chance; each response on its own is still an
    unbiased sample of its checkpoint.
    """
    engine.load(model)
    requests = [
        _request(engine, prompt, seed_of(run_seed, 0, stage, prompt.id), stage=stage, decoding=decoding)
        for prompt in prompts
    ]
    samples = engine.generate(requests)
    return [
        response_record(request, sample, id=f"{prompt.id}/{stage}/{model.iteration}", prompt_id=prompt.id, model=model)
        for prompt, request, (sample,) in zip(prompts, requests, samples, strict=True)
    ]


def score_responses(engine: Engine, responses: Sequence[Response], *, model: Checkpoint) -> list[ResponseLogprob]:
    """Return the log-probability of each response under `model`."""
    engine.load(model)
    requests = [ScoreRequest(response.prompt_token_ids, response.token_ids) for response in responses]
    scored = zip(responses, engine.score(requests), strict=True)
    return [
        ResponseLogprob(response.id, response.prompt_id, model.id, sequence_logprob(logprobs), len(logprobs))
        for response, logprobs in scored
    ]


def text_token_ids(response: Response) -> tuple[int, ...]:
    """Return the tokens of a response without its end token, which is what lengths count.

    Of a stop string only the token that completes it is left out.
    """
    return response.token_ids[:-1] if response.finish_reason == "stop" else response.token_ids


def _request(engine: Engine, prompt: Prompt, seed: int, *, stage: str, decoding: Decoding) -> GenerationRequest:
    prompt_token_ids = engine.encode(prompt.messages)
    remaining_tokens = engine.context_tokens - len(prompt_token_ids)
    if remaining_tokens < 1:
        raise RecipeError(
            f"{stage}: prompt {prompt.id!r} has {len(prompt_token_ids)} tokens; prompt and response together may have "
            f"{engine.context_tokens}; shorten the prompt or raise engine.context_tokens"
        )
    return GenerationRequest(
        prompt_token_ids=prompt_token_ids,
        max_tokens=min(decoding.max_tokens, remaining_tokens),
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        top_k=decoding.top_k,
        min_p=decoding.min_p,
        repetition_penalty=decoding.repetition_penalty,
        stop=decoding.stop,
        seed=seed,
    )
