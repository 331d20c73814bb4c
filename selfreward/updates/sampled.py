"""Reference log-probabilities that the engine recorded while it sampled, and their gap to the trainer's.

A response that the reference itself sampled needs no trainer pass: the engine recorded the log-probability of each of
its tokens. This is decided per response, because a pair may consist of one response of the reference and one that was
refined, or that another checkpoint sampled.

Engine and trainer round differently. The part of the gap that both responses of a pair have in common cancels in the
reward margin; the rest is an error e of that margin in every step. While the true margin is 0, the pair's weight in the
gradient of the sigmoid loss, 1/2 (2305.18290, section 4), becomes sigmoid(-e), about 1/2 - e/4: a relative error of
e/2.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selfreward.errors import StoreError

MAX_CHECKED_PAIRS = 32

Reason = Literal["other_checkpoint", "not_sampled", "different_tokens", "not_finite"]


@dataclass(frozen=True)
class SampledLogps:
    """For each pair the sums over the response's tokens, in nats; None where the trainer has to compute the sum.

    `num_by_reason` counts the responses without a sum: `other_checkpoint` (not sampled by the reference),
    `not_sampled` (no sample has its id, or the sample has no log-probabilities), `different_tokens` (prompt or response
    differs from the sample's) and `not_finite`.
    """

    chosen: list[float | None]
    rejected: list[float | None]
    num_by_reason: Mapping[Reason, int]

    @property
    def num_sampled(self) -> int:
        """Number of responses with a sum; with the counts of `num_by_reason` they add up to two per pair."""
        return sum(number is not None for number in (*self.chosen, *self.rejected))


@dataclass(frozen=True)
class _Sample:
    checkpoint_id: str
    prompt_ids_T: NDArray[Any]
    token_ids_T: NDArray[Any]
    token_logprobs_T: NDArray[np.float64] | None

    def is_same_as(self, other: "_Sample") -> bool:
        one, two = self.token_logprobs_T, other.token_logprobs_T
        return (
            self.checkpoint_id == other.checkpoint_id
            and np.array_equal(self.prompt_ids_T, other.prompt_ids_T)
            and np.array_equal(self.token_ids_T, other.token_ids_T)
            and (one is two if one is None or two is None else np.array_equal(one, two, equal_nan=True))
        )


def read(samples_files: Sequence[Path], pairs: pa.Table, *, reference_id: str) -> SampledLogps:
    """Return the engine's sums for `pairs`, in their order.

    The files contain responses or judgments. `pairs` has `prompt_ids`, `chosen_ids`, `rejected_ids` and the ids of the
    samples, `chosen_id` and `rejected_id`; `reference_id` is the checkpoint id of the reference. Raises StoreError when
    a file cannot be read, or when two different samples have the same id.
    """
    samples = _by_id(samples_files, {*pairs["chosen_id"].to_pylist(), *pairs["rejected_id"].to_pylist()})
    num_by_reason: Counter[Reason] = Counter()

    def numbers(side: str) -> Iterator[float | None]:
        columns = pairs[f"{side}_id"].to_pylist(), pairs["prompt_ids"], pairs[f"{side}_ids"]
        for sample_id, prompt_ids, token_ids in zip(*columns, strict=True):
            found = _sum(samples.get(sample_id), _array(prompt_ids), _array(token_ids), reference_id)
            if isinstance(found, float):
                yield found
            else:
                num_by_reason[found] += 1
                yield None

    return SampledLogps(list(numbers("chosen")), list(numbers("rejected")), num_by_reason)


def _sum(
    sample: _Sample | None, prompt_ids_T: NDArray[Any], token_ids_T: NDArray[Any], reference_id: str
) -> float | Reason:
    if sample is None:
        return "not_sampled"
    if sample.checkpoint_id != reference_id:
        return "other_checkpoint"
    logprobs_T = sample.token_logprobs_T
    if logprobs_T is None:
        return "not_sampled"
    has_same_tokens = (
        np.array_equal(sample.prompt_ids_T, prompt_ids_T)  # a refinement was sampled from another prompt
        and np.array_equal(sample.token_ids_T, token_ids_T)
        and len(logprobs_T) == len(token_ids_T)
    )
    if not has_same_tokens:
        return "different_tokens"
    return float(logprobs_T.sum()) if np.isfinite(logprobs_T).all() else "not_finite"


def _by_id(samples_files: Sequence[Path], wanted: set[str]) -> dict[str, _Sample]:
    samples: dict[str, _Sample] = {}
    for path in samples_files:
        for sample_id, sample in _read_file(path, wanted):
            if not samples.setdefault(sample_id, sample).is_same_as(sample):
                raise StoreError(
                    f"{path}: sample {sample_id} differs from another sample of this id; an id must belong to one "
                    "sample; sample this iteration again, or set training.reference_logprobs to trainer"
                )
    return samples


def _read_file(path: Path, wanted: set[str]) -> Iterator[tuple[str, _Sample]]:
    """Yield the samples with the wanted ids; other rows and the texts are not kept in memory."""
    columns = ["id", "checkpoint_id", "prompt_token_ids", "token_ids", "token_logprobs"]
    try:
        table = pq.read_table(path, columns=columns, filters=pc.field("id").isin(pa.array(sorted(wanted), pa.string())))
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(
            f"{path}: {error}; it must be a parquet file of samples; sample this iteration again"
        ) from error
    if missing := [name for name in columns if name not in table.column_names]:
        raise StoreError(
            f"{path}: no column {', '.join(missing)}; it must have the fields of Response; sample this iteration again"
        )
    for sample_id, checkpoint_id, prompt_ids, token_ids, logprobs in zip(
        *(table[name].to_pylist() for name in columns[:2]), *(table[name] for name in columns[2:]), strict=True
    ):
        yield (
            sample_id,
            _Sample(
                checkpoint_id, _array(prompt_ids), _array(token_ids), _array(logprobs) if logprobs.is_valid else None
            ),
        )


def _array(values: Any) -> NDArray[Any]:
    """Return one row of a list column as an array: a view, unless an element is null, which becomes nan."""
    array: NDArray[Any] = values.values.to_numpy(zero_copy_only=False)
    return array


def rows_to_check(sampled: SampledLogps, *, seed: int) -> list[int]:
    """Return a seeded sample of the pairs in which the engine has a sum for at least one response: at most 32, in
    order."""
    sums = zip(sampled.chosen, sampled.rejected, strict=True)
    rows = [row for row, both in enumerate(sums) if both != (None, None)]
    if len(rows) <= MAX_CHECKED_PAIRS:
        return rows
    return sorted(np.random.default_rng(seed).choice(rows, size=MAX_CHECKED_PAIRS, replace=False).tolist())


def gap(
    sampled: SampledLogps, *, rows: Sequence[int], trainer: tuple[Sequence[float], Sequence[float]], beta: float
) -> dict[str, float]:
    """Compare the engine's sums with `trainer`'s for the pairs `rows` (chosen, rejected; in the order of `rows`).

    `reference_gap_margin`: root mean square, over pairs, of the error of the reward margin, which is beta times the gap
    of chosen minus the gap of rejected. This error affects training, and the limit applies to it. A response without an
    engine sum has gap 0, so nothing cancels in a pair with only one engine sum. The square makes a single broken
    response visible.
    `reference_gap_nats`: mean absolute gap per response.
    `reference_gap_bias_nats`: mean signed gap (engine minus trainer). If its size is close to the mean absolute gap,
    the two compute different things (other weights, other temperature); if it is far below, they round differently.
    `num_reference_gap_pairs`: number of pairs compared.

    Raises ValueError when the engine has no sum in `rows`.
    """
    engine_2B = np.array([[side[row] for row in rows] for side in (sampled.chosen, sampled.rejected)], np.float64)
    known_2B = ~np.isnan(engine_2B)  # None has become nan
    if not known_2B.any():
        raise ValueError(
            f"gap: the engine has no number for the rows {rows}; at least one is needed; use the rows of rows_to_check"
        )
    gap_2B = np.where(known_2B, engine_2B - np.array(trainer), 0.0)
    error_B = beta * (gap_2B[0] - gap_2B[1])
    return {
        "reference_gap_margin": float(np.sqrt(np.mean(error_B**2))),
        "reference_gap_nats": float(np.abs(gap_2B[known_2B]).mean()),
        "reference_gap_bias_nats": float(gap_2B[known_2B].mean()),
        "num_reference_gap_pairs": len(rows),
    }
