"""The section "Provenance": the facts of the run, flattened to readable lines."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selfreward.reporting.text import Clipped, clip

_MAX_VALUE = 400
_MAX_LINES = 150
_MAX_FILES = 60
_MAX_EVENTS = 20
_MAX_RECIPE = 8000

Line = tuple[str, str]


def reproducibility(manifest: Mapping[str, Any]) -> str:
    """Return the reproducibility guarantee of this run; empty when none was recorded."""
    facts = manifest.get("facts", {})
    engine = facts.get("engine", {})
    found = facts.get("guarantee") or (engine.get("determinism") if isinstance(engine, Mapping) else "")
    return found if isinstance(found, str) else ""


def sections(manifest: Mapping[str, Any]) -> list[tuple[str, list[Line]]]:
    """Return (title, lines) for each top-level fact; plain values come first, under "Run"."""
    facts: Mapping[str, Any] = manifest.get("facts", {})
    single = [("name", str(manifest.get("name", ""))), ("started", str(manifest.get("created_at", "")))]
    nested: list[tuple[str, list[Line]]] = []
    for key, value in facts.items():
        if _is_plain(value):
            single.append((_words(key), _shown(value)))
        else:
            nested.append((_words(key).capitalize(), _bounded(list(_flat(value, "")))))
    return [("Run", single), *nested]


def files(manifest: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (file, number of records, start of its sha256) of the newest files of the run, oldest first."""
    entries: Mapping[str, Any] = manifest.get("files", {})
    rows = [
        (name, f"{entry['num_records']:,}" if "num_records" in entry else "", str(entry.get("sha256", ""))[:16])
        for name, entry in sorted(entries.items())
    ]
    return rows[-_MAX_FILES:]


def events(manifest: Mapping[str, Any]) -> list[Line]:
    """Return (time, event) of the newest events: starts, restarts, keys changed on resume."""
    rows = []
    for event in list(manifest.get("events", ()))[-_MAX_EVENTS:]:
        details = {key: value for key, value in event.items() if key not in ("at", "what")}
        text = "; ".join(f"{path}: {value}" for path, value in _flat(details, ""))
        rows.append((str(event.get("at", "")), f"{event.get('what', '')}{f' ({text})' if text else ''}"))
    return rows


def recipe(text: str) -> Clipped:
    return clip(text, _MAX_RECIPE)


def _flat(value: Any, path: str) -> Iterator[Line]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path} › {_words(str(key))}" if path else _words(str(key)))
    elif isinstance(value, Sequence) and not isinstance(value, str) and not all(_is_plain(item) for item in value):
        for number, inner in enumerate(value, start=1):
            yield from _flat(inner, f"{path} {number}".strip())
    else:
        yield path, _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _shown(", ".join(_shown(item) for item in value) or "none")
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, Mapping):  # an empty mapping: all others are flattened
        return "none"
    clipped = clip(f"{value:.6g}" if isinstance(value, float) else str(value), _MAX_VALUE)
    return clipped.text + (f" {clipped.note}" if clipped.note else "")


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _words(key: str) -> str:
    return key.replace("_", " ")


def _bounded(lines: list[Line]) -> list[Line]:
    left_out = len(lines) - _MAX_LINES
    return [*lines[:_MAX_LINES], ("…", f"{left_out:,} more lines are in manifest.json")] if left_out > 0 else lines
