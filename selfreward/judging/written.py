"""Scores that a judge writes down, 0 to 5: how the additive judge and the rubric's criteria ask and read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from selfreward.judging.asking import Material, Question, Questioner, judgment, unasked
from selfreward.parts import Models
from selfreward.readers import Unscored, Verdict, read_json_score, read_score, without_reasoning
from selfreward.recipe import Written
from selfreward.records import Judgment, Message, Prompt, Response
from selfreward.requests import ChatRequest, Reply
from selfreward.templates import Template, Trusted
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
    """What is asked about each response: `fields` of the template; `part` names a criterion."""

    part: str = ""
    fields: Mapping[str, Trusted] = field(default_factory=dict)


def judge_in_writing(
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    questions: Sequence[ScoreQuestion],
    *,
    section: Written,
    questioner: Questioner,
    template: Template,
    models: Models,
    iteration: int,
) -> list[Judgment]:
    """`num_draws` judgments for each response and question, in this order; one call for all of them."""
    material = questioner.material(prompts, responses, models=models)
    wanted = [(response, question) for response in responses for question in questions]
    asked = [
        _ask(response, question, material[response.prompt_id], section, questioner, template, iteration)
        for response, question in wanted
    ]
    return [
        judgment(
            response,
            questioner,
            draw=draw,
            verdict=_read(reply, structured=section.structured),
            reply=reply,
            template=template,
            models=models,
            seed=put.request.seed + draw if reply.unsent is None else 0,
            part=question.part,
        )
        for (response, question), put, replies in zip(wanted, asked, questioner.ask(asked, models=models), strict=True)
        for draw, reply in enumerate(replies)
    ]


def most_in_writing(
    work: Workload,
    lengths: Lengths,
    questions: Sequence[ScoreQuestion],
    *,
    section: Written,
    questioner: Questioner,
    template: Template,
) -> list[Requests]:
    """What `judge_in_writing` asks at most."""
    structured = Trusted("json") if section.structured else None
    asked = [
        questioner.most(
            template,
            _request(section),
            work,
            lengths,
            times=work.num_responses,
            structured=structured,
            **question.fields,
        )
        for question in questions
    ]
    return [*questioner.most_committed(work, lengths), *asked]


def _ask(
    response: Response,
    question: ScoreQuestion,
    material: Material,
    section: Written,
    questioner: Questioner,
    template: Template,
    iteration: int,
) -> Question:
    messages = template.render(
        **material.fields(),
        **question.fields,
        response=without_reasoning(response.text),
        structured=Trusted("json") if section.structured else None,
    )
    seed = questioner.seed_of(iteration, "/".join(filter(None, (response.id, question.part))))
    return Question(_request(section, messages, seed=seed), unasked(material, response))


def _request(section: Written, messages: tuple[Message, ...] = (), *, seed: int = 0) -> ChatRequest:
    return ChatRequest(
        messages,
        max_tokens=section.max_tokens,
        n=section.num_draws,
        temperature=section.temperature,
        top_p=section.top_p,
        seed=seed,
        json_schema=SCHEMA if section.structured else None,
    )


def _read(reply: Reply, *, structured: bool) -> Verdict:
    if reply.unsent is not None:
        return Verdict(unscored=Unscored(reply.unsent))
    read = read_json_score if structured else read_score
    return read(reply.text, finish_reason=reply.finish_reason or "stop", low=0.0, high=5.0)
