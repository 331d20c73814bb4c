"""Kind regex: a pattern of the `regex` package, whose searches can be given a time limit."""

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
        return f"pattern {pattern[:80]!r} is broken: {problem}; allowed is what the regex package reads; correct it"
    return None


@check_kind("regex", consistent=_compiles, pattern=Text(), must_match=Flag(True), full=Flag(False))
def matches(text: str, *, pattern: str, must_match: bool, full: bool) -> bool:
    """Whether the pattern is found in the text, or with `full` matches all of it but outer white space.

    Flags stand in the pattern, as in (?i). `must_match: false` asks for the opposite. A search that does not end
    within TIME_LIMIT_S passes in neither case: it would take a pattern with catastrophic backtracking, and the limit
    is a thousand times what other patterns need, so that the outcome does not hang on the machine's speed.
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
