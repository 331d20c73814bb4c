"""Generated prompts whose responses a program can check: topics x requests x instructions.

What it does: a prompt asks for a text about a topic ("Write a note about keeping bees in a small garden.") and adds one
to three instructions ("Do not use any commas."), each with its declarative check from `selfreward.checks`. A topic
belongs to one part (train, validation, ...) for all seeds, so that no run trains on a topic that another is measured
on.

Paper: 2311.07911 (IFEval), section 2.1: the kinds of instructions.
Differs: topics, requests and phrasings are our own (data/topics*); the limits can be met within 64 tokens; many
instructions depend on the topic, so that no constant response passes half of the prompts; the kinds
detectable_format:constrained_response (three constants pass it) and language:response_language (a small model cannot
meet it) are left out, and regex, exact and numeric are added (math is not: such a model cannot meet it either).
"""

import difflib
import hashlib
import itertools
import math
import random
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

from selfreward.errors import RecipeError
from selfreward.records import Message, Prompt
from selfreward.seeding import SPLIT_SEED_NAMES, seed_of

SOURCE: Final = "verifiable"
PARTS: Final = {
    "train": 50,
    "validation": 15,
    "second_validation": 10,
    "test": 10,
    "verifiable": 15,
}  # percent of the topics


@dataclass(frozen=True)
class Topic:
    """A topic; `words` are likely in a text about it, and so is `avoided`, the word that may be forbidden."""

    text: str
    words: tuple[str, str]
    avoided: str


@dataclass(frozen=True)
class Instruction:
    """One kind of instruction; data/topics_instructions.toml explains the fields."""

    name: str
    kind: str
    phrasings: tuple[str, ...]
    arguments: Mapping[str, Any]
    draw: Mapping[str, Any]
    claims: frozenset[str]
    brings: frozenset[str]
    refuses: frozenset[str]

    def conflicts(self, other: "Instruction") -> bool:
        return (
            "everything" in self.claims | other.claims
            or not self.claims.isdisjoint(other.claims)
            or not self.refuses.isdisjoint(other.brings)
            or not other.refuses.isdisjoint(self.brings)
        )


class VerifiableGenerator:
    """The prompts of one seed, in a fixed order, all distinct.

    A combination is a set of `num_checks` compatible instructions. The order cycles through all combinations, each time
    with another topic and request, so that any range of prompts is balanced over them.
    """

    def __init__(
        self,
        seed: int,
        *,
        num_checks: int = 1,
        check_kinds: Collection[str] | None = None,
        system_prompt: str | None = None,
    ) -> None:
        """`check_kinds` None means all of `known_kinds()`. Raises RecipeError."""
        self._seed = seed
        self._system_prompt = system_prompt
        self._combinations = _combinations(num_checks, _chosen_instructions(check_kinds))
        if not self._combinations:
            kinds = "all kinds" if check_kinds is None else ", ".join(check_kinds) or "no kinds"
            raise RecipeError(
                f"prompts.num_checks: found {num_checks}; among {kinds} no {num_checks} instructions are compatible; "
                "lower num_checks or add to check_kinds"
            )

    def available(self, part: str) -> int:
        """Return the number of distinct prompts in a part. Raises RecipeError for a part that does not exist."""
        return len(self._combinations) * len(topics(part)) * len(requests())

    def prompts(self, part: str, start: int, count: int) -> list[Prompt]:
        """Return prompts `start` to `start + count - 1` of a part. Raises RecipeError if there are not that many."""
        available = self.available(part)
        if start < 0 or count < 0 or start + count > available:
            raise RecipeError(
                f"prompts of kind verifiable, part {part}: {count} prompts from number {start} on were requested; "
                f"{available} are available with this num_checks and check_kinds; request fewer or allow more kinds"
            )
        order = list(self._combinations)
        self._rng(f"{_seed_name(part)}/order").shuffle(order)
        return [self._prompt(part, index, order) for index in range(start, start + count)]

    def _prompt(self, part: str, index: int, order: list[tuple[Instruction, ...]]) -> Prompt:
        visit, which = divmod(index, len(order))
        combination = order[which]
        topic, request = self._cell(part, combination, visit)
        rng = self._rng(f"{_seed_name(part)}/{index}")
        sentences, checks = [request], []
        for instruction in rng.sample(combination, len(combination)):
            fields = _fields(instruction, topic, request, rng)
            sentences.append(rng.choice(instruction.phrasings).format_map(fields))
            checks.append({"kind": instruction.kind, **_filled(instruction.arguments, fields)})
        system = () if self._system_prompt is None else (Message("system", self._system_prompt),)
        user = Message("user", rng.choice((" ", "\n")).join(sentences))
        return Prompt(f"{SOURCE}/{_seed_name(part)}/{index:06d}", (*system, user), tuple(checks), SOURCE)

    def _cell(self, part: str, combination: tuple[Instruction, ...], visit: int) -> tuple[Topic, str]:
        """Return topic and request of the `visit`-th use: offset + step * visit (mod n), step coprime to n."""
        num_cells = len(topics(part)) * len(requests())
        rng = self._rng(f"{_seed_name(part)}/{'+'.join(instruction.name for instruction in combination)}")
        steps = (rng.randrange(1, num_cells) for _ in itertools.count())
        step = next(step for step in steps if math.gcd(step, num_cells) == 1)
        which_topic, which_request = divmod((rng.randrange(num_cells) + step * visit) % num_cells, len(requests()))
        topic = topics(part)[which_topic]
        return topic, requests()[which_request].format(topic=topic.text)

    def _rng(self, item: str) -> random.Random:
        return random.Random(seed_of(self._seed, 0, SOURCE, item))


def _seed_name(part: str) -> str:
    return SPLIT_SEED_NAMES.get(part, part)


def known_kinds() -> tuple[str, ...]:
    """Return the check kinds that the generator has."""
    return tuple(sorted({instruction.kind for instruction in instructions()}))


def topics(part: str) -> tuple[Topic, ...]:
    """Return the fixed topics of a part. Raises RecipeError for a part that does not exist."""
    if part not in PARTS:
        raise RecipeError(f"part of the verifiable prompts: found {part!r}; allowed are {', '.join(PARTS)}; choose one")
    return _topics_by_part()[part]


def requests() -> tuple[str, ...]:
    """Return the request forms, each with {topic}."""
    return tuple(_words()["requests"])


def boilerplate() -> list[str]:
    """Return the text that prompts of all topics share: requests, phrasings and phrases, split at their fields.

    A prompt without these fragments consists of its topic, its words and its numbers.
    """
    templates = list(requests())
    for instruction in instructions():
        templates += instruction.phrasings
        templates += [text for drawn in instruction.draw.values() for text in _options(drawn) if isinstance(text, str)]
    fragments = {fragment.strip() for template in templates for fragment in re.split(r"\{\w+\}", template)}
    return sorted(fragments - {""})


def part_of(topic: str) -> str:
    """Return the part of a topic, by comparing its hash with the cumulative shares."""
    point = int.from_bytes(hashlib.sha256(f"topic: {topic}".encode()).digest()[:8], "big") % sum(PARTS.values())
    bounds = itertools.accumulate(PARTS.values())
    return next(part for part, bound in zip(PARTS, bounds, strict=True) if point < bound)


@cache
def instructions() -> tuple[Instruction, ...]:
    return tuple(
        Instruction(
            name=name,
            kind=entry["kind"],
            phrasings=tuple(entry["phrasings"]),
            arguments=entry.get("arguments", {}),
            draw=entry.get("draw", {}),
            claims=frozenset(entry.get("claims", ())),
            brings=frozenset(entry.get("brings", ())),
            refuses=frozenset(entry.get("refuses", ())),
        )
        for name, entry in _words()["instructions"].items()
    )


@cache
def _words() -> dict[str, Any]:
    return tomllib.loads(_data("topics_instructions.toml"))


@cache
def _topics_by_part() -> Mapping[str, tuple[Topic, ...]]:
    by_part: dict[str, list[Topic]] = {part: [] for part in PARTS}
    for line in _data("topics.txt").splitlines():
        if line and not line.startswith("#"):
            text, first, second, avoided = (field.strip() for field in line.split("|"))
            by_part[part_of(text)].append(Topic(text, (first, second), avoided))
    return {part: tuple(found) for part, found in by_part.items()}


def _data(name: str) -> str:
    return (resources.files("selfreward.prompts") / "data" / name).read_text("utf-8")


def _chosen_instructions(check_kinds: Collection[str] | None) -> tuple[Instruction, ...]:
    for kind in check_kinds or ():
        if kind not in known_kinds():
            close = difflib.get_close_matches(kind, known_kinds(), n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise RecipeError(
                f"prompts.check_kinds: found {kind!r}{hint}; allowed are {', '.join(known_kinds())}; choose from these"
            )
    return tuple(item for item in instructions() if check_kinds is None or item.kind in check_kinds)


def _combinations(num_checks: int, chosen: tuple[Instruction, ...]) -> tuple[tuple[Instruction, ...], ...]:
    return tuple(
        group
        for group in itertools.combinations(chosen, num_checks)
        if not any(first.conflicts(second) for first, second in itertools.combinations(group, 2))
    )


def _fields(instruction: Instruction, topic: Topic, request: str, rng: random.Random) -> dict[str, Any]:
    """Return the values of all fields in phrasings and arguments."""
    word, second = rng.sample(topic.words, 2)
    fields: dict[str, Any] = {"word": word, "second": second, "WORD": word.upper()}
    fields |= {"avoided": topic.avoided, "request": request}
    for name, drawn in instruction.draw.items():
        options = _options(drawn)
        if isinstance(options[0], int):
            low, high, *step = options
            fields[name] = rng.randrange(low, high + 1, *step)
        else:
            fields[name] = rng.choice(options)
    if "one" in fields:
        fields["total"] = fields["one"] + fields["other"]
    return fields


def _options(drawn: Any) -> list[Any]:
    return _words()[drawn] if isinstance(drawn, str) else drawn  # type: ignore[no-any-return]


def _filled(value: Any, fields: Mapping[str, Any]) -> Any:
    """Fill in the fields of `value`; a text that is only one field becomes the field's value, with its type."""
    match value:
        case Mapping():
            return {key: _filled(inner, fields) for key, inner in value.items()}
        case list():
            return [_filled(inner, fields) for inner in value]
        case str() if re.fullmatch(r"\{\w+\}", value):
            return fields[value[1:-1]]
        case str():
            return value.format_map(fields)
    return value
