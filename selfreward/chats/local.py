"""A named model in the run's own engine, as judges speak to it: conversations in, texts and probabilities out.

What stands between judge and engine is here: the chat template, room in the context, text that must not become a
control token, and the tokens that stand for choices.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from selfreward.chats.choice_tokens import ChoiceTokens, checked_logprobs, choice_tokens
from selfreward.parts import Engine
from selfreward.readers import Unscored
from selfreward.records import Checkpoint, Message
from selfreward.requests import ChatRequest, GenerationRequest, Reply, Sample

# Text that is cut and encoded anew may take a few tokens more than it was sampled in.
_SPARE_TOKENS = 8


@dataclass(frozen=True)
class LocalChat:
    """`parts.Chat` on an engine: one engine call for all that is written, and one for all choices."""

    by: str
    engine: Engine
    is_local = True

    def model_id(self, models: Mapping[str, Checkpoint]) -> str:
        return models[self.by].id

    def usage(self) -> Mapping[str, float]:
        """The engine counts what it is asked."""
        return {}

    def reply(self, requests: Sequence[ChatRequest], *, models: Mapping[str, Checkpoint]) -> list[list[Reply]]:
        tokens_of = {
            (opening, choices): choice_tokens(self.engine, opening=opening, choices=choices)
            for opening, choices in {(request.opening, request.choices) for request in requests if request.choices}
        }
        tokens = [tokens_of.get((request.opening, request.choices)) for request in requests]
        replies = [self._ready(request, choices) for request, choices in zip(requests, tokens, strict=True)]
        if any(reply.skipped is None for draws in replies for reply in draws):
            self.engine.load(models[self.by])
        return self._choose(requests, tokens, self._write(requests, replies))

    def _ready(self, request: ChatRequest, tokens: ChoiceTokens | None) -> list[Reply]:
        """`n` replies without a word yet: the prompt in tokens, or why it is not sent. Cut, it would ask otherwise."""
        choice = len(tokens.opening_ids) + 1 if tokens else 0
        needed = request.max_tokens + choice + (_SPARE_TOKENS if choice and request.max_tokens else 0)
        # Who is to choose, or to fill in a form, has been told how to explain itself: no thinking before.
        prompt = self._encode(request.messages, thinking=tokens is None and request.json_schema is None)
        if prompt is None:
            return [Reply(skipped=Unscored.CONTROL_TOKENS.value)] * request.n
        if len(prompt) + needed > self.engine.context_tokens:
            return [Reply(skipped=Unscored.TOO_LONG.value)] * request.n
        return [Reply(prompt_token_ids=prompt)] * request.n

    def _write(self, requests: Sequence[ChatRequest], replies: list[list[Reply]]) -> list[list[Reply]]:
        """The free text of all that may be sent."""
        places = [
            index for index, request in enumerate(requests) if request.max_tokens and replies[index][0].skipped is None
        ]
        asked = [_generation(requests[index], replies[index][0].prompt_token_ids) for index in places]
        for index, samples in zip(places, self.engine.generate(asked) if asked else [], strict=True):
            replies[index] = [_written(reply, sample) for reply, sample in zip(replies[index], samples, strict=True)]
        return replies

    def _choose(
        self, requests: Sequence[ChatRequest], tokens: Sequence[ChoiceTokens | None], replies: list[list[Reply]]
    ) -> list[list[Reply]]:
        """The probabilities of the choices, after what was written; text cut at its limit is held to a choice too."""
        places = [
            (index, draw, choices)
            for index, choices in enumerate(tokens)
            if choices is not None
            for draw, reply in enumerate(replies[index])
            if reply.skipped is None
        ]
        asked = [
            GenerationRequest(
                prompt_token_ids=(*self._so_far(requests[index], replies[index][draw]), *choices.opening_ids),
                max_tokens=1,
                temperature=0.0,
                choice_token_ids=choices.choice_ids,
            )
            for index, draw, choices in places
        ]
        samples = self.engine.generate(asked) if asked else []
        for (index, draw, choices), request, (sample,) in zip(places, asked, samples, strict=True):
            reply = replace(replies[index][draw], choice_logprobs=checked_logprobs(sample, choices))
            if not requests[index].max_tokens:
                reply = _written(replace(reply, prompt_token_ids=request.prompt_token_ids), sample)
            replies[index][draw] = reply
        return replies

    def _so_far(self, request: ChatRequest, reply: Reply) -> tuple[int, ...]:
        """The prompt and what was written, up to the place where the model began the opening by itself."""
        if not request.max_tokens:
            return reply.prompt_token_ids
        begun = [found.start() for found in _begun(request.opening).finditer(reply.text)]
        text = reply.text[: begun[-1] if begun else None].rstrip() + "\n"
        said = self.engine.encode_text(text)
        if not self._controls(said) <= self._controls(reply.token_ids[: -1 if reply.finish_reason == "stop" else None]):
            said = tuple(i for i in self.engine.encode_text(self._break(text)) if i not in self._control_ids)
        limit = len(reply.token_ids) + _SPARE_TOKENS
        return (*reply.prompt_token_ids, *said[:limit])

    def _encode(self, messages: Sequence[Message], *, thinking: bool) -> tuple[int, ...] | None:
        """Token ids in which only the chat template wrote control tokens; None when that cannot be had.

        A template may not escape what it is given, and a tokenizer may read control tokens where the text has none (it
        folds characters), so what counts is found in the tokens.
        """
        silent = [replace(message, content="x") for message in messages]
        expected = self._controls(self.engine.encode(silent, thinking=thinking))
        token_ids = self.engine.encode(messages, thinking=thinking)
        if self._controls(token_ids) == expected:
            return token_ids
        broken = [replace(message, content=self._break(message.content)) for message in messages]
        token_ids = self.engine.encode(broken, thinking=thinking)
        return token_ids if self._controls(token_ids) == expected else None

    def _break(self, text: str) -> str:
        """Control tokens with a space after their first character."""
        for token in sorted(self.engine.control_tokens, key=len, reverse=True):
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _controls(self, token_ids: Iterable[int]) -> Counter[int]:
        return Counter(token_id for token_id in token_ids if token_id in self._control_ids)

    @cached_property
    def _control_ids(self) -> frozenset[int]:
        encoded = map(self.engine.encode_text, self.engine.control_tokens)
        return frozenset(token_ids[0] for token_ids in encoded if len(token_ids) == 1)


def _begun(opening: str) -> re.Pattern[str]:
    """Finds the opening with the Markdown before it, which would be left dangling."""
    return re.compile(rf"[ \t*_#]{{0,8}}{re.escape(opening.strip())}")


def _generation(request: ChatRequest, prompt_token_ids: tuple[int, ...]) -> GenerationRequest:
    return GenerationRequest(
        prompt_token_ids=prompt_token_ids,
        max_tokens=request.max_tokens,
        n=request.n,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed,
        json_schema=request.json_schema,
    )


def _written(reply: Reply, sample: Sample) -> Reply:
    return replace(
        reply,
        text=sample.text,
        finish_reason=sample.finish_reason,
        token_ids=sample.token_ids,
        token_logprobs=sample.token_logprobs,
    )
