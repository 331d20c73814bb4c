"""What every number means: one table for the pages and for docs/metrics.md."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Number:
    """One number of the reports: how it is called, what it means, and what to do when it is not healthy."""

    name: str
    label: str
    unit: str
    meaning: str
    healthy: str
    otherwise: str

    @property
    def anchor(self) -> str:
        """Name of its place on the page."""
        return f"number-{self.name.replace('.', '-')}"


@dataclass(frozen=True)
class Group:
    title: str
    intro: str
    numbers: tuple[Number, ...]


@cache
def groups() -> tuple[Group, ...]:
    """The table, in the order of the pages."""
    table = tomllib.loads(files("selfreward.reporting").joinpath("glossary.toml").read_text(encoding="utf-8"))
    return tuple(
        Group(title=group["title"], intro=group["intro"], numbers=tuple(Number(**n) for n in group["number"]))
        for group in table["group"]
    )


@cache
def numbers() -> Mapping[str, Number]:
    """Every number by its name in report.json and metrics.jsonl."""
    return {number.name: number for group in groups() for number in group.numbers}


def label_of(name: str) -> str:
    """A name for people; a number that the table does not know keeps its own name."""
    number = numbers().get(name)
    return number.label if number else name
