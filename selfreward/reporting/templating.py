"""The Jinja2 environment of the pages: all values are escaped and visible, undefined names are errors."""

import json
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from selfreward.reporting import formatting, glossary, text
from selfreward.reporting.timing import StageCost


def render(template: str, /, **context: Any) -> str:
    """Render a page. Templates that end in .html.j2 are escaped; Markdown ones quote untrusted text with filters."""
    return _environment().get_template(template).render(**context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=lambda name: bool(name and ".html" in name),
        undefined=StrictUndefined,
        # No value on a page, attributes included, can hide or reorder characters.
        finalize=lambda value: text.visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "amount": lambda value, name: formatting.amount(name, value),
        "bounds": lambda interval, name: formatting.bounds(name, interval),
        "with_interval": lambda value, name: formatting.with_interval(name, value),
        "duration": formatting.duration,
        "in_words": formatting.in_words,
        "model_name": formatting.model_name,
        "one_line": text.one_line,
        "code_span": text.code_span,
        "prose": text.prose,
        "fenced": text.fenced,
        # Four spaces make a line of a Markdown code block, which also preserves columns in a terminal.
        "indented": lambda line: f"    {line}",
    }
    environment.filters.update(filters)
    environment.globals.update(
        number_of=glossary.numbers().get, label_of=glossary.label_of, tokens_per_second=_tokens_per_second
    )
    return environment


def _source(name: str) -> str:
    return files("selfreward.reporting").joinpath("templates", name).read_text(encoding="utf-8")


def _tokens_per_second(cost: StageCost) -> str:
    for name in ("generated", "prompt", "trained"):
        if (rate := cost.per_second(f"num_{name}_tokens")) is not None:
            return f"{formatting.amount('tokens_per_s', rate)} {name} tokens/s"
    return ""


def stylesheet() -> Markup:
    """Return the page's CSS, unescaped because it is our own file."""
    return Markup(_source("report.css"))


def strict_json(value: Any) -> str:
    """Return JSON that every parser accepts: no NaN, no infinity, no lone surrogate."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace").decode() + "\n"


def strict_json_line(value: Any) -> str:
    """Return strict JSON in one line."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace").decode() + "\n"
