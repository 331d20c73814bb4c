"""Messages about a recipe: where a key is, what was found, what is allowed, and what was meant."""

import difflib
import json
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from selfreward.recipe import aliases
from selfreward.recipe.renamed import KEYS
from selfreward.recipe.section import UNION_TAGS
from selfreward.recipe_keys import KeyPath as KeyPath
from selfreward.recipe_keys import default_of, kinds_of, properties_of

_NO_SECTION: Final = ("union_tag_not_found", "model_type", "model_attributes_type", "dict_type")
_MODEL: Final = "the name or the path of a model"
_PROMPTS: Final = "the path of a file, the name of a dataset, or builtin"
_TEXTS: Final = {"prompts": _PROMPTS, "evaluation.prompts": _PROMPTS, "evaluation.gold": "the path of a file"}
"""The texts that may stand for a section."""
_MAX_DEFAULT = 60


def explanations(
    tree: Any, name: str, problems: Sequence[Mapping[str, Any]], overridden: Sequence[KeyPath]
) -> list[str]:
    """Return a message for each key with a validation error, as: where: what was found; what is allowed; what to do."""
    found = {}
    for problem in problems:
        path = tuple(_steps(tree, problem["loc"]))
        # A default that is made from other keys is not made when one of them is wrong, which has a message of its own.
        if problem["type"] == "default_factory_not_called":
            continue
        # A value that fits no member of a union: the last member takes the most values.
        found[path, "" if _has_union_member(problem["loc"]) else problem["type"]] = problem
    return [_explain(tree, name, path, problem, overridden) for (path, _), problem in found.items()]


def _explain(
    tree: Any, name: str, path: KeyPath, problem: Mapping[str, Any], overridden: Sequence[KeyPath]
) -> str:  # fmt: skip
    is_set = any(path and (path[: len(key)] == key or key[: len(path)] == path) for key in overridden)
    where = ": ".join(filter(None, ("override" if is_set else name + line_of(tree, path), ".".join(map(str, path)))))
    kind, found = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        return f"{where}: {_unknown_key(path, tree)}"
    if kind == "missing":
        return f"{where}: missing; this key is required; add it"
    if kind in ("union_tag_invalid", "literal_error"):
        dot = ".kind" if kind == "union_tag_invalid" else ""
        return f"{where}{dot}: {_other_value(path, problem)}"
    if kind == "union_tag_not_found" and isinstance(found, Mapping):
        kinds = ", ".join(kinds_of(path, tree))
        return f"{where}: no `kind`; this section is selected by its kind, one of {kinds}; add `kind: ...`"
    if kind in _NO_SECTION:
        return f"{where}: found {_shown(found)}; {_section_needed(path, tree, found)}{_or_default(path, tree)}"
    if kind == "string_type" and (text := _text_in_braces(found)):
        quoted = f'"{text}"' if not is_set else f"""'{".".join(map(str, path))}="{text}"'"""
        return f"{where}: found {text}, which is a mapping in YAML; a text is needed; quote it: {quoted}"
    message = problem["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return f"{where}: {message}"
    if kind == "none_required":
        return f"{where}: found {_shown(found)}; this key is reserved, and null is its only value; remove it"
    if kind == "list_type":
        return f"{where}: found {_shown(found)}; a list is needed; write it between [ and ]{_or_default(path, tree)}"
    allowed = message[0].lower() + message[1:]
    return f"{where}: found {_shown(found)}; {allowed}; correct it{_or_default(path, tree)}"


def _unknown_key(path: KeyPath, tree: Any) -> str:
    if new := KEYS.get(".".join(map(str, path))):
        return f"this key was renamed; it is called {new} now; rename it"
    if answer := _answer(path):
        return f"unknown key; {answer}"
    allowed = sorted(properties_of(path[:-1], tree))
    known = f"allowed are {', '.join(allowed)}" if allowed else "there are no keys here"
    return f"unknown key; {known}; {_suggest_key(path, allowed)}"


def _other_value(path: KeyPath, problem: Mapping[str, Any]) -> str:
    context = problem["ctx"]
    allowed = re.findall(r"'([^']*)'", str(context.get("expected_tags") or context.get("expected")))
    found = str(context.get("tag", problem["input"]))
    return f"found {found!r}; allowed are {', '.join(allowed)}; {_suggest_value(path, found, allowed)}"


def _section_needed(path: KeyPath, tree: Any, found: Any) -> str:
    """Return what is needed where a section should be, and how to write it."""
    if path == ("models",):
        return f"models are given by name; write models: {{policy: {found if isinstance(found, str) else '...'}}}"
    is_model = len(path) == 2 and path[0] == "models"
    text = _MODEL if is_model else _TEXTS.get(".".join(map(str, path)))
    needed = f"a section is needed, or {text}" if text else "a section is needed"
    kinds, keys = kinds_of(path, tree), sorted(properties_of(path, tree))
    if isinstance(found, str) and found in kinds:
        return f"{needed}; write {{kind: {found}}}"
    if kinds and (isinstance(found, str) or not keys):
        meant = f"; {_suggest_value(path, found, kinds)}" if isinstance(found, str) else "; write {kind: ...}"
        return f"{needed}; its kind is one of {', '.join(kinds)}{meant}"
    return f"{needed}; its keys are {', '.join(keys)}; write {{KEY: VALUE}}" if keys else f"{needed}; write {{...}}"


def _text_in_braces(found: Any) -> str:
    """Return the text {name} that YAML has read as a mapping; "" for any other value."""
    if isinstance(found, Mapping) and found and all(value is None for value in found.values()):
        return f"{{{', '.join(map(str, found))}}}"
    return ""


def _shown(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool | None) else reprlib.repr(value)


def _or_default(path: KeyPath, tree: Any) -> str:
    """Return the advice to leave out a key that has a default."""
    default = default_of(path, tree)
    if default is None:
        return ""
    shown = json.dumps(default)
    return f", or leave it out for the default{f', {shown}' if len(shown) <= _MAX_DEFAULT else ''}"


def _steps(tree: Any, loc: Sequence[str | int]) -> Iterator[str | int]:
    """Yield Pydantic's location without the names of union members that it inserts, which are not keys of the file."""
    node = tree
    for step in loc:
        if step in UNION_TAGS or _is_union_member(step):
            continue
        if isinstance(node, Mapping):
            if step not in node and node.get("kind") == step:
                continue
            node = node.get(step)
        elif isinstance(node, list) and isinstance(step, int) and step < len(node):
            node = node[step]
        else:
            node = None
        yield step


def _is_union_member(step: str | int) -> bool:
    """Return whether a step is Pydantic's description of a type, as in literal['chatml','plain']."""
    return isinstance(step, str) and re.match(r"(literal|function-\w+)\[", step) is not None


def _has_union_member(loc: Sequence[str | int]) -> bool:
    return any(map(_is_union_member, loc))


def line_of(tree: Any, path: KeyPath) -> str:
    """Return `:LINE` of a key, or of its deepest parent in the file."""
    node, line = tree, None
    for step in path:
        marks = getattr(node, "lc", None)
        try:
            if marks is not None and marks.data is not None:
                line = marks.data[step][0]
            node = node[step]
        except (KeyError, IndexError, TypeError):
            break
    return f":{line + 1}" if line is not None else ""


def _answer(path: KeyPath) -> str:
    """Return what to do instead of a key of other trainers that no single key here replaces; "" for any other."""
    *section, found = (str(step).lower() for step in path)
    return "" if found in aliases.of_section(section) else aliases.ANSWERS.get(found, "")


def _suggest_key(path: KeyPath, allowed: Sequence[str]) -> str:
    """Return what was meant: a key of this section, or what other trainers call so."""
    *section, found = map(str, path)
    name = found.lower()
    if (own := aliases.of_section(section).get(name)) in allowed:
        return f"did you mean {own!r}?"
    meant = aliases.KEYS.get(name, "")
    own = meant.rpartition(".")[2]
    if own and own in allowed:
        return f"did you mean {own!r}?"
    is_judge = section[:1] in (["judging"], ["evaluation"])  # where `model` or `temperature` is not the policy's
    if meant and not is_judge:
        return f"did you mean {meant!r}?"
    return _suggest(found, allowed)


def _suggest_value(path: KeyPath, found: str, allowed: Sequence[str]) -> str:
    """Return what was meant by a value, perhaps a name that other trainers have for it."""
    names = aliases.VALUES.get(".".join(str(step) for step in path if step != "kind" and isinstance(step, str)), {})
    return names.get(found.lower()) or _suggest(found, allowed)


def _suggest(found: str, allowed: Sequence[str]) -> str:
    close = difflib.get_close_matches(found, allowed, n=1)
    return f"did you mean {close[0]!r}?" if close else "use one of these" if allowed else "remove it"
