"""Conversations with tools in chat templates: whole or not at all."""

import json
from pathlib import Path

import pytest

from selfreward.errors import ChatTemplateError
from selfreward.model_files import materialise
from selfreward.model_files.template_turns import template_turns
from selfreward.model_files.tokenizer import ChatTokenizer
from selfreward.recipe import ModelSection
from selfreward.records import Message
from selfreward.templates.blocks import conversation

TOOLS = Message("tools", json.dumps([{"type": "function", "function": {"name": "tide"}}]))
USER = Message("user", "High tide?")
CALL = Message("tool_calls", json.dumps([{"name": "tide", "arguments": {"port": "Rye"}, "id": "c1"}]))
RESULT = Message("tool", "high at 14:05")
WHOLE = (TOOLS, USER, CALL, RESULT)

OFFER = "{% if tools %}TOOLS {{ tools | tojson }}\n{% endif %}"
CALLS = "{% for c in m.tool_calls or [] %}CALL {{ c.function.name }} ARGUMENTS{% endfor %}"
BEGUN = "{% if add_generation_prompt %}assistant:{% endif %}"
TURNS = "{% for m in messages %}{{ m.role }}: {{ m.content }}CALLS{{ '\\n' }}{% endfor %}" + BEGUN
AS_OBJECT, AS_TEXT = "{{ c.function.arguments.port }}", "{{ 'ARGS' + c.function.arguments }}"


def chat(folder: Path, template: str) -> ChatTokenizer:
    (folder / "mine.jinja").write_text(template)
    return ChatTokenizer(materialise(ModelSection(model="random:tiny", chat_template=str(folder / "mine.jinja"))))


@pytest.mark.parametrize(("arguments", "shown"), [(AS_OBJECT, "Rye"), (AS_TEXT, 'ARGS{"port": "Rye"}')])
def test_tools_are_rendered_by_the_template(tmp_path: Path, arguments: str, shown: str) -> None:
    template = OFFER + TURNS.replace("CALLS", CALLS.replace("ARGUMENTS", arguments))
    tokenizer = chat(tmp_path, template)
    text = tokenizer.render(WHOLE)
    assert text == (
        f'TOOLS [{{"type": "function", "function": {{"name": "tide"}}}}]\nuser: High tide?\n'
        f"assistant: CALL tide {shown}\ntool: high at 14:05\nassistant:"
    )
    assert tokenizer.decode(tokenizer.encode(WHOLE)) == text


@pytest.mark.parametrize(
    ("template", "missing"),
    [
        (TURNS.replace("CALLS", ""), "a tool on offer"),
        (OFFER + TURNS.replace("CALLS", ""), "the call of a tool"),
        (
            OFFER + TURNS.replace("CALLS", CALLS.replace("ARGUMENTS", "")).replace("m.content }}", "m.content[:6] }}"),
            "the result of a tool",
        ),
    ],
)
def test_a_template_that_leaves_a_part_out_refuses_all(tmp_path: Path, template: str, missing: str) -> None:
    tokenizer = chat(tmp_path, template)
    with pytest.raises(ChatTemplateError, match=missing):
        tokenizer.encode(WHOLE)
    assert tokenizer.encode([USER])


def test_results_carry_the_names_and_ids_of_their_calls() -> None:
    turns, tools = template_turns(WHOLE)
    assert tools == [{"type": "function", "function": {"name": "tide"}}]
    function = {"name": "tide", "arguments": {"port": "Rye"}}
    assert turns[1:] == [
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": function}]},
        {"role": "tool", "content": "high at 14:05", "name": "tide", "tool_call_id": "c1"},
    ]


def test_a_judge_sees_every_turn_with_its_role() -> None:
    shown = conversation(WHOLE)
    positions = [shown.index(part) for part in ("<tools-", "High tide?", "<tool_calls-", '"Rye"', "<tool-", "14:05")]
    assert positions == sorted(positions)
