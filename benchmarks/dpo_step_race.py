"""Contenders on the same pairs, in interleaved rounds, and the time and memory of each."""

import itertools
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpo_step_pairs import Lengths, Sharing, Work, read_rows, work, write_pairs
from dpo_step_run import Job, Result, in_child, matrix_rate

Contend = Callable[[Job], Result]
MEMORY_SHARE = 0.8


@dataclass(frozen=True)
class Settings:
    """`repeats` runs of `num_steps` steps, after one run of two steps in which the micro-batch sizes are tried.

    `vocabulary`: token ids of the pairs are drawn below this number.
    """

    threads: int
    device: str
    vocabulary: int
    pairs_per_step: dict[str, int]
    num_steps: int
    repeats: int
    micros: tuple[int, ...]
    contenders: tuple[str, ...]
    seed: int
    sharing: Sharing


@dataclass(frozen=True)
class Row:
    """One contender at one micro-batch size, for the steps after the first.

    `seconds_per_pair` includes the share of a reference pass for these pairs (`pass_seconds`);
    `cpu_seconds_per_pair` does not.
    """

    contender: str
    micro: int
    is_peer: bool
    seconds_per_pair: float
    cpu_seconds_per_pair: float
    pass_seconds: float
    pairs_per_s: float
    tokens_per_s: float
    flops_share: float
    peak_gib: float
    loss: list[float]
    grad_norm: list[float]


def describe(job: Job) -> list[Work]:
    """Return the minimum work of each optimizer step."""
    from transformers import AutoConfig

    rows = read_rows(job.pairs, job.num_steps * job.pairs_per_step)
    config = AutoConfig.from_pretrained(job.model)
    return [work(rows[start : start + job.pairs_per_step], config) for start in range(0, len(rows), job.pairs_per_step)]


class Race:
    """Contenders on one file of pairs, in interleaved rounds. `runs` has all results by contender and micro-batch size.

    `peers`: the micro-batch size of each contender that is repeated and compared, set when all sizes have been tried.
    """

    def __init__(self, context: Any, contend: Contend, job: Job) -> None:
        self._context = context
        self._contend = contend
        self._job = job
        self.runs: dict[tuple[str, int], list[Result]] = {}
        self.peers: dict[str, int] = {}
        self.rates: list[float] = []
        self.work: list[Work] = in_child(context, describe, job)
        self.measure_rate()

    def measure_rate(self) -> None:
        self.rates.append(in_child(self._context, matrix_rate, self._job))

    def run(self, contender: str, micro: int, *, num_steps: int) -> None:
        """Run a contender once. `trl` must run first: its reference model's numbers replace the sampler's."""
        found = [result.reference for results in self.runs.values() for result in results if result.reference]
        reference = max(found, key=lambda sums: len(sums[0]), default=None)
        job = replace(self._job, contender=contender, micro=micro, num_steps=num_steps, reference=reference)
        result = in_child(self._context, self._contend, job)
        self.runs.setdefault((contender, micro), []).append(result)
        each = result.seconds[-1] / job.pairs_per_step
        print(f"  {contender:15s} micro {micro}: {each:7.2f} s per pair, {result.peak_gib:5.2f} GiB", flush=True)

    def try_sizes(self, contenders: Sequence[str], sizes: list[int]) -> None:
        """Run two steps of each contender; TRL at every size that fits in this machine's memory."""
        for contender in contenders:
            self.run(contender, _sizes(contender, sizes)[0], num_steps=2)
        for contender in contenders:
            for smaller, size in itertools.pairwise(_sizes(contender, sizes)):
                if why := self._too_large(contender, smaller, size):
                    print(f"  {contender:15s} micro {size}: left out, {why}", flush=True)
                    break
        self.peers = self._best_sizes()

    def _too_large(self, contender: str, smaller: int, size: int) -> str:
        """Run `size`, or return the reason why it cannot run.

        On the CPU, sizes that might get other processes killed for memory are not tried.
        """
        bound = self.peak_gib(contender, smaller) * size / smaller
        if self._job.device == "cpu" and bound > MEMORY_SHARE * memory_gib():
            return f"it may need {bound:.0f} GiB"
        try:
            self.run(contender, size, num_steps=2)
        except RuntimeError as error:
            if "OutOfMemoryError" not in str(error):
                raise
            return "out of memory"
        return ""

    def peak_gib(self, contender: str, micro: int) -> float:
        return max(run.peak_gib for run in self.runs[contender, micro])

    def limit_gib(self) -> float:
        """Return the memory that TRL may use, which is ours."""
        return self.peak_gib("ours_sampler", 1) if ("ours_sampler", 1) in self.runs else math.inf

    def _best_sizes(self) -> dict[str, int]:
        """Return each contender's micro-batch size: the fastest in our memory, or the fastest of all if none fits."""

        def badness(key: tuple[str, int]) -> tuple[bool, float]:
            return self.peak_gib(*key) > self.limit_gib(), self.seconds(*key)

        worst_first = sorted(self.runs, key=badness, reverse=True)
        return dict(worst_first)

    def fastest_trl(self) -> tuple[str, int] | None:
        """Return the fastest row of TRL, regardless of its memory."""
        theirs = [key for key in self.runs if key[0].startswith("trl")]
        return min(theirs, key=lambda key: self.seconds(*key), default=None)

    def seconds(self, contender: str, micro: int, *, cpu: bool = False) -> float:
        """Return seconds per pair without the first step: the medians of the steps, and the reference pass's share of
        these tokens."""
        results = self.runs[contender, micro]
        steps = [result.cpu_seconds if cpu else result.seconds for result in results]
        timed = sum(
            statistics.median(run[step] for run in steps if len(run) > step) for step in range(1, max(map(len, steps)))
        )
        num_steps = max(map(len, steps))
        total = timed + (0.0 if cpu else self.pass_seconds(contender, micro, num_steps))
        return total / (num_steps - 1) / self._job.pairs_per_step

    def pass_seconds(self, contender: str, micro: int, num_steps: int) -> float:
        """Return the seconds of the reference pass for the pairs of the timed steps."""
        full = [run for run in self.runs[contender, micro] if len(run.seconds) == num_steps]
        tokens = [step.tokens for step in self.work[:num_steps]]
        return statistics.median(run.pass_seconds for run in full) * sum(tokens[1:]) / sum(tokens)

    def row(self, contender: str, micro: int, *, is_peer: bool) -> Row:
        results = self.runs[contender, micro]
        longest = max(results, key=lambda run: len(run.seconds))
        num_steps = len(longest.seconds)
        seconds = self.seconds(contender, micro)
        timed = self.work[1:num_steps]
        num_pairs = self._job.pairs_per_step * len(timed)
        return Row(
            contender=contender,
            micro=micro,
            is_peer=is_peer,
            seconds_per_pair=seconds,
            cpu_seconds_per_pair=self.seconds(contender, micro, cpu=True),
            pass_seconds=self.pass_seconds(contender, micro, num_steps),
            pairs_per_s=1 / seconds,
            tokens_per_s=sum(step.tokens for step in timed) / num_pairs / seconds,
            flops_share=sum(step.flops for step in timed) / num_pairs / seconds / statistics.median(self.rates),
            peak_gib=self.peak_gib(contender, micro),
            loss=longest.loss,
            grad_norm=longest.grad_norm,
        )


def memory_gib() -> float:
    """Return this machine's memory; infinite where the system does not report it."""
    if sys.platform == "win32":
        return math.inf
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _sizes(contender: str, sizes: list[int]) -> list[int]:
    if contender.startswith("ours"):
        return [1]
    # With one pair per micro-batch there is nothing to group.
    return sizes[1:] or sizes if contender == "trl_grouped" else sizes


def race(
    context: Any, contend: Contend, model: Path, lengths: Lengths, settings: Settings, *, pairs_per_step: int
) -> Race:
    """Run all contenders on new pairs of these lengths."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.parquet"
        steps = settings.num_steps if settings.repeats else 2
        write_pairs(
            file,
            lengths,
            vocabulary=settings.vocabulary,
            pairs_per_step=pairs_per_step,
            num_steps=steps,
            seed=settings.seed,
            sharing=settings.sharing,
        )
        job = Job("", model, file, pairs_per_step, num_steps=steps, threads=settings.threads, device=settings.device)
        found = Race(context, contend, job)
        sizes = [size for size in settings.micros if pairs_per_step % size == 0]
        found.try_sizes(settings.contenders, sizes)
        entries = [(contender, found.peers[contender]) for contender in settings.contenders]
        fastest = found.fastest_trl()
        if fastest is not None and fastest not in entries:
            entries.append(fastest)
        for _ in range(settings.repeats):
            found.measure_rate()
            for contender, micro in entries:
                found.run(contender, micro, num_steps=steps)
        found.measure_rate()
    return found
