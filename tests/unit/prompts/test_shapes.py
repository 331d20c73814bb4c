"""The shapes of rows that are found, and rows that cannot be used."""

from typing import Any

import pytest
from cases.rows import found_in, refusal

USER, ASSISTANT = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}
HUMAN, GPT = {"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Hello."}
ONE = (("user", "Hi?"),)
BRIEF = ("system", "Be brief.")
THREE = (*ONE, ("assistant", "Hello."), ("user", "Why?"))
WHY = {"role": "user", "content": "Why?"}

SHAPES: dict[str, tuple[dict[str, Any], str, tuple[tuple[str, str], ...], str]] = {
    "text": ({"prompt": "Hi?"}, "prompt", ONE, ""),
    "messages": ({"messages": [USER]}, "messages", ONE, ""),
    "the assistant's last turn": ({"messages": [USER, ASSISTANT]}, "messages", ONE, "Hello."),
    "several turns": ({"messages": [USER, ASSISTANT, WHY, ASSISTANT]}, "messages", THREE, "Hello."),
    "ultrachat": ({"prompt": "Hi?", "prompt_id": "x", "messages": [USER, ASSISTANT]}, "prompt", ONE, ""),
    "a prompt of messages": ({"prompt": [USER, ASSISTANT, WHY]}, "prompt", THREE, ""),
    "TRL's prompt and completion": ({"prompt": [USER], "completion": [ASSISTANT]}, "prompt", ONE, "Hello."),
    "texts of both": ({"prompt": "Hi?", "completion": "Hello."}, "prompt", ONE, "Hello."),
    "ShareGPT": ({"conversations": [HUMAN, GPT]}, "conversations (ShareGPT)", ONE, "Hello."),
    "ShareGPT's system turn": (
        {"conversations": [{"from": "System", "value": "Be brief."}, HUMAN]},
        "conversations (ShareGPT)", (BRIEF, *ONE), "",
    ),
    "a system column": (
        {"system": "Be brief.", "conversations": [HUMAN]}, "conversations (ShareGPT)", (BRIEF, *ONE), "",
    ),
    "conversations with roles": ({"conversations": [USER]}, "conversations", ONE, ""),
    "other names of roles": (
        {"conversation": [{"from": "user", "value": "Hi?"}, {"from": "bard", "value": "Hello."}]},
        "conversation (ShareGPT)", ONE, "Hello.",
    ),
    "messages of Arrow": ({"messages": [{**USER, "name": None, "tool_calls": None}]}, "messages", ONE, ""),
    "an empty system turn": ({"messages": [{"role": "system", "content": " "}, USER]}, "messages", ONE, ""),
    "a system turn of null": ({"messages": [{"role": "system", "content": None}, USER]}, "messages", ONE, ""),
    "a developer": ({"messages": [{"role": "developer", "content": "Be brief."}, USER]}, "messages", (BRIEF, *ONE), ""),
    "parts of text": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi?", "image": None}]}]},
        "messages", ONE, "",
    ),
    "several parts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "you?"}]}]},
        "messages", (("user", "Hi\nyou?"),), "",
    ),
    "messages as JSON text": ({"messages": '[{"role": "user", "content": "Hi?"}]'}, "messages", ONE, ""),
    "Alpaca": ({"instruction": "Hi?", "input": "", "output": "Hello."}, "instruction", ONE, "Hello."),
    "Alpaca with an input": (
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
        "instruction and input", (("user", "Add.\n1 and 2"),), "3",
    ),
    "LLaMA-Factory's columns": (
        {"instruction": "Why?", "input": "", "output": "So.", "system": "Be brief.", "history": [["Hi?", "Hello."]]},
        "instruction and history", (BRIEF, *THREE), "So.",
    ),
    "Dolly": (
        {"instruction": "Who?", "context": "Ann came.", "response": "Ann", "category": "qa"},
        "instruction and context", (("user", "Who?\nAnn came."),), "Ann",
    ),
    "an input alone": ({"instruction": "", "input": "Hi?"}, "instruction and input", ONE, ""),
    "OpenOrca": (
        {"id": "x.1", "system_prompt": "Be brief.", "question": "Hi?", "response": "Hello."},
        "question", (BRIEF, *ONE), "Hello.",
    ),
    "question and answer": ({"question": "Hi?", "answer": "Hello."}, "question", ONE, "Hello."),
    "query": ({"query": "Hi?"}, "query", ONE, ""),
    "problem and solution": ({"problem": "Hi?", "solution": "Hello."}, "problem", ONE, "Hello."),
    "plain text": ({"text": "Hi?", "label": 1}, "text", ONE, ""),
    "names in capitals": ({"Question": "Hi?", "Answer": "Hello."}, "question", ONE, "Hello."),
    "implicit prompt": (
        {"chosen": [USER, ASSISTANT, WHY, ASSISTANT],
         "rejected": [USER, ASSISTANT, WHY, {**ASSISTANT, "content": "x"}]},
        "chosen and rejected", THREE, "",
    ),
    "transcripts": (
        {"chosen": "\n\nHuman: Hi?\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi?\n\nAssistant: No."},
        "chosen and rejected", ONE, "",
    ),
    "a transcript as prompt": ({"prompt": "\n\nHuman: Hi?\n\nAssistant:"}, "prompt", ONE, ""),
    "chosen alone": ({"chosen": [USER, ASSISTANT]}, "chosen", ONE, "Hello."),
    "nulls": ({"prompt": None, "messages": None, "question": "Hi?", "input": None}, "question", ONE, ""),
}  # fmt: skip


@pytest.mark.parametrize(("row", "shape", "turns", "reference"), SHAPES.values(), ids=SHAPES)
def test_a_shape_is_found(row: dict[str, Any], shape: str, turns: tuple[tuple[str, str], ...], reference: str) -> None:
    found = found_in(row)
    assert tuple((message.role, message.content) for message in found.prompt.messages) == turns
    assert (found.shape, found.prompt.reference) == (shape, reference)


TOOL_CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
UNUSABLE: dict[str, tuple[dict[str, Any], str, str]] = {
    "no column": ({"score": 1}, "missing_column", "the columns are 'score'"),
    "null": ({"prompt": None, "id": "a"}, "empty_prompt", "'prompt' is null; a prompt must be text"),
    "number": ({"prompt": 5}, "wrong_type", "'prompt' is int '5'"),
    "object": ({"prompt": {"a": "b"}}, "wrong_type", "the role None"),
    "list of texts": ({"prompt": ["hello"]}, "wrong_type", "message 1 is str 'hello'"),
    "unknown role": ({"prompt": [{"role": "ghost", "content": "x"}]}, "wrong_type", "the role 'ghost'"),
    "content of a number": ({"prompt": [{"role": "user", "content": 4}]}, "wrong_type", "the content int '4'"),
    "empty": ({"prompt": " \t\n "}, "empty_prompt", "'prompt' message 1 is empty"),
    "no message": ({"messages": []}, "empty_prompt", "has no message"),
    "an empty turn": ({"messages": [USER, {**ASSISTANT, "content": ""}, WHY]}, "empty_prompt", "message 2 is empty"),
    "only the assistant": ({"messages": [ASSISTANT]}, "empty_prompt", "has no message"),
    "system and assistant": (
        {"messages": [{"role": "system", "content": "x"}, ASSISTANT]}, "last_turn_not_user", "is from the system",
    ),
    "two turns of the assistant": ({"messages": [USER, ASSISTANT, ASSISTANT]}, "last_turn_not_user", "the assistant"),
    "a late system turn": (
        {"messages": [USER, {"role": "system", "content": "y"}, USER]}, "turns_out_of_order", "not the first",
    ),
    "a tool that was not called": (
        {"messages": [USER, {"role": "tool", "content": "42"}, WHY]}, "tool_turn", "that was not called",
    ),
    "a call without a name": (
        {"messages": [USER, {**TOOL_CALL, "tool_calls": [{"function": {"name": ""}}]}, WHY]}, "tool_turn", "calls",
    ),
    "a call that is not JSON": (
        {"conversations": [HUMAN, {"from": "function_call", "value": "f(1)"}]}, "tool_turn", "not JSON",
    ),
    "a function of ShareGPT": (
        {"conversations": [HUMAN, {"from": "function_call", "value": "{}"}, {"from": "observation", "value": "1"}]},
        "tool_turn", "message 2",
    ),
    "tools without names": ({"conversations": [HUMAN], "tools": '[{"f": "name"}]'}, "tool_turn", "'tools' offers"),
    "an image part": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "not_text", "a part of the type 'image_url'",
    ),
    "an image column": ({"prompt": "What is this?", "image": "a.png"}, "not_text", "it has 'image'"),
    "different beginnings": ({"chosen": "A", "rejected": "B"}, "empty_prompt", "begin with different turns"),
    "a lone surrogate": ({"prompt": "half \ud83d of it"}, "invalid_unicode", "U+D83D at character 6"),
    "a surrogate in a check": (
        {"prompt": "x", "checks": [{"kind": "exact", "expected": "\ud800"}]}, "invalid_unicode", "check 1",
    ),
    "checks of the wrong type": ({"prompt": "x", "checks": "no_comma"}, "bad_checks", "checks are 'no_comma'"),
    "an unknown check": ({"prompt": "x", "checks": [{"kind": "no_coma"}]}, "bad_checks", "check 1: unknown kind"),
    "a reference of the wrong type": ({"prompt": "x", "reference": 5}, "bad_reference", "'reference' is int"),
    "an input of the wrong type": ({"instruction": "x", "input": ["y"]}, "wrong_type", "'input' is list"),
    "a history of the wrong type": ({"instruction": "x", "history": [["y"]]}, "wrong_type", "entry 1 is list"),
}  # fmt: skip


@pytest.mark.parametrize(("row", "reason", "words"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_row_that_cannot_be_used_has_a_reason(row: dict[str, Any], reason: str, words: str) -> None:
    error = refusal(row)
    assert error.reason == reason and words in str(error)
    str(error).encode()


def test_a_named_column_wins() -> None:
    row = {"prompt": "not this", "ask": "Hi?", "gold": "Hello.", "passage": "A sea.", "key": 7, "role": "Be brief."}
    found = found_in(row, prompt="ask", reference="gold", input="passage", id="key", system="role")
    assert [message.content for message in found.prompt.messages] == ["Be brief.", "Hi?\nA sea."]
    assert (found.prompt.id, found.prompt.reference) == ("7", "Hello.")
    assert found.used == {"ask", "gold", "passage", "key", "role"}
    assert refusal(row, prompt="question").reason == "missing_column"


def test_a_named_alpaca_column_keeps_its_input() -> None:
    found = found_in({"instruction": "Add.", "input": "1 and 2"}, prompt="instruction")
    assert found.prompt.messages[0].content == "Add.\n1 and 2"


@pytest.mark.parametrize(
    ("value", "expected", "is_own"),
    [
        ("a-1", "a-1", True), (7, "7", True), (7.0, "7", True), (None, "line-1", True), ("", "line-1", True),
        (float("nan"), "line-1", True), ("a/b c", "a-b-c", False), ("../..", "line-1", False),
        ("x" * 300, "x" * 100, False),
        (True, "line-1", False), ([1], "line-1", False), ("日本", "line-1", False), ("x\n", "x-", False),
    ],
)  # fmt: skip
def test_ids_are_made_safe(value: object, expected: str, is_own: bool) -> None:
    found = found_in({"prompt": "Hi?", "id": value})
    assert (found.prompt.id, found.has_own_id) == (expected, is_own)
