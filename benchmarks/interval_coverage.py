"""Coverage of the shipped intervals, on samples like those of an evaluation.

    python benchmarks/interval_coverage.py [--quick] [--json FILE] [--seed N]

Each row: a kind of outcome, n prompts, the coverage of the 95 % interval with its Monte-Carlo standard error, the rate
of misses on each side, the mean width, and the most frequent method. The intervals do not know the case.
"""

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selfreward.records import Interval
from selfreward.statistics.intervals import mean_interval, paired_interval, rate_interval

Array = NDArray[np.float64]
SIZES = (4, 8, 32, 128, 512)
LEVEL = 0.95
# Near the lower edge, where the usual intervals fail at n = 128, 32, 8 and 4; in the middle; at the upper edge.
RATES = (0.00125, 0.0055, 0.022, 0.0455, 0.3, 0.9, 0.995)
MAX_TOKENS = 128
FAR_MAX_TOKENS = 1024


@dataclass(frozen=True)
class Case:
    """`draw(rng, n)` returns n values with mean `truth`; `interval` returns their shipped interval."""

    name: str
    truth: float
    draw: Callable[[np.random.Generator, int], Array]
    interval: Callable[[Array], Interval]


@dataclass(frozen=True)
class Row:
    case: str
    n: int
    coverage: float
    coverage_standard_error: float
    missed_below_rate: float
    missed_above_rate: float
    mean_width: float
    method: str


def bounded(values: Array) -> Interval:
    return mean_interval(values, bounds=(0, 1))


def lengths(values: Array) -> Interval:
    return mean_interval(values, bounds=(0, MAX_TOKENS))


def rate(values: Array) -> Interval:
    return rate_interval(list(values > 0))


def passes(differences: Array) -> Interval:
    """Return the paired interval: any two pass series with these differences give the same one."""
    return paired_interval(differences > 0, differences < 0, bounds=(0, 1))


def discrete(
    name: str, values: tuple[float, ...], chances: tuple[float, ...], interval: Callable[..., Interval]
) -> Case:
    truth = sum(v * p for v, p in zip(values, chances, strict=True))
    return Case(name, truth, lambda rng, n: rng.choice(values, size=n, p=chances).astype(np.float64), interval)


def log_normal(rng: np.random.Generator, n: int) -> Array:
    return rng.lognormal(4.5, 0.7, size=n)


def cut_log_normal(rng: np.random.Generator, n: int) -> Array:
    return np.minimum(log_normal(rng, n), MAX_TOKENS)


def lengths_far_below(values: Array) -> Interval:
    return mean_interval(values, bounds=(0, FAR_MAX_TOKENS))


def far_log_normal(rng: np.random.Generator, n: int) -> Array:
    return np.minimum(log_normal(rng, n), FAR_MAX_TOKENS)


def confident(loss_rate: float) -> Case:
    """Return the case of an anchor that gives .99 or .01, plus or minus .005: outcomes are distinct but similar."""

    def draw(rng: np.random.Generator, n: int) -> Array:
        return np.where(rng.random(n) < loss_rate, 0.01, 0.99) + rng.uniform(-0.005, 0.005, size=n)

    return Case(f"confident anchor, {loss_rate:.0%} lost", 0.99 - 0.98 * loss_rate, draw, bounded)


def changed_lengths(rng: np.random.Generator, n: int) -> Array:
    """Return differences, mostly zero, because greedy responses of similar checkpoints are often the same."""
    difference = cut_log_normal(rng, n) - cut_log_normal(rng, n)
    return np.where(rng.random(n) < 0.7, 0.0, difference)


def cases() -> list[Case]:
    outcome = (1.0, 0.5, 0.0)
    return [
        discrete("win/tie/loss .3 .4 .3", outcome, (0.3, 0.4, 0.3), bounded),
        discrete("win/tie/loss .2 .7 .1", outcome, (0.2, 0.7, 0.1), bounded),
        discrete("win/tie/loss .05 .9 .05", outcome, (0.05, 0.9, 0.05), bounded),
        Case("preference Beta(2, 2)", 0.5, lambda rng, n: rng.beta(2, 2, size=n), bounded),
        Case("preference Beta(50, 50)", 0.5, lambda rng, n: rng.beta(50, 50, size=n), bounded),
        Case("preference Beta(.3, .1)", 0.75, lambda rng, n: rng.beta(0.3, 0.1, size=n), bounded),
        Case(
            "60 % ties, else Beta(2, 2)",
            0.5,
            lambda rng, n: np.where(rng.random(n) < 0.6, 0.5, rng.beta(2, 2, size=n)),
            bounded,
        ),
        *(confident(loss_rate) for loss_rate in (0.01, 0.03, 0.1)),
        Case(
            "Beta(50, 50), 1 % at 0",
            0.495,
            lambda rng, n: np.where(rng.random(n) < 0.01, 0.0, rng.beta(50, 50, size=n)),
            bounded,
        ),
        *(discrete(f"rate {p}", (1.0, 0.0), (p, 1 - p), rate) for p in RATES),
        discrete("paired passes +.15 -.05", (1.0, 0.0, -1.0), (0.15, 0.8, 0.05), passes),
        discrete("paired passes +.05 -.05", (1.0, 0.0, -1.0), (0.05, 0.9, 0.05), passes),
        discrete("paired passes +.02 -.01", (1.0, 0.0, -1.0), (0.02, 0.97, 0.01), passes),
        Case("lengths, log-normal .7", math.exp(4.5 + 0.7**2 / 2), log_normal, mean_interval),
        Case("lengths, cut at the limit", _mean_of_cut(MAX_TOKENS), cut_log_normal, lengths),
        Case("lengths, far below the limit", _mean_of_cut(FAR_MAX_TOKENS), far_log_normal, lengths_far_below),
        Case("length differences", 0.0, lambda rng, n: log_normal(rng, n) - log_normal(rng, n), mean_interval),
        Case(
            "length differences, 70 % zero",
            0.0,
            changed_lengths,
            lambda values: mean_interval(values, bounds=(-MAX_TOKENS, MAX_TOKENS)),
        ),
    ]


def _mean_of_cut(limit: float) -> float:
    """Return E min(X, limit) of the log-normal, on a grid of the underlying normal."""
    grid = np.linspace(-8, 8, 200_001)
    density = np.exp(-(grid**2) / 2)
    return float(np.average(np.minimum(np.exp(4.5 + 0.7 * grid), limit), weights=density))


def simulate(case: Case, n: int, *, num_samples: int, seed: int) -> Row:
    """Return the coverage of one case at one size. The samples depend on `seed`, the case and n."""
    rng = np.random.default_rng([seed, n, *case.name.encode()])
    intervals = [case.interval(case.draw(rng, n)) for _ in range(num_samples)]
    # A limit that equals the truth up to rounding contains it.
    below = np.mean([i.high < case.truth - 1e-9 for i in intervals])
    above = np.mean([i.low > case.truth + 1e-9 for i in intervals])
    coverage = float(1 - below - above)
    return Row(
        case=case.name,
        n=n,
        coverage=coverage,
        coverage_standard_error=math.sqrt(max(coverage * (1 - coverage), 1 / num_samples) / num_samples),
        missed_below_rate=float(below),
        missed_above_rate=float(above),
        mean_width=float(np.mean([i.high - i.low for i in intervals])),
        method=Counter(i.method for i in intervals).most_common(1)[0][0],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    num_samples = 400 if arguments.quick else 4000
    started = time.monotonic()
    rows = []
    print(f"{'case':32s} {'n':>4s}  coverage (s.e.)   missed below / above  {'width':>8s}  method")
    for case in cases():
        for n in SIZES:
            row = simulate(case, n, num_samples=num_samples, seed=arguments.seed)
            rows.append(row)
            print(
                f"{row.case:32s} {row.n:4d}  {row.coverage:.3f} ({row.coverage_standard_error:.3f})    "
                f"{row.missed_below_rate:.3f} / {row.missed_above_rate:.3f}        {row.mean_width:8.3f}  {row.method}",
                flush=True,
            )
    worst = min(rows, key=lambda row: row.coverage)
    seconds = time.monotonic() - started
    print(f"worst: {worst.case}, n = {worst.n}: {worst.coverage:.3f}; {num_samples} samples each, {seconds:.0f} s")
    if arguments.json:
        result = {"schema": 1, "level": LEVEL, "num_samples": num_samples, "seed": arguments.seed, "seconds": seconds}
        arguments.json.write_text(json.dumps(result | {"rows": [asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
