"""A row of any source: its place, its default id, and its columns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfreward.prompts.unusable import UnusableRow


@dataclass(frozen=True)
class Row:
    """`where` is the place for messages, `id` the id of a row that has none. `content` is an error if the row cannot
    be read."""

    where: str
    id: str
    content: Mapping[str, Any] | UnusableRow

    @property
    def columns(self) -> Mapping[str, Any]:
        """The values by column. Raises UnusableRow."""
        if isinstance(self.content, UnusableRow):
            raise self.content
        return self.content
