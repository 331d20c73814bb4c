"""Comparison of two responses in both orders, shared by the pairwise judge, the constitution and the anchor."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from selfreward.judging.client import JudgeClient, JudgeInput, Question, choice_request, judgment
from selfreward.parts import Models
from selfreward.readers import Unscored, Verdict, read_choice, without_reasoning
from selfreward.recipe import ComparisonSection
from selfreward.records import Comparison, Judgment, Message, Prompt, Response
from selfreward.requests import ChatRequest, Reply
from selfreward.templates import Template, Verbatim
from selfreward.workload import Lengths, Requests, Workload

LETTERS = ("A", "B")
SAME_TEXT = "the same text twice"


@dataclass(frozen=True)
class Matchup:
    """Two responses to one prompt. `principle` is the criterion to compare them by, if the template has a field for
    it."""

    response: Response
    other: Response
    principle: str | None = None
    name: str = ""

    @property
    def is_even(self) -> bool:
        """Whether both have the same text; the preference is then exactly 0.5 and the model is not queried."""
        return _text_of(self.response) == _text_of(self.other)


def matchups(prompts: Sequence[Prompt], responses: Sequence[Response], others: Sequence[Response]) -> list[Matchup]:
    """Return one matchup per prompt. Raises ValueError when a response does not belong to its prompt."""
    for prompt, response, other in zip(prompts, responses, others, strict=True):
        if not prompt.id == response.prompt_id == other.prompt_id:
            raise ValueError(f"anchor: {response.id} and {other.id} are not responses to the prompt {prompt.id}")
    return [Matchup(response, other) for response, other in zip(responses, others, strict=True)]


@dataclass(frozen=True)
class Comparer:
    """Queries a model about matchups; `clamp` bounds every preference."""

    section: ComparisonSection
    client: JudgeClient
    template: Template
    clamp: tuple[float, float] = (0.0, 1.0)

    def compare(
        self, prompts: Sequence[Prompt], matchups: Sequence[Matchup], *, models: Models, iteration: int
    ) -> list[Comparison]:
        """Return, for each matchup, `num_draws` comparisons with `response` shown as A, then as many with it as B.

        All are made in one engine call.
        """
        differing = [matchup for matchup in matchups if not matchup.is_even]
        compared = [response for matchup in differing for response in (matchup.response, matchup.other)]
        inputs = self.client.inputs(prompts, compared, models=models)
        shown = [(matchup, first) for matchup in matchups for first in (True, False)]
        questions = [
            self._question(matchup, inputs[matchup.response.prompt_id], response_first=first, iteration=iteration)
            for matchup, first in shown
        ]
        replies = iter(self.client.query([question for question in questions if question is not None], models=models))
        comparisons: list[Comparison] = []
        for (matchup, first), question in zip(shown, questions, strict=True):
            draws = [None] * self.section.num_draws if question is None else next(replies)
            comparisons += [self._comparison(matchup, first, draw, reply, models) for draw, reply in enumerate(draws)]
        return comparisons

    def max_requests(
        self,
        work: Workload,
        lengths: Lengths,
        *,
        num_matchups: int,
        principles: Sequence[str | None] = (None,),
        num_own: int = 1,
    ) -> list[Requests]:
        """Return an upper bound on the requests: `num_matchups` per prompt in both orders, and `num_own` own
        responses."""
        questions = [
            self.client.max_requests(
                self.template,
                self._request(),
                work,
                lengths,
                times=2 * num_matchups,
                shown=("response_a", "response_b"),
                **self._fields(principle),
            )
            for principle in principles
        ]
        return [*self.client.max_committed_requests(work, lengths, times=num_own), *questions]

    def judge(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[Response],
        matchups: Sequence[Matchup],
        *,
        models: Models,
        iteration: int,
    ) -> list[Judgment]:
        """Return two judgments of each comparison, one for each response, in the order of the responses.

        The score is the probability that the response is the better one. A response without a matchup is unscored. So
        is a matchup in which only one order could be read, because one order alone confounds position and quality.
        """
        about: defaultdict[str, list[Judgment]] = defaultdict(list)
        compared = self.compare(prompts, matchups, models=models, iteration=iteration)
        num_draws = self.section.num_draws
        for start in range(0, len(compared), 2 * num_draws):
            orders = compared[start : start + num_draws], compared[start + num_draws : start + 2 * num_draws]
            both = all(any(comparison.preference is not None for comparison in order) for order in orders)
            for draw, comparison in ((draw, c) for order in orders for draw, c in enumerate(order)):
                one_order = comparison.preference is not None and not both
                kept = (
                    replace(comparison, preference=None, unscored=Unscored.ONE_ORDER.value) if one_order else comparison
                )
                for mine in (True, False):
                    judged = _judgment(kept, mine=mine, draw=draw)
                    about[judged.response_id].append(judged)
        return [j for r in responses for j in about.get(r.id) or [self._without_opponent(r, models)]]

    def _question(
        self, matchup: Matchup, about: JudgeInput, *, response_first: bool, iteration: int
    ) -> Question | None:
        if matchup.is_even:
            return None
        first, second = _text_of(matchup.response), _text_of(matchup.other)
        if not response_first:
            first, second = second, first
        messages = self.template.render(
            **about.fields(), **self._fields(matchup.principle), response_a=first, response_b=second
        )
        seed = self.client.seed_of(iteration, _id_of(matchup, response_first))
        return Question(self._request(messages, seed=seed), about.missing)

    def _fields(self, principle: str | None) -> dict[str, str | None]:
        return {
            "principle": Verbatim(principle) if principle else None,
            "reasoning": Verbatim("yes") if self.section.reasoning else None,
        }

    def _request(self, messages: tuple[Message, ...] = (), *, seed: int = 0) -> ChatRequest:
        return choice_request(
            messages,
            opening=self.template.opening,
            choices=LETTERS,
            reasoning=self.section.reasoning,
            num_draws=self.section.num_draws,
            seed=seed,
        )

    def _comparison(
        self, matchup: Matchup, response_first: bool, draw: int, reply: Reply | None, models: Models
    ) -> Comparison:
        preference, unscored, text = (0.5, None, SAME_TEXT) if reply is None else self._read(reply)
        text = "\n\n".join(filter(None, (matchup.principle, text)))
        if preference is not None and reply is not None:
            preference = min(max(preference if response_first else 1.0 - preference, self.clamp[0]), self.clamp[1])
        return Comparison(
            id=f"{_id_of(matchup, response_first)}/{self.client.name}/{draw}",
            prompt_id=matchup.response.prompt_id,
            response_id=matchup.response.id,
            other_id=matchup.other.id,
            shown_first=matchup.response.id if response_first else matchup.other.id,
            judge=self.client.name,
            preference=preference,
            unscored=unscored and unscored.value,
            text=text,
            checkpoint_id=self.client.chat.model_id(models),
            template_sha256=self.template.sha256,
        )

    def _without_opponent(self, response: Response, models: Models) -> Judgment:
        why = Unscored.NO_OPPONENT if _text_of(response) else Unscored.EMPTY_RESPONSE
        return judgment(
            response, self.client, draw=0, verdict=Verdict(unscored=why), reply=Reply(), template=self.template,
            models=models,
        )  # fmt: skip

    def _read(self, reply: Reply) -> tuple[float | None, Unscored | None, str]:
        """Return the preference for the response shown first, or the reason why there is none, and the text."""
        reasoning = reply.text if self.section.reasoning else ""
        if reply.skipped is not None:
            return None, Unscored(reply.skipped), ""
        if not reply.choice_logprobs:  # a server without logprobs: the verdict is read from the text
            verdict = read_choice(reply.text, finish_reason=reply.finish_reason or "stop", what="response")
            return verdict.score, verdict.unscored, reply.text
        spread = ", ".join(
            f"{letter}: {math.exp(p):.4f}" for letter, p in zip(LETTERS, reply.choice_logprobs, strict=True)
        )
        first = preference_for_first(*reply.choice_logprobs)
        text = "\n\n".join(filter(None, (reasoning, spread)))
        return (None, Unscored.LOW_SCORE_MASS, text) if first is None else (first, None, text)


def preference_for_first(logprob_first: float, logprob_second: float) -> float | None:
    """Return P(first) / (P(first) + P(second)) in [0, 1]; None when both are 0."""
    if max(logprob_first, logprob_second) == -math.inf:
        return None
    difference = logprob_second - logprob_first
    if difference > 700.0:  # exp would overflow; the preference is 0 in double precision
        return 0.0
    return 1.0 / (1.0 + math.exp(difference))


def opponents(responses: Sequence[Response]) -> list[tuple[Response, Response]]:
    """Return every pair of non-empty responses to the same prompt, once.

    The two are ordered by id, because the comparison's id and seed depend on their order.
    """
    of_prompt: defaultdict[str, list[Response]] = defaultdict(list)
    for response in sorted(responses, key=lambda response: response.id):
        if _text_of(response):
            of_prompt[response.prompt_id].append(response)
    return [pair for together in of_prompt.values() for pair in combinations(together, 2)]


def num_opponents(num_responses: int) -> int:
    """Return the number of pairs among a prompt's responses."""
    return num_responses * (num_responses - 1) // 2


def _judgment(comparison: Comparison, *, mine: bool, draw: int) -> Judgment:
    response_id, other_id = comparison.response_id, comparison.other_id
    preference = comparison.preference
    if not mine:
        response_id, other_id = other_id, response_id
        preference = None if preference is None else 1.0 - preference
    return Judgment(
        id=f"{comparison.id}/{'response' if mine else 'other'}",
        prompt_id=comparison.prompt_id,
        response_id=response_id,
        judge=comparison.judge,
        draw=draw,
        score=preference,
        unscored=comparison.unscored,
        text=comparison.text,
        checkpoint_id=comparison.checkpoint_id,
        template_sha256=comparison.template_sha256,
        other_id=other_id,
        shown_first=comparison.shown_first,
    )


def _text_of(response: Response) -> str:
    return without_reasoning(response.text)


def _id_of(matchup: Matchup, response_first: bool) -> str:
    names = (f"{matchup.response.id}~{matchup.other.id}", matchup.name, "AB" if response_first else "BA")
    return "/".join(filter(None, names))
