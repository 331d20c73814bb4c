"""The model as a judge that explains itself: an additive rubric of 0 to 5 points, several draws.

What it does: each response is shown with its conversation and the rubric, the judge writes a short justification and
`Score: n`, `num_draws` times; later stages average the draws that could be read.

Paper: 2401.10020, section 2.2 (rubric, three draws averaged); 2407.19594, section 2.1 (eleven draws, unreadable
draws left out of the mean).
Differs: our own wording; the rubric asks nothing of a web search, which no model here has; the response stands last, so
that the engine's prefix cache pays for rubric and conversation once; an unreadable draw is kept as an unscored
judgment with its reason instead of disappearing; a response without text is unscored (`empty_response`).
"""

from collections.abc import Sequence
from dataclasses import replace

from selfreward import recipe
from selfreward.judging.judge_prompts import judge_prompts
from selfreward.parts import Engine, GenerationRequest, Sample
from selfreward.records import Checkpoint, Judgment, Prompt, Response
from selfreward.seeding import seed_of
from selfreward.templates import Template, Unscored, read_additive

NAME = "additive"


class AdditiveJudge:
    """`parts.Judge` with scores in [0, 5] and `num_draws` judgments for every response."""

    def __init__(self, section: recipe.AdditiveJudge, *, engine: Engine, seed: int) -> None:
        self._section = section
        self._engine = engine
        self._seed = seed
        self._template = Template.load(NAME)

    @property
    def by(self) -> str:
        return self._section.by

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, model: Checkpoint, iteration: int
    ) -> list[Judgment]:
        """`num_draws` judgments for each response, in the order of the responses; one engine call for all of them.

        Raises EngineError from the engine; never because of what a model wrote.
        """
        section = self._section
        asked = judge_prompts(
            prompts, responses, template=self._template, engine=self._engine, max_tokens=section.max_tokens
        )
        requests = [
            self._request(token_ids, response, iteration)
            for token_ids, response in zip(asked, responses, strict=True)
            if not isinstance(token_ids, Unscored)
        ]
        if requests:
            self._engine.load(model)
        answered = iter(zip(requests, self._engine.generate(requests) if requests else [], strict=True))
        judgments: list[Judgment] = []
        for token_ids, response in zip(asked, responses, strict=True):
            blank = self._blank(response, model)
            if isinstance(token_ids, Unscored):
                judgments += [_draw(blank, draw, unscored=token_ids.value) for draw in range(section.num_draws)]
            else:
                request, samples = next(answered)
                judgments += [_read(blank, draw, request, sample) for draw, sample in enumerate(samples)]
        return judgments

    def _request(self, token_ids: tuple[int, ...], response: Response, iteration: int) -> GenerationRequest:
        section = self._section
        return GenerationRequest(
            prompt_token_ids=token_ids,
            max_tokens=section.max_tokens,
            n=section.num_draws,
            temperature=section.temperature,
            top_p=section.top_p,
            seed=seed_of(self._seed, iteration, "judging", f"{response.id}/{NAME}"),
        )

    def _blank(self, response: Response, model: Checkpoint) -> Judgment:
        return Judgment(
            id="",
            prompt_id=response.prompt_id,
            response_id=response.id,
            judge=NAME,
            draw=0,
            score=None,
            unscored=None,
            text="",
            checkpoint_id=model.id,
            template_sha256=self._template.sha256,
        )


def _draw(blank: Judgment, draw: int, *, score: float | None = None, unscored: str | None = None) -> Judgment:
    return replace(blank, id=f"{blank.response_id}/{NAME}/{draw}", draw=draw, score=score, unscored=unscored)


def _read(blank: Judgment, draw: int, request: GenerationRequest, sample: Sample) -> Judgment:
    verdict = read_additive(sample.text, finish_reason=sample.finish_reason)
    return replace(
        _draw(blank, draw, score=verdict.score, unscored=verdict.unscored and verdict.unscored.value),
        text=sample.text,
        prompt_token_ids=request.prompt_token_ids,
        token_ids=sample.token_ids,
        token_logprobs=sample.token_logprobs,
        finish_reason=sample.finish_reason,
        seed=request.seed + draw,
    )
