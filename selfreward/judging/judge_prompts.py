"""From responses to judge prompts in tokens, or to the reason why a response is not sent to the engine."""

from collections.abc import Sequence

from selfreward.parts import Engine
from selfreward.records import Message, Prompt, Response
from selfreward.templates import Template, Unscored


def judge_prompts(
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    *,
    template: Template,
    engine: Engine,
    opening_ids: tuple[int, ...] = (),
    max_tokens: int,
) -> list[tuple[int, ...] | Unscored]:
    """For each response the token ids that the judge continues (they end in `opening_ids`), or why there are none.

    A response without visible text is not judged: a number for nothing says more about the judge, and judges are known
    to score empty responses highly. Raises KeyError for a response whose prompt is not among `prompts`.
    """
    messages_of = {prompt.id: prompt.messages for prompt in prompts}
    return [
        fitted(
            template.render(prompt=messages_of[response.prompt_id], response=response.text),
            engine=engine,
            opening_ids=opening_ids,
            max_tokens=max_tokens,
        )
        if response.text.strip()
        else Unscored.EMPTY_RESPONSE
        for response in responses
    ]


def fitted(
    messages: Sequence[Message], *, engine: Engine, opening_ids: tuple[int, ...], max_tokens: int
) -> tuple[int, ...] | Unscored:
    """The token ids, unless they and `max_tokens` more do not fit: half a response would be another response."""
    token_ids = (*engine.encode(messages), *opening_ids)
    return token_ids if len(token_ids) + max_tokens <= engine.context_tokens else Unscored.TOO_LONG
