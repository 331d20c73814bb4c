"""Stages of an evaluation by shards, so that a kill loses at most one of them."""

from collections.abc import Callable, Sequence
from typing import Any

from selfreward.errors import StoreError
from selfreward.parts import Stages
from selfreward.records import Prompt, Response


def by_shards(
    stages: Stages,
    iteration: int,
    stage: str,
    record_type: type,
    items: Sequence[Any],
    make: Callable[[Sequence[Any]], list[Any]],
    *,
    size: int,
) -> list[Any]:
    """All records of a stage; block k of `size` items makes shard k, unless it is stored already."""
    records: list[Any] = []
    for shard, start in enumerate(range(0, len(items), size)):
        block = items[start : start + size]
        records += stages.once(iteration, stage, record_type, shard, lambda block=block: make(block))
    return records


def one_each(
    stages: Stages,
    iteration: int,
    stage: str,
    record_type: type,
    items: Sequence[Prompt] | Sequence[Response],
    make: Callable[[Sequence[Any]], list[Any]],
    *,
    size: int,
) -> list[Any]:
    """A stage with one record for each prompt or response, in their order; StoreError when it is of others."""
    records = by_shards(stages, iteration, stage, record_type, items, make, size=size)
    expected = [item.id if isinstance(item, Prompt) else item.prompt_id for item in items]
    found = [record.prompt_id for record in records]
    if found != expected:
        wrong = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), None)
        what = (
            f"{len(found)} records for {len(expected)} prompts"
            if wrong is None
            else f"a record of prompt {found[wrong]!r} where {expected[wrong]!r} was expected"
        )
        raise StoreError(
            f"{stage} of iteration {iteration}: {what}; the evaluation prompts changed since they were stored, and "
            "checkpoints are compared on the same ones; restore the prompts, or choose another output_dir"
        )
    return records
