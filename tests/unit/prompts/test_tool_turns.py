"""Conversations with tools as data sets write them: kept whole, in one form, in the order of the calls."""

import json
from typing import Any

import pytest
from cases.rows import found_in

from selfreward.prompts.unusable import UnusableRow

SYSTEM = {"role": "system", "content": "Be brief."}
USER, ASK = {"role": "user", "content": "Weather?"}, {"role": "user", "content": "And now?"}
TIDE = {"name": "tide", "description": "The tide.", "parameters": {"type": "object", "properties": {}}}
OFFERED = [{"type": "function", "function": TIDE}]


def call(name: str, arguments: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


def turns(row: dict[str, Any]) -> list[tuple[str, Any]]:
    messages = found_in(row).prompt.messages
    return [(m.role, json.loads(m.content) if m.role in ("tools", "tool_calls") else m.content) for m in messages]


def test_openais_form_is_read_whole() -> None:
    calling = {"role": "assistant", "content": "Let me look.", "tool_calls": [call("tide", '{"port": "Rye"}', id="c1")]}
    row = {"messages": [USER, calling, {"role": "tool", "tool_call_id": "c1", "content": "high"}], "tools": OFFERED}
    assert turns(row) == [
        ("tools", OFFERED),
        ("user", "Weather?"),
        ("assistant", "Let me look."),
        ("tool_calls", [{"name": "tide", "arguments": {"port": "Rye"}, "id": "call00000"}]),
        ("tool", "high"),
    ]


def test_what_an_assistant_says_after_its_tools_is_the_reference() -> None:
    calling = {"role": "assistant", "content": None, "tool_calls": [call("tide", {})]}
    messages = [SYSTEM, USER, calling, {"role": "tool", "content": "high"}, {"role": "assistant", "content": "High."}]
    found = found_in({"messages": messages, "tools": json.dumps([TIDE])})
    assert [message.role for message in found.prompt.messages] == ["system", "tools", "user", "tool_calls", "tool"]
    assert found.prompt.reference == "High."
    assert json.loads(found.prompt.messages[1].content) == OFFERED
    assert "tools" in found.used


def test_a_call_at_the_end_is_a_response_without_text() -> None:
    found = found_in({"messages": [USER, {"role": "assistant", "content": "Wait.", "tool_calls": [call("tide", {})]}]})
    assert ([message.role for message in found.prompt.messages], found.prompt.reference) == (["user"], "")


def test_sharegpts_form_is_read() -> None:
    value = json.dumps({"name": "tide", "arguments": {"port": "Rye"}})
    row = {
        "conversations": [
            {"from": "human", "value": "Tide?"},
            {"from": "function_call", "value": value},
            {"from": "observation", "value": "high"},
        ],
        "tools": json.dumps([TIDE]),
    }
    assert turns(row)[2:] == [
        ("tool_calls", [{"name": "tide", "arguments": {"port": "Rye"}, "id": "call00000"}]),
        ("tool", "high"),
    ]


def test_results_follow_in_the_order_of_their_calls() -> None:
    calling = {"role": "assistant", "content": "", "tool_calls": [call("tide", {}, id="a"), call("wind", {}, id="b")]}
    results = [{"role": "tool", "tool_call_id": name, "content": name} for name in ("b", "a")]
    assert turns({"messages": [USER, calling, *results, ASK]})[2:4] == [("tool", "a"), ("tool", "b")]


@pytest.mark.parametrize("empty", [None, "", "[]", []])
def test_no_tools_are_none(empty: Any) -> None:
    assert turns({"messages": [USER], "tools": empty}) == [("user", "Weather?")]


def test_keys_that_arrow_fills_with_nulls_are_left_out() -> None:
    calling = {"role": "assistant", "tool_calls": [call("tide", {"port": "Rye", "hour": None})], "content": None}
    ((_, [made]),) = turns({"messages": [{**USER, "tool_calls": None}, calling, ASK]})[1:2]
    assert made["arguments"] == {"port": "Rye"}


def test_calls_have_ids_of_nine_letters_and_digits_as_some_templates_demand() -> None:
    """Mistral's, for example; its own ids stay."""
    calling = [{"role": "assistant", "tool_calls": [call("tide", {}, id=id)]} for id in ("call_1-x", "Ab3dEf6h9", None)]
    made = turns({"messages": [USER, calling[0], {"role": "tool", "content": "1"}, *calling[1:], ASK]})
    assert [found[0]["id"] for role, found in made if role == "tool_calls"] == ["call00000", "Ab3dEf6h9", "call00002"]


def test_the_stored_form_is_read_again() -> None:
    calling = {"role": "assistant", "content": "Wait.", "tool_calls": [call("tide", {}, id="a")]}
    row = {
        "messages": [{"role": "system", "content": "s"}, USER, calling, {"role": "tool", "content": "1"}],
        "tools": OFFERED,
    }
    stored = [{"role": m.role, "content": m.content} for m in found_in(row).prompt.messages]
    assert found_in({"messages": stored}).prompt.messages == found_in(row).prompt.messages


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ([{"role": "tool", "tool_call_id": "b", "content": "low"}], "2 calls and 1 results"),
        ([{"role": "tool", "tool_call_id": i, "content": "low"} for i in ("a", "c")], "a call that was not made"),
    ],
)
def test_results_that_do_not_fit_their_calls_are_refused(results: list[dict[str, Any]], words: str) -> None:
    calling = {"role": "assistant", "content": None, "tool_calls": [call("tide", {}, id=i) for i in ("a", "b")]}
    with pytest.raises(UnusableRow, match=words):
        turns({"messages": [USER, calling, *results, {"role": "assistant", "content": "Low."}, ASK]})
