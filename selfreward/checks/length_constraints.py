"""IFEval's group length_constraints. Sentences are counted in `sentences.py`."""

import re

from selfreward.checks.arguments import Integer, Relation, Text, holds
from selfreward.checks.registry import check_kind
from selfreward.checks.sentences import count_sentences


@check_kind("length_constraints:number_words", num_words=Integer(0), relation=Relation())
def number_words(text: str, *, num_words: int, relation: str) -> bool:
    r"""A word is a run of \w: "don't" has two, "well-known" has two, "3.5" has two, as published."""
    return holds(relation, len(re.findall(r"\w+", text)), num_words)


@check_kind("length_constraints:number_sentences", num_sentences=Integer(0), relation=Relation())
def number_sentences(text: str, *, num_sentences: int, relation: str) -> bool:
    return holds(relation, count_sentences(text), num_sentences)


@check_kind("length_constraints:number_paragraphs", num_paragraphs=Integer(1))
def number_paragraphs(text: str, *, num_paragraphs: int) -> bool:
    """Exactly that many paragraphs between dividers `***`; a blank one inside fails, at either end it is not
    counted."""
    paragraphs = [paragraph.strip() for paragraph in text.split("***")]
    if not all(paragraphs[1:-1]):
        return False
    return sum(map(bool, paragraphs)) == num_paragraphs


def _inside(*, num_paragraphs: int, nth_paragraph: int, first_word: str) -> str | None:
    if nth_paragraph > num_paragraphs:
        return f"nth_paragraph is {nth_paragraph}; allowed is at most num_paragraphs, {num_paragraphs}; lower it"
    if len(first_word.split()) > 1:
        return f"first_word is {first_word!r}; one word is allowed; shorten it"
    return None


@check_kind(
    "length_constraints:nth_paragraph_first_word",
    consistent=_inside,
    num_paragraphs=Integer(1),
    nth_paragraph=Integer(1),
    first_word=Text(),
)
def nth_paragraph_first_word(text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Exactly that many paragraphs, separated by empty lines, the n-th of which begins with the word in any case.

    As published: blank paragraphs are not counted, but have an index when the n-th is looked up, and the word ends at
    the first of . , ? ! ' " after leading quotation marks.

    Differs: in the published code an nth_paragraph beyond num_paragraphs is replaced by a random one; here it does not
    validate.
    """
    paragraphs = [paragraph.strip() for paragraph in text.split("\n\n")]
    count = sum(map(bool, paragraphs))
    if count != num_paragraphs or not paragraphs[nth_paragraph - 1]:
        return False
    word = paragraphs[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return re.split(r"[.,?!'\"]", word, maxsplit=1)[0].lower() == first_word.strip().lower()
