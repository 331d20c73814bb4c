"""Messages about a recipe: where a key is, what was found, what is allowed, and what was meant."""

import difflib
import json
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selfreward.recipe import Recipe, aliases
from selfreward.recipe.renamed import KEYS
from selfreward.recipe.section import UNION_TAGS

KeyPath = tuple[str | int, ...]


def explain(tree: Any, name: str, problem: Mapping[str, Any], overridden: Sequence[KeyPath]) -> str:
    """Format one validation error as: where: what was found; what is allowed; what to do."""
    path = tuple(part for part in _steps(tree, problem["loc"]))
    from_set = any(path and (path[: len(key)] == key or key[: len(path)] == path) for key in overridden)
    where = ": ".join(filter(None, ("override" if from_set else name + line_of(tree, path), ".".join(map(str, path)))))
    if problem["type"] == "extra_forbidden" and (new := KEYS.get(".".join(map(str, path)))):
        return f"{where}: this key was renamed; it is called {new} now; rename it"
    if problem["type"] == "extra_forbidden":
        allowed = sorted(_allowed_keys(path[:-1], tree))
        known = f"allowed are {', '.join(allowed)}" if allowed else "there are no keys here"
        return f"{where}: unknown key; {known}; {_suggest_key(path, allowed)}"
    if problem["type"] == "missing":
        return f"{where}: missing; this key is required; add it"
    if problem["type"] in ("union_tag_invalid", "literal_error"):
        context = problem["ctx"]
        allowed = re.findall(r"'([^']*)'", str(context.get("expected_tags") or context.get("expected")))
        found = str(context.get("tag", problem["input"]))
        dot = ".kind" if problem["type"] == "union_tag_invalid" else ""
        return f"{where}{dot}: found {found!r}; allowed are {', '.join(allowed)}; {_suggest(found, allowed)}"
    if problem["type"] == "union_tag_not_found":
        if isinstance(found := problem["input"], str):
            return f"{where}: found {found!r:.60}; a section is needed; write {{kind: {found:.60}}} if that is its kind"
        return f"{where}: no `kind`; this section is selected by its kind; add `kind: ...`"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{where}: {message}"
    found, allowed = reprlib.repr(problem["input"]), message[0].lower() + message[1:]
    return f"{where}: found {found}; {allowed}; correct it{_or_default(path, tree)}"


def _or_default(path: KeyPath, tree: Any) -> str:
    """Return the advice to leave out a key that has a default."""
    default = _properties(path[:-1], tree).get(str(path[-1]), {}).get("default") if path else None
    return "" if default is None else f", or leave it out for the default, {json.dumps(default)}"


def _steps(tree: Any, loc: Sequence[str | int]) -> Iterator[str | int]:
    """Yield Pydantic's location without the union tags that it inserts, which are not keys of the file."""
    node = tree
    for step in loc:
        if step in UNION_TAGS:
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


def _allowed_keys(path: KeyPath, tree: Any) -> list[str]:
    """Return the keys of the section at `path`, from the schema."""
    return list(_properties(path, tree))


def _properties(path: KeyPath, tree: Any) -> dict[str, Any]:
    """Return the keys of the section at `path` with their schemas; none where `path` leads into a value."""
    schema = Recipe.model_json_schema()
    node, content = schema, tree
    for step in path:
        node = _resolve_union(schema, node, content)
        if isinstance(content, Mapping) and step not in content:
            continue  # pydantic names the member of a union there
        inside = node.get("items") if isinstance(step, int) else node.get("properties", {}).get(step)
        node = inside or node.get("additionalProperties") or {}
        content = _inside(content, step)
    found: dict[str, Any] = _resolve_union(schema, node, content).get("properties", {})
    return found


def _inside(content: Any, step: str | int) -> Any:
    """Return what is at a key or at a place of a list; None where there is nothing."""
    if isinstance(content, Mapping):
        return content.get(step)
    return content[step] if isinstance(content, list) and isinstance(step, int) and step < len(content) else None


def _resolve_union(schema: dict[str, Any], node: dict[str, Any], content: Any) -> dict[str, Any]:
    """Follow `$ref`; of a union return the member that `kind` names (or the member that is not null)."""
    while True:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
        elif "discriminator" in node:
            kind = content.get("kind") if isinstance(content, Mapping) else None
            reference = node["discriminator"]["mapping"].get(kind)
            if reference is None:
                return {}
            node = {"$ref": reference}
        elif "anyOf" in node:
            node = next((n for n in node["anyOf"] if n.get("type") != "null"), {})
        elif "allOf" in node:
            node = node["allOf"][0]
        elif "oneOf" in node:  # distinguished by keys: the member with the most keys in common
            keys = set(content) if isinstance(content, Mapping) else set()
            members = [_resolve_union(schema, member, content) for member in node["oneOf"]]
            node = max(members, key=lambda member: len(member.get("properties", {}).keys() & keys))
        else:
            return node


def _suggest_key(path: KeyPath, allowed: Sequence[str]) -> str:
    """Return what was meant: a key of this section, or what other trainers call so."""
    *section, found = map(str, path)
    meant = aliases.KEYS.get(found.lower(), "")
    own = meant.rpartition(".")[2]
    if own and own in allowed:
        return f"did you mean {own!r}?"
    is_judge = section[:1] in (["judging"], ["evaluation"])  # where `model` or `temperature` is not the policy's
    if meant and not is_judge:
        return f"did you mean {meant!r}?"
    return _suggest(found, allowed)


def _suggest(found: str, allowed: Sequence[str]) -> str:
    close = difflib.get_close_matches(found, allowed, n=1)
    return f"did you mean {close[0]!r}?" if close else "use one of these" if allowed else "remove it"
