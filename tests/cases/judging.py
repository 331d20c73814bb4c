"""Shared code of tests of judges: prompts, responses, and a model with fake replies."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from selfreward import judging, recipe
from selfreward.parts import Judge
from selfreward.records import Checkpoint, Judgment, Message, Prompt, Response
from selfreward.requests import ChatRequest, Reply

MODELS = {"policy": Checkpoint("m1", Path("nowhere"), 1)}
PROMPT = Prompt("p", (Message("system", "Be brief."), Message("user", "Name a sea.")), reference="The Baltic Sea.")


class FakeChat:
    """A model with replies from `say(request, draw)`, which may be texts. It records its requests."""

    by = "policy"
    is_local = True

    def __init__(self, say: Callable[[ChatRequest, int], Reply | str]) -> None:
        self.say = say
        self.calls: list[list[ChatRequest]] = []

    def model_id(self, models: Mapping[str, Checkpoint]) -> str:
        return models[self.by].id

    def reply(self, requests: Sequence[ChatRequest], *, models: Mapping[str, Checkpoint]) -> list[list[Reply]]:
        self.calls.append(list(requests))
        return [[self._reply(request, draw) for draw in range(request.n)] for request in requests]

    def _reply(self, request: ChatRequest, draw: int) -> Reply:
        said = self.say(request, draw)
        return Reply(text=said, finish_reason="stop") if isinstance(said, str) else said


def chosen(request: ChatRequest, probabilities: Mapping[str, float], text: str = "") -> Reply:
    """A reply with the probability of each choice; 0 for those that are left out."""
    logprobs = (math.log(p) if (p := probabilities.get(choice, 0.0)) else -math.inf for choice in request.choices)
    return Reply(text=text, finish_reason="stop", choice_logprobs=tuple(logprobs))


def build(chat: FakeChat, kind: str, *, seed: int = 11, **settings: Any) -> Judge:
    section = TypeAdapter(recipe.JudgingSection).validate_python({"kind": kind, **settings})
    return judging.build(section, chats={"policy": chat}, engine=None, seed=seed)  # type: ignore[arg-type]


def judged(
    chat: FakeChat, kind: str, responses: Sequence[Response], *prompts: Prompt, iteration: int = 1, **settings: Any
) -> list[Judgment]:
    judge = build(chat, kind, **settings)
    return judge.judge(prompts or [PROMPT], responses, models=MODELS, iteration=iteration)


def response(number: int | str, text: str, *, prompt_id: str = "p") -> Response:
    return Response(f"{prompt_id}/{number}", prompt_id, (1,), (5, 2), None, text, "stop", 0, "m1")


def question(request: ChatRequest) -> str:
    (message,) = request.messages
    return message.content


def shown(request: ChatRequest, field: str) -> str | None:
    """The text of one block of a question, None when it has no such block."""
    found = re.search(rf"^<{field}-(\w{{6}})>\n(.*?)\n</{field}-\1>$", question(request), re.DOTALL | re.MULTILINE)
    return found and found[2]


def principles_file(folder: Path, *principles: str) -> str:
    path = folder / "constitution.yaml"
    path.write_text("".join(f"- {principle}\n" for principle in principles))
    return str(path)


def by_length(request: ChatRequest, draw: int) -> Reply:
    """Prefers the longer response, in any position, with a probability that grows with the difference."""
    longer = len(shown(request, "response_a") or "") - len(shown(request, "response_b") or "")
    first = 1 / (1 + math.exp(-longer))
    return chosen(request, {"A": 0.8 * first, "B": 0.8 * (1 - first)})
