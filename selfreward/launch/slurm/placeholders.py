"""The placeholders of the scripts: `{{name}}`."""

import re
from collections.abc import Mapping
from typing import Final

_PLACEHOLDER: Final = re.compile(r"\{\{(\w+)\}\}")


def placeholders(text: str) -> set[str]:
    return set(_PLACEHOLDER.findall(text))


def replaced(text: str, values: Mapping[str, str]) -> str:
    """Return the text with its placeholders replaced by these values, which are not searched again."""
    return _PLACEHOLDER.sub(lambda found: values[found[1]], text)
