"""The model as a judge without a word: the expected score under its own probabilities, one prefill a response.

What it does: the judge prompt ends inside the assistant's turn, right before the score, and the score is the
probability-weighted mean of the numbers 0 to 5. Nothing is drawn: one judgment for each response, the same every time.

Paper: 2309.00267, section 2.3 (direct RLAIF: s = sum_i i P(i) over the likelihoods of the score tokens, normalised).
Differs: scores 0 to 5, each a single token, instead of 1 to 10 (10 is two tokens for many tokenizers), so that all
judges share a scale; the score stays on that scale instead of being moved to [-1, 1], because pairing compares scores
of one judge only; the probability of all score tokens together is kept and may be required (`min_score_mass`); a
response without text is unscored (`empty_response`).
"""

import math
from collections.abc import Sequence

from selfreward import recipe
from selfreward.judging.choice_tokens import ChoiceTokens, checked_logprobs, choice_tokens
from selfreward.judging.judge_prompts import judge_prompts
from selfreward.parts import Engine, GenerationRequest, Sample
from selfreward.records import Checkpoint, Judgment, Prompt, Response
from selfreward.templates import Template, Unscored, Verdict

NAME = "expected_score"
SCORES = (0, 1, 2, 3, 4, 5)


class ExpectedScoreJudge:
    """`parts.Judge` with scores in [0, 5] and one judgment for every response.

    A judgment's `token_ids` hold the one most probable token, its `text` the probabilities that made the score.
    """

    def __init__(self, section: recipe.ExpectedScoreJudge, *, engine: Engine) -> None:
        self._section = section
        self._engine = engine
        self._template = Template.load(NAME)

    @property
    def by(self) -> str:
        return self._section.by

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, model: Checkpoint, iteration: int
    ) -> list[Judgment]:
        """One judgment for each response, in their order; one engine call for all of them.

        Raises RecipeError when the tokenizer does not write 0 to 5 as one token each, and EngineError.
        """
        tokens = choice_tokens(
            self._engine,
            opening=self._template.opening,
            choices=[str(score) for score in SCORES],
            where=f"judging ({NAME})",
        )
        asked = judge_prompts(
            prompts,
            responses,
            template=self._template,
            engine=self._engine,
            opening_ids=tokens.opening_ids,
            max_tokens=1,
        )
        requests = [
            GenerationRequest(
                prompt_token_ids=token_ids, max_tokens=1, temperature=0.0, choice_token_ids=tokens.choice_ids
            )
            for token_ids in asked
            if not isinstance(token_ids, Unscored)
        ]
        if requests:
            self._engine.load(model)
        samples = iter(self._engine.generate(requests) if requests else [])
        return [
            self._judgment(response, model, verdict=Verdict(unscored=token_ids))
            if isinstance(token_ids, Unscored)
            else self._read(response, model, tokens=tokens, token_ids=token_ids, sample=next(samples)[0])
            for token_ids, response in zip(asked, responses, strict=True)
        ]

    def _read(
        self,
        response: Response,
        model: Checkpoint,
        *,
        tokens: ChoiceTokens,
        token_ids: tuple[int, ...],
        sample: Sample,
    ) -> Judgment:
        logprobs = checked_logprobs(sample, tokens)
        verdict, text = expected_score(logprobs, min_score_mass=self._section.min_score_mass)
        return self._judgment(response, model, verdict=verdict, text=text, token_ids=token_ids, sample=sample)

    def _judgment(
        self,
        response: Response,
        model: Checkpoint,
        *,
        verdict: Verdict,
        text: str = "",
        token_ids: tuple[int, ...] = (),
        sample: Sample | None = None,
    ) -> Judgment:
        return Judgment(
            id=f"{response.id}/{NAME}/0",
            prompt_id=response.prompt_id,
            response_id=response.id,
            judge=NAME,
            draw=0,
            score=verdict.score,
            unscored=verdict.unscored and verdict.unscored.value,
            text=text,
            prompt_token_ids=token_ids,
            token_ids=sample.token_ids if sample else (),
            token_logprobs=sample.token_logprobs if sample else None,
            finish_reason=sample.finish_reason if sample else None,
            checkpoint_id=model.id,
            template_sha256=self._template.sha256,
        )


def expected_score(logprobs: Sequence[float], *, min_score_mass: float) -> tuple[Verdict, str]:
    """The expected score and the distribution in words. `logprobs` belong to SCORES, natural and not normalised."""
    probabilities = [math.exp(value) for value in logprobs]
    mass = math.fsum(probabilities)  # P(the next token is a score at all), in [0, 1]
    spread = ", ".join(f"{score}: {p:.4f}" for score, p in zip(SCORES, probabilities, strict=True))
    text = f"score mass {mass:.4f} ({spread})"
    if mass == 0 or mass < min_score_mass:
        return Verdict(unscored=Unscored.LOW_SCORE_MASS), text
    # s = sum_i i P(i) / sum_i P(i)
    score = math.fsum(score * p for score, p in zip(SCORES, probabilities, strict=True)) / mass
    return Verdict(score=min(max(score, SCORES[0]), SCORES[-1])), f"expected score {score:.4f}; {text}"
