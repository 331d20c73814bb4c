"""Code shared by judges that prompt a model: the inputs of judge prompts, the queries, and judgments from replies."""

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

from selfreward.parts import Chat, Models
from selfreward.readers import Unscored, Verdict, without_reasoning
from selfreward.recipe import ModelJudgeSection, Reasoning
from selfreward.records import Judgment, Message, Prompt, Response
from selfreward.requests import ChatRequest, Reply
from selfreward.seeding import seed_of
from selfreward.templates import Template
from selfreward.workload import Lengths, Requests, Workload


@dataclass(frozen=True)
class JudgeInput:
    """The parts of a judge prompt that depend on the prompt only; `missing` is the reason why it cannot be judged."""

    prompt: Sequence[Message]
    own_response: str | None = None
    reference: str | None = None
    missing: Unscored | None = None

    def fields(self) -> dict[str, str | Sequence[Message] | None]:
        return {"prompt": self.prompt, "own_response": self.own_response, "reference": self.reference}


@dataclass(frozen=True)
class Question:
    """One judge prompt with `request.n` draws; `skipped` is the reason why it is not sent, if it is not."""

    request: ChatRequest
    skipped: Unscored | None = None


@dataclass(frozen=True)
class JudgeClient:
    """Queries the model that a section names. `name` is part of the judgments' ids and of the seeds."""

    name: str
    section: ModelJudgeSection
    chat: Chat
    seed: int

    def seed_of(self, iteration: int, item: str) -> int:
        return seed_of(self.seed, iteration, "judging", f"{item}/{self.name}")

    def inputs(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, models: Models
    ) -> dict[str, JudgeInput]:
        """Return the judge inputs by prompt id.

        With `commit_first` this makes one more call, in which the judge responds once to each prompt of `responses`,
        greedily. A prompt for which its response is empty is not judged.
        """
        own = self._own_responses(prompts, {r.prompt_id for r in responses if without_reasoning(r.text)}, models)
        return {prompt.id: self._input(prompt, own.get(prompt.id)) for prompt in prompts}

    def _own_responses(self, prompts: Sequence[Prompt], judged: Set[str], models: Models) -> dict[str, Reply]:
        commit_first = self.section.commit_first
        if commit_first is None:
            return {}
        judged_prompts = [p for p in prompts if p.id in judged and not self._lacks_reference(p)]
        requests = [ChatRequest(prompt.messages, max_tokens=commit_first.max_tokens) for prompt in judged_prompts]
        replies = self.chat.reply(requests, models=models) if requests else []
        return {prompt.id: reply for prompt, (reply,) in zip(judged_prompts, replies, strict=True)}

    def _lacks_reference(self, prompt: Prompt) -> bool:
        return self.section.reference_answer and not prompt.reference

    def _input(self, prompt: Prompt, own: Reply | None) -> JudgeInput:
        if self._lacks_reference(prompt):
            return JudgeInput(prompt.messages, missing=Unscored.NO_REFERENCE)
        reference = prompt.reference if self.section.reference_answer else None
        if own is None:
            return JudgeInput(prompt.messages, reference=reference)
        if own_response := without_reasoning(own.text):
            return JudgeInput(prompt.messages, own_response=own_response, reference=reference)
        if own.skipped is not None:
            return JudgeInput(prompt.messages, missing=Unscored(own.skipped))
        truncated = own.finish_reason == "length"
        return JudgeInput(prompt.messages, missing=Unscored.TRUNCATED if truncated else Unscored.EMPTY_VERDICT)

    def max_requests(
        self,
        template: Template,
        chat_request: ChatRequest,
        work: Workload,
        lengths: Lengths,
        *,
        times: int,
        shown: Sequence[str] = ("response",),
        **fields: str | None,
    ) -> Requests:
        """Return an upper bound on `times` requests about each prompt, each showing the responses `shown`.

        Prompts without a reference are left out when the judge needs one.
        """
        commits, with_reference = self.section.commit_first, self.section.reference_answer
        measured = [
            lengths.question(
                template,
                prompt,
                thinking=not chat_request.choices,
                own_response="" if commits else None,
                reference=prompt.reference if with_reference else None,
                **(fields | dict.fromkeys(shown, "")),
            )
            for prompt in work.prompts
            if prompt.reference or not with_reference
        ]
        own_tokens = commits.max_tokens if commits else 0
        return Requests(
            by=self.section.by,
            first_P=tuple(own_tokens + first for first in measured),
            rest=len(shown) * work.max_tokens,
            times=times,
            num_common=min(measured, default=0),
            chat_request=chat_request,
            opening_tokens=lengths.opening(chat_request),
            may_not_fit=True,
        )

    def max_committed_requests(self, work: Workload, lengths: Lengths, *, times: int = 1) -> list[Requests]:
        """Return an upper bound on the requests for the judge's own responses, with `commit_first`."""
        if self.section.commit_first is None:
            return []
        chat_request = ChatRequest((), self.section.commit_first.max_tokens)
        return [
            Requests(
                self.section.by, lengths.prompts(work.prompts), times=times, chat_request=chat_request, may_not_fit=True
            )
        ]

    def query(self, questions: Sequence[Question], *, models: Models) -> list[list[Reply]]:
        """Send all questions in one call; a skipped question gets replies with the reason."""
        indices = [index for index, question in enumerate(questions) if question.skipped is None]
        sent = self.chat.reply([questions[index].request for index in indices], models=models) if indices else []
        replies = [[Reply(skipped=q.skipped and q.skipped.value)] * q.request.n for q in questions]
        for index, reply in zip(indices, sent, strict=True):
            replies[index] = reply
        return replies


def choice_request(
    messages: tuple[Message, ...],
    *,
    opening: str,
    choices: tuple[str, ...],
    reasoning: Reasoning | None,
    num_draws: int,
    seed: int,
) -> ChatRequest:
    """Return a request for the probabilities of `choices`, either directly or after `num_draws` sampled
    explanations."""
    if reasoning is None:
        return ChatRequest(messages, max_tokens=0, opening=opening, choices=choices)
    return ChatRequest(
        messages,
        max_tokens=reasoning.max_tokens,
        n=num_draws,
        temperature=reasoning.temperature,
        top_p=reasoning.top_p,
        seed=seed,
        opening=opening,
        choices=choices,
    )


def judgment(
    response: Response,
    client: JudgeClient,
    *,
    draw: int,
    verdict: Verdict,
    reply: Reply,
    template: Template,
    models: Models,
    seed: int = 0,
    part: str = "",
) -> Judgment:
    """Return the judgment record of one reply about one response."""
    return Judgment(
        id="/".join(filter(None, (response.id, client.name, part, str(draw)))),
        prompt_id=response.prompt_id,
        response_id=response.id,
        judge=client.name,
        draw=draw,
        score=verdict.score,
        unscored=verdict.unscored and verdict.unscored.value,
        text=reply.text,
        prompt_token_ids=reply.prompt_token_ids,
        token_ids=reply.token_ids,
        token_logprobs=reply.token_logprobs,
        finish_reason=reply.finish_reason,
        seed=seed,
        checkpoint_id=client.chat.model_id(models),
        template_sha256=template.sha256,
        part=part,
    )


def finite(score: float) -> dict[str, Any]:
    """Return the `score` of a plain judgment, or the reason `unscored` when the number is not finite."""
    return {"score": score} if math.isfinite(score) else {"unscored": Unscored.NOT_FINITE.value}


def plain_judgment(
    response: Response,
    judge: str,
    *,
    score: float | None = None,
    unscored: str | None = None,
    text: str = "",
    draw: int = 0,
    checkpoint_id: str = "",
    template_sha256: str = "",
) -> Judgment:
    """Return a judgment without generated text: by a program, a reward model, a log-ratio, or combined members."""
    return Judgment(
        f"{response.id}/{judge}/{draw}", response.prompt_id, response.id, judge, draw, score, unscored, text,
        checkpoint_id=checkpoint_id, template_sha256=template_sha256,
    )  # fmt: skip


def skipped(inputs: JudgeInput, response: Response) -> Unscored | None:
    """Return the reason why a response is not judged, or None. An empty response gets no score."""
    return inputs.missing or (None if without_reasoning(response.text) else Unscored.EMPTY_RESPONSE)
