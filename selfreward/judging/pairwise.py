"""The anchor: a judge that compares two responses, shown in both orders.

What it does: the judge prompt ends right before the letter of the better response, and the preference is the
probability of its letter among the two. Judges favour a place; a caller that averages the two comparisons of a prompt
removes what is due to the place alone.

Paper: 2402.04792, section 3.1 (annotator: probabilities of the two verdict tokens, both orders averaged).
Differs: letters instead of 1 and 2, so that scores and choices cannot be mixed up; the two orders are kept
apart as two comparisons, because their disagreement is the anchor's position consistency; two responses with the same
text are exactly 0.5 without a call, since no judge can know better. An empty response is compared like any other:
a model that falls silent must lose, not go missing.
"""

import math
from collections.abc import Sequence

from selfreward import recipe
from selfreward.judging.choice_tokens import ChoiceTokens, checked_logprobs, choice_tokens
from selfreward.judging.judge_prompts import fitted
from selfreward.parts import Engine, GenerationRequest, Sample
from selfreward.records import Checkpoint, Comparison, Prompt, Response
from selfreward.templates import Template, Unscored

NAME = "pairwise"
LETTERS = ("A", "B")


class PairwiseAnchor:
    """`parts.PairwiseJudge`: two comparisons for each prompt, first with `responses[i]` shown as A, then as B."""

    def __init__(self, section: recipe.AnchorSection, *, engine: Engine) -> None:
        self._section = section
        self._engine = engine
        self._template = Template.load(NAME)

    @property
    def by(self) -> str:
        return self._section.by

    def compare(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[Response],
        others: Sequence[Response],
        *,
        model: Checkpoint,
        iteration: int,
    ) -> list[Comparison]:
        """One engine call for all. `preference` is that of `responses[i]` in either order.

        Raises RecipeError when the tokenizer does not write A and B as one token each, EngineError, and ValueError when
        the three sequences do not belong together.
        """
        tokens = choice_tokens(
            self._engine, opening=self._template.opening, choices=LETTERS, where=f"evaluation.anchor ({NAME})"
        )
        shown: list[tuple[Response, Response, bool]] = []
        asked: list[tuple[int, ...] | Unscored | None] = []  # None: the same text twice
        for prompt, response, other in zip(prompts, responses, others, strict=True):
            if not prompt.id == response.prompt_id == other.prompt_id:
                raise ValueError(f"anchor: {response.id} and {other.id} are not responses to the prompt {prompt.id}")
            for response_first in (True, False):
                shown.append((response, other, response_first))
                asked.append(self._ask(prompt, response, other, response_first=response_first, tokens=tokens))
        requests = [
            GenerationRequest(
                prompt_token_ids=token_ids, max_tokens=1, temperature=0.0, choice_token_ids=tokens.choice_ids
            )
            for token_ids in asked
            if isinstance(token_ids, tuple)
        ]
        if requests:
            self._engine.load(model)
        samples = iter(self._engine.generate(requests) if requests else [])
        return [
            self._comparison(pair, token_ids, next(samples)[0] if isinstance(token_ids, tuple) else None, tokens, model)
            for pair, token_ids in zip(shown, asked, strict=True)
        ]

    def _ask(
        self, prompt: Prompt, response: Response, other: Response, *, response_first: bool, tokens: ChoiceTokens
    ) -> tuple[int, ...] | Unscored | None:
        if response.text == other.text:
            return None
        first, second = (response, other) if response_first else (other, response)
        messages = self._template.render(prompt=prompt.messages, response_a=first.text, response_b=second.text)
        return fitted(messages, engine=self._engine, opening_ids=tokens.opening_ids, max_tokens=1)

    def _comparison(
        self,
        pair: tuple[Response, Response, bool],
        token_ids: tuple[int, ...] | Unscored | None,
        sample: Sample | None,
        tokens: ChoiceTokens,
        model: Checkpoint,
    ) -> Comparison:
        response, other, response_first = pair
        preference: float | None = None
        unscored: Unscored | None = None
        text = ""
        if isinstance(token_ids, Unscored):
            unscored = token_ids
        elif sample is None:
            preference, text = 0.5, "the same text twice"
        else:
            logprobs = checked_logprobs(sample, tokens)
            text = ", ".join(f"{letter}: {math.exp(p):.4f}" for letter, p in zip(LETTERS, logprobs, strict=True))
            first = preference_for_first(*logprobs)
            if first is None:
                unscored = Unscored.LOW_SCORE_MASS
            else:
                preference = first if response_first else 1.0 - first
        return Comparison(
            id=f"{response.id}~{other.id}/{NAME}/{'AB' if response_first else 'BA'}",
            prompt_id=response.prompt_id,
            response_id=response.id,
            other_id=other.id,
            shown_first=response.id if response_first else other.id,
            judge=NAME,
            preference=preference,
            unscored=unscored and unscored.value,
            text=text,
            checkpoint_id=model.id,
            template_sha256=self._template.sha256,
        )


def preference_for_first(logprob_first: float, logprob_second: float) -> float | None:
    """P(first) / (P(first) + P(second)) in [0, 1]; None when both are 0."""
    if max(logprob_first, logprob_second) == -math.inf:
        return None
    difference = logprob_second - logprob_first
    if difference > 700.0:  # exp would overflow; the preference is 0 to the last bit
        return 0.0
    return 1.0 / (1.0 + math.exp(difference))
