"""The keys in which two recipes differ, and whether a run may be continued with the other one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from selfreward.recipe import Recipe
from selfreward.recipe.paths import is_path, with_file_names


class _Leaf(NamedTuple):
    value: Any
    may_change: bool = False
    is_path: bool = False


_ABSENT = _Leaf(None)


def changed_keys(before: Recipe, now: Recipe) -> tuple[list[str], list[str]]:
    """Return the keys that differ: those that may change on resume, and those that may not, as `key: old -> new`.

    The path of an input may change: whether the content is the same is checked when the inputs are read.
    """
    may: list[str] = []
    may_not: list[str] = []
    old, new = _flat(before), _flat(now)
    for key in sorted({*old, *new}):
        a, b = old.get(key, _ABSENT), new.get(key, _ABSENT)
        if a.value != b.value:
            (may if _may_change(a, b) else may_not).append(f"{key}: {a.value!r} -> {b.value!r}")
    return may, may_not


def fixed_keys(recipe: Recipe) -> dict[str, Any]:
    """Return every key that may not change on resume, with its value."""
    return {key: leaf.value for key, leaf in _flat(recipe).items() if not leaf.may_change}


def _may_change(before: _Leaf, now: _Leaf) -> bool:
    texts = isinstance(before.value, str) and isinstance(now.value, str)
    is_moved = texts and now.is_path and Path(now.value).is_absolute()
    return before.may_change or now.may_change or is_moved


def _flat(section: BaseModel, prefix: str = "") -> dict[str, _Leaf]:
    """Return every leaf key with its value."""
    leaves: dict[str, _Leaf] = {}
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        for key, item in _items(f"{prefix}{name}", value):
            leaves |= _flat(item, f"{key}.") if isinstance(item, BaseModel) else {key: _leaf(item, info)}
    return leaves


def _items(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the sections of a mapping or of a list of sections by their keys, and any other value as one."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    sections = [(f"{key}.{name}", item) for name, item in items]
    yield from sections if sections and all(isinstance(item, BaseModel) for _, item in sections) else [(key, value)]


def _leaf(value: Any, info: FieldInfo) -> _Leaf:
    extra = info.json_schema_extra
    may_change = isinstance(extra, dict) and bool(extra.get("may_change_on_resume"))
    return _Leaf(_shown(value), may_change, is_path(info))


def _shown(value: Any) -> Any:
    """Return a value as it is compared: models as mappings, and the files that a patch names without their folders."""
    if isinstance(value, list):
        return [item.model_dump() if isinstance(item, BaseModel) else item for item in value]
    return with_file_names(value) if isinstance(value, dict) else value
