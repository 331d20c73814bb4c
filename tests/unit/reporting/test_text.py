"""Untrusted text cannot hide characters, reorder them or end its block, regardless of its content."""

import re
import unicodedata
from html.parser import HTMLParser

from cases.reporting import HALF_SURROGATE, HOSTILE
from hypothesis import example, given
from hypothesis import strategies as st

from selfreward.reporting.text import clip, code_span, fenced, one_line, prose, visible, visible_name

ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=60)
MARKDOWN = st.text(st.sampled_from("`~#|*_<>&[]()!\\ \n-=ab1."), max_size=40)


@given(ANY_TEXT)
@example(HOSTILE)
@example(HALF_SURROGATE)
def test_no_invisible_character_remains(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    for character in shown:
        category = unicodedata.category(character)
        assert character in "\n\t\u200c\u200d" or category not in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}, hex(
            ord(character)
        )


def test_invisible_characters_are_named() -> None:
    assert visible("a\x1b[2J\u202eb\ud800\x9b\r\n\u200b") == "a⟦ESC⟧[2J⟦U+202E⟧b⟦U+D800⟧⟦U+009B⟧⟦CR⟧\n⟦U+200B⟧"
    assert str(clip("a<\x00>", 99).markup) == "a&lt;<i>NUL</i>&gt;"


def test_ordinary_scripts_and_emoji_are_unchanged() -> None:
    for text in ("می\u200cخواهم", "👩\u200d👩\u200d👧", "שלום", "naïve — “quoted”", "x\ty\n"):
        assert visible(text) == text


class _Collector(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag + "".join(f" {name}" for name, _ in attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(ANY_TEXT | MARKDOWN)
@example(HOSTILE)
def test_the_markup_of_a_text_shows_that_text(text: str) -> None:
    page = _Collector()
    page.feed(f"<pre>{clip(text, 10_000).markup}</pre>")
    page.close()
    assert set(page.tags) <= {"pre", "i"}
    assert page.text == "".join(visible_name(character) or character for character in text)


@given(st.text("ab\x1b\u202e", max_size=50), st.integers(0, 60))
def test_a_clipped_text_counts_the_missing_characters(text: str, max_shown: int) -> None:
    clipped = clip(text, max_shown)
    assert len(clipped.text) + clipped.num_left_out == len(text)
    assert text.startswith(clipped.text)
    assert len(re.sub("[⟦⟧]", "", visible(clipped.text))) <= max_shown
    assert (f"{clipped.num_left_out:,}" in clipped.note) == bool(clipped.num_left_out)


@given(MARKDOWN | ANY_TEXT)
@example("````\n# heading\n```")
def test_a_fence_is_closed_only_by_its_last_line(text: str) -> None:
    lines = fenced(clip(text, 10_000)).split("\n")
    fence = re.match("`+", lines[0])
    assert fence
    # CommonMark: at most three spaces, at least as many backticks as the opening, and nothing else.
    closing = [n for n, line in enumerate(lines[1:], 1) if re.fullmatch(f" {{0,3}}`{{{len(fence[0])},}}[ \t]*", line)]
    assert closing == [len(lines) - 1]


@given(MARKDOWN | ANY_TEXT)
def test_a_code_span_is_safe_in_a_table(text: str) -> None:
    span = code_span(text)
    ticks = re.match("`+", span)
    assert ticks and span.endswith(ticks[0])
    assert len(ticks[0]) not in {len(run) for run in re.findall("`+", span[len(ticks[0]) : -len(ticks[0])])}
    assert "|" not in span and "\n" not in span


@given(MARKDOWN)
def test_prose_contains_no_markup(text: str) -> None:
    bare = re.sub(r"\\.", "", prose(text))
    assert not re.search(r"[`*<>\[\]|~&]", bare)
    assert "\n" not in bare


def test_prose_leaves_names_readable() -> None:
    assert prose("M_1 beats M_0; _this_ is plain") == r"M_1 beats M_0; \_this\_ is plain"


def test_one_line_shows_line_ends_and_is_clipped() -> None:
    assert one_line("a\nb\t c") == "a ↵ b c"
    assert one_line("x" * 50, 10) == "x" * 10 + "…"
