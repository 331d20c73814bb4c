"""IFEval's group keywords.

Differs: in the published code the words are used as regular expressions, so that a word with a dot or a bracket has
another meaning or raises. Here they are taken literally. The published data has only plain words.
"""

import re
from collections import Counter
from collections.abc import Sequence

from selfreward.checks.arguments import Character, Integer, Relation, Text, Texts, holds
from selfreward.checks.registry import check_kind


@check_kind("keywords:existence", keywords=Texts())
def existence(text: str, *, keywords: Sequence[str]) -> bool:
    """Every keyword occurs, also inside a longer word, in any case."""
    return all(re.search(re.escape(keyword), text, flags=re.IGNORECASE) for keyword in keywords)


@check_kind("keywords:frequency", keyword=Text(), frequency=Integer(0), relation=Relation())
def frequency(text: str, *, keyword: str, frequency: int, relation: str) -> bool:
    """The number of occurrences of the keyword, also inside longer words, in any case."""
    occurrences = len(re.findall(re.escape(keyword.strip()), text, flags=re.IGNORECASE))
    return holds(relation, occurrences, frequency)


@check_kind("keywords:forbidden_words", forbidden_words=Texts())
def forbidden_words(text: str, *, forbidden_words: Sequence[str]) -> bool:
    """None of the words occurs as a complete word, in any case."""
    return not any(re.search(rf"\b{re.escape(word)}\b", text, flags=re.IGNORECASE) for word in forbidden_words)


@check_kind("keywords:letter_frequency", letter=Character(), let_frequency=Integer(0), let_relation=Relation())
def letter_frequency(text: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    """The number of occurrences of a character in lower-cased text; the published data also uses # and !."""
    return holds(let_relation, Counter(text.lower())[letter.lower()], let_frequency)
