"""Summary of the runs: rows, ratios, reliability per second, and violated conditions."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from judging_contenders import Run
from judging_prediction import Expected

from selfreward.records import Interval, Judgment
from selfreward.statistics import NotEnoughDataError
from selfreward.statistics.reliability import reliability_interval
from selfreward.statistics.score_table import score_table

Runs = dict[str, list[Run]]

# Relative differences: the maximum allowed for the templates' lengths; and for generated tokens, above which the
# comparison is repeated with equal lengths.
TEMPLATES_DIFFER = 0.02
LENGTHS_DIFFER = 0.10


@dataclass(frozen=True)
class Row:
    """Medians of a contender over its rounds. `expected` is None when its requests depend on generated text."""

    contender: str
    turns: int
    generated_tokens: int
    seconds: float
    cpu_seconds: float
    vllm_seconds: float
    expected: Expected | None


@dataclass(frozen=True)
class Repeats:
    """The reliability of a way of judging, and its cost; `seconds` for all responses."""

    way: str
    draws: int
    seconds: float
    scored_share: float
    r: Interval | None
    per_second: float | None
    not_measured: str


def row(name: str, runs: list[Run], expected: Expected | None) -> Row:
    return Row(
        contender=name,
        turns=len(runs),
        generated_tokens=round(statistics.median(run.num_generated for run in runs)),
        seconds=statistics.median(run.seconds for run in runs),
        cpu_seconds=statistics.median(run.cpu_seconds for run in runs),
        vllm_seconds=statistics.median(run.vllm_seconds for run in runs),
        expected=expected,
    )


def ratios(runs: Runs, expected: dict[str, Expected]) -> dict[str, Any]:
    def of(slow: str, fast: str, *, what: str = "seconds") -> list[float]:
        # Aligned at the last round, in which the contenders that run only once are run.
        both = zip(reversed(runs.get(slow, [])), reversed(runs.get(fast, [])), strict=False)
        return [getattr(one, what) / getattr(other, what) for one, other in both][::-1]

    in_turns = {
        "share_of_raw_engine": of("raw", "ours"),
        "share_of_raw_engine_cpu": of("raw", "ours", what="cpu_seconds"),
        "share_inside_vllm": [run.vllm_seconds / run.seconds for run in runs["ours"]],
        "seeds_cost": of("raw", "unseeded"),
        "ratio_vs_passes": of("passes", "ours"),
        "ratio_vs_passes_cpu": of("passes", "ours", what="cpu_seconds"),
        "ratio_vs_passes_per_token": [
            one.seconds / one.num_generated / (other.seconds / other.num_generated)
            for one, other in zip(runs["passes"], runs["ours"], strict=True)
        ],
        "ratio_vs_passes_equal_lengths": of("passes_equal_length", "ours_equal_length"),
        "ratio_vs_passes_cache_kept": of("passes_cache_kept", "ours"),
        "ratio_prefill": of("passes", "expected_score"),
        "ratio_prefill_cpu": of("passes", "expected_score", what="cpu_seconds"),
        "ratio_prefill_one_draw": of("passes", "expected_score_1"),
    }

    def predicted(slow: str, fast: str) -> float:
        return expected[slow].seconds / expected[fast].seconds

    return {
        **{name: statistics.median(values) if values else None for name, values in in_turns.items()},
        "in_turns": in_turns,
        "predicted": {
            "ratio_vs_passes": predicted("passes", "ours"),
            "ratio_prefill": predicted("passes", "expected_score"),
            "ratio_prefill_one_draw": predicted("passes", "expected_score_1"),
        },
    }


def repeats(runs: Runs, num_draws: Callable[[str], int]) -> list[Repeats]:
    table = []
    for way, scores_of, name in (
        ("additive", "ours", "ours"),
        ("expected_score, reasoning", "reasoning", "reasoning"),
        ("expected_score", "expected_score", "expected_score"),
        ("expected_score", "expected_score", "expected_score_1"),
    ):
        if name not in runs:
            continue
        judgments = runs[scores_of][0].judgments
        r, why = reliability_of(judgments)
        if name != scores_of and r is not None:
            low, mean, high = (spearman_brown(value, 1 / num_draws(scores_of)) for value in (r.low, r.mean, r.high))
            r = replace(r, low=low, mean=mean, high=high)
        seconds = statistics.median(run.seconds for run in runs[name])
        table.append(
            Repeats(
                way=way,
                draws=num_draws("additive" if name == "ours" else name),
                seconds=seconds,
                scored_share=sum(one.score is not None for one in judgments) / len(judgments),
                r=r,
                per_second=None if r is None or r.mean == 1 else r.mean / (1 - r.mean) / seconds,
                not_measured=why,
            )
        )
    return table


def spearman_brown(r: float, times: float) -> float:
    """Return the reliability of a mean of `times` as many draws as that of `r`; it increases with r."""
    return times * r / (1 + (times - 1) * r)


def reliability_of(judgments: Sequence[Judgment]) -> tuple[Interval | None, str]:
    try:
        return reliability_interval(score_table(judgments), seed=0), ""
    except NotEnoughDataError as error:
        return None, str(error)


def complaints(runs: Runs, lengths: dict[str, float]) -> list[str]:
    """Return the conditions of a fair comparison that are violated."""
    found = []
    expected = runs["ours"][0].token_ids
    for name in ("ours", "raw"):
        for number, run in enumerate(runs[name]):
            if run.token_ids != expected:
                differing = sum(one != other for one, other in zip(run.token_ids, expected, strict=False))
                found.append(
                    f"{name}, round {number + 1}: {differing} of {len(expected)} draws differ from the judge's first; "
                    "the same requests must give the same token ids"
                )
    if abs(lengths["ours"] - lengths["passes"]) > TEMPLATES_DIFFER * lengths["ours"]:
        found.append(
            f"templates: {lengths['ours']:.0f} prompt tokens of ours and {lengths['passes']:.0f} of the script's on "
            f"average; they may differ by {TEMPLATES_DIFFER:.0%}; write RESPONSE_FIRST after additive.txt again"
        )
    return found
