"""The glossary: the meaning of every number, one table for the report pages and for docs/metrics.md."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class GlossaryEntry:
    """One number of the reports: its label, its unit, its meaning, its healthy range and what to do outside of it."""

    name: str
    label: str
    unit: str
    meaning: str
    healthy: str
    otherwise: str

    @property
    def anchor(self) -> str:
        """HTML id of its entry on the page."""
        return f"number-{self.name.replace('.', '-')}"


@dataclass(frozen=True)
class Group:
    title: str
    intro: str
    numbers: tuple[GlossaryEntry, ...]


@cache
def groups() -> tuple[Group, ...]:
    """The table, in the order in which the pages show it."""
    table = tomllib.loads(files("selfreward.reporting").joinpath("glossary.toml").read_text(encoding="utf-8"))
    return tuple(
        Group(title=group["title"], intro=group["intro"], numbers=tuple(GlossaryEntry(**n) for n in group["number"]))
        for group in table["group"]
    )


@cache
def numbers() -> Mapping[str, GlossaryEntry]:
    """Every number by its name in report.json and metrics.jsonl."""
    return {number.name: number for group in groups() for number in group.numbers}


def label_of(name: str) -> str:
    """The label of a number; a number that is not in the glossary keeps its own name."""
    number = numbers().get(name)
    return number.label if number else name
