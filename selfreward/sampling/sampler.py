"""The sampler: `num_responses` responses of one checkpoint to each prompt, from one engine call."""

from collections.abc import Sequence
from functools import partial

from selfreward.errors import RecipeError
from selfreward.in_threads import map_in_threads
from selfreward.parts import Engine
from selfreward.recipe import SamplingSection
from selfreward.records import Checkpoint, Prompt, Response
from selfreward.requests import GenerationRequest, response_record
from selfreward.seeding import seed_of
from selfreward.tables import RESPONSES, Table


class Sampler:
    """Samples from an engine. Response i to prompt p has the id `p/i` (or `p/TABLE/i`) and the seed of p plus i."""

    def __init__(self, section: SamplingSection, *, engine: Engine, run_seed: int) -> None:
        self._section = section
        self._engine = engine
        self._run_seed = run_seed

    def sample(
        self, prompts: Sequence[Prompt], *, model: Checkpoint, iteration: int, table: Table[Response] = RESPONSES
    ) -> list[Response]:
        """Return `num_responses` responses per prompt, in the order of the prompts. Raises RecipeError if one is too
        long."""
        stage = table.seed_name
        requests = map_in_threads(partial(self._request, iteration=iteration, stage=stage), prompts)
        infix = "" if table == RESPONSES else f"{stage}/"
        if not requests:
            return []
        self._engine.load(model)
        samples = self._engine.generate(requests)
        return [
            response_record(
                request, sample, id=f"{prompt.id}/{infix}{draw}", prompt_id=prompt.id, model=model, draw=draw
            )
            for prompt, request, samples_of in zip(prompts, requests, samples, strict=True)
            for draw, sample in enumerate(samples_of)
        ]

    def _request(self, prompt: Prompt, *, iteration: int, stage: str) -> GenerationRequest:
        section = self._section
        token_ids = self._engine.encode(prompt.messages)
        allowed = self._engine.context_tokens - section.max_tokens
        if len(token_ids) > allowed:
            raise RecipeError(
                f"prompt {prompt.id!r}: {len(token_ids)} tokens in the chat template; {allowed} are allowed, which is "
                f"the context of {self._engine.context_tokens} minus sampling.max_tokens {section.max_tokens}; shorten "
                "or remove the prompt, lower sampling.max_tokens, or raise engine.context_tokens"
            )
        return GenerationRequest(
            prompt_token_ids=token_ids,
            max_tokens=section.max_tokens,
            n=section.num_responses,
            temperature=section.temperature,
            top_p=section.top_p,
            top_k=section.top_k,
            min_p=section.min_p,
            repetition_penalty=section.repetition_penalty,
            stop=tuple(section.stop),
            seed=seed_of(self._run_seed, iteration, stage, prompt.id),
        )
