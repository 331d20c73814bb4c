"""LLM-as-a-judge without generation: the expected score under the token probabilities, one prefill per draw.

What it does: the judge prompt ends inside the assistant's turn, right before the score, and the score is the
probability-weighted mean of the numbers 0 to 5. Nothing is sampled: draw d uses prompt variant d, with other words,
labels and label order for the same six steps, so that dependence on the prompt shows as disagreement between draws.
With `reasoning` the judge first explains itself, `num_draws` times, and the score token is read after that.

Paper: 2309.00267, section 2.3 (direct RLAIF: s = sum_i i P(i) over the likelihoods of the score tokens, normalised).
Differs: scores 0 to 5, each a single token, instead of 1 to 10 (10 is two tokens for many tokenizers), so that all
judges share a scale; the score stays on that scale instead of being moved to [-1, 1], because pairing compares scores
of one judge only; several prompt variants; the total probability of the score tokens is stored and can be required
(`min_score_mass`); a response without text is unscored (`empty_response`).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from selfreward import recipe
from selfreward.judging.client import JudgeClient, JudgeInput, Question, choice_request, judgment, skipped
from selfreward.parts import Chat, Models
from selfreward.readers import Unscored, Verdict, without_reasoning
from selfreward.records import Judgment, Message, Prompt, Response
from selfreward.requests import ChatRequest, Reply
from selfreward.templates import Template, Verbatim
from selfreward.workload import Lengths, Requests, Workload

NAME = "expected_score"


@dataclass(frozen=True)
class PromptVariant:
    """A template, with its labels and the score that each label stands for."""

    template: str
    labels: tuple[str, ...]
    scores: tuple[float, ...]


PROMPT_VARIANTS = (
    PromptVariant("expected_score", ("0", "1", "2", "3", "4", "5"), (0, 1, 2, 3, 4, 5)),
    PromptVariant("expected_score_2", ("A", "B", "C", "D", "E", "F"), (5, 4, 3, 2, 1, 0)),
    PromptVariant("expected_score_3", ("3", "1", "5", "0", "4", "2"), (3, 1, 5, 0, 4, 2)),
)


class ExpectedScoreJudge:
    """`parts.Judge` with `num_draws` judgments for every response.

    Without reasoning a judgment's `token_ids` contain the one most probable token; its `text` ends with the
    probabilities from which the score was computed.
    """

    scale = (0.0, 5.0)

    def __init__(self, section: recipe.ExpectedScoreSection, *, chat: Chat, seed: int) -> None:
        self.by = frozenset((section.by,))
        self._section = section
        self._client = JudgeClient(NAME, section, chat, seed)
        self._variants = PROMPT_VARIANTS[:1] if section.reasoning else PROMPT_VARIANTS[: section.num_draws]
        self._templates = [Template.load(variant.template) for variant in self._variants]

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, models: Models, iteration: int
    ) -> list[Judgment]:
        """Return the judgments in the order of the responses; one engine call for all of them, two with reasoning.

        Raises RecipeError when the tokenizer does not write the labels as one token each, and EngineError.
        """
        inputs = self._client.inputs(prompts, responses, models=models)
        wanted = [(response, number) for response in responses for number in range(len(self._variants))]
        questions = [
            self._question(response, number, inputs[response.prompt_id], iteration=iteration)
            for response, number in wanted
        ]
        replies = self._client.query(questions, models=models)
        return [
            self._judgment(response, number, draw, reply, seed=put.request.seed, models=models)
            for (response, number), put, draws in zip(wanted, questions, replies, strict=True)
            for draw, reply in enumerate(draws)
        ]

    def max_requests(self, work: Workload, lengths: Lengths) -> list[Requests]:
        questions = [
            self._client.max_requests(
                template,
                self._request(number),
                work,
                lengths,
                times=work.num_responses,
                reasoning=Verbatim("yes") if self._section.reasoning else None,
            )
            for number, template in enumerate(self._templates)
        ]
        return [*self._client.max_committed_requests(work, lengths), *questions]

    def _question(self, response: Response, number: int, about: JudgeInput, *, iteration: int) -> Question:
        """Return the question with prompt variant `number`, from 0."""
        messages = self._templates[number].render(
            **about.fields(),
            response=without_reasoning(response.text),
            reasoning=Verbatim("yes") if self._section.reasoning else None,
        )
        seed = self._client.seed_of(iteration, response.id)
        return Question(self._request(number, messages, seed=seed), skipped(about, response))

    def _request(self, number: int, messages: tuple[Message, ...] = (), *, seed: int = 0) -> ChatRequest:
        return choice_request(
            messages,
            opening=self._templates[number].opening,
            choices=self._variants[number].labels,
            reasoning=self._section.reasoning,
            num_draws=self._section.num_draws,
            seed=seed,
        )

    def _judgment(
        self, response: Response, number: int, draw: int, reply: Reply, *, seed: int, models: Models
    ) -> Judgment:
        """Return the judgment with draw number `number + draw`: there is one variant, or one draw of each variant."""
        verdict, distribution = self._read(reply, number)
        reasoned = self._section.reasoning is not None
        written = reply.text if reasoned or not reply.choice_logprobs else ""
        return judgment(
            response,
            self._client,
            draw=number + draw,
            verdict=verdict,
            reply=replace(reply, text="\n\n".join(filter(None, (written, distribution)))),
            template=self._templates[number],
            models=models,
            seed=seed + draw if reasoned and reply.skipped is None else 0,
        )

    def _read(self, reply: Reply, number: int) -> tuple[Verdict, str]:
        variant = self._variants[number]
        if reply.skipped is not None:
            return Verdict(unscored=Unscored(reply.skipped)), ""
        if not reply.choice_logprobs:  # a server without logprobs, or a reply without a position to read them at
            if _names_a_label(reply.text, opening=self._templates[number].opening, labels=variant.labels):
                return Verdict(unscored=Unscored.NO_PROBABILITIES), ""
            truncated = reply.finish_reason == "length"
            return Verdict(unscored=Unscored.TRUNCATED if truncated else Unscored.NO_VERDICT), ""
        return expected_score(reply.choice_logprobs, scores=variant.scores, min_score_mass=self._section.min_score_mass)


def _names_a_label(text: str, *, opening: str, labels: Sequence[str]) -> bool:
    """Whether a label follows the last opening, or, without an opening, is the complete text. Ignores Markdown."""
    plain_text = re.sub(r"[*_`#~]", "", without_reasoning(text))
    _, begun, rest = plain_text.rpartition(opening.strip())
    label = rf"\s*(?:{'|'.join(map(re.escape, labels))})"
    return bool(re.match(rf"{label}(?!\w|[.,]\d)", rest) if begun else re.fullmatch(rf"{label}[.\s]*", rest))


def expected_score(logprobs: Sequence[float], *, scores: Sequence[float], min_score_mass: float) -> tuple[Verdict, str]:
    """Return the expected score and a text of the distribution.

    `logprobs` are the log-probabilities of `scores`, natural and not normalised.
    """
    probabilities = [math.exp(value) for value in logprobs]
    mass = math.fsum(probabilities)  # P(the next token is a score at all), in [0, 1]
    spread = ", ".join(f"{score:g}: {p:.4f}" for score, p in sorted(zip(scores, probabilities, strict=True)))
    text = f"score mass {mass:.4f} ({spread})"
    if mass == 0 or mass < min_score_mass:
        return Verdict(unscored=Unscored.LOW_SCORE_MASS), text
    # s = sum_i i P(i) / sum_j P(j), divided first, so that a score with all the mass is returned exactly
    score = math.fsum(score * (p / mass) for score, p in zip(scores, probabilities, strict=True))
    return Verdict(score=min(max(score, min(scores)), max(scores))), f"expected score {score:.4f}; {text}"
