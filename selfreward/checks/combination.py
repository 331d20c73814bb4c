"""IFEval's group combination."""

from typing import Final

from selfreward.checks.arguments import Text
from selfreward.checks.registry import check_kind

_NUM_RESPONSES: Final = 2


@check_kind("combination:repeat_prompt", prompt_to_repeat=Text())
def repeat_prompt(text: str, *, prompt_to_repeat: str) -> bool:
    """The text begins with the request, ignoring case; whether more follows is not checked, as published."""
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


@check_kind("combination:two_responses")
def two_responses(text: str) -> bool:
    """Two different texts separated by ******; a blank part inside fails, at either end it is not counted."""
    parts = [part.strip() for part in text.split("******")]
    if not all(parts[1:-1]):
        return False
    responses = [part for part in parts if part]
    return len(responses) == len(set(responses)) == _NUM_RESPONSES
