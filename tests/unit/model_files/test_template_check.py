"""Chat templates as attackers or accidents write them: refused by name, in limited time; usual ones pass."""

import json
from pathlib import Path

import pytest

from selfreward.errors import RecipeError
from selfreward.model_files import template_check, template_probe
from selfreward.model_files.template_check import require_usable_template
from selfreward.model_files.template_probe import probe

TURNS = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"


def probed(source: str, *, max_chars: int = 10**5) -> str:
    found = probe(source, {"bos_token": "<s>"}, max_chars=max_chars)
    return ": ".join(found) if found else "usable"


@pytest.mark.parametrize(
    "source",
    [
        TURNS,
        "{{ bos_token + '' }}" + TURNS,
        "{% for m in messages %}{% generation %}{{ m.content | trim }}{% endgeneration %}{% endfor %}",
        "{{ messages | tojson(indent=2) }}{{ strftime_now('%Y') }}",
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}" + TURNS,
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
        "{% if tools %}{{ tools }}{% endif %}{% if enable_thinking is defined %}-{% endif %}" + TURNS,
    ],
)
def test_usual_templates_can_be_used(source: str) -> None:
    assert probed(source) == "usable"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% for i in range(10**9) %}x{% endfor %}", "OverflowError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{% for i in range(99999) %}xx{% endfor %}" + TURNS, "more than 100,000 characters"),
        ("{{ 'a' | center(10**6) }}", "more than 100,000 characters"),
        ("{{ messages | no_such_filter }}", "line 1: No filter named 'no_such_filter'"),
        ("\n{% for %}", "line 2: "),
        ("{{ raise_exception('never') }}", "TemplateError: never"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ missing.name }}", "UndefinedError"),
        ("{% include 'x' %}", "TypeError"),
        ("{{ [ " + "(" * 3000 + "1" + ")" * 3000 + " ] }}", "RecursionError"),
        ("a prompt without the user's text", "'Hello', is not in what the template makes"),
        ("{% if messages | length > 9 %}{{ 'a' * 10**6 }}{% endif %}" + TURNS, "21 long turns: it makes more than"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_with_the_cause(source: str, said: str) -> None:
    assert said in probed(source)


def folder_with(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name.replace("_jinja", ".jinja").replace("_json", ".json")).write_text(content)
    return folder


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ 'a' * 10**10 }}", "MemoryError"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "did not end within 1 s"),
    ],
)
def test_time_and_memory_are_limited_in_a_child_process(
    tmp_path: Path, source: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Path(template_probe.__file__).read_text().replace("MAX_CPU_S = 3", "MAX_CPU_S = 1")
    (tmp_path / "probe.py").write_text(script)
    monkeypatch.setattr(template_probe, "__file__", str(tmp_path / "probe.py"))
    monkeypatch.setattr(template_probe, "MAX_CPU_S", 1)
    template_check._probed.cache_clear()
    folder = folder_with(tmp_path / "model", chat_template_jinja=source)
    with pytest.raises(RecipeError, match=r"model 'm': the chat template in .*chat_template\.jinja: .*") as caught:
        require_usable_template(folder, "m")
    template_check._probed.cache_clear()
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"chat_template": "{{ 1 / 0 }}"}, r"tokenizer_config\.json: .*ZeroDivisionError"),
        ({"chat_template": 1}, "its chat template is int"),
        ({"chat_template": ["x"]}, "no chat template"),
        ({"chat_template": [{"name": "tool_use", "template": TURNS}]}, "no chat template"),
        ([], "it contains a list"),
    ],
)
def test_the_template_in_the_configuration_is_checked_too(tmp_path: Path, config: object, said: str) -> None:
    folder = folder_with(tmp_path / "model", tokenizer_config_json=json.dumps(config))
    with pytest.raises(RecipeError, match=said):
        require_usable_template(folder, "m")


def test_a_named_default_template_and_special_tokens_of_the_configuration_are_used(tmp_path: Path) -> None:
    named = [
        {"name": "tool_use", "template": "{{ 1 / 0 }}"},
        {"name": "default", "template": TURNS + "{{ x_token + '' }}"},
    ]
    config = {"chat_template": named, "x_token": {"content": "<x>"}}
    require_usable_template(folder_with(tmp_path / "model", tokenizer_config_json=json.dumps(config)), "m")
