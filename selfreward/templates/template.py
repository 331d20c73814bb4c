"""Loads a prompt text and fills its fields. Text that goes into a field is never read as template."""

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
_ASSISTANT_BEGINS = "\n=== assistant begins ===\n"


@dataclass(frozen=True)
class Template:
    """A prompt text: one user turn with fields written `{{name}}`, and what the assistant's turn begins with.

    `opening` ends with one space (editors strip it from the file), or is "" when the whole turn is the model's
    own. `sha256` is that of the whole file.
    """

    name: str
    text: str
    opening: str
    sha256: str

    @classmethod
    def load(cls, name: str) -> "Template":
        """A template that ships with the package, by its name without `.txt`. Raises TemplateError."""
        folder = files("selfreward.templates")
        known = sorted(entry.name.removesuffix(".txt") for entry in folder.iterdir() if entry.name.endswith(".txt"))
        if name not in known:
            meant = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {meant[0]!r}?" if meant else "choose one of these"
            raise TemplateError(f"templates: there is no template {name!r}; there are {', '.join(known)}; {hint}")
        return cls.from_text((folder / f"{name}.txt").read_text(encoding="utf-8"), name=name)

    @classmethod
    def from_text(cls, source: str, *, name: str) -> "Template":
        """Raises TemplateError when there is no field, or a field twice."""
        text, _, opening = source.partition(_ASSISTANT_BEGINS)
        fields = _FIELD.findall(text)
        if not fields or len(set(fields)) < len(fields) or _FIELD.search(opening):
            raise TemplateError(
                f"template {name}: the fields are {fields}; each field stands once, one at least, none in the opening; "
                "correct the text"
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
        """In the order in which they stand."""
        return tuple(_FIELD.findall(self.text))

    def render(self, **values: str | Sequence[Message]) -> tuple[Message, ...]:
        """The messages, ready for the assistant's turn (`opening` excluded).

        A string becomes a block named after its field, a sequence of messages one block a turn; neither can close its
        block. Raises TemplateError unless there is exactly one value for each field.
        """
        missing = [field for field in self.fields if field not in values]
        unknown = sorted(set(values) - set(self.fields))
        if missing or unknown:
            raise TemplateError(
                f"template {self.name}: missing {missing}, unknown {unknown}; the fields are {list(self.fields)}; "
                "give each of them once"
            )
        # Splitting by a pattern with one group gives literal, field, literal, field, ..., literal.
        pieces = _FIELD.split(self.text)
        pieces[1::2] = [_shown(field, values[field]) for field in pieces[1::2]]
        return (Message(role="user", content="".join(pieces)),)


def _shown(field: str, value: str | Sequence[Message]) -> str:
    return block(field, value) if isinstance(value, str) else conversation(value)
