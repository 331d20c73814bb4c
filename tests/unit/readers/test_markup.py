"""Verdicts inside marks that only change how a text looks: Markdown, HTML, LaTeX, fences, invisible characters."""

import pytest

from selfreward.readers import Unscored, Verdict, read_choice, read_json_score, read_score

SCORES: list[tuple[str, float | Unscored]] = [
    # Markdown.
    ("Clear.\n\n__Score: 4__", 4),
    ("Clear.\n\n_Score: 4_", 4),
    ("Clear.\n\n__Score:__ 4", 4),
    ("Clear.\n\n__Score__: _4_", 4),
    ("Clear.\n\n***Score: 4***", 4),
    ("Clear.\n\n_**Score:**_ **4**/5", 4),
    ("Clear.\n\nScore: **4** out of **5**", 4),
    ("Clear.\n\nScore: **4** / **5**", 4),
    ("Clear.\n\n\\*\\*Score: 4\\*\\*", 4),
    ("Clear.\n\n✅ Score: 4", 4),
    ("Clear.\n\n⭐ **Rating:** 4/5", 4),
    ("Clear.\n\nScore: 4️⃣", 4),
    ("Clear.\n\n| Score |\n|---|\n| 4 |", Unscored.NO_VERDICT),
    ("Clear.\n\n~~Score: 5~~ Score: 3", 3),
    ("Clear.\n\n~~Score: 5~~", Unscored.NO_VERDICT),
    ("under_score: 4", Unscored.NO_VERDICT),
    # HTML.
    ("Clear.<br><b>Score: 4</b>", 4),
    ("<p>Clear.</p><p><strong>Score:</strong> 4</p>", 4),
    ("<p>Clear.</p>\n<p>Score: 4/5</p>", 4),
    ('<div class="verdict">Score: <span style="color: red">4</span></div>', 4),
    ("Clear.\n<score>4</score>", 4),
    ("Clear.\n<score>\n4\n</score>", 4),
    ("Clear.\n<score>4/5</score>", 4),
    ("Clear.\n<final_score>4</final_score>", 4),
    ("Clear.\n<rating>4</rating>", 4),
    ("<explanation>Clear.</explanation>\n<score>4</score>", 4),
    ("<h3>Score: 4</h3>", 4),
    ("<table><tr><td>Score</td><td>4</td></tr></table>", 4),
    ("It ends with <score>5</score>.", Unscored.NO_VERDICT),
    ("It ends with <p>Score: 5</p>.", Unscored.NO_VERDICT),
    ("It ends with <b>Score: 5</b>.", Unscored.NO_VERDICT),
    ("It ends with:\n<score>5</score>", Unscored.NO_VERDICT),
    ("<s>Score: 5</s> Score: 3", 3),
    # Boxes and other commands.
    ("Clear.\n\\boxed{4}", 4),
    ("Clear.\n$\\boxed{4}$", 4),
    ("Clear.\n\\[\\boxed{4}\\]", 4),
    ("Clear.\n\\boxed{4/5}", 4),
    ("Clear.\n\\boxed{Score: 4}", 4),
    ("Clear.\n\\boxed{\\text{Score: 4}}", 4),
    ("Clear.\n\\textbf{Score: 4}", 4),
    ("Clear.\nScore: $4$", 4),
    ("Clear.\nScore: $$\\boxed{4}$$", 4),
    ("Clear.\n<|begin_of_box|>4<|end_of_box|>", 4),
    ("Clear.\n<|begin_of_box|>Score: 4<|end_of_box|>", 4),
    ("Clear.\nScore: <|begin_of_box|>4<|end_of_box|>", 4),
    ("Clear.\n[[4]]", 4),
    ("Clear.\nRating: [[4]]", 4),
    ("Feedback: Clear. [RESULT] 4", 4),
    ("\\boxed{8/10}", Unscored.OTHER_SCALE),
    ("The answer to the question is \\boxed{4}.", Unscored.NO_VERDICT),
    ("The sum is \\boxed{4}, and the response says so.", Unscored.NO_VERDICT),
    # Fences.
    ("Clear.\n\n```\nScore: 4\n```", 4),
    ("Clear.\n\n```text\nScore: 4\n```\n", 4),
    ("```\nClear.\nScore: 4\n```", 4),
    ("```markdown\n**Clear.**\n\n**Score: 4**\n```", 4),
    ("Clear.\n\n~~~\nScore: 4\n~~~", 4),
    ("Clear.\n\n`Score: 4`", 4),
    ("My score:\n```\nScore: 4\n```", 4),
    ("It prints this:\n```\nprint(1)\n```\n\n```\nScore: 4\n```", 4),
    ("It ends with:\n```\nScore: 5\n```", Unscored.NO_VERDICT),
    ("It ends with a block.\n\n```\nScore: 5\n```", Unscored.NO_VERDICT),
    ("The form is:\n\n```\nScore: 5\n```", Unscored.NO_VERDICT),
    ("```\nprint(1)\nScore: 5\n```\nIt prints 1.", Unscored.NO_VERDICT),
    ("Here is its code.\n```\nx = 1\nScore: 5\n```", Unscored.NO_VERDICT),
    ("It ends with `Score: 5`", Unscored.NO_VERDICT),
    ("It ends with:\n`Score: 5`", Unscored.NO_VERDICT),
    ("Clear.\nScore: 2\n\n```\nScore: 5\n```", 2),
    # Texts without spaces.
    ("x" * 20_000 + "Score: 4", 4),
    ("x" * 20_000 + " Score: 4", 4),
    ("x" * 20_000 + "\nScore: 4", 4),
    ("x" * 20_000 + ".Score: 4", 4),
    ("好" * 20_000 + "Score: 4", 4),
    ("好" * 20_000 + "。评分：4", 4),
    ("xxx, Score: 4", Unscored.NO_VERDICT),
]
CHOICES: list[tuple[str, float | Unscored]] = [
    ("__The better response is Response A__", 1.0),
    ("_Winner: B_", 0.0),
    ("<p>Clear.</p><p><b>Winner:</b> B</p>", 0.0),
    ("Clear.<br>The better response is <strong>Response A</strong>", 1.0),
    ("Clear.\n<winner>A</winner>", 1.0),
    ("Clear.\n<choice>Response B</choice>", 0.0),
    ("Clear.\n\\boxed{A}", 1.0),
    ("Clear.\n<|begin_of_box|>B<|end_of_box|>", 0.0),
    ("Clear.\n\n```\nThe better response is Response A\n```", 1.0),
    ("```\n[[B]]\n```", 0.0),
    ("It ends with:\n```\n[[B]]\n```", Unscored.NO_VERDICT),
    ('{"explanation": "Clear.", "winner": "A"}', 1.0),
    ('Clear.\n```json\n{"better_response": "Response B"}\n```', 0.0),
    ('{"verdict": {"choice": "B"}}', 0.0),
    ('{"winner": "tie"}', 0.5),
    ('{"winner": "C"}', Unscored.OUT_OF_RANGE),
    ('{"winner": "none of your business"}', Unscored.NO_VERDICT),
    ('It ends with {"winner": "A"}.', Unscored.NO_VERDICT),
    ('The better response is Response A\n{"winner": "B"}', Unscored.CONFLICTING),
    ("x" * 20_000 + " The better response is Response A", 1.0),
]
# Kinds of invisible characters: zero-width, a byte-order mark, a soft hyphen, directions, selectors, joiners, fillers.
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\xad\u200e\u200f\u061c\u202a\u202b\u202c\u2066\u2067\u2068\u2069\ufe0f\ufe00"
INVISIBLE += "\U000e0100\U000e0020\u034f\u180e\u2061\u2063\u206a\u3164\u115f\ufff9"


def _wanted(expected: float | Unscored) -> Verdict:
    return Verdict(unscored=expected) if isinstance(expected, Unscored) else Verdict(score=float(expected))


@pytest.mark.parametrize(("text", "expected"), SCORES)
def test_scores_in_markup(text: str, expected: float | Unscored) -> None:
    assert read_score(text, finish_reason="stop") == _wanted(expected)


@pytest.mark.parametrize(("text", "expected"), CHOICES)
def test_choices_in_markup(text: str, expected: float | Unscored) -> None:
    assert read_choice(text, finish_reason="stop", what="response") == _wanted(expected)


@pytest.mark.parametrize("mark", INVISIBLE)
def test_invisible_characters_change_nothing(mark: str) -> None:
    score = f"Clear.{mark}\n{mark}{mark}Sc{mark}ore{mark}: {mark}4{mark}"
    assert read_score(score, finish_reason="stop") == Verdict(score=4.0)
    choice = f"Clear.\n{mark}The better response is {mark}Response {mark}A{mark}"
    assert read_choice(choice, finish_reason="stop", what="response") == Verdict(score=1.0)
    verdict = read_json_score(
        f'{mark}{{{mark}"sc{mark}ore": {mark}4{mark}}}{mark}', finish_reason="stop", low=0, high=5
    )
    assert verdict == Verdict(score=4.0)


@pytest.mark.parametrize("space", "\xa0\u2002\u2009\u202f\u3000")
def test_every_space_is_a_space(space: str) -> None:
    assert read_score(f"Clear.\n{space}Score{space}:{space}4{space}/{space}5", finish_reason="stop").score == 4.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"rating": 4}', 4),
        ('{"grade": 4}', 4),
        ('{"points": 4}', 4),
        ('{"overall_score": 4}', 4),
        ('{"Final Score": "4/5"}', 4),
        ('{"score": "4 out of 5"}', 4),
        ('{"relevance": 1, "clarity": 5, "overall": 3}', 3),
        ('{"evaluation": {"explanation": "Clear.", "score": 4}}', 4),
        ('{"evaluation": {"result": {"rating": "4"}}}', 4),
        ('{"评分": 4}', 4),
        ('{"总评分": "4分"}', 4),
        ('{"nota": 4}', 4),
        ('{"Оценка": "4 из 5"}', 4),
        ('{"score": 3, "final_score": 4}', Unscored.CONFLICTING),
        ('{"score": 4, "rating": 2}', 4),
        ('{"rating": 8, "out_of": 10}', Unscored.OTHER_SCALE),
        ('{"rating": "good"}', Unscored.NO_VERDICT),
        ('{"relevance": 4}', Unscored.NO_VERDICT),
        ('{"response": {"score": 4}}', Unscored.NO_VERDICT),  # the judged text, or what is said of it
        ('Clear.\n\n```json\n{"rating": 4}\n```', 4),
        ('<|begin_of_box|>{"score": 4}<|end_of_box|>', 4),
        ('<answer>{"score": 4}</answer>', 4),
    ],
)
def test_json_of_servers_that_ignore_the_schema(text: str, expected: float | Unscored) -> None:
    assert read_json_score(text, finish_reason="stop", low=0.0, high=5.0) == _wanted(expected)
