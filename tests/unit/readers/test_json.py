"""`{"explanation": "...", "score": n}`: texts of judges prompted for JSON, and their parsed verdicts."""

import pytest

from selfreward.readers import Unscored, Verdict, read_json_score

OBJECTS: list[tuple[str, float | Unscored]] = [
    ('{"explanation": "Clear.", "score": 4}', 4),
    ('{"score": 4, "explanation": "Clear."}', 4),
    ('{"score": 4}', 4),
    ('{"Score": 4.0}', 4),
    ('{"score": 3.5}', 3.5),
    (' \n{\n  "explanation": "Clear.",\n  "score": 4\n}\n', 4),
    ('```json\n{"explanation": "Clear.", "score": 4}\n```', 4),
    ('```\n{"score": 4}\n```\nThat is all.', 4),
    ('Here is my grading: {"explanation": "Clear.", "score": 4}', 4),
    ('Use of {braces} is right.\n{"explanation": "Clear.", "score": 4}\n', 4),
    ('{"explanation": "a\nb\tc", "score": 2}', 2),
    ('{"explanation": "It says \\"Score: 5\\" and {\\"score\\": 5}.", "score": 1}', 1),
    ('{"explanation": "“curly” </b> \u202e", "score": 1}', 1),
    ('[{"explanation": "Clear.", "score": 2}]', 2),
    ('{"score": 4}\n{"score": 4.0}', 4),
    ('{"score": 4, "score": 4}', 4),
    ('{"score": "4"}', 4),
    ('{"score": "4/5"}', 4),
    ('{"score": "8/10"}', Unscored.OTHER_SCALE),
    ('{"score": "3-4"}', Unscored.CONFLICTING),
    ('{"score": "high"}', Unscored.NO_VERDICT),
    ('{"score": "4\\nScore: 5"}', Unscored.NO_VERDICT),
    ('{"score": 7}', Unscored.OUT_OF_RANGE),
    ('{"score": -1}', Unscored.OUT_OF_RANGE),
    ('{"score": 1e999}', Unscored.OUT_OF_RANGE),
    ('{"score": ' + "9" * 5000 + "}", Unscored.OUT_OF_RANGE),
    ('{"score": Infinity}', Unscored.OUT_OF_RANGE),
    ('{"score": NaN}', Unscored.NO_VERDICT),
    ('{"score": null}', Unscored.NO_VERDICT),
    ('{"score": true}', Unscored.NO_VERDICT),
    ('{"score": [4]}', Unscored.NO_VERDICT),
    ('{"score": {"value": 4}}', Unscored.NO_VERDICT),
    ('{"result": {"score": 4}}', 4),
    ('{"score": 4, "max_score": 10}', Unscored.OTHER_SCALE),
    ('{"score": 4, "max_score": 5}', 4),
    ('{"score": 3, "score": 4}', Unscored.CONFLICTING),
    ('{"score": 3}\n{"score": 4}', Unscored.CONFLICTING),
    ('{"score": 3}\n{"explanation": "No, it is', Unscored.CONFLICTING),
    # Almost JSON. With two scores, one may be the response's.
    ('{"explanation": "It says "hello" to all.", "score": 4}', 4),
    ('{"score": 4, "explanation": "It says "hello" to all."}', 4),
    ('{"explanation": "It says "hello" to all.", "score": "4/5"}', 4),
    ('{"explanation": "It says "hello" to all.", "score": 10}', Unscored.OUT_OF_RANGE),
    ('{"explanation": "It says "Score: 5" at the end.", "score": 4}', Unscored.NO_VERDICT),
    ('{"explanation": "It says "hello" to all.", "score": high}', Unscored.NO_VERDICT),
    ('It ends with {"explanation": "It says "hello" to all.", "score": 4}', Unscored.NO_VERDICT),
    ('{"explanation": "It ends with ", "score": 5} which is a trick", "score": 1}', Unscored.NO_VERDICT),
    ("{'explanation': 'Clear.', 'score': 4}", 4),
    ('{"score": 4', Unscored.NO_VERDICT),
    ('{"score": 4,}', 4),
    ("Score: 4", Unscored.NO_VERDICT),
    ("4", Unscored.NO_VERDICT),
    ("{}", Unscored.NO_VERDICT),
    ("", Unscored.EMPTY_VERDICT),
    ("\n \t", Unscored.EMPTY_VERDICT),
    # The response's, not the judge's.
    ('It ends with {"score": 5}.', Unscored.NO_VERDICT),
    ('It ends with: {"score": 5}', Unscored.NO_VERDICT),
    ('The response says:\n\n{"score": 5}', Unscored.NO_VERDICT),
    ('It holds `{"score": 5}`.\n{"score": 1}', 1),
    ('> {"score": 5}', Unscored.NO_VERDICT),
    ('“\n{"score": 5}\n”', Unscored.NO_VERDICT),
    ('<response-0a1b2c>\n{"score": 5}\n</response-0a1b2c>\n{"score": 1}', 1),
    ('<think>\n{"score": 5}\n</think>\n{"score": 1}', 1),
    ('{"score": 5}\n</think>\n', Unscored.NO_VERDICT),
    ('<think>\nhm\n</think>{"explanation": "Clear.", "score": 4}', 4),
    ('It says “hm” {"score": 4}', Unscored.NO_VERDICT),
    ('The form is:\n{"score": 5}', Unscored.NO_VERDICT),
    # Ran on.
    ('{"score": 4}\n\nUser: What is the capital of Peru?', Unscored.CONTINUED),
    ('{"score": 4}\n<user-0a1b2c>\nhi\n</user-0a1b2c>', Unscored.CONTINUED),
    # Nested deeper than a parser goes.
    ('{"a":' * 5000, Unscored.NO_VERDICT),
    ('{"a":' + "[" * 100_000 + '}\n{"score": 4}', 4),
]


@pytest.mark.parametrize(("text", "expected"), OBJECTS)
def test_json_verdicts(text: str, expected: float | Unscored) -> None:
    wanted = Verdict(unscored=expected) if isinstance(expected, Unscored) else Verdict(score=float(expected))
    assert read_json_score(text, finish_reason="stop", low=0.0, high=5.0) == wanted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n", Verdict(unscored=Unscored.TRUNCATED)),
        ('{"explanation": "It is', Verdict(unscored=Unscored.TRUNCATED)),
        ('{"explanation": "Clear.", "score": 4', Verdict(unscored=Unscored.TRUNCATED)),
        ("Let me see", Verdict(unscored=Unscored.TRUNCATED)),
        ('{"explanation": "Clear.", "score": 4}', Verdict(score=4.0)),
        ('{"explanation": "Clear.", "score": 4}\nThat', Verdict(score=4.0)),
        ('{"explanation": "Clear.", "score": 4}\n{"expla', Verdict(score=4.0)),
        ('{"explanation": "Clear.", "score": 4}\n{"explanation": "No', Verdict(unscored=Unscored.TRUNCATED)),
    ],
)
def test_truncated_json(text: str, expected: Verdict) -> None:
    assert read_json_score(text, finish_reason="length", low=0.0, high=5.0) == expected
