"""An engine for tests of code that uses one: the interface, with samples that the test defines."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from selfreward.records import Checkpoint, Message
from selfreward.requests import GenerationRequest, Sample, ScoreRequest

MERGED = 1_000_000


class FakeEngine:
    """Its tokens are characters, and `say(request, draw)` makes its samples. It records its requests.

    `merge_space`: a space and the character after it are one token at the end of a text, as in many vocabularies.
    """

    def __init__(
        self,
        say: Callable[[GenerationRequest, int], Sample],
        *,
        context_tokens: int = 100_000,
        merge_space: bool = False,
    ) -> None:
        self.say = say
        self.merge_space = merge_space
        self.calls: list[list[GenerationRequest]] = []
        self.loaded: list[Checkpoint] = []
        self.asleep = False
        self._context_tokens = context_tokens

    @property
    def context_tokens(self) -> int:
        return self._context_tokens

    @property
    def control_tokens(self) -> tuple[str, ...]:
        return ()

    def encode(self, messages: Sequence[Message], *, thinking: bool = True) -> tuple[int, ...]:
        return tuple(map(ord, "".join(f"[{m.role}]{m.content}" for m in messages) + "[assistant]"))

    def encode_text(self, text: str) -> tuple[int, ...]:
        ids = [ord(character) for character in text]
        if self.merge_space and len(ids) > 1 and text[-2] == " ":
            ids[-2:] = [MERGED + ids[-1]]
        return tuple(ids)

    def load(self, checkpoint: Checkpoint) -> None:
        self.loaded.append(checkpoint)

    def generate(self, requests: Sequence[GenerationRequest]) -> list[list[Sample]]:
        assert self.loaded, "generate before load"
        self.calls.append(list(requests))
        self.asleep = False
        return [[self.say(request, draw) for draw in range(request.n)] for request in requests]

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        raise NotImplementedError

    def sleep(self) -> None:
        self.asleep = True

    def wake(self) -> None: ...
    def close(self) -> None: ...
    def usage(self) -> Mapping[str, float]:
        return {}

    def facts(self) -> Mapping[str, Any]:
        return {}


def shown(request: GenerationRequest) -> str:
    """The text of a request's prompt."""
    return "".join(chr(token - MERGED if token >= MERGED else token) for token in request.prompt_token_ids)
