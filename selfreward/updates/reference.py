"""Log-probabilities that a training starts from: found once, and kept in the work folder whatever is trained since.

`reference.parquet` has one row per trained pair, sums over the response's tokens in nats: under the reference, and, for
the pairs that are measured again after training, under the policy at the start of the iteration. `reference.json` has
the facts for the report: where the numbers came from, and the gap between the engine's and the trainer's.
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
from selfreward.updates.processes import on_main

if TYPE_CHECKING:
    from selfreward.updates.trainer import Trainer

MOST_MEASURED_PAIRS = 256


@dataclass(frozen=True)
class Reference:
    """`chosen` and `rejected` have one number for each pair; `start_*` have None where nothing is measured."""

    chosen: list[float]
    rejected: list[float]
    start_chosen: list[float | None]
    start_rejected: list[float | None]

    @property
    def measured(self) -> list[int]:
        """The rows whose log-probabilities before and after the update are compared."""
        return [row for row, value in enumerate(self.start_chosen) if value is not None]


class ReferencePass:
    """Fills the two files of a job, in two steps because two models are never in memory at once."""

    def __init__(self, job: TrainingJob, section: TrainingSection, pairs: pa.Table) -> None:
        self._job, self._section, self._pairs = job, section, pairs
        self._block = PairBlock.of(pairs)
        self._file = job.work_folder / "reference.parquet"
        self._facts_file = job.work_folder / "reference.json"
        self._under_initial: _Found | None = None

    def before_the_policy(self, build: Callable[[Path], "Trainer"]) -> None:
        """The pass under M_0, when that is the reference and not the policy itself."""
        apart = self._section.reference == "initial" and not self._job.initial.samefile(self._job.policy)
        if apart and not self._file.exists():
            trainer = build(self._job.initial)
            self._under_initial = self._find(trainer, "initial")
            trainer.close()
            del trainer
            gc.collect()  # the model is in reference cycles

    def of(self, trainer: "Trainer") -> tuple[list[float], list[float]]:
        """Finds what is not there yet with the policy, before its first step; returns chosen and rejected."""
        if not self._file.exists():
            if self._under_initial is None:
                found = self._find(trainer, "policy")
                start = found.passed
            else:
                found = self._under_initial
                rows = self._measured(range(self._pairs.num_rows))
                start = _by_row(rows, trainer.logps(self._block, rows, phase="reference"))
                if "reference_gap_margin" not in found.facts:  # M_0 sampled nothing here, but the policy did
                    found.facts.update(self._gap(on_main(lambda: self._sampled("policy")), start))
            measured = self._measured(sorted(start))
            on_main(lambda: self._write(found, {row: start[row] for row in measured}))
        kept = self.read()
        return kept.chosen, kept.rejected

    def read(self) -> Reference:
        return read(self._file, self._pairs["id"].to_pylist())

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self._facts_file.read_text(encoding="utf-8"))
        return facts

    def _find(self, trainer: "Trainer", model: str) -> "_Found":
        """Numbers under the model that `trainer` holds: the trainer's, or the engine's where they may be believed."""
        rows = list(range(self._pairs.num_rows))
        sampled = on_main(lambda: self._sampled(model))
        use_engine = self._section.reference_logprobs == "sampler"
        wanted = rows
        if use_engine:
            incomplete = {row for row in rows if None in (sampled.chosen[row], sampled.rejected[row])}
            wanted = sorted(incomplete.union(engine_logps.rows_to_check(sampled, seed=self._seed("gap"))))
        passed = _by_row(wanted, trainer.logps(self._block, wanted, phase="reference"))
        facts = self._gap(sampled, passed)
        use_engine &= facts.get("reference_gap_margin", math.inf) <= self._section.max_reference_gap
        if not use_engine and (rest := [row for row in rows if row not in passed]):
            passed |= _by_row(rest, trainer.logps(self._block, rest, phase="reference"))
        sides: list[list[float | None]] = [[None] * len(rows)] * 2
        if use_engine:
            sides = [sampled.chosen, sampled.rejected]
        chosen, rejected = (
            [passed[row][side] if (value := values[row]) is None else value for row in rows]
            for side, values in enumerate(sides)
        )
        facts["num_sampler_logprobs"] = sum(value is not None for values in sides for value in values)
        facts["num_trainer_logprobs"] = 2 * len(rows) - facts["num_sampler_logprobs"]
        facts["num_unusable_logprobs"] = sum(sampled.num_by_reason.values())
        return _Found(chosen, rejected, passed, facts)

    def _gap(self, sampled: engine_logps.Sampled, passed: Mapping[int, tuple[float, float]]) -> dict[str, Any]:
        """How far the engine is from what the trainer `passed` over; empty where the engine has no numbers."""
        checked = [row for row in engine_logps.rows_to_check(sampled, seed=self._seed("gap")) if row in passed]
        if not checked:
            return {}
        numbers = [passed[row][0] for row in checked], [passed[row][1] for row in checked]
        gap = engine_logps.gap(sampled, rows=checked, trainer=numbers, beta=self._section.beta)
        return {**gap, "reference_gap_limit": self._section.max_reference_gap}

    def _sampled(self, model: str) -> engine_logps.Sampled:
        """What the engine measured. Checkpoint ids are the beginnings of the weights' hashes, kept in the claim."""
        claim = json.loads((self._job.work_folder / "job.json").read_text(encoding="utf-8"))
        try:
            return engine_logps.read(self._job.samples_files, self._pairs, reference_id=claim[f"{model}_sha256"][:16])
        except StoreError:
            if self._section.reference_logprobs == "sampler":
                raise
            return engine_logps.read((), self._pairs, reference_id="")  # the gap is not measured, and nothing else

    def _measured(self, rows: Sequence[int]) -> list[int]:
        if len(rows) <= MOST_MEASURED_PAIRS:
            return list(rows)
        generator = np.random.default_rng(self._seed("measured"))
        return sorted(generator.choice(rows, size=MOST_MEASURED_PAIRS, replace=False).tolist())

    def _seed(self, what: str) -> int:
        return seed_of(self._job.seed, self._job.iteration, "training", what)

    def _write(self, found: "_Found", start: Mapping[int, tuple[float, float]]) -> None:
        columns = {"pair_id": self._pairs["id"].to_pylist(), "chosen": found.chosen, "rejected": found.rejected}
        for side, name in enumerate(("start_chosen", "start_rejected")):
            values = [start[row][side] if row in start else None for row in range(len(found.chosen))]
            columns[name] = pa.array(values, pa.float64())
        write_text_atomically(self._facts_file, json.dumps(found.facts, indent=1))
        write_atomically(self._file, lambda temporary: pq.write_table(pa.table(columns), temporary))


@dataclass(frozen=True)
class _Found:
    """`passed` holds the trainer's own numbers, of the rows that it computed."""

    chosen: list[float]
    rejected: list[float]
    passed: dict[int, tuple[float, float]]
    facts: dict[str, Any]


def _by_row(rows: Sequence[int], numbers: tuple[list[float], list[float]]) -> dict[int, tuple[float, float]]:
    return dict(zip(rows, zip(*numbers, strict=True), strict=True))


def read(path: Path, ids: Sequence[str]) -> Reference:
    """Raises StoreError when the file does not belong to these pairs."""
    try:
        columns = pq.read_table(path).to_pydict()
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path}: {error}; the stored reference; remove the folder {path.parent}") from error
    if columns.pop("pair_id") != list(ids):
        raise StoreError(f"{path}: made for other pairs; those of this training; remove the folder {path.parent}")
    return Reference(**columns)
