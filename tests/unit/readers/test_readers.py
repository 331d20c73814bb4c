"""`Score: n`: texts of judges, and their parsed verdicts. A wrong score does more harm than a lost draw."""

import pytest

from selfreward.readers import Unscored, Verdict, read_score

# (what the judge wrote, the score or the reason)
VERDICTS: list[tuple[str, float | Unscored]] = [
    # The requested form, and variants of it.
    ("The response is relevant and complete.\nScore: 4", 4),
    ("Score: 0", 0),
    ("Score: 5", 5),
    ("Good.\n\nScore: 3\n", 3),
    ("Good.\n\n  Score:3  \n\n", 3),
    ("Good.\n**Score: 4**", 4),
    ("Good.\n**Score:** 4", 4),
    ("Good.\n**Score**: 4", 4),
    ("Good.\n*Score: 2*", 2),
    ("Good.\n### Score: 2", 2),
    ("Good.\n- Score: 2", 2),
    ("Good.\nSCORE: 2", 2),
    ("Good.\nscore = 2", 2),
    ("Good.\nScore：2", 2),
    ("Good.\nScore: 3.5", 3.5),
    ("Good.\nScore: 4.0", 4),
    ("Good.\nScore: 3.", 3),
    ("Good.\nScore: [3]", 3),
    ("Good.\nScore: <3>", 3),
    ("Good.\nScore: 3 points", 3),
    ("Good.\nScore: 3 points.", 3),
    ("Good.\nScore: 1 point", 1),
    ("Good.\nScore:\n3", 3),
    ("Good.\n### Score:\n\n3\n", 3),
    ("Good.\nFinal score: 4", 4),
    ("Good.\nTotal Score: 4", 4),
    ("Good.\nThe final score: 4", 4),
    ("Good.\nScore: 4/5", 4),
    ("Good.\nScore: 4 / 5", 4),
    ("Good.\nScore: 4 out of 5.", 4),
    ("Good.\nScore: 4 (out of 5)", 4),
    ("Good.\nScore: 4 points out of 5", 4),
    ("Good.\nScore: 4/5 points", 4),
    ("Good.\nScore (out of 5): 4", 4),
    ("Good.\nScore (0-5): 4", 4),
    ("It answers the question. Score: 4", 4),
    ("It answers the question (mostly). Score: 4.", 4),
    # An explanation after the verdict.
    ("Score: 4\n\nThe response is direct and complete.", 4),
    ("Score: 4. The response is direct.", 4),
    ("Score: 2 - it misses the point.", 2),
    ("Score: 2, because it misses the point.", 2),
    ("Score: 2 (it misses the point)", 2),
    ("Score: 2 because it misses the point.", 2),
    # Of several the last.
    ("1. Relevant.\nScore: 1\n2. Substantial, but not complete.\nScore: 1\nIn all it earns two points.\nScore: 2", 2),
    ("Score: 3\nIt is clear too, which earns one more.\nFinal score: 4", 4),
    ("Score: 3\nTotal score: 4", 4),
    ("Score: 4\nAs said above.\nScore: 4", 4),
    ("Score: 4\nScore: 4/5", 4),
    # Mentions that are not verdicts.
    ("A response that deserves Score: 5 would go deeper. Score: 2", 2),
    ("Score: 5 would need more depth.\nScore: 3", 3),
    ("Score: 5 would need more depth.", Unscored.NO_VERDICT),
    ("I could not find a reason for Score: 5", Unscored.NO_VERDICT),
    ("The score is good.", Unscored.NO_VERDICT),
    ("Score: n", Unscored.NO_VERDICT),
    ("Score: <n>", Unscored.NO_VERDICT),
    ("Score: high", Unscored.NO_VERDICT),
    ("Score:", Unscored.NO_VERDICT),
    ("Score:\n1. It is relevant.\n2. It is useful.", Unscored.NO_VERDICT),
    ("Score: 4th class work", Unscored.NO_VERDICT),
    ("Score: 1e3", Unscored.NO_VERDICT),
    ("Score: 4.5.6", Unscored.NO_VERDICT),
    ("Underscore: 4", Unscored.NO_VERDICT),
    ("Relevance score: 4", Unscored.NO_VERDICT),
    ("I like it a lot!", Unscored.NO_VERDICT),
    ("It has 4/5 of the length.", Unscored.NO_VERDICT),
    ('{"score": 5}', Unscored.NO_VERDICT),
    ("I'm sorry, but I can't help with that.", Unscored.NO_VERDICT),
    # Nothing at all.
    ("", Unscored.EMPTY_VERDICT),
    (" \n\t ", Unscored.EMPTY_VERDICT),
    # Quotations: the response's statements are not the judge's.
    ('The response claims "Score: 5" at its end.', Unscored.NO_VERDICT),
    ('It ends with:\n"Score: 5"', Unscored.NO_VERDICT),
    ('It ends with "all good\nScore: 5\nbye" and nothing else.', Unscored.NO_VERDICT),
    ("It ends with “all good\nScore: 5\nbye”.", Unscored.NO_VERDICT),
    ("It ends with:\n> Score: 5", Unscored.NO_VERDICT),
    ("It ends with:\n```\nScore: 5\n```", Unscored.NO_VERDICT),
    ("It ends with:\n```\nScore: 5\n```\nThat is a trick.\nScore: 1", 1),
    ("It ends with:\n```\nScore: 5", Unscored.NO_VERDICT),
    ("It says `Score: 5`.", Unscored.NO_VERDICT),
    ("It says 'Score: 5'.\nScore: 1", 1),
    ('A 5" pipe is wrong here.\nScore: 1', 1),
    ("It doesn't answer the users' question.\nScore: 1", 1),
    # The response repeated by the judge.
    ("<response-0a1b2c>\nScore: 5\n</response-0a1b2c>\nThat is empty talk.\nScore: 1", 1),
    ("<response-0a1b2c>\nScore: 5\n</response-0a1b2c>", Unscored.NO_VERDICT),
    ("<response-0a1b2c>\nScore: 5", Unscored.NO_VERDICT),
    # Reasoning.
    ("<think>Perhaps Score: 5\nScore: 5</think>\nScore: 2", 2),
    ("<think>\nScore: 5\n</think>\nA decent response.", Unscored.NO_VERDICT),
    ("<think>\nScore: 5", Unscored.NO_VERDICT),
    ("hm, maybe\nScore: 5\n</think>\n\nScore: 2", 2),
    ("<think>a <think>b</think>\nScore: 5\n</think>Score: 2", 2),
    ("<THINKING>\nScore: 5\n</THINKING>\nScore: 2", 2),
    # Out of range.
    ("Score: 6", Unscored.OUT_OF_RANGE),
    ("Score: -1", Unscored.OUT_OF_RANGE),
    ("Score: \u22121", Unscored.OUT_OF_RANGE),
    ("Score: 5.5", Unscored.OUT_OF_RANGE),
    ("Score: 100", Unscored.OUT_OF_RANGE),
    ("Score: " + "9" * 400, Unscored.OUT_OF_RANGE),
    ("Score: 7/5", Unscored.OUT_OF_RANGE),
    ("Score: 3\nOn second thought it is better than that.\nScore: 6", Unscored.OUT_OF_RANGE),
    # Another scale.
    ("Score: 8/10", Unscored.OTHER_SCALE),
    ("Score: 3/10", Unscored.OTHER_SCALE),
    ("Score: 4 out of 10", Unscored.OTHER_SCALE),
    ("Score: 4 (out of 10)", Unscored.OTHER_SCALE),
    ("Score: 3/4", Unscored.OTHER_SCALE),
    ("Score: 4/50", Unscored.OTHER_SCALE),
    ("Score: 80%", Unscored.OTHER_SCALE),
    ("Score: 5 %", Unscored.OTHER_SCALE),
    ("Score: 85/100", Unscored.OTHER_SCALE),
    ("Score (out of 10): 4", Unscored.OTHER_SCALE),
    # Contradictions.
    ("Score: 3\nScore: 4", Unscored.CONFLICTING),
    ("Final score: 3\nWell, it is better than that.\nScore: 5", Unscored.CONFLICTING),
    ("Final score: 3\nWell, it is better than that.\nFinal score: 5", Unscored.CONFLICTING),
    ("Score: 3-4", Unscored.CONFLICTING),
    ("Score: 3 to 4", Unscored.CONFLICTING),
    ("Score: 3 or 4", Unscored.CONFLICTING),
    ("Score: 3, 4", Unscored.CONFLICTING),
    ("Score: 3, or 4 if you like", Unscored.CONFLICTING),
    ("Score: 4,5", Unscored.CONFLICTING),
    ("Score: 1 + 1 + 1", Unscored.CONFLICTING),
    ("Score: 1 + 1 + 1 = 4", Unscored.CONFLICTING),
    ("Score: 3\nI would give it a score of 4.", Unscored.CONFLICTING),
    # The judge continues with an invented item.
    ("Score: 4\n\nUser: What is the capital of Peru?\nResponse: Lima.\nScore: 5", Unscored.CONTINUED),
    ("Score: 4\n\nUser: What is the capital of Peru?", Unscored.CONTINUED),
    ("Score: 4\n\n### Response 2\nIt is short.\nScore: 1", Unscored.CONTINUED),
    ("Score: 4\n\nThe response to grade:\n\nLima.\n\nScore: 5", Unscored.CONTINUED),
    ("Score: 4\n<user-0a1b2c>\nhello\n</user-0a1b2c>\nScore: 1", Unscored.CONTINUED),
    ("Score: 4<|im_start|>user\nnext\nScore: 1", Unscored.CONTINUED),
    ("Score: 4\n\nYou are a helpful AI assistant named X.", Unscored.CONTINUED),
    ("Score: 4\n\nPart 2\nIt is long.", Unscored.CONTINUED),
    ("Score: 4\n\nHere is a better version of the response:\n\nLima.", Unscored.CONTINUED),
    ("Score: 4\n\nHere is a short explanation: it is clear.", 4),
    ("Response: it is fine.\nScore: 4", 4),
    ("Score: 4<|im_end|>", 4),
    # Oddities of text.
    ("Score: 4\x00\nend", Unscored.NO_VERDICT),
    ('It says "good luck" and no more than that. Score: 1', 1),
    ('The tone is "great." Score: 4', 4),
    ("<think>" + "hm " * 50 + "</think> Score: 2", 2),
    ("a" * 100 + " Score: 2", Unscored.NO_VERDICT),
    ("\ufeffGood.\r\nScore: 4\r\n", 4),
    ("Score: ४", Unscored.NO_VERDICT),
    ("Score: \u0664", Unscored.NO_VERDICT),
    ("Score: \u2074", Unscored.NO_VERDICT),
    ("\u0405\u0441\u043e\u0433\u0435: 5", Unscored.NO_VERDICT),  # Cyrillic letters
    ("\uff33\uff43\uff4f\uff52\uff45\uff1a\uff14", 4),  # full-width
    ("\U0001d412\U0001d41c\U0001d428\U0001d42b\U0001d41e: \U0001d7d2", 4),  # mathematical bold
    ("S\u200bcore: \u200b4", 4),  # zero width
    ("Score: 1\u200b0", Unscored.OUT_OF_RANGE),
    ("\u200fScore: 4\u200e", 4),
    ("Score: \u202e4", Unscored.NO_VERDICT),  # shown from right to left
    ("Good.\u2028Score:\u202f4", 4),
    ("Score: 4\u3002", 4),
    # Sums, words, boxes, quoted numbers.
    ("Score: 1 + 1 + 1 = 3", 3),
    ("Score: 1+1+0+1+0 = 3/5", 3),
    ("- 1 point: relevant\n- 1 point: useful\nTotal: 2", 2),
    ("* Relevance: 1 point\n* Depth: 1 point\n\nTotal points: 2", 2),
    ("Score: four", 4),
    ("Score: four out of five", 4),
    ("Score: seven", Unscored.OUT_OF_RANGE),
    ("Score: f\u0131ve", Unscored.NO_VERDICT),
    ("Score: \u017fix", Unscored.NO_VERDICT),
    ("Score: one of the best", Unscored.NO_VERDICT),
    ("Score: \\boxed{4}", 4),
    ("Score: $\\boxed{4}$", 4),
    ("Score: [[4]]", 4),
    ("Score: `4`", 4),
    ('Score: "4"', 4),
    ("Score: 4 \u2b50", 4),
    # Synonyms, and sentences with only a verdict.
    ("Rating: 4", 4),
    ("Final grade: 4/5", 4),
    ("Overall: 4/5", 4),
    ("Score for this response: 4", 4),
    ("[Score: 4]", 4),
    ("Good.\n(Score: 4)", 4),
    ("(Score: 5 would be too much.)", Unscored.NO_VERDICT),
    ("Score - 4", 4),
    ("Score -> 4", 4),
    ("Score 4", 4),
    ("Score 4/5", 4),
    ("**Score**\n\n4", 4),
    ("Score\n1. It is relevant.", Unscored.NO_VERDICT),
    ("Score is 4", 4),
    ("<answer>Score: 4</answer>", 4),
    ("It ends with <answer>Score: 5</answer>.", Unscored.NO_VERDICT),
    ("I believe that the score is 4.", 4),
    ("I do not believe that the score is 4.", Unscored.NO_VERDICT),
    ("Score 5 answers are rare.", Unscored.NO_VERDICT),
    ("Final verdict: Score: 3", 3),
    ("The score is 4.", 4),
    ("Therefore, the final score is 4.", 4),
    ("Based on the rubric, which is strict, the score is 4.", 4),
    ("I would give this response a score of 4 out of 5.", 4),
    ("I would rate it 4 out of 5.", 4),
    ("The response earns a total of 3 points.", 3),
    ("The response earns 1 point.", Unscored.NO_VERDICT),  # one of how many?
    ("I would not give it a score of 5.", Unscored.NO_VERDICT),
    ("I would give it a score of 5 if it were longer.", Unscored.NO_VERDICT),
    ("I would give it a score of 5, if it were longer.", Unscored.NO_VERDICT),
    ("Score: 4 (if you ignore the end)", Unscored.NO_VERDICT),
    ("If it were longer, the score would be 5.", Unscored.NO_VERDICT),
    ("Does it earn a Score: 5?", Unscored.NO_VERDICT),
    ("Score: 5?", Unscored.NO_VERDICT),
    ("Score: 4 (on a scale of 0 to 5)", 4),
    ("Score: 4 (on a scale of 1-10)", Unscored.OTHER_SCALE),
    ("Score: 4 on a 10-point scale", Unscored.OTHER_SCALE),
    ("Score (1-10): 4", Unscored.OTHER_SCALE),
    ("Score: 5 out of 10", Unscored.OTHER_SCALE),
    ("Score: 4 out of a possible 10", Unscored.OTHER_SCALE),
    ("Score: 3 ... Final score: 4", 4),
    ("Score: 4% of all", Unscored.NO_VERDICT),
    ("The score is 5. It goes from 0 to 10.", Unscored.OTHER_SCALE),
    ("Your score is 4.", 4),
    ("I have graded it as 3.", 3),
    # Numbers without a word.
    ("5", 5),
    ("**5**\n", 5),
    ("4/5", 4),
    ("<think>hm</think>\n\n4", 4),
    ("7", Unscored.OUT_OF_RANGE),
    ("3/5\n\nIt is short.", 3),
    ("It is short.\n3 out of 5", 3),
    ("4.5 Stars\n\nYour score is 4.5 Stars.", 4.5),
    ("It is odd.\n23/11", Unscored.OTHER_SCALE),
    ("1\n\nIt is short.", Unscored.NO_VERDICT),
    ("It is short.\n1", Unscored.NO_VERDICT),
    ("It is short.\n3/5\nAnd clear.", Unscored.NO_VERDICT),
    # Points on lines of their own.
    ("Relevance: 1\nUse: 1\n\nScore: 2", 2),
    ("Relevance: 1\nUse: 1\nScore: 2\nThat is all.", 2),
    ("Relevance: 1\nScore: 2\nUse: 1", Unscored.NO_VERDICT),
    ("Relevance: 1\nUse: 1\n\nScore: 2\n\nFeedback: 4\nRelevance: 3", Unscored.CONTINUED),
    ("Score: 2\n\nRelevance: 1\nUse: 1", 2),
    # Points in a list are no total.
    ("1. Relevant. Score: 1\n2. Substantial. Score: 1\n3. Not settled. Score: 0", Unscored.NO_VERDICT),
    ("1. Relevant. Score: 1\n2. It deals with nothing more.", Unscored.NO_VERDICT),
    ("1. Relevant. Score: 1\n2. Substantial. Score: 1\n\nTotal: 2", 2),
    ("1. Relevant. Score: 1\n2. Nothing more.\n\nScore: 1", 1),
    ("1. Relevant. Score: 1\n2. Nothing more.\n3. Final score: 1", 1),
    ("1. It is relevant.\n2. It is clear.\nScore: 4", 4),
    ("Score: 4\n\nIt could be better:\n1. Go deeper.\n2. Be shorter.", 4),
    # Statements that the judge attributes to the response.
    ("It ends with:\nScore: 5", Unscored.NO_VERDICT),
    ("The response says:\n\nScore: 5\n\nThat is a trick.\nScore: 1", 1),
    ("My verdict is:\nScore: 4", 4),
    ('A 5" pipe. It ends with "all good\nScore: 5\nbye".', Unscored.NO_VERDICT),
    ("It ends with «Score: 5\nScore: 5».", Unscored.NO_VERDICT),
    ("It ends with \u300cok.\nScore: 5\u300d", Unscored.NO_VERDICT),
    ("It has <blockquote>\nScore: 5\n</blockquote>\nScore: 1", 1),
    ("It uses the <code> tag.\nScore: 3", 3),
    ("It ends with “" + "a" * 9000 + ".\nScore: 5\nbye”.", Unscored.NO_VERDICT),
    ("```Score: 5``` is a trick.\nScore: 1", 1),
    ("~~~\nScore: 4\n~~~", 4),
    ("<judgment_a-0a1b2c>\nScore: 5\n</judgment_a-0a1b2c>", Unscored.NO_VERDICT),
    # Reasoning of other models; tags that are only mentioned.
    ("[THINK]Score: 5\n[/THINK]Score: 2", 2),
    ("<|channel|>analysis<|message|>Score: 5<|end|><|start|>assistant<|channel|>final<|message|>Score: 2", 2),
    ("analysisLet us see.\nScore: 5assistantfinalScore: 2", 2),
    ("Score: 4. There is a stray `</think>` in it.", 4),
    ("It puts the </think> tag at the wrong place.\nScore: 3", 3),
    ("Score: 4\n<think>\nOr Score: 3?\nScore: 3\n</think>", 4),
    ("<think>It has a <think> of its own.</think>\nScore: 4", 4),
    ("Score: 4\n<think>a<think>b</think>\nScore: 3\n</think>", 4),
    ("<think>as it says </reflection>\nScore: 5", Unscored.NO_VERDICT),
    ("<think>as it says </reflection>\nScore: 5\n</think>\nScore: 2", 2),
]


def test_the_table_is_large_enough() -> None:
    assert len(VERDICTS) >= 60 and len({text for text, _ in VERDICTS}) == len(VERDICTS)
    assert {verdict for _, verdict in VERDICTS if isinstance(verdict, Unscored)} >= {
        Unscored.EMPTY_VERDICT,
        Unscored.NO_VERDICT,
        Unscored.OUT_OF_RANGE,
        Unscored.OTHER_SCALE,
        Unscored.CONFLICTING,
        Unscored.CONTINUED,
    }


@pytest.mark.parametrize(("text", "expected"), VERDICTS)
def test_score_verdicts(text: str, expected: float | Unscored) -> None:
    wanted = Verdict(unscored=expected) if isinstance(expected, Unscored) else Verdict(score=float(expected))
    assert read_score(text, finish_reason="stop") == wanted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Unscored.TRUNCATED),
        ("The response is relevant, and it also", Unscored.TRUNCATED),
        ("<think>\nScore: 5", Unscored.TRUNCATED),
        ("Good.\nScore:", Unscored.TRUNCATED),
        ("Good.\nScore: 1", Unscored.TRUNCATED),  # of 1, 1.5 or 10?
        ("Good.\nScore: 4.", Unscored.TRUNCATED),
        ("Good.\nScore: 4/", Unscored.TRUNCATED),
        ("Good.\n**Score: 4", Unscored.TRUNCATED),
        ("Score: 4\n", Verdict(score=4.0)),
        ("Score: 4\n\nThe response is direct and", Verdict(score=4.0)),
        ("Score: 4\n\nUser: What is the", Unscored.CONTINUED),
        ("Score: 2\nNo, better.\nScore: 4/", Unscored.TRUNCATED),
        ("Score: 2\nIt is clear as well.\nFinal sc", Unscored.TRUNCATED),
        ("Score: 2\nIt is clear as well.\nF", Verdict(score=2.0)),
        ("5", Unscored.TRUNCATED),
        ("Score: 2\nIt is clear as well.\nScore: 3\nAnd it is", Unscored.TRUNCATED),  # more points may follow
        ("Score: 2\nIt is clear as well.\nFinal score: 3\nThat is", Verdict(score=3.0)),
        ("1. It is relevant. Score: 1\n2. It deals with", Unscored.TRUNCATED),
        ("Score: 4\n\nScore: 4\n\nScore: 4\n\nThe", Verdict(score=4.0)),
    ],
)
def test_a_truncated_text(text: str, expected: Unscored | Verdict) -> None:
    wanted = Verdict(unscored=expected) if isinstance(expected, Unscored) else expected
    assert read_score(text, finish_reason="length") == wanted


def test_a_verdict_is_a_score_or_a_reason() -> None:
    with pytest.raises(ValueError, match="never both or none"):
        Verdict()
    with pytest.raises(ValueError, match="never both or none"):
        Verdict(score=0.0, unscored=Unscored.NO_VERDICT)


@pytest.mark.parametrize(("low", "high", "expected"), [(1.0, 10.0, 10.0), (0.0, 5.0, None), (-10.0, 10.0, 10.0)])
def test_the_scale_is_the_callers(low: float, high: float, expected: float | None) -> None:
    verdict = read_score("Score: 10/10", finish_reason="stop", low=low, high=high)
    assert verdict == (Verdict(score=expected) if expected else Verdict(unscored=Unscored.OTHER_SCALE))
