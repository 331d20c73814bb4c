"""IFEval's group startend."""

from selfreward.checks.arguments import Text
from selfreward.checks.registry import check_kind


@check_kind("startend:end_checker", end_phrase=Text())
def end_checker(text: str, *, end_phrase: str) -> bool:
    """The text ends with the phrase, ignoring case and closing double quotation marks."""
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


@check_kind("startend:quotation")
def quotation(text: str) -> bool:
    """The first and the last character are double quotation marks; curly ones do not count, as published."""
    text = text.strip()
    return len(text) > 1 and text[0] == '"' and text[-1] == '"'
