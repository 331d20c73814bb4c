"""The wait that a server asks for, in any of its forms; a value that cannot be read is no wait."""

import email.utils
import re
import time
from collections.abc import Mapping

_NUMBER = re.compile(r"[0-9]{1,400}(\.[0-9]{0,40})?")
_MAX_DATE = 64  # longer values are not dates, and slow to parse


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return seconds, at least 0, perhaps infinite; None when there is no readable value, or a date in the past."""
    milliseconds, value = (headers.get(name, "").strip() for name in ("retry-after-ms", "retry-after"))
    if _NUMBER.fullmatch(milliseconds):
        return float(milliseconds) / 1000
    if _NUMBER.fullmatch(value):
        return float(value)
    wait_s = _seconds_until(value)
    return wait_s if wait_s is not None and wait_s > 0 else None


def _seconds_until(date: str) -> float | None:
    try:
        parts = email.utils.parsedate_tz(date) if date.isascii() and len(date) <= _MAX_DATE else None
        return email.utils.mktime_tz(parts) - time.time() if parts else None
    except (ValueError, TypeError, IndexError, OverflowError):  # a month 13, a year 99999
        return None
