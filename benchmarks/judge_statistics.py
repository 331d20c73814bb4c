"""Coverage of the intervals of a judge's statistics, for simulated judges with known truth.

    python benchmarks/judge_statistics.py [--quick] [--json FILE] [--seed N]

Each row: a statistic and a judge, n prompts, the coverage of the 95 % interval with its Monte-Carlo standard error, the
rate of misses on each side, the mean width, and the most frequent method. The truth is the estimate for very many
prompts. The last rows show how often a judge with random scores reaches a given reliability on one prompt.
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
from selfreward.statistics import NotEnoughDataError
from selfreward.statistics.judge_metrics import (
    entropy_interval,
    length_correlation_interval,
    position_interval,
    score_histogram,
    tie_rate_interval,
)
from selfreward.statistics.kendall import Means, mean_tau_of
from selfreward.statistics.reliability import reliability_by_prompt_of, reliability_interval
from selfreward.statistics.score_table import ScoreTable

Array = NDArray[np.float64]
Rng = np.random.Generator

SIZES = (12, 50, 200, 800)
TRUTH_PROMPTS = 40_000
RESPONSES = 4
SCALE = (0.0, 5.0)
MAX_TOKENS = 512


@dataclass(frozen=True)
class Case:
    """`measure` simulates n prompts and returns the shipped interval, or None when it could not be measured."""

    name: str
    measure: Callable[[Rng, int], Interval | None]


@dataclass(frozen=True)
class Row:
    case: str
    truth: float
    n: int
    coverage: float
    coverage_standard_error: float
    missed_below_rate: float
    missed_above_rate: float
    mean_width: float
    not_measured_rate: float
    method: str


def sampled(
    rng: Rng, n: int, *, quality: float, mean: float = 3.8, draws: int = 3, responses: int = RESPONSES
) -> Array:
    """Return integer scores 0 to 5, shape (prompts, responses, draws): quality, plus noise of 0.7 in every draw."""
    true = rng.normal(mean, 0.4, size=(n, 1, 1)) + quality * rng.normal(size=(n, responses, 1))
    return np.clip(np.round(true + 0.7 * rng.normal(size=(n, responses, draws))), *SCALE)


def with_variants(rng: Rng, n: int, *, quality: float, uneven: bool = False) -> Array:
    """Return scores of two prompt variants, the second more lenient by 0.5 +- 0.5; `uneven`: spread by prompt."""
    spread, noise = (np.sqrt(rng.gamma(0.5, 2.0, size=(n, 1, 1))) if uneven else 1.0 for _ in range(2))
    shift = np.concatenate([np.zeros((n, 1, 1)), rng.normal(0.5, 0.5, size=(n, 1, 1))], axis=2)
    true = quality * spread * rng.normal(size=(n, RESPONSES, 1))
    return np.asarray(true + noise * rng.normal(size=(n, RESPONSES, 2)) + shift)


def scored(x_PRD: Array) -> ScoreTable:
    prompts, responses, _ = x_PRD.shape
    place = np.indices(x_PRD.shape).reshape(3, -1)
    return _table(
        prompts,
        responses,
        prompt_N=place[0],
        response_N=place[0] * responses + place[1],
        other_N=np.full(x_PRD.size, -1),
        first_N=np.zeros(x_PRD.size, dtype=np.int64),
        draw_N=place[2],
        score_N=x_PRD.ravel(),
    )


def compared(rng: Rng, n: int, *, quality: float, bias: float, noise: float = 1.0) -> ScoreTable:
    """Return comparisons of all pairs in both orders: logistic in the difference, noise and `bias` to the first."""
    one, other = np.triu_indices(RESPONSES, 1)
    true = quality * rng.normal(size=(n, RESPONSES))
    difference = (true[:, one] - true[:, other])[:, :, None] + noise * rng.normal(size=(n, len(one), 2))
    x_PU2 = 1 / (1 + np.exp(-(difference + np.array([bias, -bias]))))
    place = np.indices(x_PU2.shape).reshape(3, -1)
    return _table(
        n,
        RESPONSES,
        prompt_N=place[0],
        response_N=place[0] * RESPONSES + one[place[1]],
        other_N=place[0] * RESPONSES + other[place[1]],
        first_N=1 - place[2],
        draw_N=np.zeros(x_PU2.size, dtype=np.int64),
        score_N=x_PU2.ravel(),
    )


def _table(prompts: int, responses: int, **columns: NDArray[np.int64] | Array) -> ScoreTable:
    return ScoreTable(
        prompt_ids=tuple(f"{p:06d}" for p in range(prompts)),
        response_ids=tuple(f"{p:06d}#{r:02d}" for p in range(prompts) for r in range(responses)),
        parts=("",),
        part_N=np.zeros(len(columns["score_N"]), dtype=np.int64),
        num_judged_P=np.ones(prompts, dtype=np.int64),
        num_unscored_P=np.zeros(prompts, dtype=np.int64),
        **columns,
    )


def means_of(mean_PR: Array) -> Means:
    return {f"{p}": {f"{p}#{r}": value for r, value in enumerate(row)} for p, row in enumerate(mean_PR.tolist())}


def length_correlation(rng: Rng, n: int, *, slope: float, uneven: bool) -> Interval:
    """Return the interval for log-normal lengths up to a limit, `slope` points per 80 tokens, plus noise."""
    spread = rng.uniform(0.1, 1.0, size=(n, 1)) if uneven else 0.5
    length_PR = np.minimum(np.round(np.exp(5 + spread * rng.normal(size=(n, RESPONSES)))), MAX_TOKENS)
    score_PR = slope * (length_PR - 150) / 80 + rng.normal(size=(n, RESPONSES))
    lengths = {key: int(length) for row in means_of(length_PR).values() for key, length in row.items()}
    return length_correlation_interval(means_of(score_PR), lengths, 0)


def tau(rng: Rng, n: int, *, quality: float) -> Interval | None:
    """Return the interval for two judges of the same quality, each with its own draws."""
    true = quality * rng.normal(size=(n, RESPONSES, 1)) + rng.normal(3.8, 0.4, size=(n, 1, 1))
    now, before = (
        np.clip(np.round(true + 0.7 * rng.normal(size=(n, RESPONSES, 3))), *SCALE).mean(axis=2) for _ in range(2)
    )
    return mean_tau_of(means_of(now), means_of(before), seed=0)


def r_of(make: Callable[[Rng, int], ScoreTable]) -> Callable[[Rng, int], Interval]:
    return lambda rng, n: reliability_interval(make(rng, n), seed=0)


def cases() -> list[Case]:
    return [
        Case("r, integers, noise only", r_of(lambda rng, n: scored(sampled(rng, n, quality=0)))),
        Case("r, integers, weak", r_of(lambda rng, n: scored(sampled(rng, n, quality=0.4)))),
        Case("r, integers, strong", r_of(lambda rng, n: scored(sampled(rng, n, quality=1.2)))),
        Case("r, integers, at the top", r_of(lambda rng, n: scored(sampled(rng, n, quality=0.4, mean=5.5)))),
        Case("r, two variants, noise only", r_of(lambda rng, n: scored(with_variants(rng, n, quality=0)))),
        Case("r, two variants", r_of(lambda rng, n: scored(with_variants(rng, n, quality=1)))),
        Case("r, two variants, uneven", r_of(lambda rng, n: scored(with_variants(rng, n, quality=1.5, uneven=True)))),
        Case("r, pairs, noise only", r_of(lambda rng, n: compared(rng, n, quality=0, bias=1))),
        Case("r, pairs", r_of(lambda rng, n: compared(rng, n, quality=0.7, bias=1))),
        Case("r, pairs, strong", r_of(lambda rng, n: compared(rng, n, quality=3, bias=0.3))),
        Case("position consistency, weak", lambda rng, n: position(rng, n, quality=0.3, bias=2.0)),
        Case("position consistency", lambda rng, n: position(rng, n, quality=1.5, bias=0.7)),
        Case("position consistency, strong", lambda rng, n: position(rng, n, quality=4, bias=0.1, noise=0.1)),
        Case("preference fairness", lambda rng, n: position(rng, n, fairness=True, quality=1.5, bias=0.7)),
        Case("length correlation, none", lambda rng, n: length_correlation(rng, n, slope=0, uneven=False)),
        Case("length correlation", lambda rng, n: length_correlation(rng, n, slope=0.5, uneven=False)),
        Case("length correlation, uneven", lambda rng, n: length_correlation(rng, n, slope=0.5, uneven=True)),
        Case("tau, unrelated judges", lambda rng, n: tau(rng, n, quality=0)),
        Case("tau", lambda rng, n: tau(rng, n, quality=0.6)),
        Case("tau, close judges", lambda rng, n: tau(rng, n, quality=2)),
        Case("tie rate", lambda rng, n: ties(rng, n, mean=3.8)),
        Case("tie rate, at the top", lambda rng, n: ties(rng, n, mean=5.5)),
        Case("entropy", lambda rng, n: entropy(rng, n, mean=3.8)),
        Case("entropy, at the top", lambda rng, n: entropy(rng, n, mean=5.5)),
    ]


def position(rng: Rng, n: int, *, fairness: bool = False, **judge: float) -> Interval:
    return position_interval(compared(rng, n, **judge), 0, fairness=fairness)


def ties(rng: Rng, n: int, *, mean: float) -> Interval:
    return tie_rate_interval(means_of(sampled(rng, n, quality=0.4, mean=mean).mean(axis=2)), 0)


def entropy(rng: Rng, n: int, *, mean: float) -> Interval:
    return entropy_interval(score_histogram(scored(sampled(rng, n, quality=0.4, mean=mean)), SCALE), 0)


def measured(case: Case, rng: Rng, n: int) -> Interval | None:
    try:
        return case.measure(rng, n)
    except NotEnoughDataError:
        return None


def simulate(case: Case, n: int, *, truth: float, num_samples: int, seed: int) -> Row:
    """Return the coverage of one case at one size. The samples depend on `seed`, the case and n."""
    rng = np.random.default_rng([seed, n, *case.name.encode()])
    drawn = [measured(case, rng, n) for _ in range(num_samples)]
    intervals = [interval for interval in drawn if interval is not None]
    below = np.mean([i.high < truth - 1e-9 for i in intervals])
    above = np.mean([i.low > truth + 1e-9 for i in intervals])
    coverage = float(1 - below - above)
    return Row(
        case=case.name,
        truth=truth,
        n=n,
        coverage=coverage,
        coverage_standard_error=math.sqrt(max(coverage * (1 - coverage), 1 / num_samples) / num_samples),
        missed_below_rate=float(below),
        missed_above_rate=float(above),
        mean_width=float(np.mean([i.high - i.low for i in intervals])),
        not_measured_rate=1 - len(intervals) / num_samples,
        method=Counter(i.method for i in intervals).most_common(1)[0][0],
    )


def truth_of(case: Case) -> float:
    found = case.measure(np.random.default_rng(123), TRUTH_PROMPTS)
    assert found is not None
    # Noise only: the estimate is 0 or barely above.
    return 0.0 if "noise only" in case.name else found.mean


def by_prompt_under_noise(num_prompts: int, seed: int) -> dict[str, dict[str, float]]:
    """Return how often a judge with random scores reaches a reliability on a single prompt."""
    rng = np.random.default_rng(seed)
    judges = {
        "integers, 4 responses, 3 draws": scored(sampled(rng, num_prompts, quality=0)),
        "integers, 7 responses, 11 draws": scored(sampled(rng, num_prompts, quality=0, draws=11, responses=7)),
        "two variants, 4 responses": scored(with_variants(rng, num_prompts, quality=0)),
        "pairs of 4 responses": compared(rng, num_prompts, quality=0, bias=0),
    }
    found = {name: np.array(list(reliability_by_prompt_of(table).values())) for name, table in judges.items()}
    return {name: {f"{r}": float((r_P >= r).mean()) for r in (0.3, 0.5, 0.7, 0.8)} for name, r_P in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    num_samples = 100 if arguments.quick else 1000
    started = time.monotonic()
    rows = []
    print(f"{'case':29s} {'truth':>6s} {'n':>4s}  coverage (s.e.)   missed below / above  {'width':>6s}  method")
    for case in cases():
        truth = truth_of(case)
        for n in SIZES:
            row = simulate(case, n, truth=truth, num_samples=num_samples, seed=arguments.seed)
            rows.append(row)
            absent = f" ({row.not_measured_rate:.0%} not measured)" if row.not_measured_rate else ""
            print(
                f"{row.case:29s} {row.truth:6.3f} {row.n:4d}  "
                f"{row.coverage:.3f} ({row.coverage_standard_error:.3f})    "
                f"{row.missed_below_rate:.3f} / {row.missed_above_rate:.3f}        "
                f"{row.mean_width:6.3f}  {row.method}{absent}",
                flush=True,
            )
    noise = by_prompt_under_noise(2_000 if arguments.quick else 20_000, arguments.seed)
    for name, rates in noise.items():
        print(f"noise, {name}: " + ", ".join(f"r >= {r} in {rate:.1%} of prompts" for r, rate in rates.items()))
    seconds = time.monotonic() - started
    print(f"{num_samples} samples each, {seconds:.0f} s")
    if arguments.json:
        result = {"schema": 1, "num_samples": num_samples, "seed": arguments.seed, "seconds": seconds}
        result |= {"rows": [asdict(row) for row in rows], "by_prompt_under_noise": noise}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
