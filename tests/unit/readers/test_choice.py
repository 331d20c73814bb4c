"""`The better response is Response A`: texts of judges that compare, and their parsed verdicts."""

import pytest

from selfreward.readers import Unscored, Verdict, read_choice

A, B, TIE = 1.0, 0.0, 0.5

# (what the judge wrote about two responses, the score of A or the reason)
CHOICES: list[tuple[str, float | Unscored]] = [
    # The requested form, and variants of it.
    ("A is clear, B is not.\nThe better response is Response A", A),
    ("A is clear, B is not.\nThe better response is Response B.", B),
    ("**The better response is Response A**", A),
    ("The better response is **Response B**.", B),
    ("The better response is: **B**", B),
    ("### The better response is Response A\n", A),
    ("the better response is response a", A),
    ("The better response is\n\nResponse A", A),
    ("The better response is [Response A]", A),
    ('The better response is "Response A"', A),
    ("Better response: B", B),
    ("Best response = A", A),
    ("The best response is Response A.", A),
    ("The preferred response is Response B.", B),
    ("The better response overall is Response A.", A),
    ("The better one is B.", B),
    ("The better response is assistant A.", A),
    ("Winner: A", A),
    ("**Winner:** Response B", B),
    ("Final verdict: [[B]]", B),
    ("[[A]]", A),
    ("Good.\n\n[[B]]", B),
    ("Verdict: Response A is better.", A),
    ("The better answer is Response B.", B),
    ("So the better response is Response B.", B),
    ("Based on accuracy, the better response is Response B.", B),
    ("Final answer: The better response is Response B.", B),
    ("A", A),
    ("**B**", B),
    ("Response B", B),
    ("B is wrong, A is right.\n\nResponse A", A),
    ("\uff21", A),
    ("The better response is Response A because it is right.", A),
    ("The better response is Response A, not Response B.", A),
    ("The better response is Response A.\n\nResponse A: clear.\nResponse B: not clear.", A),
    ("The better response is Response A\nIt is clear, but Response B is longer.", A),
    # Sentences.
    ("A is clear, B is not.\nResponse A is better.", A),
    ("Response B is better than Response A.", B),
    ("Response B is clearly the better response.", B),
    ("Response B is better because it is right.", B),
    ("Response A wins.", A),
    ("Response A, as I said before, is the better choice.", A),
    ("Response B is indeed the better one.", B),
    ("Response A is better, but this is all.", A),
    ("Response A is not the better option as Response B is.", B),
    ("In this case, Response A is better.", A),
    ("It is short, but in general, the best response is Response A.", A),
    ("I think that Response A is better.", A),
    ("The better response is \\boxed{A}", A),
    ("<answer>B</answer>", B),
    ("Overall, I prefer Response B over Response A.", B),
    ("I would choose Response A.", A),
    # Ties.
    ("Both responses are equally good.", TIE),
    ("It's a tie.", TIE),
    ("Verdict: tie", TIE),
    ("The better response is neither.", TIE),
    ("Tie", TIE),
    ("[[Tie]]", TIE),
    ("Neither response is better than the other.", TIE),
    ("Both responses are equally long.", Unscored.NO_VERDICT),
    ("Both responses are equally good at spelling.", Unscored.NO_VERDICT),
    ("Both responses are equally good. However, A is wrong.", Unscored.NO_VERDICT),
    # Hypothetical, negated, a question, about one aspect only, about something else.
    ("If brevity counts, Response A is better.", Unscored.NO_VERDICT),
    ("Response A is better if brevity counts.", Unscored.NO_VERDICT),
    ("The better response is Response A, if brevity counts.", Unscored.NO_VERDICT),
    ("Response A would be better.", Unscored.NO_VERDICT),
    ("The better response is not Response A.", Unscored.NO_VERDICT),
    ("Response A is not better.", Unscored.NO_VERDICT),
    ("I do not think that Response A is better.", Unscored.NO_VERDICT),
    ("Response A is better?", Unscored.NO_VERDICT),
    ("Response A is better organised.", Unscored.NO_VERDICT),
    ("Response A is better in tone.", Unscored.NO_VERDICT),
    ("Response A is good.", Unscored.NO_VERDICT),
    ("The answer is B.", Unscored.NO_VERDICT),  # to the user's question
    ("Answer: B", Unscored.NO_VERDICT),
    ("a", Unscored.NO_VERDICT),
    ("The better response is a bit longer.", Unscored.NO_VERDICT),
    ("The better response is the response a user would like.", Unscored.NO_VERDICT),
    ("The better response is Response A or Response B", Unscored.NO_VERDICT),
    ("The better response is Response A/B", Unscored.NO_VERDICT),
    ("The better response is the first one.", Unscored.NO_VERDICT),
    ("The better response is Response \u0410.", Unscored.NO_VERDICT),  # a Cyrillic letter
    ("The better judgment is Judgment A", Unscored.NO_VERDICT),
    ("Score: 4", Unscored.NO_VERDICT),
    ("", Unscored.EMPTY_VERDICT),
    ("The better response is Response C.", Unscored.OUT_OF_RANGE),
    # An explanation that ends otherwise.
    ("Response A is better. However, Response B is right, so it is to be preferred.", Unscored.NO_VERDICT),
    ("Response A is better.\nBut on the whole:\nThe better response is Response B", B),
    ("Response A is better.\n\nThe better response is Response B", Unscored.CONFLICTING),
    ("Response A is better, but Response B is right.", Unscored.NO_VERDICT),
    ("Response A is better. Response B is better. However, both are wrong.", Unscored.CONFLICTING),
    ("Response A is better.\n\nHowever, Response B is better.", B),
    ("The better response is Response A.\n\nHowever, the better response is Response B.", B),
    # Contradictions.
    ("The better response is Response A.\n\nHowever, Response B is better.", Unscored.CONFLICTING),
    ("Response A is better. It is short.\n\nThe better response is Response B", Unscored.CONFLICTING),
    ("Response A is better.\n\nThere is no better response.", Unscored.CONFLICTING),
    ("The better response is Response A (or B).", Unscored.NO_VERDICT),
    ("The better response is Response A (or B).\n\nThe better response is Response B (or A).", Unscored.CONFLICTING),
    ("The better response is Response A, but also Response B.", Unscored.NO_VERDICT),
    ("The better response is Response A is not right, Response B is.", Unscored.CONFLICTING),
    ("The better response is Response B (or B).", B),
    ("The better response is Response A\nThe better response is Response B", Unscored.CONFLICTING),
    ("The better response is A. It is clear.\nThe better response is B.", Unscored.CONFLICTING),
    ("The better response is A. But wait, it is wrong.\nThe better response is B.", B),
    ("The better response is A. It is clear.\nFinal verdict: B", B),
    ("Final verdict: A\nBut wait.\nThe better response is B", Unscored.CONFLICTING),
    ("The better response is Response A.\nIt is short.\nResponse B is better.", Unscored.CONFLICTING),
    ("Response A is better than Response A.", Unscored.CONFLICTING),
    # Quotations, repeated blocks, reasoning.
    ("The better response is Response B, as the response itself claims.", Unscored.NO_VERDICT),
    ('"The better response is Response A"', Unscored.NO_VERDICT),
    ('B claims: "The better response is Response B". It is not.\nThe better response is Response A', A),
    ("Response B ends with:\nThe better response is Response B", Unscored.NO_VERDICT),
    ("> The better response is Response B", Unscored.NO_VERDICT),
    ("```\n[[B]]\n```\nThe better response is Response A", A),
    ("<response_b-0a1b2c>\n[[B]]\n</response_b-0a1b2c>\nThe better response is Response A", A),
    ("<think>The better response is Response A</think>The better response is Response B", B),
    ("The better response is Response A</think>Hard to say.", Unscored.NO_VERDICT),
    # Ran on.
    ("The better response is Response A.\n\nHere's a rewritten version of the text:\n\nOnce", Unscored.CONTINUED),
    (
        "The better response is Response A.\n\n"
        "My sister has a plan to paint the old lamp in the hall, and her friends help.",
        Unscored.CONTINUED,
    ),
    ("The better response is Response A.\n\nIt has a plan to paint the old lamp in the hall, and one for the door.", A),
    ("The better response is Response A\n\nUser: What is the capital of Peru?", Unscored.CONTINUED),
    ("The better response is Response A\n<user-0a1b2c>\nhi\n</user-0a1b2c>", Unscored.CONTINUED),
]


def _wanted(expected: float | Unscored) -> Verdict:
    return Verdict(unscored=expected) if isinstance(expected, Unscored) else Verdict(score=expected)


@pytest.mark.parametrize(("text", "expected"), CHOICES)
def test_choice_verdicts(text: str, expected: float | Unscored) -> None:
    assert read_choice(text, finish_reason="stop", what="response") == _wanted(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The better judgment is Judgment A", A),
        ("**Better judgment:** Judgment B", B),
        ("Judgment B is more accurate.", B),
        ("Judgment A is the better judgment.", A),
        ("Grader A is better.", A),
        ("Both judgments are equally accurate.", TIE),
        ("The better judgment is Response A", Unscored.NO_VERDICT),  # there is only one response
        ("The better response is Response A", Unscored.NO_VERDICT),
        ("Score: 4", Unscored.NO_VERDICT),
    ],
)
def test_verdicts_on_judgments(text: str, expected: float | Unscored) -> None:
    assert read_choice(text, finish_reason="stop", what="judgment") == _wanted(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Unscored.TRUNCATED),
        ("Response A is clear and", Unscored.TRUNCATED),
        ("The better response is Response", Unscored.TRUNCATED),
        ("The better response is Response A", Unscored.TRUNCATED),  # or Response B?
        ("The better response is Response A\n", A),
        ("The better response is Response A. It is", A),
        ("The better response is Response A. But wait.\nThe better", Unscored.TRUNCATED),
    ],
)
def test_a_truncated_comparison(text: str, expected: float | Unscored) -> None:
    assert read_choice(text, finish_reason="length", what="response") == _wanted(expected)
