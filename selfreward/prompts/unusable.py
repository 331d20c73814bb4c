"""The error of one row that cannot be used. Its reason is counted; the row is dropped, or named in an error."""

from typing import Literal

Reason = Literal[
    "not_json", "malformed_row", "missing_column", "wrong_type", "empty_prompt", "turns_out_of_order",
    "last_turn_not_user", "tool_turn", "not_text", "invalid_unicode", "bad_checks", "bad_reference", "bad_answer",
    "bad_pair", "bad_id",
]  # fmt: skip


class UnusableRow(Exception):
    """`found` and `advice` (what is allowed; what to do) are for messages."""

    def __init__(self, reason: Reason, found: str, advice: str) -> None:
        super().__init__(f"{found}; {advice}")
        self.reason: Reason = reason


def require_text(value: object, name: str) -> str:
    """Return a text, which may be empty. Raises UnusableRow if it is none, or cannot be encoded as UTF-8."""
    if not isinstance(value, str):
        raise UnusableRow("wrong_type", f"{name} is {described(value)}", "it must be text; correct the row")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        # Bytes that are not UTF-8 are decoded to U+DC80 to U+DCFF (`files/text.py`).
        what = f"the byte 0x{code - 0xDC00:02X}, which is not UTF-8," if 0xDC80 <= code <= 0xDCFF else ""
        raise UnusableRow(
            "invalid_unicode",
            f"{name} has {what or f'the lone surrogate U+{code:04X}'} at character {error.start + 1}",
            "text must be valid Unicode; write the file again as UTF-8 or remove the row",
        ) from None
    return value


def described(value: object) -> str:
    """Return type and beginning of a value, for a message."""
    return "null" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
