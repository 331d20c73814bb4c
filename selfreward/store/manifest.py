"""manifest.json: the finished files of the run folder, their hashes and costs, and the events of the run."""

import json
import time
from pathlib import Path
from typing import Any

from selfreward.errors import OtherVersionError, StoreError
from selfreward.store.files import write_text_atomically

SCHEMA = 2
EARLIER_SCHEMAS = {1: "0.1"}
"""Schemas of earlier versions. They name some stages, fields and metrics otherwise; prompts and pairs are the same."""


class Manifest:
    """An entry exists exactly when its file or folder (relative to the run folder) is complete.

    `seconds` and `usage` (the engine's counters) of an entry are its cost.
    """

    def __init__(self, path: Path, *, name: str, earlier: bool = False) -> None:
        self._path, self._reads = path, {SCHEMA, *(EARLIER_SCHEMAS if earlier else ())}
        self.content: dict[str, Any] = {
            "schema": SCHEMA, "name": name, "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "facts": {}, "events": [], "files": {},
        }  # fmt: skip
        if path.exists():
            self.content = self._parse()

    def _parse(self) -> dict[str, Any]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            files = content["files"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self._path}: not a manifest of a run ({error}); it must be a file written by selfreward; "
                "restore it, or choose another output_dir"
            ) from error
        schema = content.get("schema")
        if schema not in self._reads or not isinstance(files, dict):
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
        return dict(content)

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

    def names(self) -> list[str]:
        return sorted(self.content["files"])

    def event(self, what: str, **details: Any) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.content["events"].append({"at": at, "what": what, **details})
        self.save()

    def save(self) -> None:
        write_text_atomically(self._path, json.dumps(self.content, indent=1, ensure_ascii=False) + "\n")
