"""`selfreward validate` on data as people have it, with a real model and its chat template."""

import json
from pathlib import Path
from typing import Any

import pytest
from cases.rows import write

from selfreward.cli import main
from selfreward.model_files import ChatTokenizer, materialise
from selfreward.recipe import ModelSection
from selfreward.records import Message

SMALL = ["iterations={max: 1, num_prompts_per_iteration: 20, shard_prompts: 4}"]
# Gemma's and Mistral's way: no system role, and turns that alternate.
STRICT = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def strict_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose chat template has no system role and refuses two user turns in a row."""
    import shutil

    folder = tmp_path_factory.mktemp("strict") / "model"
    shutil.copytree(materialise(ModelSection(model="random:tiny")), folder)
    (folder / "chat_template.jinja").write_text(STRICT)
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def questions(count: int = 30) -> list[str]:
    return [f"What is the tide at harbour number {i} like?" for i in range(count)]


def validate(prompts: Any, folder: Path, *overrides: str) -> int:
    section = prompts if isinstance(prompts, str) else json.dumps(prompts)
    sets = [*SMALL, f"prompts={section}", f"output_dir={folder / 'run'}", *overrides]
    return main(["validate", "recipes/tiny.yaml", *(word for each in sets for word in ("--set", each))])


def test_the_summary_says_what_was_read_and_shows_the_first_prompt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": text, "answer": str(i), "topic": "x"} for i, text in enumerate(questions(60))]
    tool = {"messages": [{"role": "tool", "content": "42"}]}
    path = write(tmp_path, *rows, rows[3], tool, name="a.jsonl")
    assert validate(path, tmp_path) == 0
    printed = capsys.readouterr()
    assert f"prompts: {path}\n  rows: 62 read, 60 used, 1 dropped, 1 repeated\n  shapes: 60 question\n" in printed.out
    assert "  dropped: 1 tool turn\n  columns that are not used: topic" in printed.out
    assert "split: 56 for training (1 x 20 are needed), held out: 4 validation, 4 verifiable" in printed.out
    assert "prompts of iteration 1: 20, 20 with a reference, 20 with checks (numeric)" in printed.out
    assert "  | <|start|>user\n  | What is the tide" in printed.out and "  | <|start|>assistant" in printed.out
    assert (
        f"warning: prompts: {path}: 1 of 62 rows are dropped (1 tool turn); for example {path}, line 62" in printed.err
    )
    assert "1 repeated prompts are left out" in printed.err


def test_what_a_prompt_hides_is_shown_and_long_ones_are_clipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, *({"prompt": f"\x1b[31m{text} " + "word " * 300} for text in questions()))
    assert validate(path, tmp_path) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "⟦ESC⟧[31mWhat" in shown and "more characters are not shown" in shown
    assert len(shown) < 3000


@pytest.mark.parametrize("kind", ["file", "dataset"])
def test_one_row_that_is_no_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """One in forty: of a dataset it is left out, in a file it is more than its owner should leave."""
    tool = {"messages": [{"role": "user", "content": "Call."}, {"role": "tool", "content": "42"}]}
    rows = [{"messages": [{"role": "user", "content": text}]} for text in questions(39)]
    (tmp_path / "data").mkdir()
    path = write(tmp_path / "data", *rows, tool, name="train.jsonl")
    section = {"kind": "file", "path": path} if kind == "file" else {"kind": "dataset", "name": str(tmp_path / "data")}
    assert validate(section, tmp_path) == (2 if kind == "file" else 0)
    printed = capsys.readouterr()
    assert (
        "1 of 40 rows" in printed.err
        and "1 tool turn" in printed.err
        and "has the result of a tool that was not called" in printed.err
    )
    if kind == "file":
        assert f"\n  {path}, line 40: " in printed.err
        assert validate({**section, "max_dropped_rate": 0.03}, tmp_path) == 0


@pytest.mark.parametrize("kind", ["file", "dataset"])
def test_one_prompt_that_the_model_cannot_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], strict_model: Path, kind: str
) -> None:
    turns = [{"role": "user", "content": "One."}, {"role": "user", "content": "Two."}]
    rows: list[dict[str, Any]] = [{"id": f"q{i}", "prompt": text} for i, text in enumerate(questions(26))]
    rows[17] = {"id": "q17", "prompt": turns} if kind == "file" else {"id": "q17", "prompt": "long " * 900}
    (tmp_path / "data").mkdir()
    path = write(tmp_path / "data", *rows, name="train.jsonl")
    section = {"kind": "file", "path": path} if kind == "file" else {"kind": "dataset", "name": str(tmp_path / "data")}
    assert validate(section, tmp_path, f"models.policy.model={strict_model}") == (2 if kind == "file" else 0)
    printed = capsys.readouterr()
    assert "1 of 25 prompts" in printed.err and "prompt q17: " in printed.err
    assert ("1 refused by template" if kind == "file" else "1 too long") in printed.err
    assert kind == "file" or "left out of the sets: 1 too long" in printed.out
    assert kind == "file" or "prompts of iteration 1: 20, " in printed.out  # another prompt took its place


def test_too_few_prompts_that_the_model_can_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], strict_model: Path
) -> None:
    turns = [{"role": "user", "content": "One."}, {"role": "user", "content": "Two."}]
    rows: list[dict[str, Any]] = [{"id": f"q{i}", "prompt": text} for i, text in enumerate(questions(24))]
    rows[17] = {"id": "q17", "prompt": turns}
    section = {"kind": "file", "path": write(tmp_path, *rows), "max_dropped_rate": 0.5}
    assert validate(section, tmp_path, f"models.policy.model={strict_model}") == 2
    printed = capsys.readouterr().err
    assert "1 cannot be used (1 refused by template; for example prompt q17: " in printed
    assert "which leaves 19 for training; 1 iterations x 20" in printed and "models.policy.chat_template" in printed


def test_a_system_prompt_goes_before_the_first_user_turn_where_there_is_no_system_role(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], strict_model: Path
) -> None:
    path = write(tmp_path, *({"prompt": text} for text in questions()))
    section = {"kind": "file", "path": path, "system_prompt": "Answer briefly."}
    assert validate(section, tmp_path, f"models.policy.model={strict_model}") == 0
    printed = capsys.readouterr()
    assert printed.err == (
        "warning: models.policy: its chat template has no system role; the system prompt is put before the first user "
        "turn\n"
    )
    assert "  | <|start|>user\n  | Answer briefly.\n  | \n  | What is the tide" in printed.out
    assert validate(section, tmp_path) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and "  | <|start|>system\n  | Answer briefly.<|end|>\n  | <|start|>user" in printed.out


@pytest.mark.parametrize(
    ("template", "has_role"),
    [
        (STRICT, False),
        (STRICT.replace("{{ raise_exception('System role not supported') }}", ""), False),
        (
            "{% for m in messages %}{% if m.role != 'system' %}{{ m.role }}: {{ m.content }}\n{% endif %}{% endfor %}",
            False,
        ),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", True),
    ],
)
def test_a_system_turn_is_never_lost(tmp_path: Path, strict_model: Path, template: str, has_role: bool) -> None:
    import shutil

    shutil.copytree(strict_model, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(template)
    tokenizer = ChatTokenizer(tmp_path / "model")
    turns = [
        Message("system", "Be brief."),
        Message("user", "Why?"),
        Message("assistant", "So."),
        Message("user", "And?"),
    ]
    text = tokenizer.render(turns)
    assert ("Be brief.\n\nWhy?" in text) == (not has_role)
    assert text.count("Be brief.") == 1 and text.index("Be brief.") < text.index("Why?")
    assert tokenizer.encode(turns) == tokenizer.encode_text(text)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "prompt;category\n" + "".join(f'"{text}; or not?";x\n' for text in questions())),
        ("a.json", json.dumps([{"conversations": [{"from": "human", "value": text}]} for text in questions()])),
        ("a.txt", "\n".join(questions())),
    ],
)
def test_a_path_alone_is_a_section(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    for path in (tmp_path / name, tmp_path):
        assert validate(str(path), tmp_path) == 0
        assert "rows: 30 read, 30 used" in capsys.readouterr().out


def test_gold_pairs_of_other_trainers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, *({"prompt": text} for text in questions()))
    said = {name: {"role": "assistant", "content": name} for name in ("chosen", "rejected")}
    pairs = [{"prompt": f"Name sea {i}.", **{name: [turn] for name, turn in said.items()}} for i in range(5)]
    gold = write(tmp_path, *pairs, name="gold.jsonl")
    assert validate(path, tmp_path, f"evaluation.gold.path={gold}") == 0
    assert "4 verifiable, 5 gold" in capsys.readouterr().out


def test_what_a_template_does_not_support_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turn = "{{ m.role }}: {{ m.content }} ###{{ '\\n' }}"
    (tmp_path / "bare.jinja").write_text(f"{{% for m in messages %}}{turn}{{% endfor %}}")
    path = write(tmp_path, *({"prompt": text} for text in questions(60)), name="a.jsonl")
    given = f"chat_template: {tmp_path}/bare.jinja, chat_template_kwargs: {{enable_thinkin: false}}"
    model = f"{{model: 'random:tiny', {given}}}"
    assert validate(path, tmp_path, f"models.policy={model}") == 0
    printed = capsys.readouterr()
    assert "does not contain 'enable_thinkin', so it may have no effect" in printed.err
    assert "models.policy: its chat template has no generation prompt" in printed.err
    assert "ends the turn of an assistant with '###'" in printed.err
    assert "like? ###\n  | assistant:\n" in printed.out
    assert validate(path, tmp_path, f"models.policy={model}", "sampling.stop='###'") == 0
    assert "ends the turn" not in capsys.readouterr().err


@pytest.mark.parametrize(("sets", "is_warned"), [((), True), (('sampling.stop=["\\nUser:"]',), False)])
def test_the_plain_template_without_a_stop_string_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sets: tuple[str, ...], is_warned: bool
) -> None:
    path = write(tmp_path, *({"prompt": text} for text in questions()))
    assert validate({"kind": "file", "path": path}, tmp_path, "models.policy.chat_template=plain", *sets) == 0
    assert ("set sampling.stop to" in capsys.readouterr().err) == is_warned
