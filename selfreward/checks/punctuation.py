"""IFEval's group punctuation."""

from selfreward.checks.registry import check_kind


@check_kind("punctuation:no_comma")
def no_comma(text: str) -> bool:
    """The text has no comma; only the ASCII comma counts, as published."""
    return "," not in text
