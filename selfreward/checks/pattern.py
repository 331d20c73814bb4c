"""Kind regex: a pattern of the `regex` package, which supports a time limit for searches."""

from typing import Final

import regex  # type: ignore[import-untyped]

from selfreward.checks.arguments import Flag, Text
from selfreward.checks.registry import check_kind

TIME_LIMIT_S: Final = 1.0
MAX_PATTERN_CHARACTERS: Final = 2000


def _compiles(*, pattern: str, must_match: bool, full: bool) -> str | None:
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        return f"pattern has {len(pattern)} characters; allowed are {MAX_PATTERN_CHARACTERS}; shorten it"
    try:
        regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as problem:
        return f"pattern {pattern[:80]!r} is invalid: {problem}; patterns of the regex package are allowed; correct it"
    return None


@check_kind("regex", consistent=_compiles, pattern=Text(), must_match=Flag(True), full=Flag(False))
def matches(text: str, *, pattern: str, must_match: bool, full: bool) -> bool:
    """Whether the pattern is found in the text, or with `full` matches all of it except outer white space.

    Flags are given in the pattern, as in (?i). `must_match: false` requires the opposite. A search that exceeds
    TIME_LIMIT_S fails in both cases. This only happens with catastrophic backtracking: the limit is a thousand times
    the time that other patterns need, so that the outcome does not depend on the machine's speed.
    """
    compiled = regex.compile(pattern)
    try:
        if full:
            found = compiled.fullmatch(text.strip(), timeout=TIME_LIMIT_S) is not None
        else:
            found = compiled.search(text, timeout=TIME_LIMIT_S) is not None
    except TimeoutError:
        return False
    return found == must_match
