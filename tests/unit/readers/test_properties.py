"""Invariants of every parser for every text: it never raises, leaves its scale, or is slow."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.readers import Unscored, Verdict, read_choice, read_json_score, read_score, without_reasoning
from selfreward.readers.score_patterns import NEVER_IN_ASCII
from selfreward.records import FinishReason

Reader = Callable[[str, FinishReason], Verdict]

# By form: the reader, and clean final verdicts with their scores.
READERS: dict[str, tuple[Reader, dict[str, float]]] = {
    "score": (
        lambda text, finish_reason: read_score(text, finish_reason=finish_reason),
        {"Score: 2": 2.0, "Final score: 4": 4.0, "**Score: 0**": 0.0, "Score: 3/5": 3.0},
    ),
    "response": (
        lambda text, finish_reason: read_choice(text, finish_reason=finish_reason, what="response"),
        {"The better response is Response A": 1.0, "Winner: B": 0.0, "Final verdict: tie": 0.5},
    ),
    "judgment": (
        lambda text, finish_reason: read_choice(text, finish_reason=finish_reason, what="judgment"),
        {"The better judgment is Judgment A": 1.0, "**Better judgment: B**": 0.0},
    ),
    "json": (
        lambda text, finish_reason: read_json_score(text, finish_reason=finish_reason, low=0.0, high=5.0),
        {'{"explanation": "Fine.", "score": 2}': 2.0, '```json\n{"score": 3}\n```': 3.0},
    ),
}
CLEAN = [(form, line, score) for form, (_, lines) in READERS.items() for line, score in lines.items()]

_PIECES = st.sampled_from(
    (
        *(
            "Score: ",
            "score",
            "Final ",
            "Total",
            " is ",
            "4",
            "5",
            "10",
            "/",
            "/5",
            "/10",
            "%",
            "-",
            " out of ",
            "points",
        ),
        *(
            "9" * 50,
            "four",
            " + ",
            " = ",
            "I would give it ",
            "The response earns a score of ",
            "\uff14",
            "\u0664",
            "1. ",
        ),
        *(
            "The better response is ",
            "The better judgment is ",
            "Response ",
            "Judgment ",
            "A",
            "B",
            "C",
            "[[A]]",
            "tie",
        ),
        *(" is better", " than ", "Winner: ", "Verdict", "Both responses are equally good", "I prefer ", "However, "),
        *(
            '{"explanation": "',
            '"score": ',
            '", "score": ',
            "{",
            "}",
            "[",
            "]",
            "NaN",
            "Infinity",
            "null",
            ",",
            ":",
            "\\",
        ),
        *("\n", "\n\n", "\r\n", "\u2028", " ", "\t", ". ", "**", "(", ")", "# ", "because ", "and ", "if ", "\x00"),
        *(
            "\ud800",
            "\u202e",
            "\u200b",
            "\ufeff",
            '"',
            "“",
            "”",
            "'",
            "`",
            "```\n",
            "> ",
            "«",
            "»",
            "<code>",
            "</code>",
        ),
        *("<think>", "</think>", "<thinking>", "</thinking>", "[THINK]", "<|channel|>analysis<|message|>", "analysisX"),
        *("assistantfinal", "<response-0a1b2c>", "</response-0a1b2c>", "User:", "<|im_start|>", "It says:\n"),
    )
)
_HOSTILE = st.lists(_PIECES | st.text(max_size=5), max_size=30).map("".join)
_FORM = st.sampled_from(sorted(READERS))
_FINISH: st.SearchStrategy[FinishReason] = st.sampled_from(["stop", "length"])


@settings(max_examples=200, deadline=None)
@given(text=_HOSTILE | st.text(), form=_FORM, finish_reason=_FINISH)
def test_no_text_makes_a_reader_raise_and_no_score_leaves_the_scale(
    text: str, form: str, finish_reason: FinishReason
) -> None:
    verdict = READERS[form][0](text, finish_reason)
    if verdict.score is None:
        assert verdict.unscored in set(Unscored)
    else:
        assert 0 <= verdict.score <= 5 if form in ("score", "json") else verdict.score in (0.0, 0.5, 1.0)


@settings(max_examples=200, deadline=None)
@given(inside=_HOSTILE, form=_FORM, name=st.sampled_from(["think", "THOUGHT", "reasoning"]))
def test_nothing_inside_reasoning_becomes_a_verdict(inside: str, form: str, name: str) -> None:
    closing = f"</{name}>"
    inside = inside.replace(closing.lower(), "").replace("assistantfinal", "")
    for text in (f"<{name}>{inside}", f"<{name}>{inside}\n{closing}", f"{inside}\n{closing}"):
        assert READERS[form][0](text, "stop").score is None


@settings(max_examples=200, deadline=None)
@given(inside=_HOSTILE, clean=st.sampled_from(CLEAN), marks=st.sampled_from(["“”", "«»", "「」"]))
def test_nothing_inside_a_quotation_becomes_a_verdict(inside: str, clean: tuple[str, str, float], marks: str) -> None:
    form, line, _ = clean
    inside = "".join(c for c in inside if c not in "“”„«»「」<>[◁`~\"'")
    text = f"It ends with {marks[0]}{inside}\n{line}\n{marks[1]}"
    assert READERS[form][0](text, "stop").score is None


@settings(max_examples=200, deadline=None)
@given(
    said=st.text(
        alphabet=st.characters(blacklist_characters="\"'‘“”«»„‹›「」『』`~<>◁{}[]|:", blacklist_categories=("Cs",)),
        max_size=80,
    ),
    clean=st.sampled_from(CLEAN),
)
def test_a_clean_last_line_is_the_verdict_after_any_text(said: str, clean: tuple[str, str, float]) -> None:
    """Unless the earlier text itself contains a verdict, or an open quotation."""
    form, line, score = clean
    assert READERS[form][0](f"- {said}.\n\n{line}\n", "stop") == Verdict(score=score)


@settings(max_examples=200, deadline=None)
@given(before=_HOSTILE, clean=st.sampled_from(CLEAN))
def test_closed_reasoning_before_a_verdict_does_not_change_it(before: str, clean: tuple[str, str, float]) -> None:
    form, line, score = clean
    before = before.replace("</think>", "").replace("analysis", "")
    assert READERS[form][0](f"<think>{before}\n</think>\n{line}\n", "stop") == Verdict(score=score)


@settings(max_examples=200, deadline=None)
@given(text=_HOSTILE, form=_FORM, finish_reason=_FINISH, line_end=st.sampled_from(["\r\n", "\r", "\u2028"]))
def test_other_line_ends_do_not_change_a_verdict(
    text: str, form: str, finish_reason: FinishReason, line_end: str
) -> None:
    plain = text.replace("\r", "").replace("\u2028", "\n").replace("\\", "")
    read = READERS[form][0]
    assert read(plain.replace("\n", line_end), finish_reason) == read(plain, finish_reason)


@settings(max_examples=200, deadline=None)
@given(text=_HOSTILE, form=_FORM)
def test_a_truncated_text_never_has_another_score_than_the_complete_text(text: str, form: str) -> None:
    cut, whole = (READERS[form][0](text, finish_reason) for finish_reason in ("length", "stop"))
    assert cut.score is None or cut == whole


_OVER_AND_OVER = (
    *(
        "<think>",
        "</think>",
        "<think></think>",
        "<q>",
        "<pre></pre>",
        "<|",
        "<|channel|>analysis<|message|>",
        "analysisA",
    ),
    *(
        '"',
        "'",
        "`a",
        "“",
        "```",
        "~~~\n",
        "> ",
        "\n",
        " ",
        "*",
        "_",
        "#",
        "- ",
        "a",
        "9",
        "\\",
        "\x00",
        "\u200b",
        "\u202e",
    ),
    *(
        "Score: ",
        "Score: 4 ",
        "Score: 4\n",
        "Score: 4. ",
        "1. Score: 1\n",
        "Score (",
        "Score: 1 + ",
        "the final score ",
    ),
    *(
        "total ",
        "final ",
        "it says:\n",
        "it it says says ",
        ":\n\n",
        "based on ",
        "so, ",
        "User:",
        "I ",
        "A ",
        "[[A]] ",
    ),
    *(
        "The better response is ",
        "The better response is Response A. ",
        "Response A is better. ",
        "both ",
        "the better ",
    ),
    *(
        "Relevance: 1\n",
        "Relevance: 1\nScore: 1\n",
        "4/5\n",
        "\n\n* ",
        "\n\na",
        "Response A (or B) ",
        "Response A, as ",
    ),
    *(
        "no, ",
        "the following.\n",
        "the form is the form ",
        "Score: 4 (",
        "Score: 4, reduced to ",
        "Actually, it earns 4. ",
    ),
    *("I would lower it to 4. ", "| Score | 4 |\n", "Response: The response is "),
    *("{'score': ", "score: 4, ", "A is not better as B is. ", "Response A is better, but "),
    *("{", '{"', '{"a":', '{"a":[', '{"score": 4}', '{"score": 4}\n', '{"x":"', "["),
)
LONG = {
    **{f"{piece!r} over and over": piece for piece in _OVER_AND_OVER},
    **{
        f"{piece!r} over and over": piece
        for piece in ("好", "，", "评分：4。", "回答A更好。", "<b>", "<score>", "\\boxed{")
    },
    **{f"{piece!r} over and over": piece for piece in ("Improved response:\n", "if it had ", "I award 4 points. ")},
}
_SHORT = 2_000  # characters


def _seconds(read: Reader, text: str) -> float:
    started = time.process_time()
    read(text, "length")
    return time.process_time() - started


@pytest.mark.parametrize("name", LONG)
@pytest.mark.timeout(60)
def test_the_time_of_hostile_texts_grows_with_their_length(name: str) -> None:
    """Below the limit of what is read: the time for four times the text is about four times the time."""
    for read, _ in READERS.values():
        short, long = (LONG[name] * (length // len(LONG[name])) for length in (_SHORT, 4 * _SHORT))
        read(short, "length")  # compile the patterns
        allowed = 10 * max(_seconds(read, short), 0.005)
        assert any(_seconds(read, long) < allowed for _ in range(3))


@pytest.mark.parametrize(
    "text",
    [
        *(
            piece * (5_000_000 // len(piece))
            for piece in ("a", " ", "\n", "9", "[", '{"a":', "*", "Score: ", "Score: 4. ", "好")
        ),
        "Score:" + " " * 5_000_000 + "4",
        "Score: " + "1 + " * 1_250_000 + "1 = 5",
        "<think>" + "hm " * 1_600_000 + "</think>\nScore: 4",
    ],
    ids=lambda text: f"{text[:8]!r}",
)
@pytest.mark.timeout(60)
def test_only_the_beginning_and_the_end_of_an_enormous_text_are_read(text: str) -> None:
    for read, _ in READERS.values():
        assert min(_seconds(read, text) for _ in range(2)) < 1.0


@pytest.mark.parametrize("text", ["<think>" * 700_000, "<think>" + "the <think> tag " * 300_000, "</think>" * 600_000])
def test_removing_reasoning_looks_for_the_end_tag_alone(text: str) -> None:
    started = time.process_time()
    without_reasoning(text)
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize(("form", "line", "score"), CLEAN)
def test_a_verdict_at_the_end_or_beginning_of_an_enormous_text_is_read(form: str, line: str, score: float) -> None:
    read = READERS[form][0]
    assert read("It is clear. " * 100_000 + "\n\n" + line, "stop") == Verdict(score=score)
    assert read(line + "\n\n" + "It is clear. " * 100_000, "stop") == Verdict(score=score)
    assert read("<think>" + "Hm. " * 40_000 + "</think>\n" + line, "stop") == Verdict(score=score)
    unclosed = read("<think>" + "Hm. " * 400_000 + "\n" + line, "stop")
    assert unclosed.score is None


@given(st.text(st.characters(max_codepoint=127), max_size=60), st.sampled_from(["Score: 4", "score of 3", "5/5", "."]))
def test_patterns_that_are_left_out_for_ascii_never_match_it(text: str, end: str) -> None:
    assert not [pattern.pattern for pattern in NEVER_IN_ASCII if pattern.search(text + end)]
