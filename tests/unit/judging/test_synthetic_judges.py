"""Judges with known noise, position bias and length bias: the estimates recover them, within their intervals."""

from collections.abc import Callable, Iterable, Iterator
from itertools import combinations

import numpy as np
import pytest

from selfreward.monitoring.decide import too_noisy
from selfreward.monitoring.evidence import evidence_of
from selfreward.recipe import MonitorSection
from selfreward.records import Evaluation, Interval, IterationSummary, Judgment
from selfreward.statistics.judge_metrics import measure_judge
from selfreward.statistics.reliability import reliability, reliability_by_prompt
from selfreward.statistics.scores import mean_scores

PROMPTS, RESPONSES = 300, 4
Rng = np.random.Generator


def judged(prompt: int, response: int, score: float, *, draw: int = 0, other: int = -1, first: int = -1) -> Judgment:
    return Judgment(
        id="",
        prompt_id=f"p{prompt:03d}",
        response_id=f"p{prompt:03d}#{response}",
        judge="synthetic",
        draw=draw,
        score=score,
        unscored=None,
        text="",
        other_id=f"p{prompt:03d}#{other}" if other >= 0 else "",
        shown_first=f"p{prompt:03d}#{first}" if first >= 0 else "",
    )


def sampled_judge(rng: Rng, *, noise: float, draws: int = 3, quality: float = 1.0) -> Iterator[Judgment]:
    """Independent draws, like those of a model that writes its verdict."""
    for p in range(PROMPTS):
        for r, true in enumerate(rng.normal(rng.normal(), quality, size=RESPONSES)):
            for d in range(draws):
                yield judged(p, r, true + noise * rng.normal(), draw=d)


def prompt_variant_judge(
    rng: Rng, *, noise: float, lenient: float, moody: float, prompt_variants: int = 2, quality: float = 1.0
) -> Iterator[Judgment]:
    """Draw d is the same prompt variant for all: `lenient` raises the second everywhere, `moody` each by prompt."""
    for p in range(PROMPTS):
        mood = lenient * np.arange(prompt_variants) + moody * rng.normal(size=prompt_variants)
        for r in range(RESPONSES):
            true = quality * rng.normal()
            for d in range(prompt_variants):
                yield judged(p, r, true + mood[d] + noise * rng.normal(), draw=d)


def comparing_judge(
    rng: Rng, preference: Callable[[float, bool], float], *, draws: int = 1, quality: float = 1.0
) -> Iterator[Judgment]:
    """`preference` for the lower id, from the difference in true quality (uniform, each of width `quality`) and the
    position."""
    for p in range(PROMPTS):
        true = quality * rng.uniform(size=RESPONSES)
        for one, other in combinations(range(RESPONSES), 2):
            for first in (one, other):
                for d in range(draws):
                    x = preference(true[one] - true[other], first == one)
                    yield judged(p, one, x, draw=d, other=other, first=first)
                    yield judged(p, other, 1 - x, draw=d, other=one, first=first)


def measure(judgments: Iterable[Judgment], **lengths: dict[str, int]) -> dict[str, Interval]:
    metrics, _ = measure_judge(judgments, response_lengths=lengths.get("lengths", {}), scale=None, seed=0)
    return {name: value for name, value in metrics.items() if isinstance(value, Interval)}


def assert_found(interval: Interval, planted: float, *, width: float) -> None:
    """Within the interval, and the interval is narrow enough to be informative."""
    assert interval.low - 1e-9 <= planted <= interval.high + 1e-9
    assert interval.high - interval.low < width


def num_prompts_that_give_pairs(judgments: list[Judgment]) -> int:
    by_prompt: dict[str, set[float]] = {}
    for response_id, score in mean_scores(judgments).items():
        by_prompt.setdefault(response_id[:4], set()).add(score)
    return sum(len(scores) > 1 for scores in by_prompt.values())


@pytest.mark.parametrize(("noise", "draws"), [(0.5, 3), (1.0, 3), (2.0, 3), (1.0, 8), (1.0, 2)])
def test_planted_reliability_of_sampled_scores(noise: float, draws: int) -> None:
    rng = np.random.default_rng(0)
    found = measure(sampled_judge(rng, noise=noise, draws=draws))["judge_reliability"]
    assert_found(found, 1 / (1 + noise**2 / draws), width=0.2)


@pytest.mark.parametrize(("lenient", "moody"), [(0.0, 0.0), (2.0, 0.0), (2.0, 2.0)])
def test_planted_reliability_of_prompt_variants_however_lenient(lenient: float, moody: float) -> None:
    rng = np.random.default_rng(1)
    found = measure(prompt_variant_judge(rng, noise=1.0, lenient=lenient, moody=moody))["judge_reliability"]
    assert_found(found, 1 / (1 + 1 / 2), width=0.2)


def test_removing_draw_effects_hardly_changes_sampled_scores() -> None:
    """Compared with the one-way formula, which has no draw effects."""
    judgments = list(sampled_judge(np.random.default_rng(2), noise=1.0))
    x_PRD = np.array([j.score for j in judgments], dtype=np.float64).reshape(PROMPTS, RESPONSES, 3)
    observed, noise = x_PRD.mean(axis=2).var(axis=1, ddof=1).mean(), x_PRD.var(axis=2, ddof=1).mean() / 3
    assert reliability(judgments) == pytest.approx(1 - noise / observed, abs=0.01)


def test_noise_gives_pairs_on_nearly_every_prompt_and_no_reliability() -> None:
    rng = np.random.default_rng(3)
    integers = [
        judged(p, r, float(np.clip(np.round(rng.normal(4.6, 0.7)), 0, 5)), draw=d)
        for p in range(PROMPTS)
        for r in range(RESPONSES)
        for d in range(3)
    ]
    prompt_variants = list(prompt_variant_judge(rng, noise=0.7, lenient=0.5, moody=0.5, quality=0.0))
    assert 0.94 * PROMPTS <= num_prompts_that_give_pairs(integers) <= 0.995 * PROMPTS
    assert num_prompts_that_give_pairs(prompt_variants) == PROMPTS
    for judgments in (integers, prompt_variants):
        assert_found(measure(judgments)["judge_reliability"], 0.0, width=0.16)


@pytest.mark.parametrize(("bias", "draws"), [(0.0, 1), (0.2, 1), (0.2, 3)])
def test_planted_reliability_of_comparisons(bias: float, draws: int) -> None:
    """Preference 0.5 + 0.15 (difference) + bias + noise on (-0.15, 0.15) that the draws of an order share in part."""
    rng = np.random.default_rng(4)
    shared: dict[bool, float] = {}

    def preference(difference: float, is_first: bool) -> float:
        # The effect of an order on a pair is sampled with its first draw, and reused by the others.
        calls[0] += 1
        if calls[0] % draws == 1 % draws:
            shared[is_first] = rng.uniform(-0.1, 0.1)
        own = rng.uniform(-0.05, 0.05)
        return 0.5 + 0.15 * difference + (bias if is_first else -bias) + shared[is_first] + own

    calls = [0]
    found = measure(comparing_judge(rng, preference, draws=draws))
    true, noise = 0.15**2 * 2 / 12, (0.1**2 + 0.05**2 / draws) / 3 / 2
    assert_found(found["judge_reliability"], true / (true + noise), width=0.2)


@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_a_comparing_judge_that_guesses_has_no_reliability(bias: float) -> None:
    rng = np.random.default_rng(5)
    guesses = list(
        comparing_judge(rng, lambda _, is_first: 0.5 + (bias if is_first else -bias) + rng.uniform(-0.2, 0.2))
    )
    assert_found(measure(guesses)["judge_reliability"], 0.0, width=0.15)
    assert np.mean([r >= 0.5 for r in reliability_by_prompt(guesses).values()]) < 0.1


@pytest.mark.parametrize(("first", "fairness"), [(0.9, -1.0), (0.1, 1.0)])
def test_pure_position_bias_is_neither_reliable_nor_consistent(first: float, fairness: float) -> None:
    rng = np.random.default_rng(6)
    biased = list(comparing_judge(rng, lambda _, is_first: first if is_first else 1 - first))
    found = measure(biased)
    assert reliability(biased) == 0.0 and "judge_reliability" not in found  # without an interval: it is 0 everywhere
    assert found["judge_position_consistency_rate"].mean == 0.0
    assert found["judge_preference_fairness"].mean == fairness


def test_planted_position_consistency() -> None:
    """Certain of the better response in 70 % of comparisons, else for the second: inconsistent if either order is."""
    rng = np.random.default_rng(7)

    def preference(difference: float, is_first: bool) -> float:
        prefers_lower = difference > 0 if rng.random() < 0.7 else not is_first
        return 0.9 if prefers_lower else 0.1

    found = measure(comparing_judge(rng, preference))
    # Both orders follow quality, or only one does and the position happens to agree.
    consistent = 0.7**2 + 0.7 * 0.3
    assert_found(found["judge_position_consistency_rate"], consistent, width=0.08)
    assert_found(found["judge_preference_fairness"], 1 - consistent, width=0.08)


def test_planted_length_correlation_within_prompts() -> None:
    """Half a point for each 50 tokens against quality of 1; prompts with long responses have low scores."""
    rng = np.random.default_rng(8)
    lengths: dict[str, int] = {}
    judgments = []
    for p in range(PROMPTS):
        typical = rng.integers(300, 2000)
        for r in range(RESPONSES):
            length = int(typical + round(50 * rng.normal()))
            lengths[f"p{p:03d}#{r}"] = length
            score = 0.5 * (length - typical) / 50 + rng.normal() - typical / 100
            judgments.append(judged(p, r, score))
    found = measure(judgments, lengths=lengths)["judge_length_correlation"]
    assert_found(found, 0.5 / np.sqrt(0.5**2 + 1), width=0.15)


@pytest.mark.parametrize("kind", ["constant", "position", "noise"])
@pytest.mark.parametrize(("num_prompts", "shown"), [(PROMPTS, True), (11, False)])
def test_a_judge_that_tells_nothing_starves_the_run(kind: str, num_prompts: int, shown: bool) -> None:
    rng = np.random.default_rng(7)
    judgments = {
        "constant": lambda: (judged(p, r, 3.0, draw=d) for p in range(PROMPTS) for r in range(4) for d in range(3)),
        "position": lambda: comparing_judge(rng, lambda _, is_first: 0.9 if is_first else 0.1),
        "noise": lambda: sampled_judge(rng, noise=1.0, quality=0.0),
    }[kind]()
    few = [judgment for judgment in judgments if int(judgment.response_id[1:4]) < num_prompts]
    metrics, not_measured = measure_judge(few, response_lengths={}, scale=None, seed=0)
    counts = {"num_prompts": num_prompts, "num_dropped_prompts": 0, "num_pairs": num_prompts}
    measured = Evaluation(1, {"win_rate_vs_previous": 0.5})
    judging = Evaluation(1, metrics, not_measured)
    summary = IterationSummary(1, counts, {"num_steps": 1}, measured, {}, judging=judging)
    found = too_noisy(evidence_of([summary], num_second_validation=0)[0], MonitorSection())
    assert bool(found) == shown
    if kind != "noise" and shown:
        assert found == ("the judge's reliability is 0.00, below 0.4",)
