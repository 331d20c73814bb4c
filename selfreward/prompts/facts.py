"""Short questions about facts, with a check of the answer: "What is the capital of France?".

An entity belongs to one part, train or held out, for all topics and seeds, so that no run is measured on an entity that
it was trained on. The answers are in the checks alone: a judge that does not run them never sees one.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Final, Literal

from selfreward.recipe.prompts import FactTopic
from selfreward.records import Message, Prompt

Part = Literal["train", "held_out"]
PARTS: Final[tuple[Part, Part]] = ("train", "held_out")

QUESTIONS: Final[dict[FactTopic, str]] = {
    "capital": "What is the capital of {entity}? Answer briefly.",
    "continent": "On which continent is {entity}? Answer briefly.",
    "language": "Which language do most people in {entity} speak? Answer briefly.",
    "symbol": "What is the chemical symbol of {entity}? Answer briefly.",
    "opposite": 'What is the opposite of "{entity}"? Answer briefly.',
    "plural": 'What is the plural of "{entity}"? Answer briefly.',
}
CASE_COUNTS: Final = frozenset({"symbol"})
TRAIN_PERCENT: Final = 50


def read_facts(part: Part, topics: Sequence[FactTopic] | None = None) -> list[Prompt]:
    """Return the prompts of a part, with ids TOPIC-ENTITY, in the order of the data file. `topics` None: all."""
    chosen = QUESTIONS if topics is None else topics
    return [_prompt(*fact) for fact in _facts() if fact[0] in chosen and part_of(fact[1]) == part]


def boilerplate() -> list[str]:
    """Return the text that the questions of a topic share."""
    return [fragment for question in QUESTIONS.values() for fragment in question.split("{entity}")]


def part_of(entity: str) -> Part:
    """Return the part of an entity, by a hash of its name."""
    point = int.from_bytes(hashlib.sha256(f"entity: {entity}".encode()).digest()[:8], "big") % 100
    return "train" if point < TRAIN_PERCENT else "held_out"


def _prompt(topic: FactTopic, entity: str, answers: tuple[str, ...]) -> Prompt:
    slug = re.sub(r"[^a-z0-9]+", "-", entity.lower()).strip("-")
    words = "|".join(re.escape(answer) for answer in answers)
    pattern = rf"{'' if topic in CASE_COUNTS else '(?i)'}(?<!\w)(?:{words})(?!\w)"
    user = Message("user", QUESTIONS[topic].format(entity=entity))
    return Prompt(f"{topic}-{slug}", (user,), ({"kind": "regex", "pattern": pattern},), source="facts")


@cache
def _facts() -> tuple[tuple[FactTopic, str, tuple[str, ...]], ...]:
    text = (resources.files("selfreward.prompts") / "data" / "facts.txt").read_text("utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if not line.startswith("#")]
    return tuple((topic, entity, tuple(answers.split("/"))) for topic, entity, answers in rows)  # type: ignore[misc]
