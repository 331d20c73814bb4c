"""Generated scores from 0 to 5, shared by the additive judge and the rubric's criteria."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from selfreward.judging.client import JudgeClient, JudgeInput, Question, judgment, skipped
from selfreward.parts import Chat, Models
from selfreward.readers import Unscored, Verdict, read_json_score, read_score, without_reasoning
from selfreward.recipe import GenerativeSection
from selfreward.records import Judgment, Message, Prompt, Response
from selfreward.requests import ChatRequest, Reply
from selfreward.templates import Template, Verbatim
from selfreward.workload import Lengths, Requests, Workload

SCHEMA = {
    "type": "object",
    "properties": {
        "explanation": {"type": "string", "maxLength": 1200},
        "score": {"type": "integer", "enum": [0, 1, 2, 3, 4, 5]},
    },
    "required": ["explanation", "score"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class ScoreQuestion:
    """A question about each response: `fields` fill the template; `part` is the name of a criterion, or ""."""

    part: str = ""
    fields: Mapping[str, Verbatim] = field(default_factory=dict)


def score_messages(
    template: Template, section: GenerativeSection, about: JudgeInput, response: Response, **fields: Verbatim
) -> tuple[Message, ...]:
    """Return the question about one response."""
    return template.render(
        **about.fields(), **fields, response=without_reasoning(response.text), structured=_structured(section)
    )


def _structured(section: GenerativeSection) -> Verbatim | None:
    return Verbatim("json") if section.structured else None


@dataclass(frozen=True)
class GenerativeJudge:
    """Queries the model with `questions` about each response, `num_draws` times each, and parses the scores."""

    name: str
    section: GenerativeSection
    chat: Chat
    seed: int
    questions: Sequence[ScoreQuestion] = (ScoreQuestion(),)

    @property
    def by(self) -> frozenset[str]:
        return frozenset((self.section.by,))

    @cached_property
    def _client(self) -> JudgeClient:
        return JudgeClient(self.name, self.section, self.chat, self.seed)

    @cached_property
    def _template(self) -> Template:
        return Template.load(self.name)

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, models: Models, iteration: int
    ) -> list[Judgment]:
        """Return `num_draws` judgments for each response and question, in this order, from one engine call.

        Raises EngineError from the model; never because of what a model wrote.
        """
        inputs = self._client.inputs(prompts, responses, models=models)
        wanted = [(response, question) for response in responses for question in self.questions]
        questions = [
            self._question(response, question, inputs[response.prompt_id], iteration) for response, question in wanted
        ]
        return [
            judgment(
                response, self._client, draw=draw, verdict=self._read(reply), reply=reply, template=self._template,
                models=models, seed=put.request.seed + draw if reply.skipped is None else 0, part=question.part,
            )
            for (response, question), put, replies in zip(
                wanted, questions, self._client.query(questions, models=models), strict=True
            )
            for draw, reply in enumerate(replies)
        ]  # fmt: skip

    def max_requests(self, work: Workload, lengths: Lengths) -> list[Requests]:
        questions = [
            self._client.max_requests(
                self._template, self._request(), work, lengths,
                times=work.num_responses, structured=_structured(self.section), **question.fields,
            )
            for question in self.questions
        ]  # fmt: skip
        return [*self._client.max_committed_requests(work, lengths), *questions]

    def _question(self, response: Response, question: ScoreQuestion, about: JudgeInput, iteration: int) -> Question:
        messages = score_messages(self._template, self.section, about, response, **question.fields)
        seed = self._client.seed_of(iteration, "/".join(filter(None, (response.id, question.part))))
        return Question(self._request(messages, seed=seed), skipped(about, response))

    def _request(self, messages: tuple[Message, ...] = (), *, seed: int = 0) -> ChatRequest:
        section = self.section
        return ChatRequest(
            messages, section.max_tokens, section.num_draws, section.temperature, section.top_p, seed,
            json_schema=SCHEMA if section.structured else None,
        )  # fmt: skip

    def _read(self, reply: Reply) -> Verdict:
        if reply.skipped is not None:
            return Verdict(unscored=Unscored(reply.skipped))
        read = read_json_score if self.section.structured else read_score
        return read(reply.text, finish_reason=reply.finish_reason or "stop", low=0.0, high=5.0)
