"""manifest.json: the finished files of the run folder, their hashes and costs, and the events of the run."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfreward.errors import OtherVersionError, StoreError
from selfreward.store.files import explain_os_errors, read_text, write_text_atomically

SCHEMA = 2
EARLIER_SCHEMAS = {1: "0.1"}
"""Schemas of earlier versions. They name some stages, fields and metrics otherwise; prompts and pairs are the same."""


class Manifest:
    """An entry exists exactly when its file or folder (relative to the run folder) is complete.

    `seconds` and `usage` (the engine's counters) of an entry are its cost.
    """

    def __init__(
        self, path: Path, *, name: str, earlier: bool = False, before_write: Callable[[], None] = lambda: None
    ) -> None:
        """`before_write` raises when this process may no longer write."""
        self._before_write = before_write
        self._path, self._reads = path, {SCHEMA, *(EARLIER_SCHEMAS if earlier else ())}
        self.content: dict[str, Any] = {
            "schema": SCHEMA, "name": name, "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "facts": {}, "events": [], "files": {},
        }  # fmt: skip
        if path.exists():
            self.content = self._parse()

    def _parse(self) -> dict[str, Any]:
        try:
            with explain_os_errors(self._path):
                content = json.loads(read_text(self._path))
            schema = content["schema"]
            if type(schema) is not int:
                raise TypeError(f"schema is {schema!r:.40}")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._invalid(str(error)) from error
        if schema not in self._reads:
            if schema in EARLIER_SCHEMAS:
                raise OtherVersionError(
                    f"{self._path}: a run of selfreward {EARLIER_SCHEMAS[schema]}, whose stages and metrics have "
                    "different names; this version reads its own runs, and the pairs of earlier ones "
                    "(`selfreward export`); use "
                    f"selfreward {EARLIER_SCHEMAS[schema]} for everything else, or choose another output_dir"
                )
            raise OtherVersionError(
                f"{self._path}: schema {schema}; this version reads schema {SCHEMA}; use the version of selfreward "
                "that made the run"
            )
        if defect := _defect(content):
            raise self._invalid(defect)
        return dict(content)

    def _invalid(self, found: str) -> StoreError:
        return StoreError(
            f"{self._path}: not a manifest of a run ({found:.200}); it must be a file written by selfreward; "
            "restore it, or choose another output_dir"
        )

    def entry(self, name: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.content["files"].get(name)
        return found

    def record(self, name: str, entry: dict[str, Any] | None, *, drop: list[str] | None = None) -> None:
        """Set (or with None remove) one entry and remove the entries in `drop`, in one write."""
        for old in [*(drop or []), *([name] if entry is None else [])]:
            self.content["files"].pop(old, None)
        if entry is not None:
            self.content["files"][name] = entry
        self.save()

    def forget(self, names: list[str]) -> None:
        """Remove entries from the content that is read, without writing it."""
        for name in names:
            self.content["files"].pop(name)

    def names(self) -> list[str]:
        return sorted(self.content["files"])

    def names_under(self, prefix: str) -> list[str]:
        return [name for name in self.names() if name.startswith(prefix)]

    def event(self, what: str, **details: Any) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.content["events"].append({"at": at, "what": what, **details})
        self.save()

    def save(self) -> None:
        self._before_write()
        write_text_atomically(self._path, json.dumps(self.content, indent=1, ensure_ascii=False) + "\n")


def _defect(content: dict[str, Any]) -> str:
    """Return what is wrong with the types of a manifest, or ""."""
    for name, kind in {"name": str, "facts": dict, "events": list, "files": dict}.items():
        if not isinstance(content.get(name), kind):
            return f"{name} is {content.get(name)!r:.40}"
    for name, value in content["facts"].items():
        if not isinstance(value, _FACTS.get(name, object)):
            return f"facts.{name} is {value!r:.40}"
    for event in content["events"]:
        if not isinstance(event, dict) or not isinstance(event.get("what"), str):
            return f"an event is {event!r:.40}"
    for name, entry in content["files"].items():
        if not re.fullmatch(r"iteration-[0-9]{2,9}/.+", name) or ".." in Path(name).parts:
            return f"a file is called {name!r:.60}"
        needed = _ENTRY | (_TABLE_ENTRY if name.endswith(".parquet") else {})
        if not isinstance(entry, dict) or not all(_is(entry.get(key), kind) for key, kind in needed.items()):
            return f"the entry of {name:.60} is {entry!r:.60}"
        if not all(_is(count, int | float) for count in entry["usage"].values()):
            return f"the usage of {name:.60} is {entry['usage']!r:.60}"
        shards = entry.get("shard_records", [])
        if not isinstance(shards, list) or not all(_is(count, int) for count in shards):
            return f"the shards of {name:.60} are {shards!r:.60}"
    return ""


_ENTRY: dict[str, Any] = {"sha256": str, "seconds": int | float, "usage": dict}
_TABLE_ENTRY: dict[str, Any] = {"num_records": int}
_FACTS: dict[str, type] = {"versions": dict, "warnings": list, "endpoint_notes": list, "prompts": dict}


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
