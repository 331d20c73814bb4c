"""Prompts to which the policy cannot respond, and why."""

from collections.abc import Sequence

from selfreward.errors import ChatTemplateError
from selfreward.parts import LeftOut
from selfreward.problems import left_out
from selfreward.records import Message, Prompt
from selfreward.workload import Lengths


class Words:
    """One token per word; no system turn, no two user turns in a row."""

    context_tokens = 10

    def encode(self, messages: Sequence[Message], *, thinking: bool = True) -> tuple[int, ...]:
        roles = [message.role for message in messages]
        if "system" in roles or roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
            raise ChatTemplateError(f"conversation with the turns {', '.join(roles)}: refused; fix it; now")
        return tuple(range(sum(len(message.content.split()) for message in messages)))

    def encode_text(self, text: str) -> tuple[int, ...]:
        return ()


def prompt(*turns: tuple[str, str]) -> Prompt:
    return Prompt("p1", tuple(Message(role, text) for role, text in turns))


def found(*turns: tuple[str, str]) -> LeftOut | None:
    return left_out(prompt(*turns), 4, Lengths(Words()))


def test_a_prompt_fits_with_its_response() -> None:
    assert found(("user", "a b c d e f")) is None
    long = found(("user", "a b c d e f g"))
    assert long is not None
    assert (long.kind, long.found) == ("too_long", "prompt p1: 7 tokens plus 4 for the response; the context has 10")


def test_a_refusal_of_the_template_names_the_turns() -> None:
    refused = found(("user", "a"), ("user", "b"))
    assert refused is not None
    assert refused.found == "prompt p1: conversation with the turns user, user: refused"
    assert "models.policy.chat_template" in refused.advice


def test_equal_ids_of_two_sources_are_two_prompts() -> None:
    lengths = Lengths(Words())
    assert lengths.prompt(prompt(("user", "a"))) == 1
    assert lengths.prompt(prompt(("user", "a b"))) == 2
