"""Prompts to which the policy cannot respond: why, and whether a run refuses them or leaves them out."""

from collections.abc import Sequence

from selfreward.errors import ChatTemplateError
from selfreward.parts import LeftOut
from selfreward.problems import left_out, of_left_out
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


def test_the_system_turn_is_named_where_it_alone_is_the_cause() -> None:
    refused = found(("user", "a"), ("user", "b"))
    assert refused is not None
    assert refused.found == "prompt p1: conversation with the turns user, user: refused"
    assert "system" not in refused.advice
    by_system = found(("system", "s"), ("user", "a"))
    assert by_system is not None
    assert "prompts.system_prompt" in by_system.advice


def test_equal_ids_of_two_sources_are_two_prompts() -> None:
    lengths = Lengths(Words())
    assert lengths.prompt(prompt(("user", "a"))) == 1
    assert lengths.prompt(prompt(("user", "a b"))) == 2


def test_prompts_of_a_file_are_refused_until_the_run_has_begun() -> None:
    of_file = [LeftOut(f"q{i}", "too_long", f"prompt q{i}: long", "shorten it", is_correctable=True) for i in (1, 2)]
    (refused,) = of_left_out(of_file, "prompts of iteration 2", begun=False)
    assert not refused.is_warning
    assert refused.text == "prompt q1: long; shorten it (1 more like it)"
    (left,) = of_left_out(of_file, "prompts of iteration 2", begun=True)
    assert left.is_warning
    assert left.text == "prompts of iteration 2: 2 too long, so left out; for example prompt q1: long"


def test_prompts_of_a_dataset_are_left_out() -> None:
    (left,) = of_left_out([LeftOut("r", "refused_by_template", "prompt r: no", "x")], "held-out prompts", begun=False)
    assert left.is_warning
    assert list(of_left_out([], "held-out prompts", begun=False)) == []
