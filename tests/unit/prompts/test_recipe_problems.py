"""Prompts to which the policy cannot respond: left out up to a rate, refused beyond it."""

from selfreward.parts import LeftOut
from selfreward.prompts.recipe_problems import of_left_out

LONG = [LeftOut(f"q{i}", "too_long", f"prompt q{i}: long", "shorten it") for i in range(12)]


def test_few_are_left_out_and_counted() -> None:
    # The prompt that was tried for a held-out set and then for training is one prompt.
    (left,) = of_left_out([LONG[0], LONG[1], LONG[0]], 38, "prompts", 0.05, begun=False)
    assert left.is_warning
    assert left.text == "prompts: 2 of 40 prompts are left out (2 too long); for example prompt q0: long"
    assert list(of_left_out([], 40, "prompts", 0, begun=False)) == []


def test_more_are_refused_with_their_names_until_the_run_has_begun() -> None:
    (refused,) = of_left_out(LONG, 28, "evaluation.prompts", 0.1, begun=False)
    assert not refused.is_warning
    first, *lines = refused.text.split("\n")
    assert first.startswith("evaluation.prompts: 12 of 40 prompts cannot be used (12 too long); at most 0.1 of them")
    assert "(evaluation.prompts.max_dropped_rate)" in first
    assert len(lines) == 11 and lines[0] == "  prompt q0: long; shorten it" and lines[-1] == "  ... and 2 more"
    (left,) = of_left_out(LONG, 28, "prompts", 0.1, begun=True)
    assert left.is_warning
