"""JSON from a server: any nesting, any number; what cannot be used is left out, and never raises later."""

import json
from typing import Any

# More digits are no count and no probability, and cannot become a float.
_MAX_DIGITS = 18


def parse_json(text: str) -> Any:
    """Return the JSON value; an integer of more than 18 digits is None. Raises ValueError, also for deep nesting."""
    try:
        return json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= _MAX_DIGITS else None
