"""The overlap check finds copies, lets different prompts pass, and is quick."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward.prompts.builtin import read_builtin
from selfreward.prompts.contamination import NGRAM_WORDS, OverlapPair, check_overlap
from selfreward.prompts.normalise import words
from selfreward.records import Message, Prompt


def _prompt(prompt_id: str, text: str, system: str | None = None) -> Prompt:
    turns = () if system is None else (Message("system", system),)
    return Prompt(prompt_id, (*turns, Message("user", text)))


def _numbered(*numbers: int) -> str:
    return " ".join(f"word{number}" for number in numbers)


@pytest.mark.parametrize(
    ("evaluation", "training"),
    [
        ("Hi!", "hi"),
        ("What is  the capital\nof France?", "WHAT IS THE CAPITAL OF FRANCE"),
        ("ﬁne print", "fine print."),
        ("你好吗", "你好吗"),
        ("🙂", "🙂"),
    ],
)
def test_the_same_text_is_an_exact_overlap(evaluation: str, training: str) -> None:
    overlap = check_overlap([_prompt("t", training), _prompt("u", "Other.")], [_prompt("e", evaluation)])
    assert overlap.pairs == (OverlapPair("e", "t", "exact", 1.0),)
    assert (overlap.num_training, overlap.num_evaluation) == (2, 1)


@pytest.mark.parametrize(
    ("evaluation", "training"), [("2+2?", "2-2?"), ("Use C.", "Use C++."), ("One two three", "One two three four")]
)
def test_short_texts_that_differ_do_not_overlap(evaluation: str, training: str) -> None:
    assert not check_overlap([_prompt("t", training)], [_prompt("e", evaluation)]).pairs


def test_share_is_that_of_the_evaluation_prompts_ngrams() -> None:
    evaluation = _prompt("e", _numbered(*range(17)))  # 10 n-grams
    half = _prompt("half", _numbered(*range(12)))  # holds the first 5 of them
    less = _prompt("less", _numbered(*range(11)))  # holds 4
    around = _prompt("around", f"Please, {_numbered(*range(17))} and thank you!")
    assert check_overlap([half, less, around], [evaluation]).pairs == (
        OverlapPair("e", "half", "near", 0.5),
        OverlapPair("e", "around", "near", 1.0),
    )
    # The share is not symmetric: a training prompt that is a small part of the evaluation prompt is not an overlap.
    assert not check_overlap([less], [evaluation]).pairs
    assert check_overlap([evaluation], [less]).pairs == (OverlapPair("less", "e", "near", 1.0),)


def test_text_without_spaces_is_compared_too() -> None:
    evaluation = _prompt("e", "请写一首关于秋天的短诗并且押韵")
    assert check_overlap([_prompt("t", "你能不能请写一首关于秋天的短诗呢")], [evaluation]).training_ids == {"t"}
    assert not check_overlap([_prompt("t", "请解释一下为什么天空看起来是蓝色的")], [evaluation]).pairs


def test_a_shared_system_prompt_is_not_an_overlap() -> None:
    system = "You are a careful assistant that always answers in one short paragraph without any lists."
    training = [_prompt("t", "Name a bird that cannot fly.", system)]
    assert not check_overlap(training, [_prompt("e", "Why do cats purr at night?", system)]).pairs
    assert check_overlap(training, [_prompt("e", "Name a bird that cannot fly.")]).training_ids == {"t"}


def test_template_sentences_are_not_an_overlap_but_copies_are() -> None:
    template = "Your response must be written in lower case letters only and must end with a full stop."
    ask = "Write a few lines about"
    training = [
        _prompt("t", f"{ask} bees. {template}"),
        _prompt("copy", f"{ask} the history of tea in Europe and Asia. {template}"),
    ]
    evaluation = [
        _prompt("e", f"{ask} the history of tea in Europe and Asia! {template}"),
        _prompt("f", f"{ask} kites. {template}"),
    ]
    assert check_overlap(training, evaluation).training_ids == {"t", "copy"}
    assert OverlapPair("f", "t", "near", 10 / 16) in check_overlap(training, evaluation).pairs
    overlap = check_overlap(training, evaluation, boilerplate=[template, ask, "", "a"])
    assert overlap.pairs[0] == OverlapPair("e", "copy", "near", 1.0)
    assert overlap.training_ids == {"copy"}


def test_two_adjacent_template_sentences_are_template_too() -> None:
    first, second = "Do not use any commas", "Answer with exactly two short paragraphs"
    both = f"{first}. {second}."
    training, evaluation = [_prompt("t", f"Tea? {both}")], [_prompt("e", f"Owls? {both}")]
    assert check_overlap(training, evaluation).pairs
    assert not check_overlap(training, evaluation, boilerplate=[first, second]).pairs


def test_a_number_that_fills_a_template_is_template_but_a_word_is_not() -> None:
    fragments = ["Your text must have at least", "sentences and it must keep the word", "somewhere in the middle"]

    def prompt(prompt_id: str, number: int, word: str) -> Prompt:
        before, middle, after = fragments
        return _prompt(prompt_id, f"{prompt_id}? {before} {number} {middle} {word} {after}.")

    training = [prompt("t", 3, "hive"), prompt("u", 3, "rope")]
    assert check_overlap(training, [prompt("e", 3, "hive")]).training_ids == {"t", "u"}
    assert check_overlap(training, [prompt("e", 3, "hive")], boilerplate=fragments).training_ids == {"t"}


def test_no_two_builtin_prompts_overlap_and_an_edited_long_one_is_found() -> None:
    prompts = read_builtin()
    overlap = check_overlap(prompts, prompts)
    assert overlap.pairs == tuple(OverlapPair(prompt.id, prompt.id, "exact", 1.0) for prompt in prompts)
    randomly = random.Random(0)
    long = [(prompt, text) for prompt in prompts if len(text := words(prompt.messages[0].content)) >= 25]
    edited = []
    for prompt, text in long:
        text[randomly.randrange(len(text))] = "zebra"
        edited.append(_prompt(f"edited-{prompt.id}", " ".join(text)))
    found = check_overlap(edited, prompts)
    assert len(long) > 50
    assert {pair.training_id for pair in found.pairs} == {prompt.id for prompt in edited}
    assert all(pair.training_id == f"edited-{pair.evaluation_id}" for pair in found.pairs)


TEXT = st.lists(st.sampled_from([f"w{i}" for i in range(4)]), min_size=1, max_size=24)


@given(st.lists(TEXT, max_size=4), st.lists(TEXT, min_size=1, max_size=4))
def test_pairs_are_those_of_the_definition(training: list[list[str]], evaluation: list[list[str]]) -> None:
    def ngrams(text: list[str]) -> set[tuple[str, ...]]:
        return {tuple(text[i : i + NGRAM_WORDS]) for i in range(len(text) - NGRAM_WORDS + 1)}

    expected = {}
    for t, seen in enumerate(training):
        for e, asked in enumerate(evaluation):
            share = len(ngrams(asked) & ngrams(seen)) / len(ngrams(asked)) if ngrams(asked) else 0.0
            if seen == asked:
                expected[str(e), str(t)] = ("exact", 1.0)
            elif share >= 0.5:
                expected[str(e), str(t)] = ("near", share)
    overlap = check_overlap(
        [_prompt(str(t), " ".join(text)) for t, text in enumerate(training)],
        [_prompt(str(e), " ".join(text)) for e, text in enumerate(evaluation)],
    )
    assert {(p.evaluation_id, p.training_id): (p.kind, p.share) for p in overlap.pairs} == expected
    assert len(overlap.pairs) == len(expected)


def test_thousands_of_prompts_take_seconds() -> None:
    randomly = random.Random(1)
    vocabulary = [f"w{i}" for i in range(2000)]

    def some(name: str, count: int) -> list[Prompt]:
        return [_prompt(f"{name}{i}", " ".join(randomly.choices(vocabulary, k=60))) for i in range(count)]

    evaluation = some("e", 1000)
    training = [*some("t", 5000), *evaluation[::10]]
    started = time.process_time()
    overlap = check_overlap(training, evaluation, boilerplate=[" ".join(vocabulary[i : i + 12]) for i in range(500)])
    assert time.process_time() - started < 10
    assert overlap.training_ids == {prompt.id for prompt in evaluation[::10]}
