"""The kinds of checks by name. A new kind is one decorated function:

    @check_kind("keywords:existence", keywords=Texts())
    def existence(text: str, *, keywords: Sequence[str]) -> bool: ...

The function receives a text that is not blank and arguments that were validated. It must return for every text.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from selfreward.checks.arguments import Argument


@dataclass(frozen=True)
class Kind:
    """A kind of check; `consistent` validates all arguments together and returns the error in them, or None."""

    name: str
    arguments: Mapping[str, Argument]
    passes: Callable[..., bool]
    consistent: Callable[..., str | None] | None = None


KINDS: dict[str, Kind] = {}


def check_kind(
    name: str, *, consistent: Callable[..., str | None] | None = None, **arguments: Argument
) -> Callable[[Callable[..., bool]], Callable[..., bool]]:
    """Register the decorated function under `name`, with the types of its arguments."""

    def register(function: Callable[..., bool]) -> Callable[..., bool]:
        if name in KINDS:
            raise ValueError(f"two checks have the name {name}")
        KINDS[name] = Kind(name, arguments, function, consistent)
        return function

    return register


Check = Mapping[str, Any]
