"""Loading of a prompt template and filling of its fields. Field values are never interpreted as template."""

import difflib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from selfreward.errors import TemplateError
from selfreward.records import Message
from selfreward.templates.blocks import block, conversation

_FIELD = re.compile(r"\{\{(\w+)\}\}")
# A part that is rendered only with a value for its name ({{#name}}), or only without one ({{^name}}).
_PART = re.compile(r"^\{\{([#^])(\w+)\}\}\n(.*?)^\{\{/\2\}\}(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_MARKER = re.compile(r"\{\{[#^/]")
_ASSISTANT_BEGINS = "\n=== assistant begins ===\n"


class Verbatim(str):
    """Text by the recipe's author (a criterion, a principle), which is inserted verbatim, without a block."""


@dataclass(frozen=True)
class Template:
    """A prompt template: one user turn with fields written `{{name}}`, and the beginning of the assistant's turn.

    Lines from `{{#name}}` to `{{/name}}` are rendered only when `name` is given, lines from `{{^name}}` only when not.

    `opening` ends with one space (editors strip it from the file), or is "" when the model generates the complete turn.
    `sha256` is the hash of the complete file.
    """

    name: str
    text: str
    opening: str
    sha256: str

    @classmethod
    def load(cls, name: str) -> "Template":
        """Load a template of the package by its name without `.txt`. Raises TemplateError."""
        folder = files("selfreward.templates")
        known = sorted(entry.name.removesuffix(".txt") for entry in folder.iterdir() if entry.name.endswith(".txt"))
        if name not in known:
            meant = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {meant[0]!r}?" if meant else "choose one of these"
            raise TemplateError(f"templates: there is no template {name!r}; there are {', '.join(known)}; {hint}")
        return cls.from_text((folder / f"{name}.txt").read_text(encoding="utf-8"), name=name)

    @classmethod
    def from_text(cls, source: str, *, name: str) -> "Template":
        """Parse a template. Raises TemplateError for no field, a duplicate field, or an optional part without an
        end."""
        text, _, opening = source.partition(_ASSISTANT_BEGINS)
        if _MARKER.search(_PART.sub(r"\3", text)):
            raise TemplateError(
                f"template {name}: an optional part does not begin or end; {{{{#name}}}} or {{{{^name}}}} and "
                "{{/name}} must be on separate lines, no part inside another; correct the text"
            )
        fields = _FIELD.findall(text)
        if not fields or len(set(fields)) < len(fields) or _FIELD.search(opening):
            raise TemplateError(
                f"template {name}: the fields are {fields}; each field must occur once, at least one, none in the "
                "opening; correct the text"
            )
        # The last line break of a file belongs to the file, not to the prompt.
        return cls(
            name=name,
            text=text.removesuffix("\n"),
            opening=opening.strip() + " " if opening.strip() else "",
            sha256=hashlib.sha256(source.encode()).hexdigest(),
        )

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields in order, including those of optional parts."""
        return tuple(_FIELD.findall(self.text))

    def render(self, **values: str | Sequence[Message] | None) -> tuple[Message, ...]:
        """Return the messages up to the assistant's turn (without `opening`).

        A string becomes a block named after its field, a sequence of messages one block per turn; neither can close its
        block. `Verbatim` text is inserted unchanged. None means not given, which is allowed only for fields of optional
        parts. Raises TemplateError unless there is exactly one value for each field.
        """
        given = {name: value for name, value in values.items() if value is not None}
        text = _PART.sub(lambda part: part[3] if (part[1] == "#") == (part[2] in given) else "", self.text)
        # Splitting by a pattern with one group alternates literals and fields.
        pieces = _FIELD.split(text)
        missing = [field for field in pieces[1::2] if field not in given]
        switches = {name for _, name, _ in _PART.findall(self.text)}
        unknown = sorted(set(given) - set(self.fields) - switches)
        if missing or unknown:
            raise TemplateError(
                f"template {self.name}: missing {missing}, unknown {unknown}; the fields are {list(self.fields)}; "
                "give each of them once"
            )
        pieces[1::2] = [_shown(field, given[field]) for field in pieces[1::2]]
        return (Message(role="user", content="".join(pieces)),)


def _shown(field: str, value: str | Sequence[Message]) -> str:
    if isinstance(value, Verbatim):
        return str(value)
    return block(field, value) if isinstance(value, str) else conversation(value)
