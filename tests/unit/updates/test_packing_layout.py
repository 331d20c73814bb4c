"""The packed sequence against its definition by prefixes; the division of pairs into micro-batches."""

from collections import Counter
from itertools import pairwise
from random import Random

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from selfreward.updates.packing.layout import Layout, PairTokens, lay_out, lay_out_pairs
from selfreward.updates.packing.micro_batches import Budget, _fill, _Load, divide

Row = tuple[int, ...]
Labelled = list[tuple[Row, int]]  # a row, and the number of its first tokens that have no label

# A vocabulary of three tokens, so that rows often share prefixes, are equal or continue each other.
ids = st.lists(st.integers(0, 2), min_size=1, max_size=7).map(tuple)
labelled_row = ids.flatmap(lambda row: st.tuples(st.just(row), st.integers(1, len(row))))
labelled_rows = st.lists(labelled_row, min_size=1, max_size=8)

completion = st.lists(st.integers(0, 2), min_size=1, max_size=5).map(tuple)
pair_tokens = st.builds(PairTokens, ids, completion, completion)
some_pairs = st.lists(pair_tokens, min_size=1, max_size=9)
budgets = st.builds(Budget, st.none() | st.integers(1, 60), st.none() | st.integers(1, 4), st.booleans())


def laid_out(rows: Labelled) -> Layout:
    return lay_out([row for row, _ in rows], prompt_lengths=[length for _, length in rows])


def prefixes(row: Row) -> list[Row]:
    return [row[:end] for end in range(1, len(row) + 1)]


def prefixes_by_token(layout: Layout) -> list[Row]:
    """For each packed token, the prefix of its row that ends with it, read from the segments."""
    paths: list[Row] = [()] * layout.num_tokens
    for segment in layout.segments:
        path: Row = tuple(int(layout.token_T[k]) for k in segment.prefix)
        for token in range(segment.start, segment.end):
            path = (*path, int(layout.token_T[token]))
            paths[token] = path
    return paths


@given(labelled_rows)
@example([((1, 2), 1), ((1, 2), 1)])
@example([((1, 2, 0), 2), ((1, 2), 2), ((1,), 1)])
def test_every_distinct_prefix_is_computed_once(rows: Labelled) -> None:
    layout = laid_out(rows)
    found = prefixes_by_token(layout)
    distinct = {prefix for row, _ in rows for prefix in prefixes(row)}
    assert len(found) == layout.num_tokens == len(distinct)
    assert set(found) == distinct
    assert layout.position_T.tolist() == [len(path) - 1 for path in found]


@given(labelled_rows)
def test_segments_cover_the_sequence_in_order(rows: Labelled) -> None:
    """Attention computes segment by segment and concatenates the results."""
    segments = laid_out(rows).segments
    assert segments[0].start == 0 and segments[-1].end == laid_out(rows).num_tokens
    assert all(a.end == b.start for a, b in pairwise(segments))
    assert all(segment.start < segment.end and (segment.prefix < segment.start).all() for segment in segments)


@given(labelled_rows)
@example([((0, 1), 1), ((0, 1, 2), 1), ((0, 2), 1), ((1,), 1)])
def test_a_token_attends_to_its_own_row_only(rows: Labelled) -> None:
    layout = laid_out(rows)
    at_T = np.arange(layout.num_tokens)
    visible_QK = (at_T <= at_T[:, None]) & (at_T[:, None] < layout.reach_T)
    paths = prefixes_by_token(layout)
    expected_QK = [[q[: len(k)] == k for k in paths] for q in paths]
    assert visible_QK.tolist() == expected_QK


@given(labelled_rows)
@example([((0, 1, 2), 3), ((0, 1, 2), 1)])  # a label in one row, the prompt of another
@example([((0, 1), 2)])  # no label at all
def test_each_label_is_projected_once_and_found_in_every_row(rows: Labelled) -> None:
    layout = laid_out(rows)
    num_labels = len(layout.target_L)
    targets = {row[: position + 1] for row, length in rows for position in range(length, len(row))}
    assert num_labels == len(layout.predecessor_L) == len(targets)
    paths = prefixes_by_token(layout)
    width = max(len(row) for row, _ in rows) - 1
    assert layout.slot_BR.shape == (len(rows), width)
    for (row, length), slot_R in zip(rows, layout.slot_BR, strict=True):
        for position, slot in enumerate(slot_R.tolist(), start=1):
            if length <= position < len(row):
                assert layout.target_L[slot] == row[position]
                assert paths[layout.predecessor_L[slot]] == row[:position]
            else:
                assert slot == num_labels


@given(labelled_rows, st.randoms(use_true_random=False))
def test_order_of_the_rows_changes_only_the_slots(rows: Labelled, random) -> None:  # type: ignore[no-untyped-def]
    order = random.sample(range(len(rows)), len(rows))
    first, other = laid_out(rows), laid_out([rows[i] for i in order])
    for name in ("token_T", "position_T", "reach_T", "target_L", "predecessor_L"):
        assert getattr(first, name).tolist() == getattr(other, name).tolist(), name
    assert other.slot_BR.tolist() == first.slot_BR[order].tolist()


@given(some_pairs, budgets, st.integers(1, 3))
def test_every_pair_is_computed_once_within_the_budget(
    pairs: list[PairTokens], budget: Budget, multiple_of: int
) -> None:
    micro_batches = divide(pairs, budget, multiple_of=multiple_of)
    assert sorted(i for micro_batch in micro_batches for i in micro_batch) == list(range(len(pairs)))
    assert len(micro_batches) % multiple_of == 0
    for micro_batch in micro_batches:
        assert budget.max_pairs is None or len(micro_batch) <= budget.max_pairs
        if budget.max_tokens is not None and len(micro_batch) > 1:
            assert measured([pairs[i] for i in micro_batch], budget) <= budget.max_tokens


def test_pairs_with_the_same_rows_and_other_prompts_have_an_order() -> None:
    first, other = PairTokens((1,), (1, 2), (1, 3)), PairTokens((1, 1), (2,), (3,))
    for packed in (True, False):
        assert divide([first, other], Budget(1, None, packed)) == [[0], [1]]
        assert divide([other, first], Budget(1, None, packed)) == [[1], [0]]


@given(some_pairs, st.randoms(use_true_random=False))
def test_copied_keys_are_counted_pair_by_pair(pairs: list[PairTokens], random: Random) -> None:
    """In any order of the pairs."""
    random.shuffle(pairs)
    load = _Load(Budget(None))
    for number, pair in enumerate(pairs, start=1):
        load.add(pair)
        layout = lay_out_pairs(pairs[:number])
        assert (load.num_tokens, load.num_keys) == (layout.num_tokens, layout.num_keys)


def test_keys_that_are_copied_divide_a_micro_batch() -> None:
    """Eight pairs of a prompt of 100 tokens are 100 + 16 tokens, for which 15 x 101 keys are copied."""
    prompt = (3,) * 100
    pairs = [PairTokens(prompt, (10 + i,), (30 + i,)) for i in range(8)]
    assert len(divide(pairs, Budget(200))) == 1
    assert len(divide(pairs, Budget(200, key_cost=0.05))) == 1
    assert [len(part) for part in divide(pairs, Budget(200, key_cost=0.1))] == [4, 4]


def measured(pairs: list[PairTokens], budget: Budget) -> int:
    """Number of tokens that the model computes for these pairs, by definition."""
    rows = [row for pair in pairs for row in pair.rows]
    if budget.shared_prefix:
        return len({prefix for row in rows for prefix in prefixes(row)})
    return len(rows) * max(map(len, rows))


@given(some_pairs, budgets, st.integers(1, 3), st.randoms(use_true_random=False))
def test_division_depends_only_on_the_set_of_pairs(  # type: ignore[no-untyped-def]
    pairs: list[PairTokens], budget: Budget, multiple_of: int, random
) -> None:
    shuffled = random.sample(pairs, len(pairs))
    divided = [
        [[some[i] for i in micro_batch] for micro_batch in divide(some, budget, multiple_of=multiple_of)]
        for some in (pairs, shuffled)
    ]
    assert divided[0] == divided[1]


@given(some_pairs, budgets, st.integers(1, 3))
def test_balancing_never_adds_a_micro_batch(pairs: list[PairTokens], budget: Budget, multiple_of: int) -> None:
    """As many micro-batches as greedy filling makes, rounded up to `multiple_of`; the largest is not larger."""
    order = [i for micro_batch in divide(pairs, budget) for i in micro_batch]
    greedy = _fill(pairs, order, budget)
    for part, following in pairwise(greedy):  # the next pair does not fit
        wider = [pairs[i] for i in (*part, following[0])]
        assert len(wider) > (budget.max_pairs or 99) or measured(wider, budget) > (budget.max_tokens or 99)
    balanced = divide(pairs, budget, multiple_of=multiple_of)
    assert len(balanced) == -(-len(greedy) // multiple_of) * multiple_of
    assert largest(balanced, pairs, budget) <= largest(greedy, pairs, budget)


def largest(micro_batches: list[list[int]], pairs: list[PairTokens], budget: Budget) -> int:
    return max(measured([pairs[i] for i in part], budget) for part in micro_batches if part)


def test_micro_batches_are_about_equal_in_size() -> None:
    """Ten pairs of 10 tokens with a budget of 90 tokens: five and five, not nine and one."""
    pairs = [PairTokens((i,), (100, 1, 2, 3), (101, 1, 2, 3, 4)) for i in range(10)]
    assert [len(part) for part in divide(pairs, Budget(90))] == [5, 5]
    assert [len(part) for part in divide(pairs, Budget(90), multiple_of=4)] == [3, 3, 3, 1]
    assert sorted(map(len, divide(pairs[:2], Budget(None), multiple_of=4))) == [0, 0, 1, 1]
    assert list(map(len, divide(pairs, Budget(None, max_pairs=5)))) == [5, 5]


def test_padded_pairs_of_similar_length_are_computed_together() -> None:
    pairs = [PairTokens((1,), (2,) * length, (3,)) for length in (50, 3, 48, 2)]
    assert [sorted(part) for part in divide(pairs, Budget(None, 2, shared_prefix=False))] == [[0, 2], [1, 3]]


def test_pairs_of_one_prompt_are_computed_together() -> None:
    """Shuffled as in a step, with a budget for two prompts: each prompt is in one micro-batch and computed once."""
    num_prompts, num_pairs = 6, 4
    pairs = [
        PairTokens((50 + prompt,) * 20, (pair, 1, 2), (pair, 3, 4))
        for pair in range(num_pairs)
        for prompt in range(num_prompts)
    ]
    alone = measured(pairs[::num_prompts], Budget(None))
    assert alone == 20 + 5 * num_pairs
    micro_batches = divide(pairs, Budget(2 * alone))
    assert len(micro_batches) == num_prompts / 2
    where = Counter((pairs[i].prompt, number) for number, part in enumerate(micro_batches) for i in part)
    assert set(where.values()) == {num_pairs}


def test_a_pair_longer_than_the_budget_is_a_micro_batch_of_its_own() -> None:
    long, short = PairTokens((1,) * 50, (2,), (3,)), PairTokens((1, 1), (2,), (3,))
    for packed in (True, False):
        assert sorted(divide([short, long, short], Budget(20, None, packed))) == [[0, 2], [1]]
