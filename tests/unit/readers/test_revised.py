"""`Score: n` that is revised, attributed to the response, or distinguished from adjacent text."""

import pytest

from selfreward.readers import Unscored, Verdict, read_score

# (what the judge wrote, the score or the reason)
REVISED: list[tuple[str, float | Unscored]] = [
    # Another verdict later.
    ("Score: 4\n\nOn reflection, Score: 2", 2),
    ("Score: 4\n\nHowever, Score: 2", 2),
    ("Score: 4\n\nNo, wait, actually, score: 2", 2),
    ("Score: 5\n\nCorrection: Score: 2", 2),
    ("Score: 5\n\nHowever, if it were longer, Score: 2", 5),
    ("Revised score: 2", 2),
    ("Score: 4\nUpdated score: 2", 2),
    ("Score: 4\n\nIt has a flaw.\nThe adjusted score is 2.", Unscored.CONFLICTING),
    ("Corrected score: 3\nThat is all.\nScore: 4", Unscored.CONFLICTING),
    ("Score: 5\n\nActually, the score should be 2.", Unscored.CONFLICTING),
    ("Score: 5. Hmm, on second thought I'd lower it to 2.", Unscored.CONFLICTING),
    ("Score: 5\n\nIt has a flaw. The score is reduced to 2.", Unscored.CONFLICTING),
    ("I rate it 4 out of 5. Actually, I would drop the score to 2.", 2),
    ("Score: 4\n\nActually, I would give it 2.", Unscored.CONFLICTING),
    ("Score: 4\n\nActually, I would give it 4.", 4),
    ("Score: 5, but it earns 1.", Unscored.CONFLICTING),
    ("It is clear, but it earns 1.", Unscored.NO_VERDICT),  # of how many?
    ("Score: 4. I would raise it to 5 if it had examples.", 4),
    ("Score: 4. With examples, I would raise it to 5.", 4),
    ("Score: 4. It reduces the list to 3 items.", 4),
    # Another number in the same sentence.
    ("Score: 5 (reduced to 3)", Unscored.CONFLICTING),
    ("Score: 5, reduced to 3 because it is short.", Unscored.CONFLICTING),
    ("Score: 3 (reduced from 5)", 3),
    ("Score: 3 (reduced from 5 to 3)", 3),
    ("Score: 5, minus 1 for its style.", Unscored.CONFLICTING),
    ("Score: 5 (relevance), 3 (style)", Unscored.CONFLICTING),
    ("Score: 5 (relevance) 3 (style)", Unscored.CONFLICTING),
    ("Score: 5 (relevance)\nScore: 3 (style)", Unscored.CONFLICTING),
    # Another total.
    ("Score: 4, out of 10", Unscored.OTHER_SCALE),
    ("Score: 4, which is out of 10", Unscored.OTHER_SCALE),
    ("Score: 4 - out of 10.", Unscored.OTHER_SCALE),
    ("Score: 4 (4/10)", Unscored.OTHER_SCALE),
    ("Score: 4, that is, 4 out of 5", 4),
    ("Score: 3 (1/1 for its relevance and 2/4 for the rest)", 3),
    # Whose score, its scale, and a table's row.
    ("Response score: 4", 4),
    ("The response's score is 4.", 4),
    ("Relevance: 1\nResponse score: 4", 4),
    ("Score [0-5]: 3", 3),
    ("Score [0-10]: 3", Unscored.OTHER_SCALE),
    ("| Score | 4 |", 4),
    ("| Item | Points |\n|---|---|\n| Relevance | 1 |\n| **Score** | **4** |", 4),
    ("| Relevance | 1 |\n| Score | 4 |\n| Style | 2 |", Unscored.NO_VERDICT),
    ("| Score | 4 | 3 |", Unscored.NO_VERDICT),
    # Statements of the response, and the requested form.
    (
        "The assistant wrote the following.\nScore: 5\nThis is an attempt at manipulation, so no points.",
        Unscored.NO_VERDICT,
    ),
    ("The response contains the following:\nScore: 5", Unscored.NO_VERDICT),
    ("The response contains errors, so this is my verdict:\nScore: 2", 2),
    ("It is odd:\nIt ends with:\nScore: 5", Unscored.NO_VERDICT),
    ("The form is:\nScore: 3\nI cannot grade this.", Unscored.NO_VERDICT),
    ("I was asked to end with:\nScore: 3", Unscored.NO_VERDICT),
    ("My verdict in the form asked for:\nScore: 3", 3),
    ("Score: 5 - that is what the response asks for, but it earns 1.", Unscored.NO_VERDICT),
    ("Score: 5, as the response claims.", Unscored.NO_VERDICT),
    ("Score: 5\nThis is what it asks me to write.", Unscored.NO_VERDICT),
    ("Score: 2, as the response claims that Lima is in Chile.", 2),
    # A heading after the verdict.
    ("Score: 4\n\nResponse: The response is clear.", 4),
    ("Score: 4\n\n**Answer:** The response is good", 4),
    ("Score: 4\n\nResponse: The response is clear.\n\nScore: 2", Unscored.CONTINUED),
    ("Score: 4\n\nResponse: The response is clear.\n\nUser: Why?", Unscored.CONTINUED),
    ("Score: 4\n\nAnswer: The answer is Lima.", Unscored.CONTINUED),
    ("Score: 4\n\nUser: The response is clear.", Unscored.CONTINUED),
]


@pytest.mark.parametrize(("text", "expected"), REVISED)
def test_revised_and_ascribed_scores(text: str, expected: float | Unscored) -> None:
    wanted = Verdict(unscored=expected) if isinstance(expected, Unscored) else Verdict(score=float(expected))
    assert read_score(text, finish_reason="stop") == wanted
