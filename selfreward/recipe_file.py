"""Recipe files: YAML, overrides, errors with line numbers, and the changes of a recipe on resume."""

import difflib
import io
import re
import reprlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from selfreward.errors import RecipeError, StoreError
from selfreward.recipe import Recipe
from selfreward.recipe.renamed import KEYS
from selfreward.recipe.section import UNION_TAGS
from selfreward.yaml_text import parse_yaml, plain, read_yaml_text

KeyPath = tuple[str | int, ...]
_WHAT = "a recipe"
_MAX_PROBLEMS = 20


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe of a file, with `key.path=value` overrides. Raises RecipeError."""
    return parse(read_yaml_text(path, what=_WHAT), name=str(path), overrides=overrides)


def load_stored(path: Path) -> Recipe:
    """Read a recipe that a run stored in its folder. Raises StoreError when it is not as it was written."""
    try:
        return load(path)
    except RecipeError as error:
        raise StoreError(
            f"{error}; the recipe in a run folder must be as the run wrote it; restore it, or choose another output_dir"
        ) from error


def parse(text: str, *, name: str = "recipe", overrides: Sequence[str] = ()) -> Recipe:
    """Parse the recipe of a YAML text. `name` is the file name in errors. Raises RecipeError."""
    tree = parse_yaml(text, name=name, what=_WHAT)
    if not isinstance(tree, dict):
        raise RecipeError(f"{name}: found no keys; a recipe is a mapping of sections; see recipes/ for examples")
    return validated(tree, name=name, overrides=overrides)


def validated(tree: dict[str, Any], *, name: str = "recipe", overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of nested mappings. Raises RecipeError."""
    overridden = [_override(tree, override) for override in overrides]
    return _validated(tree, name, overridden)


def patched(recipe: Recipe, keys: Mapping[str, Any]) -> Recipe:
    """Return the recipe with other values at some `key.path`s. Raises RecipeError, which names the key."""
    tree = recipe.model_dump(mode="json")
    paths = [_set(tree, key.split("."), value) for key, value in keys.items()]
    return _validated(tree, "patch", paths)


def _validated(tree: Any, name: str, overridden: Sequence[KeyPath]) -> Recipe:
    _rename_old_keys(tree, name)
    try:
        return Recipe.model_validate(plain(tree, name=name))
    except ValidationError as error:
        found = error.errors()
        problems = [_explain(tree, name, problem, overridden) for problem in found[:_MAX_PROBLEMS]]
        more = [f"... and {len(found) - _MAX_PROBLEMS} more"] if len(found) > _MAX_PROBLEMS else []
        raise RecipeError("\n".join([*problems, *more])) from None


def _rename_old_keys(tree: Mapping[str, Any], name: str) -> None:
    """Give keys of the version before their new names, with a warning; a key that is given twice stays and is
    refused."""
    for old, new in KEYS.items():
        (section, key), new_key = old.split("."), new.partition(".")[2]
        found = tree.get(section)
        if isinstance(found, dict) and key in found and new_key not in found:
            where = f"{name}{_line(tree, (section, key))}"
            warnings.warn(f"{where}: {old} was renamed; it is called {new} now; rename it", FutureWarning, stacklevel=4)
            found[new_key] = found.pop(key)


def dump(recipe: Recipe) -> str:
    """Return the complete recipe, with defaults, as YAML that `parse` reads back to an equal recipe."""
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    yaml.representer.add_representer(str, _represent_text)
    yaml.dump(recipe.model_dump(mode="json"), stream)
    return stream.getvalue()


def _represent_text(representer: Any, text: str) -> Any:
    """Represent text with control characters or unusual line ends in double quotes: unescaped, some would be lost."""
    style = None if text.replace("\n", "").isprintable() else '"'
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def changed_keys(before: Recipe, now: Recipe) -> tuple[list[str], list[str]]:
    """Return the keys that differ: those that may change on resume, and those that may not, as `key: old -> new`."""
    may: list[str] = []
    may_not: list[str] = []
    old, new = _flat(before), _flat(now)
    for key in sorted({*old, *new}):
        a, b = old.get(key, (None, False)), new.get(key, (None, False))
        if a[0] != b[0]:
            (may if a[1] or b[1] else may_not).append(f"{key}: {a[0]!r} -> {b[0]!r}")
    return may, may_not


def fixed_keys(recipe: Recipe) -> dict[str, Any]:
    """Return every key that may not change on resume, with its value."""
    return {key: value for key, (value, may_change) in _flat(recipe).items() if not may_change}


def _flat(section: BaseModel, prefix: str = "") -> dict[str, tuple[Any, bool]]:
    """Return every leaf key with its value and whether it may change on resume."""
    leaves: dict[str, tuple[Any, bool]] = {}
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        extra = info.json_schema_extra
        may_change = isinstance(extra, dict) and bool(extra.get("may_change_on_resume"))
        if isinstance(value, BaseModel):
            leaves |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, dict):
            for key, item in value.items():
                is_section = isinstance(item, BaseModel)  # else a key of the user's own, as in extra_body
                path = f"{prefix}{name}.{key}"
                leaves |= _flat(item, f"{path}.") if is_section else {path: (_shown(item), may_change)}
        else:
            leaves[prefix + name] = (_shown(value), may_change)
    return leaves


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return [item.model_dump() if isinstance(item, BaseModel) else item for item in value]
    return value


def _override(tree: dict[str, Any], override: str) -> KeyPath:
    """Set the key of KEY=VALUE; return its path."""
    key, separator, text = override.partition("=")
    if not separator or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise RecipeError(f"--set {override}: not KEY=VALUE; an example is judging.num_draws=5; fix the argument")
    return _set(tree, key.split("."), plain(parse_yaml(text, name=f"--set {key}", what=_WHAT)) if text else None)


def _set(tree: dict[str, Any], steps: Sequence[str], value: Any) -> KeyPath:
    """Set one key, creating missing sections above it; return its path."""
    *parents, last = steps
    node: Any = tree
    for parent in parents:
        if not isinstance(node.get(parent), dict):
            node[parent] = {}
        node = node[parent]
    node[last] = value
    return tuple(steps)


def _explain(tree: Any, name: str, problem: Mapping[str, Any], overridden: Sequence[KeyPath]) -> str:
    """Format one validation error as: where: what was found; what is allowed; what to do."""
    path = tuple(part for part in _steps(tree, problem["loc"]))
    from_set = any(path and (path[: len(key)] == key or key[: len(path)] == path) for key in overridden)
    where = ": ".join(("--set" if from_set else name + _line(tree, path), *filter(None, [".".join(map(str, path))])))
    if problem["type"] == "extra_forbidden" and (new := KEYS.get(".".join(map(str, path)))):
        return f"{where}: this key was renamed; it is called {new} now; rename it"
    if problem["type"] == "extra_forbidden":
        allowed = sorted(_allowed_keys(path[:-1], tree))
        return f"{where}: unknown key; allowed are {', '.join(allowed)}; {_suggest(str(path[-1]), allowed)}"
    if problem["type"] == "missing":
        return f"{where}: missing; this key is required; add it"
    if problem["type"] in ("union_tag_invalid", "literal_error"):
        context = problem["ctx"]
        allowed = re.findall(r"'([^']*)'", str(context.get("expected_tags") or context.get("expected")))
        found = str(context.get("tag", problem["input"]))
        dot = ".kind" if problem["type"] == "union_tag_invalid" else ""
        return f"{where}{dot}: found {found!r}; allowed are {', '.join(allowed)}; {_suggest(found, allowed)}"
    if problem["type"] == "union_tag_not_found":
        return f"{where}: no `kind`; this section is selected by its kind; add `kind: ...`"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{where}: {message}"
    return f"{where}: found {reprlib.repr(problem['input'])}; {message[0].lower() + message[1:]}; fix the value"


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


def _line(tree: Any, path: KeyPath) -> str:
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
    schema = Recipe.model_json_schema()
    node, content = schema, tree
    for step in path:
        node = _resolve_union(schema, node, content)
        if isinstance(content, Mapping) and step not in content:
            continue  # pydantic names the member of a union there
        inside = node.get("items") if isinstance(step, int) else node.get("properties", {}).get(step)
        node = inside or node.get("additionalProperties") or {}
        content = content[step]
    return list(_resolve_union(schema, node, content).get("properties", {}))


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
            members = [_resolve_union(schema, member, content) for member in node["oneOf"]]
            node = max(members, key=lambda member: len(member.get("properties", {}).keys() & set(content)))
        else:
            return node


def _suggest(found: str, allowed: Sequence[str]) -> str:
    close = difflib.get_close_matches(found, allowed, n=1)
    return f"did you mean {close[0]!r}?" if close else "remove it or use one of these"
