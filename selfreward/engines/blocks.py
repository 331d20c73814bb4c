"""Blocks: the parts of a call that are computed one by one, or by several engines at once.

How a call is cut depends on its requests and the recipe alone, never on the number of engines, so that one engine and
four compute the same batches.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True)
class Block(Generic[R]):
    """Requests that are computed together. `requests[i]` is request `indices[i]` of the call, or some of its draws."""

    indices: tuple[int, ...]
    requests: tuple[R, ...]


def consecutive_blocks(
    requests: Iterable[tuple[int, R]], *, num_sequences: Callable[[R], int], max_sequences: int
) -> list[Block[R]]:
    """Cut requests, in their order, into blocks of at most `max_sequences`; all draws of a request stay together."""
    cut: list[list[tuple[int, R]]] = []
    room = 0
    for index, request in requests:
        needed = num_sequences(request)
        if not cut or needed > room:
            cut.append([])
            room = max_sequences
        cut[-1].append((index, request))
        room -= needed
    return [Block(*zip(*items, strict=True)) for items in cut]


def joined(num_requests: int, blocks: Sequence[Block[R]], results: Sequence[Sequence[Sequence[T]]]) -> list[list[T]]:
    """Return the results of each request of a call, from those of its blocks."""
    found: list[list[T]] = [[] for _ in range(num_requests)]
    for block, of_block in zip(blocks, results, strict=True):
        for index, result in zip(block.indices, of_block, strict=True):
            found[index] += result
    return found
