"""The sections of a recipe as its schema describes them: their keys, their kinds and their defaults."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from selfreward.recipe import Recipe

KeyPath = tuple[str | int, ...]
Node = dict[str, Any]


def properties_of(path: KeyPath, tree: Any) -> Node:
    """Return the keys of the section at `path` with their schemas; none where `path` leads into a value."""
    node, content = _node_at(path, tree)
    found: Node = _resolve_union(node, content).get("properties", {})
    return found


def kinds_of(path: KeyPath, tree: Any) -> list[str]:
    """Return the kinds that the section at `path` may have; none where it has no `kind`."""
    return list(dict.fromkeys(_kinds(_node_at(path, tree)[0])))


def default_of(path: KeyPath, tree: Any) -> Any:
    """Return the default of a key; None for none."""
    return properties_of(path[:-1], tree).get(str(path[-1]), {}).get("default") if path else None


@cache
def _schema() -> Node:
    return Recipe.model_json_schema()


def _node_at(path: KeyPath, tree: Any) -> tuple[Node, Any]:
    """Return the schema at `path`, before a union is resolved, and what the recipe has there."""
    node, content = _schema(), tree
    for step in path:
        node = _resolve_union(node, content)
        if isinstance(content, Mapping) and step not in content:
            continue  # pydantic names the member of a union there
        inside = node.get("items") if isinstance(step, int) else node.get("properties", {}).get(step)
        node = inside or node.get("additionalProperties") or {}
        content = _inside(content, step)
    return node, content


def _inside(content: Any, step: str | int) -> Any:
    """Return what is at a key or at a place of a list; None where there is nothing."""
    if isinstance(content, Mapping):
        return content.get(step)
    return content[step] if isinstance(content, list) and isinstance(step, int) and step < len(content) else None


def _kinds(node: Node) -> Iterator[str]:
    if "$ref" in node:
        yield from _kinds(_referenced(node))
    for member in (*node.get("anyOf", ()), *node.get("allOf", ()), *node.get("oneOf", ())):
        yield from _kinds(member)
    kind = node.get("properties", {}).get("kind", {})
    yield from kind.get("enum", [kind["const"]] if "const" in kind else [])


def _referenced(node: Node) -> Node:
    found: Node = _schema()["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return found


def _resolve_union(node: Node, content: Any) -> Node:
    """Follow `$ref`; of a union return the member that `kind` names (or the member that is not null)."""
    while True:
        if "$ref" in node:
            node = _referenced(node)
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
            members = [_resolve_union(member, content) for member in node["oneOf"]]
            node = max(members, key=lambda member: len(member.get("properties", {}).keys() & keys))
        else:
            return node
