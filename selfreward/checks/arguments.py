"""Types of the arguments of checks. Each type describes the values that it allows and the error in a value."""

from dataclasses import dataclass, field
from typing import Any, Final, Protocol

RELATIONS: Final = ("less than", "at least")
REQUIRED: Final[Any] = object()
LARGEST: Final = 1e40


class Argument(Protocol):
    """Base class of types; `default` is REQUIRED or the value of an argument that is not given."""

    @property
    def default(self) -> Any: ...

    def allowed(self) -> str:
        """Return a description of the allowed values."""

    def accepts(self, value: Any) -> bool: ...


@dataclass(frozen=True)
class Integer:
    minimum: int = 0
    default: Any = REQUIRED

    def allowed(self) -> str:
        return f"an integer of at least {self.minimum}"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= self.minimum


@dataclass(frozen=True)
class Number:
    """A number of magnitude at most LARGEST, so that exact arithmetic is cheap."""

    minimum: float | None = None
    default: Any = REQUIRED

    def allowed(self) -> str:
        return f"a number from {-LARGEST if self.minimum is None else self.minimum:g} to {LARGEST:g}"

    def accepts(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return abs(value) <= LARGEST and (self.minimum is None or value >= self.minimum)  # false for nan


@dataclass(frozen=True)
class Text:
    """A text with at least one character that is not a space."""

    default: Any = REQUIRED

    def allowed(self) -> str:
        return "a text that is not blank"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and bool(value.strip())


@dataclass(frozen=True)
class Character:
    default: Any = REQUIRED

    def allowed(self) -> str:
        return "one character that is not a space"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and len(value) == 1 and not value.isspace()


@dataclass(frozen=True)
class Texts:
    default: Any = REQUIRED

    def allowed(self) -> str:
        return "a list of one or more texts that are not blank"

    def accepts(self, value: Any) -> bool:
        return (
            isinstance(value, list | tuple)
            and len(value) > 0
            and all(isinstance(item, str) and item.strip() for item in value)
        )


@dataclass(frozen=True)
class Choice:
    options: tuple[str, ...]
    default: Any = REQUIRED

    def allowed(self) -> str:
        return "one of " + ", ".join(self.options)

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.options


@dataclass(frozen=True)
class Flag:
    default: Any = REQUIRED

    def allowed(self) -> str:
        return "true or false"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, bool)


@dataclass(frozen=True)
class Relation(Choice):
    options: tuple[str, ...] = field(default=RELATIONS)


def holds(relation: str, count: int, threshold: int) -> bool:
    """Apply one of IFEval's two relations: strictly less than, or at least."""
    return count < threshold if relation == "less than" else count >= threshold
