"""Reference log-probabilities that the engine measured while it sampled, and how far they are from the trainer's own.

The trainer's pass over a response is not needed where the reference itself sampled it: the engine kept the
log-probability of each token. That is decided for each response, because a pair may hold a response of the reference
beside one that was refined, or that another checkpoint wrote.

Engine and trainer round differently. What the gap has in common on both sides of a pair cancels in the reward margin;
the rest is an error e of that margin in every step. While the true margin is 0, the pair's weight in the gradient of
the sigmoid loss, 1/2 (2305.18290, section 4), becomes sigmoid(-e), about 1/2 - e/4: it is off by the share e/2.
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

MOST_CHECKED_PAIRS = 32

Reason = Literal["foreign", "not_sampled", "other_tokens", "not_finite"]


@dataclass(frozen=True)
class Sampled:
    """For each pair the sums over the response's tokens, in nats; None where the trainer has to compute it.

    `num_by_reason` counts the responses without a number: `foreign` (a checkpoint sampled it that is not the
    reference), `not_sampled` (no sample has its id, or it has no log-probabilities), `other_tokens` (prompt or response
    is not what was sampled) and `not_finite`.
    """

    chosen: list[float | None]
    rejected: list[float | None]
    num_by_reason: Mapping[Reason, int]

    @property
    def num_sampled(self) -> int:
        """Responses with a number; these and `num_by_reason` add up to two for each pair."""
        return sum(number is not None for number in (*self.chosen, *self.rejected))


@dataclass(frozen=True)
class _Sample:
    checkpoint_id: str
    prompt_ids_T: NDArray[Any]
    token_ids_T: NDArray[Any]
    token_logprobs_T: NDArray[np.float64] | None

    def same_as(self, other: "_Sample") -> bool:
        one, two = self.token_logprobs_T, other.token_logprobs_T
        return (
            self.checkpoint_id == other.checkpoint_id
            and np.array_equal(self.prompt_ids_T, other.prompt_ids_T)
            and np.array_equal(self.token_ids_T, other.token_ids_T)
            and (one is two if one is None or two is None else np.array_equal(one, two, equal_nan=True))
        )


def read(samples_files: Sequence[Path], pairs: pa.Table, *, reference_id: str) -> Sampled:
    """The engine's sums for `pairs`, in their order.

    The files hold responses or judgments. `pairs` has `prompt_ids`, `chosen_ids`, `rejected_ids` and the ids of the
    samples, `chosen_id` and `rejected_id`; `reference_id` is the checkpoint that is the reference. Raises StoreError
    when a file cannot be read, or when two different samples have the same id.
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

    return Sampled(list(numbers("chosen")), list(numbers("rejected")), num_by_reason)


def _sum(
    sample: _Sample | None, prompt_ids_T: NDArray[Any], token_ids_T: NDArray[Any], reference_id: str
) -> float | Reason:
    if sample is None:
        return "not_sampled"
    if sample.checkpoint_id != reference_id:
        return "foreign"
    logprobs_T = sample.token_logprobs_T
    if logprobs_T is None:
        return "not_sampled"
    same_prompt = np.array_equal(sample.prompt_ids_T, prompt_ids_T)  # refined text was sampled after another prompt
    if not same_prompt or not np.array_equal(sample.token_ids_T, token_ids_T) or len(logprobs_T) != len(token_ids_T):
        return "other_tokens"
    return float(logprobs_T.sum()) if np.isfinite(logprobs_T).all() else "not_finite"


def _by_id(samples_files: Sequence[Path], wanted: set[str]) -> dict[str, _Sample]:
    samples: dict[str, _Sample] = {}
    for path in samples_files:
        for sample_id, sample in _read_file(path, wanted):
            if not samples.setdefault(sample_id, sample).same_as(sample):
                raise StoreError(
                    f"{path}: sample {sample_id} differs from another sample of this id; one sample for each id; "
                    "sample this iteration anew, or set training.reference_logprobs to trainer"
                )
    return samples


def _read_file(path: Path, wanted: set[str]) -> Iterator[tuple[str, _Sample]]:
    """Rows that are not wanted never stay in memory, nor do texts."""
    columns = ["id", "checkpoint_id", "prompt_token_ids", "token_ids", "token_logprobs"]
    try:
        table = pq.read_table(path, columns=columns, filters=pc.field("id").isin(pa.array(sorted(wanted), pa.string())))
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path}: {error}; a parquet file of samples; sample this iteration anew") from error
    if missing := [name for name in columns if name not in table.column_names]:
        raise StoreError(f"{path}: no column {', '.join(missing)}; the fields of Response; sample this iteration anew")
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
    """Of one row of a column of lists: a view, unless an element is null, which becomes nan."""
    array: NDArray[Any] = values.values.to_numpy(zero_copy_only=False)
    return array


def rows_to_check(sampled: Sampled, *, seed: int) -> list[int]:
    """A seeded sample of the pairs with a number of the engine on either side: 32 of them, or all, in their order."""
    sides = zip(sampled.chosen, sampled.rejected, strict=True)
    rows = [row for row, both in enumerate(sides) if both != (None, None)]
    if len(rows) <= MOST_CHECKED_PAIRS:
        return rows
    return sorted(np.random.default_rng(seed).choice(rows, size=MOST_CHECKED_PAIRS, replace=False).tolist())


def gap(
    sampled: Sampled, *, rows: Sequence[int], trainer: tuple[Sequence[float], Sequence[float]], beta: float
) -> dict[str, float]:
    """How the engine's numbers differ from `trainer`'s, chosen and rejected of the pairs `rows`, in that order.

    `reference_gap_margin`: root mean square, over pairs, of the error on the reward margin, beta times chosen minus
    rejected gap. It is what the training feels and what a limit is for. A side without a number of the engine has no
    gap, so in a pair of two kinds nothing cancels. The square is there to make one broken response show.
    `reference_gap_nats`: mean size of the gap, per response. `reference_gap_bias_nats`: its mean with the sign
    (engine minus trainer); near the former in size, the two compute different things (other weights, other
    temperature), far below it, they round differently. `num_reference_gap_pairs`: how many pairs were compared.

    Raises ValueError when the engine has no number in `rows`.
    """
    engine_2B = np.array([[side[row] for row in rows] for side in (sampled.chosen, sampled.rejected)], np.float64)
    known_2B = ~np.isnan(engine_2B)  # None has become nan
    if not known_2B.any():
        raise ValueError(f"gap: the engine has no number for the rows {rows}; use those of rows_to_check")
    gap_2B = np.where(known_2B, engine_2B - np.array(trainer), 0.0)
    error_B = beta * (gap_2B[0] - gap_2B[1])
    return {
        "reference_gap_margin": float(np.sqrt(np.mean(error_B**2))),
        "reference_gap_nats": float(np.abs(gap_2B[known_2B]).mean()),
        "reference_gap_bias_nats": float(gap_2B[known_2B].mean()),
        "num_reference_gap_pairs": len(rows),
    }
