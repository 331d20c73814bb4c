"""Counting of sentences in English text without trained data.

Differs: IFEval uses NLTK's Punkt model for English, which needs a download. This follows Punkt's rules (a period ends
a sentence unless it belongs to an abbreviation, an initial or an ellipsis; ? and ! always do; a line break alone does
not, so that a list without periods is one sentence, and the "1." of a numbered list counts as one) with a short list
of abbreviations and of words that start sentences instead of the trained ones. Curly quotation marks close a sentence
like straight ones, and a sentence ends only before white space.
"""

import re
from itertools import pairwise
from typing import Final

# Closing and opening: straight and curly quotation marks, brackets, emphasis.
_CLOSING: Final = "\"')]}*_»\u2019\u201d"
_OPENING: Final = "\"'([{*_«\u2018\u201c"
_TITLES: Final = frozenset(
    {
        "mr", "mrs", "ms", "dr", "prof", "st", "gen", "col", "capt", "lt", "sgt", "rev", "hon", "sen", "rep", "gov",
        "pres", "messrs"
    }
)  # fmt: skip
_ABBREVIATIONS: Final = frozenset(
    {
        "etc", "vs", "inc", "ltd", "co", "corp", "jr", "sr", "bros", "cf", "approx", "dept", "est", "fig", "figs",
        "vol", "vols", "eds", "pp", "ph.d", "nos", "ave", "blvd", "rd", "jan", "feb", "apr", "jun", "jul", "aug",
        "sep", "sept", "oct", "nov", "dec", "tue", "tues", "thu", "thurs", "fri", "oz", "lb", "lbs", "ft"
    }
)  # fmt: skip
_STARTERS: Final = frozenset(
    {
        "the", "a", "an", "he", "she", "it", "they", "we", "i", "you", "this", "that", "these", "those", "there",
        "here", "his", "her", "its", "their", "our", "my", "your", "in", "on", "at", "as", "if", "but", "and", "so",
        "when", "while", "after", "before", "however", "then", "also", "for", "with", "what", "who", "why", "how",
        "where", "some", "many", "most", "one", "no", "yes", "let"
    }
)  # fmt: skip
_DOTTED: Final = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")  # the inside of "e.g." and "U.S.A."
_ENUMERATOR: Final = re.compile(r"[+-]?\d[\d.,]*")


def count_sentences(text: str) -> int:
    """Return the number of sentences; 0 for a blank text, 1 for a text without any end mark."""
    tokens = text.split()
    return bool(tokens) + sum(_ends_sentence(token, following) for token, following in pairwise(tokens))


def _ends_sentence(token: str, following: str) -> bool:
    body = token.rstrip(_CLOSING)
    following = following.lstrip(_OPENING)
    if not body.endswith("."):
        return body.endswith(("?", "!"))
    if body.endswith(".."):
        return following[:1].isupper()
    word = body[:-1].lstrip(_OPENING).lower()
    if _ENUMERATOR.fullmatch(word):
        return not following[:1].islower()
    return not _is_abbreviation(word) or (word not in _TITLES and _starts_sentence(following))


def _is_abbreviation(word: str) -> bool:
    is_initial = len(word) == 1 and word.isalpha()
    return is_initial or word in _TITLES | _ABBREVIATIONS or _DOTTED.fullmatch(word) is not None


def _starts_sentence(token: str) -> bool:
    return token[:1].isupper() and re.split(r"\W", token, maxsplit=1)[0].lower() in _STARTERS
