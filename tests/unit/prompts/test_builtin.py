"""The built-in prompts are many, varied and usable, and their diversity metrics are correct."""

import json
import re
from collections import Counter
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward.prompts.builtin import read_builtin
from selfreward.prompts.diversity import diversity, rouge_l
from selfreward.records import Message, Prompt

PROMPTS = read_builtin()
TEXTS = [prompt.messages[-1].content for prompt in PROMPTS]


def test_there_are_many_prompts_of_many_kinds() -> None:
    file = files("selfreward.prompts") / "data" / "builtin.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    by_category = Counter(row["category"] for row in rows)
    assert len(PROMPTS) >= 240
    assert len(by_category) >= 20
    assert max(by_category.values()) <= 20
    assert [row["prompt"] for row in rows] == TEXTS
    assert all(set(row) == {"id", "prompt", "category"} and row["id"].startswith(row["category"] + "-") for row in rows)


def test_ids_are_unique_and_safe_and_texts_are_clean() -> None:
    assert len({prompt.id for prompt in PROMPTS}) == len(PROMPTS)
    assert all(re.fullmatch(r"[a-z]+-\d\d", prompt.id) for prompt in PROMPTS)
    assert all(text == text.strip() and "  " not in text for text in TEXTS)


def test_lengths_and_openings_vary() -> None:
    num_words = [len(text.split()) for text in TEXTS]
    assert min(num_words) >= 4 and max(num_words) <= 100
    assert sum(count < 10 for count in num_words) >= 20
    assert sum(count > 50 for count in num_words) >= 5
    openings = Counter(text.split()[0].casefold() for text in TEXTS)
    assert openings.most_common(1)[0][1] <= len(TEXTS) / 10


def test_diversity_of_the_set() -> None:
    found = diversity(PROMPTS)
    assert found.num_prompts == len(PROMPTS) >= 200
    assert found.distinct_3_rate > 0.95
    assert found.nearest_rouge_l_mean < 0.3
    assert found.nearest_rouge_l_max < 0.5, found.nearest_pair  # the promise is 0.7


def test_diversity_sees_a_near_copy_and_names_the_pair() -> None:
    copy = Prompt("copy", (Message("user", TEXTS[0].replace("ice", "butter").upper()),))
    found = diversity([*PROMPTS, copy])
    assert found.nearest_rouge_l_max > 0.7
    assert set(found.nearest_pair or ()) == {"copy", PROMPTS[0].id}
    # 3 of the 6 trigrams of twice the same text are distinct
    twice = [Prompt(str(i), (Message("user", "one two three four five"),)) for i in range(2)]
    assert diversity(twice).distinct_3_rate == 0.5


@pytest.mark.parametrize("num_prompts", [0, 1])
def test_diversity_of_almost_nothing(num_prompts: int) -> None:
    found = diversity(PROMPTS[:num_prompts])
    assert (found.nearest_rouge_l_mean, found.nearest_rouge_l_max, found.nearest_pair) == (0.0, 0.0, None)


def _lcs_by_table(first: list[str], second: list[str]) -> int:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


TEXT = st.lists(st.sampled_from("abcd"), max_size=30)


@given(TEXT, TEXT)
def test_rouge_l_is_that_of_the_textbook_table(first: list[str], second: list[str]) -> None:
    lcs = _lcs_by_table(first, second)
    expected = 2 * lcs / (len(first) + len(second)) if lcs else 0.0
    assert rouge_l(first, second) == pytest.approx(expected) == rouge_l(second, first)
