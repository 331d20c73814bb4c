"""Kind math: the final answer of the text is mathematically equal to the expected one."""

from selfreward.checks.arguments import Text
from selfreward.checks.registry import check_kind


@check_kind("math", expected=Text())
def math(text: str, *, expected: str) -> bool:
    """Equal by the math-verify library; `expected` is LaTeX, with or without delimiters, or a number.

    A text without an answer, or with one that cannot be evaluated in 2 s, does not pass.
    """
    from selfreward.checks.math_answers import matches

    return matches(expected, text)
