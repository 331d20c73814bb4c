"""What a judge may write, and what is read from it. A wrong score does more harm than a lost draw."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.templates import Unscored, Verdict, read_additive

# (what the judge wrote, the score or the reason)
VERDICTS: list[tuple[str, float | Unscored]] = [
    # The form that was asked for, and what models make of it.
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
    ("5", Unscored.NO_VERDICT),
    ("4/5", Unscored.NO_VERDICT),
    ('{"score": 5}', Unscored.NO_VERDICT),
    ("I'm sorry, but I can't help with that.", Unscored.NO_VERDICT),
    # Nothing at all.
    ("", Unscored.EMPTY_VERDICT),
    (" \n\t ", Unscored.EMPTY_VERDICT),
    # Quotations: what the response says of itself is not what the judge says of it.
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
    ("Score: 1 + 1 + 1 = 3", Unscored.CONFLICTING),
    # The judge goes on to an item of its own making.
    ("Score: 4\n\nUser: What is the capital of Peru?\nResponse: Lima.\nScore: 5", Unscored.RAN_ON),
    ("Score: 4\n\nUser: What is the capital of Peru?", Unscored.RAN_ON),
    ("Score: 4\n\n### Response 2\nIt is short.\nScore: 1", Unscored.RAN_ON),
    ("Score: 4\n\nThe response to grade:\n\nLima.\n\nScore: 5", Unscored.RAN_ON),
    ("Score: 4\n<user-0a1b2c>\nhello\n</user-0a1b2c>\nScore: 1", Unscored.RAN_ON),
    ("Score: 4<|im_start|>user\nnext\nScore: 1", Unscored.RAN_ON),
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
]


def test_the_table_is_of_a_size_that_means_something() -> None:
    assert len(VERDICTS) >= 60 and len({text for text, _ in VERDICTS}) == len(VERDICTS)
    assert {verdict for _, verdict in VERDICTS if isinstance(verdict, Unscored)} >= {
        Unscored.EMPTY_VERDICT,
        Unscored.NO_VERDICT,
        Unscored.OUT_OF_RANGE,
        Unscored.OTHER_SCALE,
        Unscored.CONFLICTING,
        Unscored.RAN_ON,
    }


@pytest.mark.parametrize(("text", "expected"), VERDICTS)
def test_additive_verdicts(text: str, expected: float | Unscored) -> None:
    wanted = Verdict(unscored=expected) if isinstance(expected, Unscored) else Verdict(score=float(expected))
    assert read_additive(text, finish_reason="stop") == wanted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The response is relevant, and it also", Unscored.CUT_OFF),
        ("<think>\nScore: 5", Unscored.CUT_OFF),
        ("Good.\nScore:", Unscored.CUT_OFF),
        ("Good.\nScore: 1", Unscored.CUT_OFF),  # of 1, 1.5 or 10?
        ("Good.\nScore: 4.", Unscored.CUT_OFF),
        ("Good.\nScore: 4/", Unscored.CUT_OFF),
        ("Good.\n**Score: 4", Unscored.CUT_OFF),
        ("Score: 4\n", Verdict(score=4.0)),
        ("Score: 4\n\nThe response is direct and", Verdict(score=4.0)),
        ("Score: 4\n\nUser: What is the", Unscored.RAN_ON),
    ],
)
def test_a_text_cut_at_the_token_limit(text: str, expected: Unscored | Verdict) -> None:
    wanted = Verdict(unscored=expected) if isinstance(expected, Unscored) else expected
    assert read_additive(text, finish_reason="length") == wanted


def test_a_verdict_is_a_score_or_a_reason() -> None:
    with pytest.raises(ValueError, match="never both or none"):
        Verdict()
    with pytest.raises(ValueError, match="never both or none"):
        Verdict(score=0.0, unscored=Unscored.NO_VERDICT)


_PIECES = st.sampled_from(
    (
        *("Score: ", "score:", "Final ", "4", "5", "10", "/", "/5", "/10", "%", "-", " out of ", "points", "9" * 50),
        *("\n", "\n\n", " ", ". ", "**", "(", ")", "[", "]", "because ", "and ", "\x00", "\ud800", "\u202e"),
        *('"', "“", "”", "'", "`", "```\n", "> ", "<think>", "</think>", "<response-0a1b2c>", "</response-0a1b2c>"),
        *("User:", "<|im_start|>"),
    )
)
_HOSTILE = st.lists(_PIECES | st.text(max_size=5), max_size=30).map("".join)


@settings(max_examples=500, deadline=None)
@given(text=_HOSTILE | st.text(), finish_reason=st.sampled_from(["stop", "length"]))
def test_no_text_raises_and_no_score_leaves_the_scale(text: str, finish_reason: str) -> None:
    verdict = read_additive(text, finish_reason=finish_reason)  # type: ignore[arg-type]
    assert verdict.unscored in set(Unscored) if verdict.score is None else 0 <= verdict.score <= 5


@settings(max_examples=300, deadline=None)
@given(inside=_HOSTILE)
def test_nothing_inside_reasoning_becomes_a_verdict(inside: str) -> None:
    verdict = read_additive("<think>" + inside.replace("</think>", ""), finish_reason="stop")
    assert verdict.score is None


@settings(max_examples=300, deadline=None)
@given(
    said=st.text(alphabet=st.characters(blacklist_characters='"“”«»„`<>', blacklist_categories=("Cs",)), max_size=80)
)
def test_a_plain_final_line_is_read_whatever_was_said_before(said: str) -> None:
    """Unless what was said holds a verdict itself, or ends in the middle of a quotation."""
    verdict = read_additive(f"{said.replace('core', '').replace(chr(39), '')}\nScore: 2\n", finish_reason="stop")
    assert verdict == Verdict(score=2.0)


@pytest.mark.parametrize(
    "text",
    (
        *("<think>" * 20_000, "</think>" * 20_000, '"' * 100_001, "'" * 100_000, "`a" * 50_000, "“" * 100_000),
        *(
            "Score: " * 20_000,
            "Score: 4 " * 20_000,
            "Score:" + " " * 100_000,
            "Score: " + "9" * 100_000,
            "\n" * 100_000,
        ),
    ),
)
@pytest.mark.timeout(20)
def test_long_hostile_texts_are_read_in_linear_time(text: str) -> None:
    read_additive(text, finish_reason="length")
