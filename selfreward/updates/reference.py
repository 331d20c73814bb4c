"""Reference log-probabilities of an update: computed once, then read from the work folder, also after a resume.

`reference.parquet` has one row per trained pair, with sums over the response's tokens in nats: under the reference,
and, for the pairs that are measured again after training, under the policy at the start of the iteration.
`reference.json` has the facts for the report: the source of the numbers, and the gap between engine and trainer.
"""

import gc
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selfreward.errors import StoreError
from selfreward.recipe import TrainingSection
from selfreward.seeding import seed_of
from selfreward.store.files import write_atomically, write_text_atomically
from selfreward.updates import sampled as engine_logps
from selfreward.updates.batches import PairBlock
from selfreward.updates.job import TrainingJob
from selfreward.updates.processes import broadcast_from_main

if TYPE_CHECKING:
    from selfreward.updates.trainer import Trainer

MAX_MEASURED_PAIRS = 256


@dataclass(frozen=True)
class Reference:
    """Log-probabilities: `chosen` and `rejected` have one per pair; `start_*` are None for pairs that are not measured
    after training."""

    chosen: list[float]
    rejected: list[float]
    start_chosen: list[float | None]
    start_rejected: list[float | None]

    @property
    def measured_rows(self) -> list[int]:
        """The rows whose log-probabilities before and after the update are compared."""
        return [row for row, value in enumerate(self.start_chosen) if value is not None]


class ReferencePass:
    """Writes the two files of a job, in two steps, because two models are never in memory at the same time."""

    def __init__(self, job: TrainingJob, section: TrainingSection, pairs: pa.Table) -> None:
        self._job, self._section, self._pairs = job, section, pairs
        self._block = PairBlock.of(pairs)
        self._file = job.work_folder / "reference.parquet"
        self._facts_file = job.work_folder / "reference.json"
        self._under_initial: _Computed | None = None

    def run_under_initial(self, build: Callable[[Path], "Trainer"]) -> None:
        """Make the pass under M_0, if M_0 is the reference and is not the policy itself."""
        is_separate = self._section.reference == "initial" and not self._job.initial.samefile(self._job.policy)
        if is_separate and not self._file.exists():
            trainer = build(self._job.initial)
            self._under_initial = self._compute(trainer, "initial")
            trainer.close()
            del trainer
            gc.collect()  # the model is in reference cycles

    def run_under_policy(self, trainer: "Trainer") -> tuple[list[float], list[float]]:
        """Compute the missing numbers with the policy, before its first step.

        Returns the reference log-probabilities of the chosen and of the rejected responses.
        """
        if not self._file.exists():
            if self._under_initial is None:
                computed = self._compute(trainer, "policy")
                start = computed.by_trainer
            else:
                computed = self._under_initial
                rows = self._choose_measured(range(self._pairs.num_rows))
                start = _by_row(rows, trainer.logps(self._block, rows, phase="reference"))
                if "reference_gap_margin" not in computed.facts:  # M_0 sampled none of these responses, the policy did
                    computed.facts.update(self._gap(broadcast_from_main(lambda: self._sampled("policy")), start))
            measured = self._choose_measured(sorted(start))
            broadcast_from_main(lambda: self._write(computed, {row: start[row] for row in measured}))
        stored = self.read()
        return stored.chosen, stored.rejected

    def read(self) -> Reference:
        return read(self._file, self._pairs["id"].to_pylist())

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self._facts_file.read_text(encoding="utf-8"))
        return facts

    def _compute(self, trainer: "Trainer", model: str) -> "_Computed":
        """Log-probabilities under the model in `trainer`: the trainer's, or the engine's where these may be used."""
        rows = list(range(self._pairs.num_rows))
        sampled = broadcast_from_main(lambda: self._sampled(model))
        use_engine = self._section.reference_logprobs == "sampler"
        needed = rows
        if use_engine:
            incomplete = {row for row in rows if None in (sampled.chosen[row], sampled.rejected[row])}
            needed = sorted(incomplete.union(engine_logps.rows_to_check(sampled, seed=self._seed("gap"))))
        by_trainer = _by_row(needed, trainer.logps(self._block, needed, phase="reference"))
        facts = self._gap(sampled, by_trainer)
        use_engine &= facts.get("reference_gap_margin", math.inf) <= self._section.max_reference_gap
        if not use_engine and (rest := [row for row in rows if row not in by_trainer]):
            by_trainer |= _by_row(rest, trainer.logps(self._block, rest, phase="reference"))
        sides: list[list[float | None]] = [[None] * len(rows)] * 2
        if use_engine:
            sides = [sampled.chosen, sampled.rejected]
        chosen, rejected = (
            [by_trainer[row][side] if (value := values[row]) is None else value for row in rows]
            for side, values in enumerate(sides)
        )
        facts["num_sampler_logprobs"] = sum(value is not None for values in sides for value in values)
        facts["num_trainer_logprobs"] = 2 * len(rows) - facts["num_sampler_logprobs"]
        facts["num_unusable_logprobs"] = sum(sampled.num_by_reason.values())
        return _Computed(chosen, rejected, by_trainer, facts)

    def _gap(self, sampled: engine_logps.SampledLogps, by_trainer: Mapping[int, tuple[float, float]]) -> dict[str, Any]:
        """Metrics of the gap between the engine's and the trainer's numbers; empty if the engine has none."""
        rows = engine_logps.rows_to_check(sampled, seed=self._seed("gap"))
        checked = [row for row in rows if row in by_trainer]
        if not checked:
            return {}
        numbers = [by_trainer[row][0] for row in checked], [by_trainer[row][1] for row in checked]
        gap = engine_logps.gap(sampled, rows=checked, trainer=numbers, beta=self._section.beta)
        return {**gap, "reference_gap_limit": self._section.max_reference_gap}

    def _sampled(self, model: str) -> engine_logps.SampledLogps:
        """The engine's log-probabilities. A checkpoint id is the start of the weights' hash, stored in `job.json`."""
        description = json.loads((self._job.work_folder / "job.json").read_text(encoding="utf-8"))
        reference_id = description[f"{model}_sha256"][:16]
        try:
            return engine_logps.read(self._job.samples_files, self._pairs, reference_id=reference_id)
        except StoreError:
            if self._section.reference_logprobs == "sampler":
                raise
            return engine_logps.read((), self._pairs, reference_id="")  # only the gap is not measured

    def _choose_measured(self, rows: Sequence[int]) -> list[int]:
        """All of `rows`, or a seeded sample of them when there are more than 256; in order."""
        if len(rows) <= MAX_MEASURED_PAIRS:
            return list(rows)
        generator = np.random.default_rng(self._seed("measured"))
        return sorted(generator.choice(rows, size=MAX_MEASURED_PAIRS, replace=False).tolist())

    def _seed(self, purpose: str) -> int:
        return seed_of(self._job.seed, self._job.iteration, "training", purpose)

    def _write(self, computed: "_Computed", start: Mapping[int, tuple[float, float]]) -> None:
        columns = {"pair_id": self._pairs["id"].to_pylist(), "chosen": computed.chosen, "rejected": computed.rejected}
        for side, name in enumerate(("start_chosen", "start_rejected")):
            values = [start[row][side] if row in start else None for row in range(len(computed.chosen))]
            columns[name] = pa.array(values, pa.float64())
        write_text_atomically(self._facts_file, json.dumps(computed.facts, indent=1))
        write_atomically(self._file, lambda temporary: pq.write_table(pa.table(columns), temporary))


@dataclass(frozen=True)
class _Computed:
    """Reference log-probabilities of all pairs; `by_trainer` maps the rows that the trainer computed to its numbers."""

    chosen: list[float]
    rejected: list[float]
    by_trainer: dict[int, tuple[float, float]]
    facts: dict[str, Any]


def _by_row(rows: Sequence[int], numbers: tuple[list[float], list[float]]) -> dict[int, tuple[float, float]]:
    return dict(zip(rows, zip(*numbers, strict=True), strict=True))


def read(path: Path, ids: Sequence[str]) -> Reference:
    """Read `reference.parquet`. Raises StoreError when the file cannot be read or is not of these pairs."""
    try:
        columns = pq.read_table(path).to_pydict()
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(
            f"{path}: {error}; it must be the stored reference log-probabilities; remove the folder {path.parent}"
        ) from error
    if columns.pop("pair_id") != list(ids):
        raise StoreError(
            f"{path}: made for other pairs; it must contain the pairs of this training; remove the folder {path.parent}"
        )
    return Reference(**columns)
