"""The pages' Jinja2: everything escaped, everything visible, nothing undefined."""

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
    """A page from its template. Files that end in .html.j2 are escaped; Markdown quotes foreign text by filters."""
    return _environment().get_template(template).render(**context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=lambda name: bool(name and ".html" in name),
        undefined=StrictUndefined,
        # Whatever is put into a page, attributes included, cannot hide or reorder characters.
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
        "model_name": formatting.model_name,
        "one_line": text.one_line,
        "code_span": text.code_span,
        "prose": text.prose,
        "fenced": text.fenced,
        # Four blanks make a line of a Markdown code block, which also keeps the columns of a terminal.
        "indented": lambda line: f"    {line}",
    }
    environment.filters.update(filters)
    environment.globals.update(
        number_of=glossary.numbers().get, label_of=glossary.label_of, written_per_second=_written_per_second
    )
    return environment


def _source(name: str) -> str:
    return files("selfreward.reporting").joinpath("templates", name).read_text(encoding="utf-8")


def _written_per_second(cost: StageCost) -> str:
    for word, name in (("written", "generated"), ("read", "prompt"), ("trained", "trained")):
        if (rate := cost.per_second(f"num_{name}_tokens")) is not None:
            return f"{formatting.amount('tokens_per_s', rate)} tokens/s {word}"
    return ""


def stylesheet() -> Markup:
    """The page's CSS; it is ours, so it goes in as it is."""
    return Markup(_source("report.css"))


def strict_json(value: Any) -> str:
    """JSON that every parser reads: no NaN, no infinity, no half of a surrogate pair."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace").decode() + "\n"


def strict_json_line(value: Any) -> str:
    """The same in one line."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace").decode() + "\n"
