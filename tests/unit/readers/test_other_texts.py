"""Scores of another text than the judged one: the judge's own improved, ideal or imagined response, another item."""

import pytest

from selfreward.readers import Unscored, Verdict, read_json_score, read_score

# What stands between the score of the response, 2, and that of something else, 5.
BETWEEN = [
    "Improved response:\nThe Adriatic lies between Italy and the Balkans.",
    "**Improved Response:**\n\nThe Adriatic lies between Italy and the Balkans.",
    "### Improved response\n\nThe Adriatic lies between Italy and the Balkans.",
    "**Improved Version**\n\nThe Adriatic lies between Italy and the Balkans.",
    "Improved response: The Adriatic lies between Italy and the Balkans.",
    "Rewritten:\nThe Adriatic.",
    "Revised answer:\nThe Adriatic.",
    "Corrected version:\nThe Adriatic.",
    "A better response:\nAll five seas.",
    "Here is how it could be better:\nAll five seas.",
    "Here's how I would write it:\nAll five seas.",
    "An ideal answer would be:\nAll five seas.",
    "A response that earns full marks:\nAll five seas.",
    "Example of a good response:\nAll five seas.",
    "Model answer:\nAll five seas.",
    "What a perfect answer looks like:\nAll five seas.",
    "For comparison, a perfect answer names all five seas.",
    "With all five seas it would be perfect.",
    "Had it named all five seas, it would have earned more.",
    "However, had it named all five seas, it would have earned more.",
    "But suppose that it named all five seas.",
    "However, an ideal response would name all five seas.\n\nAll five seas.",
    "If it had named all five seas, it would have earned:",
    "An ideal response would be graded as:",
    "Second evaluation:\nIt is clear.",
    "Now for response B.\nIt is clear.",
    "Another candidate\n\nIt is clear.",
    "Alternative:\nAll five seas.",
    "Clarity:\nIt is clear.",
    "改进后的回答：\n五个海。",
    "更好的回答：\n五个海。",
    "如果它列出五个海，会更好。",
    "改善された応答：\n五つの海。",
    "개선된 응답:\n다섯 바다.",
    "Verbesserte Antwort:\nAlle fünf Meere.",
    "Réponse améliorée :\nLes cinq mers.",
    "Una respuesta mejor sería:\nLos cinco mares.",
    "Respuesta mejorada:\nLos cinco mares.",
    "Resposta melhorada:\nOs cinco mares.",
    "Risposta migliorata:\nI cinque mari.",
    "Улучшенный ответ:\nПять морей.",
    "Zlepšená verze:\nPět moří.",  # in no list of words
]
UNSURE = {Unscored.AMBIGUOUS, Unscored.CONFLICTING, Unscored.CONTINUED}


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("second", ["Score: 5", "**Score: 5**", "Final score: 5", "Score: 5/5", "评分：5"])
def test_the_score_of_another_text_is_never_that_of_the_response(between: str, second: str) -> None:
    verdict = read_score(f"Too short.\nScore: 2\n\n{between}\n\n{second}", finish_reason="stop")
    assert verdict == Verdict(score=2.0) or verdict.unscored in UNSURE, verdict


TEXTS: list[tuple[str, float | Unscored]] = [
    # Only another text has a score, or may have it.
    ("Too short. An ideal response would be graded as:\nScore: 5", Unscored.NO_VERDICT),
    ("Too short. The best possible answer here would be graded:\nScore: 5", Unscored.NO_VERDICT),
    ("Too short.\n\nSuggested answer:\nAll five seas.\n\nScore: 5", Unscored.AMBIGUOUS),
    ("Too short.\n\nIf it had named all seas, it would have earned:\nScore: 5", Unscored.NO_VERDICT),
    ("Too short.\n\nImproved response:\nAll five seas.\n\nScore: 5", Unscored.AMBIGUOUS),
    ("Too short.\n\n改进后的回答：\n五个海。\n\n评分：5", Unscored.AMBIGUOUS),
    ("Too short.\nScore (improved response): 5", Unscored.NO_VERDICT),
    ("Too short.\nScore: 5 (for the improved response)", Unscored.NO_VERDICT),
    ("Too short.\nScore for the improved response: 5", Unscored.NO_VERDICT),
    ("Too short. A perfect answer gets a score of 5.", Unscored.NO_VERDICT),
    ("Score: 2 (original)\nScore: 5 (improved)", 2),
    # The response alone has a score.
    ("Score: 2\n\nImproved response:\nAll five seas.", 2),
    ("Score: 2\n\nIf it had named all seas, it would have earned:\nScore: 5", 2),
    ("Score: 2\n\nAn ideal response would get a 5.", 2),
    ("A better response would name all five seas.\n\nScore: 2", 2),
    ("If it named all five seas, it would be better.\n\nScore: 2", 2),
    ("For example, it could name all five seas.\n\nScore: 2", 2),
    ("What could be better:\n- It names two of five seas.\n\nScore: 2", 2),
    ("### What could be better\nIt names two of five seas.\n\nScore: 2", 2),
    ("Suggestions for a better response:\n- Name all seas.\n\nScore: 2", 2),
    ("How it could be improved:\n- It should name all seas.\n\nScore: 2", 2),
    ("This is a good response:\n\nScore: 4", 4),
    ("It is a good answer.\nScore: 4", 4),
    ("Score: 4 (good answer)", 4),
    ("Score: 4, good response.", 4),
    ("Score: 3 (could be more detailed)", 3),
    ("I would give this the following score:\nScore: 4", 4),
    ("Score for the original response: 2", 2),
    ("Score: 5\n\nImproved response:\nAll five seas.\n\nScore: 5", 5),
    # The judge corrects itself, or adds up.
    ("Score: 2\n\nCorrection: Score: 4", 4),
    ("Score: 2\n\nIt does name a source. On reflection, Score: 4", 4),
    ("Score: 2\nIt does name a source, which I overlooked.\nFinal score: 4", 4),
    ("Initial score: 2\nIt does name a source.\nFinal score: 4", 4),
    ("Score: 2\n\nHowever, it does name a source.\nScore: 4", 4),
    ("Accuracy:\nScore: 3\n\nClarity:\nScore: 5\n\nFinal score: 4", 4),
    ("Accuracy: 3\nClarity: 5\n\nScore: 4", 4),
    ("Accuracy: 3/5\nClarity: 5/5\nScore: 4", 4),
    # Different scores of which none is the total.
    ("Score: 2\n\nAll five seas, with a map of each of them.\n\nScore: 5", Unscored.AMBIGUOUS),
    ("Accuracy:\nScore: 3\n\nClarity:\nScore: 5", Unscored.AMBIGUOUS),
    ("Score: 4\n\nIt is relevant.\nScore: 1", Unscored.AMBIGUOUS),
    ("It scores 2 out of 5. All five seas would do.\n\nIt scores 5 out of 5.", Unscored.AMBIGUOUS),
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_whose_score_it_is(text: str, expected: float | Unscored) -> None:
    wanted = Verdict(unscored=expected) if isinstance(expected, Unscored) else Verdict(score=float(expected))
    assert read_score(text, finish_reason="stop") == wanted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"score": 2}\n\nImproved response:\nAll five seas.\n\n{"score": 5}', Unscored.CONFLICTING),
        ('Improved response:\nAll five seas.\n\n{"score": 5}', Unscored.AMBIGUOUS),
        ('An ideal response would get:\n{"score": 5}', Unscored.NO_VERDICT),
        ('{"score": 2, "improved_response": "All five seas.", "improved_score": 5}', 2),
        ('{"improved": {"response": "All five seas.", "score": 5}}', Unscored.NO_VERDICT),
        ('{"score": 2, "improved": {"score": 5}}', 2),
    ],
)
def test_whose_score_it_is_in_json(text: str, expected: float | Unscored) -> None:
    wanted = Verdict(unscored=expected) if isinstance(expected, Unscored) else Verdict(score=float(expected))
    assert read_json_score(text, finish_reason="stop", low=0.0, high=5.0) == wanted
