"""IFEval's group keywords.

Differs: published, the words are put into a regular expression as they are, so that a word with a dot or a bracket
means something else or raises. Here they are taken literally. The published data has plain words only.
"""

import re
from collections import Counter
from collections.abc import Sequence

from selfreward.checks.arguments import Character, Integer, Relation, Text, Texts, holds
from selfreward.checks.registry import check_kind


@check_kind("keywords:existence", keywords=Texts())
def existence(text: str, *, keywords: Sequence[str]) -> bool:
    """Every keyword occurs, also inside a longer word, in any letter case."""
    return all(re.search(re.escape(keyword), text, flags=re.IGNORECASE) for keyword in keywords)


@check_kind("keywords:frequency", keyword=Text(), frequency=Integer(0), relation=Relation())
def frequency(text: str, *, keyword: str, frequency: int, relation: str) -> bool:
    """How often the keyword occurs, also inside longer words, in any letter case."""
    occurrences = len(re.findall(re.escape(keyword.strip()), text, flags=re.IGNORECASE))
    return holds(relation, occurrences, frequency)


@check_kind("keywords:forbidden_words", forbidden_words=Texts())
def forbidden_words(text: str, *, forbidden_words: Sequence[str]) -> bool:
    """None of the words occurs as a whole word, in any letter case."""
    return not any(re.search(rf"\b{re.escape(word)}\b", text, flags=re.IGNORECASE) for word in forbidden_words)


@check_kind("keywords:letter_frequency", letter=Character(), let_frequency=Integer(0), let_relation=Relation())
def letter_frequency(text: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    """How often one character occurs in lower-cased text; the published data also asks for # and !."""
    return holds(let_relation, Counter(text.lower())[letter.lower()], let_frequency)
