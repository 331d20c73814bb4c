"""Contamination check: exact matches and shared word n-grams between training prompts and evaluation prompts.

An evaluation prompt overlaps a training prompt when their normal texts are equal (`exact`), or when at least
`THRESHOLD` of its word 8-grams occur in that one training prompt (`near`). Prompts of fewer than 8 words, and prompts
made only of template sentences, are compared only as complete texts.

Paper: PaLM (arXiv 2204.02311, section 8) calls an example contaminated when at least 70 % of its 8-grams were seen.
Differs: one training prompt must contain them, since prompts are compared with prompts; and half is enough, because
prompts are short: one changed word removes up to eight 8-grams. Measured on the built-in prompts: two different prompts
share no 8-gram at all; with one word changed, all prompts of 25 words or more are found, 69 % of those with 16 to 24
words and 42 % of those with 8 to 15 (at 0.7 about half, 37 % and 20 %). So a rephrased short prompt is not found: this
check is for copies, not for paraphrases.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from selfreward.prompts.normalise import normal_text, turns_text, words
from selfreward.records import Prompt

NGRAM_WORDS = 8
THRESHOLD = 0.5


@dataclass(frozen=True)
class OverlapPair:
    """An overlapping pair; `share` is the share of the evaluation prompt's 8-grams in the training prompt, 1.0 if
    exact."""

    evaluation_id: str
    training_id: str
    kind: Literal["exact", "near"]
    share: float


@dataclass(frozen=True)
class Overlap:
    """All overlapping pairs, in the order of the training prompts, and the numbers of prompts compared."""

    pairs: tuple[OverlapPair, ...]
    num_training: int
    num_evaluation: int

    @property
    def training_ids(self) -> frozenset[str]:
        return frozenset(pair.training_id for pair in self.pairs)


class Boilerplate:
    """Template sentences or their parts; n-grams made only of these are no evidence of overlap."""

    def __init__(self, sentences: Iterable[str]) -> None:
        self._by_start: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        for sentence in {tuple(words(sentence)) for sentence in sentences}:
            self._by_start.setdefault(sentence[:2], []).append(sentence)

    def covers(self, text: Sequence[str]) -> list[bool]:
        """Return for each word whether it is in a template sentence, or is a number or letter between two of them."""
        covered = [False] * len(text)
        for start in range(len(text)):
            for width in (1, 2):
                for sentence in self._by_start.get(tuple(text[start : start + width]), ()):
                    end = start + len(sentence)
                    if end <= len(text) and tuple(text[start:end]) == sentence:
                        covered[start:end] = [True] * len(sentence)
        for index in range(1, len(text) - 1):
            filler = text[index].isdigit() or len(text[index]) == 1
            covered[index] = covered[index] or (filler and covered[index - 1] and covered[index + 1])
        return covered

    def ngrams(self, text: str) -> set[str]:
        """Return the word 8-grams of a text that have at least one word outside all template sentences."""
        text_words = words(text)
        covered = self.covers(text_words)
        return {
            " ".join(text_words[i : i + NGRAM_WORDS])
            for i in range(len(text_words) - NGRAM_WORDS + 1)
            if not all(covered[i : i + NGRAM_WORDS])
        }


def check_overlap(
    training: Iterable[Prompt], evaluation: Sequence[Prompt], *, boilerplate: Iterable[str] = ()
) -> Overlap:
    """Compare two sets of prompts without their system turns, in time linear in the words of both sets."""
    template = Boilerplate(boilerplate)
    by_text: dict[str, list[int]] = {}
    by_ngram: dict[str, list[int]] = {}
    num_ngrams: list[int] = []
    for index, prompt in enumerate(evaluation):
        text = turns_text(prompt)
        by_text.setdefault(normal_text(text), []).append(index)
        ngrams = template.ngrams(text)
        num_ngrams.append(len(ngrams))
        for ngram in ngrams:
            by_ngram.setdefault(ngram, []).append(index)

    pairs: list[OverlapPair] = []
    num_training = 0
    for prompt in training:
        num_training += 1
        text = turns_text(prompt)
        exact = by_text.get(normal_text(text), [])
        pairs += [OverlapPair(evaluation[index].id, prompt.id, "exact", 1.0) for index in exact]
        shared = Counter(index for ngram in template.ngrams(text) for index in by_ngram.get(ngram, ()))
        for index in sorted(shared.keys() - set(exact)):
            share = shared[index] / num_ngrams[index]
            if share >= THRESHOLD:
                pairs.append(OverlapPair(evaluation[index].id, prompt.id, "near", share))
    return Overlap(tuple(pairs), num_training, len(evaluation))
