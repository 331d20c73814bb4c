"""A named model in the run's own engine, as `parts.Chat`: conversations in, texts and probabilities out.

This module handles the chat template, the context length, text that must not become a control token, and the tokens of
choices.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from selfreward.chats.choice_tokens import ChoiceTokens, checked_logprobs, choice_tokens
from selfreward.errors import ChatTemplateError
from selfreward.in_threads import map_in_threads
from selfreward.model_files.control_tokens import ControlTokens
from selfreward.parts import Engine, OwnTemplate
from selfreward.readers import Unscored
from selfreward.records import Checkpoint, Message
from selfreward.requests import ChatRequest, GenerationRequest, Reply, Sample

# Text that is truncated and encoded again may have a few more tokens than were sampled.
_SPARE_TOKENS = 8


@dataclass(frozen=True)
class LocalChat:
    """A `parts.Chat` on an engine: one engine call for all free text, and one for all choices.

    `encoder` encodes its conversations in its own chat template, and says where its replies end; without one, the
    engine does.
    """

    by: str
    engine: Engine
    encoder: OwnTemplate | None = None
    is_local = True

    def model_id(self, models: Mapping[str, Checkpoint]) -> str:
        return models[self.by].id

    def usage(self) -> Mapping[str, float]:
        """Return no counters, because the engine counts these requests."""
        return {}

    def notes(self) -> Sequence[str]:
        return ()

    def reply(self, requests: Sequence[ChatRequest], *, models: Mapping[str, Checkpoint]) -> list[list[Reply]]:
        tokens_of = {
            (opening, choices): choice_tokens(self.engine, opening=opening, choices=choices)
            for opening, choices in {(request.opening, request.choices) for request in requests if request.choices}
        }
        tokens = [tokens_of.get((request.opening, request.choices)) for request in requests]
        replies = map_in_threads(self._empty_replies, requests, tokens)
        if any(reply.skipped is None for draws in replies for reply in draws):
            self.engine.load(models[self.by])
        return self._choose(requests, tokens, self._write(requests, replies))

    def _empty_replies(self, request: ChatRequest, tokens: ChoiceTokens | None) -> list[Reply]:
        """Return `n` empty replies with the prompt's tokens, or the reason why it is not sent (never truncated)."""
        choice = len(tokens.opening_ids) + 1 if tokens else 0
        needed = request.max_tokens + choice + (_SPARE_TOKENS if choice and request.max_tokens else 0)
        # Requests with choices or a JSON schema prescribe their own reasoning, so thinking is off.
        try:
            prompt = self._encode(request.messages, thinking=tokens is None and request.json_schema is None)
        except ChatTemplateError:  # of this one conversation, which must not end the run
            return [Reply(skipped=Unscored.REFUSED.value)] * request.n
        if prompt is None:
            return [Reply(skipped=Unscored.CONTROL_TOKENS.value)] * request.n
        if len(prompt) + needed > self.engine.context_tokens:
            return [Reply(skipped=Unscored.TOO_LONG.value)] * request.n
        return [Reply(prompt_token_ids=prompt)] * request.n

    def _write(self, requests: Sequence[ChatRequest], replies: list[list[Reply]]) -> list[list[Reply]]:
        """Generate the free text of all requests that may be sent."""
        positions = [
            index for index, request in enumerate(requests) if request.max_tokens and replies[index][0].skipped is None
        ]
        stop = (self.encoder.turn_end,) if self.encoder and self.encoder.turn_end else ()
        generation_requests = [
            _generation(requests[index], replies[index][0].prompt_token_ids, stop) for index in positions
        ]
        for index, samples in zip(
            positions, self.engine.generate(generation_requests) if generation_requests else [], strict=True
        ):
            replies[index] = [
                _with_sample(reply, sample) for reply, sample in zip(replies[index], samples, strict=True)
            ]
        return replies

    def _choose(
        self, requests: Sequence[ChatRequest], tokens: Sequence[ChoiceTokens | None], replies: list[list[Reply]]
    ) -> list[list[Reply]]:
        """Add the probabilities of the choices after the free text, also when that was truncated."""
        positions = [
            (index, draw, choices)
            for index, choices in enumerate(tokens)
            if choices is not None
            for draw, reply in enumerate(replies[index])
            if reply.skipped is None
        ]
        generation_requests = [
            GenerationRequest(
                prompt_token_ids=(
                    *self._tokens_before_opening(requests[index], replies[index][draw]),
                    *choices.opening_ids,
                ),
                max_tokens=1,
                temperature=0.0,
                choice_token_ids=choices.choice_ids,
            )
            for index, draw, choices in positions
        ]
        samples = self.engine.generate(generation_requests) if generation_requests else []
        for (index, draw, choices), request, (sample,) in zip(positions, generation_requests, samples, strict=True):
            reply = replace(replies[index][draw], choice_logprobs=checked_logprobs(sample, choices))
            if not requests[index].max_tokens:
                reply = _with_sample(replace(reply, prompt_token_ids=request.prompt_token_ids), sample)
            replies[index][draw] = reply
        return replies

    def _tokens_before_opening(self, request: ChatRequest, reply: Reply) -> tuple[int, ...]:
        """Return the tokens of the prompt and the free text, up to where the model itself began the opening."""
        if not request.max_tokens:
            return reply.prompt_token_ids
        begun = [found.start() for found in _opening_pattern(request.opening).finditer(reply.text)]
        text = reply.text[: begun[-1] if begun else None].rstrip() + "\n"
        written = self.engine.encode_text(text)
        control, sampled = self._control, reply.token_ids[: -1 if reply.finish_reason == "stop" else None]
        if not control.count(written) <= control.count(sampled):
            written = tuple(i for i in self.engine.encode_text(control.broken(text)) if i not in control.ids)
        limit = len(reply.token_ids) + _SPARE_TOKENS
        return (*reply.prompt_token_ids, *written[:limit])

    def _encode(self, messages: Sequence[Message], *, thinking: bool) -> tuple[int, ...] | None:
        """Return token ids whose control tokens all come from the chat template; None when this is impossible."""
        return self._control.encoded(messages, self._encode_with[thinking])

    @cached_property
    def _encode_with(self) -> Mapping[bool, Callable[[Sequence[Message]], tuple[int, ...]]]:
        return {
            thinking: partial((self.encoder or self.engine).encode, thinking=thinking) for thinking in (True, False)
        }

    @cached_property
    def _control(self) -> ControlTokens:
        return ControlTokens(self.engine)


def _opening_pattern(opening: str) -> re.Pattern[str]:
    """Return a pattern for the opening with the Markdown before it, which must not be left unclosed."""
    return re.compile(rf"[ \t*_#]{{0,8}}{re.escape(opening.strip())}")


def _generation(request: ChatRequest, prompt_token_ids: tuple[int, ...], stop: tuple[str, ...]) -> GenerationRequest:
    return GenerationRequest(
        prompt_token_ids=prompt_token_ids,
        max_tokens=request.max_tokens,
        n=request.n,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed,
        json_schema=request.json_schema,
        stop=stop,
    )


def _with_sample(reply: Reply, sample: Sample) -> Reply:
    return replace(
        reply,
        text=sample.text,
        finish_reason=sample.finish_reason,
        token_ids=sample.token_ids,
        token_logprobs=sample.token_logprobs,
    )
