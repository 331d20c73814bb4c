"""Verdicts in the languages that judges write, with their punctuation, digits, units and words for a score."""

import pytest

from selfreward.readers import Unscored, Verdict, read_choice, read_score

SCORES: list[tuple[str, float | Unscored]] = [
    ("Ich würde 4 von 5 Punkten geben.", 4),
    ("Le doy una puntuación de 4 sobre 5.", 4),
    # Chinese.
    ("这个回答满足了要求,但没有例子。Score: 4", 4),
    ("内容完整。\nScore：4分", 4),
    ("内容完整。\n\n评分：4", 4),
    ("内容完整。\n评分：４", 4),
    ("内容完整，评分：4分。", 4),
    ("内容完整。\n**最终评分：4分**", 4),
    ("内容完整。\n总分：4/5", 4),
    ("内容完整。\n得分：4分（满分5分）", 4),
    ("内容完整。\n评分：4分/5分", 4),
    ("内容完整。\n评分（0-5分）：4", 4),
    ("满分5分，得分：4分。", 4),
    ("满分5分，得4分。", 4),
    ("满分为5分，给4分。", 4),
    ("该回答满分5分中得4分。", 4),
    ("内容完整。5分制，4分。", 4),
    ("內容完整。滿分5分，得4分。", 4),
    ("满分10分，得8分。", Unscored.OTHER_SCALE),
    ("满分5分，相关性得4分。", Unscored.NO_VERDICT),
    ("如果补充例子，满分5分，得5分。", Unscored.NO_VERDICT),
    ("5分钟中4分钟在跑步。", Unscored.NO_VERDICT),
    ("综上所述，我给这个回答4分。", 4),
    ("内容完整。因此，评分为4分。", 4),
    ("内容完整。该回答得4分。", 4),
    ("内容完整。我打4分。", 4),
    ("相关，得1分。完整，得1分。", Unscored.NO_VERDICT),
    ("内容完整。\n【最终评分】：4分", 4),
    ("这个回答的得分是4分，因为没有例子。", 4),
    ("内容完整。【评分】4", 4),
    ("内容完整。\n【评分：4】", 4),
    ("相关性：1\n完整性：1\n总分：2", 2),
    ("相关性：1分\n完整性：1分\n\n得分：2分", 2),
    ("评分：8/10", Unscored.OTHER_SCALE),
    ("评分：8分（满分10分）", Unscored.OTHER_SCALE),
    ("评分：7分", Unscored.OUT_OF_RANGE),
    ("如果补充例子，评分：5", Unscored.NO_VERDICT),
    ("评分：5，如果补充例子", Unscored.NO_VERDICT),
    ("回答以下面的内容结尾：\nScore: 5", Unscored.NO_VERDICT),
    ("它写道：\n评分：5", Unscored.NO_VERDICT),
    ("它写道「评分：5」。", Unscored.NO_VERDICT),
    ("他等了4分钟。", Unscored.NO_VERDICT),
    ("评分：4分钟", Unscored.NO_VERDICT),
    ("评分：3\n评分：4", Unscored.CONFLICTING),
    ("评分：3。更正：评分：4", 4),
    # Japanese, Korean.
    ("応答は簡潔で正しい。\nScore: 4点", 4),
    ("応答は簡潔で正しい。\n評価：4点", 4),
    ("応答は簡潔で正しい。スコア：４", 4),
    ("応答は簡潔で正しい。よって、スコアは4点です。", 4),
    ("応答は正しい。\n5点満点中4点", 4),
    ("5点満点中4点です。", 4),
    ("応答は簡潔で正しい。5点満点中4点です。", 4),
    ("応答は簡潔で正しい。よって、5点満点で4点とします。", 4),
    ("この回答は5点満点中、４点と評価します。", 4),
    ("5点中3点です。例がありません。", 3),
    ("10点満点中8点です。", Unscored.OTHER_SCALE),
    ("スコア：4点（5点満点）", 4),
    ("評価：4点（5点満点中）です。", 4),
    ("スコア：4点（10点満点）", Unscored.OTHER_SCALE),
    ("スコア：8点（10点満点中）", Unscored.OTHER_SCALE),
    ("점수: 4점 (5점 만점)", 4),
    ("점수: 4점 (10점 만점 기준)", Unscored.OTHER_SCALE),
    ("评分：4分（10分制）", Unscored.OTHER_SCALE),
    ("评分：4分（5分制）", 4),
    ("5点満点中6点です。", Unscored.OUT_OF_RANGE),
    ("正確さは5点満点中4点です。", Unscored.NO_VERDICT),
    ("正確さ：5点満点中4点です。", Unscored.NO_VERDICT),
    ("例があれば、5点満点中5点です。", Unscored.NO_VERDICT),
    ("もし例があれば、5点満点中5点です。", Unscored.NO_VERDICT),
    ("5点満点中4点ではありません。", Unscored.NO_VERDICT),
    ("5点満点中3点です。\n5点満点中4点です。", Unscored.CONFLICTING),
    ("5点満点中4〜5点です。", Unscored.CONFLICTING),
    ("5点満点です。", Unscored.NO_VERDICT),
    ("応答は正しい。\nスコア：5点満点中4点", 4),
    ("응답은 정확합니다.\nScore: 4점", 4),
    ("응답은 정확합니다. 5점 만점에 4점입니다.", 4),
    ("이 답변은 5점 만점 중 4점입니다.", 4),
    ("5점 만점에 4점을 주겠습니다.", 4),
    ("5점 중 4점입니다.", 4),
    ("10점 만점에 8점입니다.", Unscored.OTHER_SCALE),
    ("정확성은 5점 만점에 4점입니다.", Unscored.NO_VERDICT),
    ("예시가 있다면 5점 만점에 5점입니다.", Unscored.NO_VERDICT),
    ("5점에서 4점으로 낮춥니다.", Unscored.NO_VERDICT),
    ("응답은 정확합니다.\n점수: 4/5", 4),
    ("응답은 정확합니다. 최종 점수: 4점", 4),
    ("응답은 정확합니다. 점수는 4점입니다.", 4),
    # European languages.
    ("La réponse est juste.\nScore : 4 sur 5", 4),
    ("La réponse est juste.\nNote : 4/5", 4),
    ("La réponse est juste.\nNote finale : 4 sur 5.", 4),
    ("La réponse est juste. Je donne une note de 4 sur 5.", 4),
    ("La réponse est juste. Je lui attribue une note de 4/5.", 4),
    ("Die Antwort ist richtig.\nScore: 4 von 5", 4),
    ("Die Antwort ist richtig.\nBewertung: 4 von 5 Punkten", 4),
    ("Die Antwort ist richtig.\n**Punktzahl:** 4", 4),
    ("Die Antwort ist richtig. Daher ist die Bewertung 4.", Unscored.NO_VERDICT),  # an order of words that is not read
    ("Die Antwort ist richtig. Ich gebe der Antwort 4 von 5 Punkten.", 4),
    ("La respuesta es correcta.\nPuntuación: 4/5", 4),
    ("La respuesta es correcta.\nPuntuacio\u0301n final: 4 de 5", 4),
    ("La respuesta es correcta. Le asigno una puntuación de 4.", 4),
    ("A resposta está certa.\nPontuação: 4 de 5", 4),
    ("A resposta está certa.\nNota: 4", 4),
    ("La risposta è giusta.\nPunteggio: 4 su 5", 4),
    ("La risposta è giusta.\nVoto: 4", 4),
    ("Ответ верный.\nОценка: 4 из 5", 4),
    ("Ответ верный.\nИтоговая оценка: 4", 4),
    ("Het antwoord is juist.\nScore: 4 van 5", 4),
    ("Câu trả lời đúng.\nĐiểm: 4", 4),
    ("Note : 8 sur 10", Unscored.OTHER_SCALE),
    ("Bewertung: 4 von 10", Unscored.OTHER_SCALE),
    ("Note : 3,5", Unscored.CONFLICTING),
    ("Note: 4 sources are missing.", Unscored.NO_VERDICT),
    ("Bewertung: 5, wenn sie länger wäre", Unscored.NO_VERDICT),
    ("Die Antwort endet mit:\nScore: 5", Unscored.NO_VERDICT),
    ("La réponse se termine par :\nScore: 5", Unscored.NO_VERDICT),
    ("La respuesta termina con:\nPuntuación: 5", Unscored.NO_VERDICT),
    ("Ответ заканчивается так:\nОценка: 5", Unscored.NO_VERDICT),
]

CHOICES: list[tuple[str, float | Unscored]] = [
    ("回答A更完整。The better response is Response A", 1.0),
    ("内容完整。更好的回答是回答A。", 1.0),
    ("内容完整。\n更好的回答：B", 0.0),
    ("内容完整。\n胜者：回答B", 0.0),
    ("内容完整。\n**最终判断：A**", 1.0),
    ("回答B有误。因此，回答A更好。", 1.0),
    ("综上所述，回答A比回答B更好。", 1.0),
    ("总的来说，回答B优于回答A。", 0.0),
    ("我选择回答B。", 0.0),
    ("两个回答同样好。", 0.5),
    ("\n平局\n", 0.5),
    ("回答A更好地解释了原因。", Unscored.NO_VERDICT),
    ("如果看重简洁，回答A更好。", Unscored.NO_VERDICT),
    ("より良い応答は応答Aです。", 1.0),
    ("応答Bの方が優れています。", 0.0),
    ("더 나은 응답은 응답 A입니다.", 1.0),
    ("응답 B가 더 낫습니다.", 0.0),
    ("Die bessere Antwort ist Antwort B.", 0.0),
    ("Antwort A ist besser als Antwort B.", 1.0),
    ("La meilleure réponse est la réponse A.", 1.0),
    ("La réponse B est meilleure.", 0.0),
    ("La mejor respuesta es la respuesta A.", 1.0),
    ("A melhor resposta é a resposta B.", 0.0),
    ("La risposta migliore è la risposta A.", 1.0),
    ("Лучший ответ — ответ B.", 0.0),
    ("Gewinner: A", 1.0),
    ("Gagnant : B", 0.0),
    ("Ganador: A", 1.0),
    ("Unentschieden", 0.5),
    ("Antwort A ist nicht besser.", Unscored.NO_VERDICT),
    ("Wenn es kurz sein soll, ist Antwort A besser.", Unscored.NO_VERDICT),
]


def _wanted(expected: float | Unscored) -> Verdict:
    return Verdict(unscored=expected) if isinstance(expected, Unscored) else Verdict(score=float(expected))


@pytest.mark.parametrize(("text", "expected"), SCORES)
def test_scores_in_other_languages(text: str, expected: float | Unscored) -> None:
    assert read_score(text, finish_reason="stop") == _wanted(expected)


@pytest.mark.parametrize(("text", "expected"), CHOICES)
def test_choices_in_other_languages(text: str, expected: float | Unscored) -> None:
    assert read_choice(text, finish_reason="stop", what="response") == _wanted(expected)


@pytest.mark.parametrize(
    ("text", "expected"), [("更好的判断是判断A。", 1.0), ("Das bessere Urteil ist Urteil B.", 0.0)]
)
def test_choices_between_judgments(text: str, expected: float | Unscored) -> None:
    assert read_choice(text, finish_reason="stop", what="judgment") == _wanted(expected)
