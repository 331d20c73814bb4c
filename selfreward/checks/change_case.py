"""IFEval's group change_case. The two English kinds detect the language with `language.py`."""

import re
from typing import Final

from selfreward.checks.arguments import Integer, Relation, holds
from selfreward.checks.language import language_of
from selfreward.checks.registry import check_kind


@check_kind("change_case:english_capital")
def english_capital(text: str) -> bool:
    """No lower-case letter, at least one capital, and English or undetectable, as published.

    langdetect uses only the first letters of words in capitals: of 32 English sentences in capitals it detected 26 as
    English (all 32 in normal case). Kept, so that results are comparable with published ones.
    """
    return text.isupper() and language_of(text) in ("en", None)


@check_kind("change_case:english_lowercase")
def english_lowercase(text: str) -> bool:
    """No capital letter, at least one lower-case letter, and English or undetectable, as published."""
    return text.islower() and language_of(text) in ("en", None)


@check_kind("change_case:capital_word_frequency", capital_frequency=Integer(0), capital_relation=Relation())
def capital_word_frequency(text: str, *, capital_frequency: int, capital_relation: str) -> bool:
    """The number of words entirely in capitals; "I" and "A" count, a hyphenated word is one."""
    return holds(capital_relation, count_capital_words(text), capital_frequency)


_SEPARATORS: Final = re.compile(r"[\s;@#$%&?!()\[\]{}<>\"«»`\u201c-\u201e\u2018\u2019\u2026]|[,:](?!\d)|--|\.\.|''")
_CLITIC: Final = re.compile(r"(.*[^'])('[smd]|'ll|'re|'ve|n't)", flags=re.IGNORECASE)
_MERGED: Final = frozenset(["CANNOT", "GIMME", "GONNA", "GOTTA", "LEMME", "WANNA", "D'YE", "MORE'N", "'TIS", "'TWAS"])


def count_capital_words(text: str) -> int:
    """Count the words entirely in capitals, with words split as by NLTK's tokenizer.

    Differs: IFEval uses NLTK's `word_tokenize`, which needs a download. This has its rules that matter for capitals:
    hyphens, slashes, asterisks and inner periods do not split words, other punctuation does, and contractions are two
    words ("DON'T" is "DO" and "N'T", "I'm" is "I" and "'m").
    """
    return sum(part.isupper() for piece in _SEPARATORS.split(text) for part in _parts(piece.strip(".'")))


def _parts(piece: str) -> tuple[str, ...]:
    if piece in _MERGED or f"'{piece}" in _MERGED:
        return (piece, piece)
    contraction = _CLITIC.fullmatch(piece)
    return contraction.groups() if contraction else (piece,)
