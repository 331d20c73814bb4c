"""YAML 1.2 as a recipe may contain it: plain mappings, lists, texts and numbers, of a bounded size.

ruamel.yaml reads YAML 1.2, where `5e-7` is a number and `on` and `no` are strings, and provides line numbers. Its
events are checked before anything is built from them, so that no text takes much time or memory: it cannot repeat
itself by aliases, nest thousands of brackets, or create objects by tags.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent, ScalarEvent
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.tag import Tag

from selfreward.errors import RecipeError

MAX_BYTES = 2**17
MAX_NODES = 10_000
MAX_NESTING = 50
_INTEGER = re.compile(r"[-+]?(0x[0-9a-fA-F_]+|0o[0-7_]+|[0-9_]+)")
_MAX_DIGITS = 100
_STARTS_WITH_BRACES = re.compile(r"(?:^|: )\s*(\{\w+\}(?:\{\w+\}|[^\s,{}\]])+)")


def read_yaml_text(path: Path, *, what: str) -> str:
    """Return the text of a YAML file; `what` names such a file in errors. Raises RecipeError."""
    if not path.is_file():
        found = "it is a folder" if path.is_dir() else "it is a pipe or a device" if path.exists() else "no such file"
        inside = path / "recipe.yaml"
        advice = f"give {inside}" if inside.is_file() else "check the path"
        raise RecipeError(f"{path}: {found}; {what} is a YAML file; {advice}")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        if not isinstance(error, UnicodeDecodeError) or len(content) <= MAX_BYTES:
            raise RecipeError(f"{path}: cannot be read ({error}); {what} is UTF-8 text; check the file") from error
        text = ""
    if len(content) > MAX_BYTES:
        raise RecipeError(
            f"{path}: it has more than {MAX_BYTES:,} bytes; {what} is a small YAML file; check the path, or shorten it"
        )
    return text


def parse_yaml(text: str, *, name: str, what: str, advice: str = "fix that line") -> Any:
    """Return the content of a YAML text in ruamel's round-trip types, which know their lines; see `plain`.

    `name` is the file, or the place, in errors, and `advice` what to do about them. Raises RecipeError.
    """
    yaml = YAML(typ="rt")
    yaml.Resolver = _CoreSchema
    try:
        _refuse_what_no_recipe_needs(text, name=name, what=what)
        return yaml.load(text)
    except RecipeError:
        raise
    except YAMLError as error:
        mark, position = getattr(error, "problem_mark", None), getattr(error, "position", None)
        line = mark.line + 1 if mark else text.count("\n", 0, position) + 1 if isinstance(position, int) else None
        where = name if line is None else f"{name}:{line}"
        problem = str(getattr(error, "problem", None) or str(error).splitlines()[0])
        advice = _quotes_needed(text, line) or advice
        raise RecipeError(f"{where}: {problem[:200]}; {what} is YAML 1.2; {advice}") from None
    # ValueError: a value that looks like a number and is none; the others are errors in ruamel's own code, on text
    # that is not YAML.
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, AssertionError) as error:
        raise RecipeError(f"{name}: {error}; {what} is YAML 1.2; fix the text") from None


def plain(node: Any, *, name: str = "recipe") -> Any:
    """Convert ruamel's round-trip types to plain types, because the schema is strict about types."""
    if isinstance(node, Mapping):
        return {str(plain(key, name=name)): plain(value, name=name) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(item, name=name) for item in node]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float):
        if isinstance(node, kind):
            return kind(node)
    if isinstance(node, str):
        text = str(node)
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise RecipeError(
                f"{name}: {text!r:.80} contains a lone surrogate; texts are Unicode; write the character itself"
            )
        return text
    return node


def _quotes_needed(text: str, line: int | None) -> str:
    """Return the advice to quote a text such as {name}-{seed} in a line; "" for any other error."""
    lines = text.splitlines()
    found = _STARTS_WITH_BRACES.search(lines[line - 1]) if line is not None and line <= len(lines) else None
    return f'a text that begins with {{ needs quotes; write "{found[1]:.80}"' if found else ""


class _CoreSchema(VersionedResolver):
    """YAML 1.2's core schema, which has no dates: `name: 2026-01-31` is text."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        tag = super().resolve(kind, value, implicit)
        return Tag(suffix="tag:yaml.org,2002:str") if str(tag) == "tag:yaml.org,2002:timestamp" else tag


def _refuse_what_no_recipe_needs(text: str, *, name: str, what: str) -> None:
    if len(text) > MAX_BYTES:
        raise RecipeError(f"{name}: it has more than {MAX_BYTES:,} characters; {what} is small; shorten it")
    depth = 0
    for number, event in enumerate(YAML(typ="rt").parse(text)):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if found := _refused(event, depth=depth, num_events=number):
            raise RecipeError(
                f"{name}:{event.start_mark.line + 1}: {found}; {what} is plain mappings, lists, texts and numbers; "
                "write the value itself"
            )


def _refused(event: Any, *, depth: int, num_events: int) -> str | None:
    """Return what is wrong with one event: tags create objects; aliases, nesting and numbers grow without bound."""
    tag = getattr(event, "tag", None) if isinstance(event, NodeEvent) else None
    if isinstance(event, AliasEvent):
        return f"the alias *{str(event.anchor)[:40]}"
    if tag is not None:
        return f"the tag {tag.replace('tag:yaml.org,2002:', '!!')[:40]}"
    if depth > MAX_NESTING:
        return f"values nested more than {MAX_NESTING} deep"
    if num_events > MAX_NODES:
        return f"more than {MAX_NODES:,} values"
    is_number = isinstance(event, ScalarEvent) and event.style is None and _INTEGER.fullmatch(event.value)
    if is_number and len(event.value) > _MAX_DIGITS:
        return f"a number of {len(event.value):,} digits"
    return None
