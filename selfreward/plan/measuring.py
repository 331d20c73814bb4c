"""What a run measures: its sizes, the gain that they can resolve, and the share of the tokens that it takes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from selfreward.evaluation.tables import SECOND_VALIDATION
from selfreward.plan.amounts import Work
from selfreward.plan.layout import count, entry
from selfreward.plan.work import IterationWork
from selfreward.recipe import Recipe
from selfreward.statistics.intervals import rate_interval
from selfreward.statistics.resolution import POWER, TIE_RATE, prompts_to_resolve, smallest_resolvable_gain
from selfreward.tables import EVALUATION, JUDGE, TEST

MEASURES: Final = frozenset({EVALUATION, JUDGE, TEST})
"""The groups of the tables that measure; all others are needed to train."""

KEYS: Final[Mapping[str, str]] = {
    "self": "self_judge: false",
    "checks": "verifiable",
    SECOND_VALIDATION: "num_second_validation_prompts",
    TEST: "num_test_prompts",
    JUDGE: "num_judge_prompts",
}
"""The keys of `evaluation` that lower the work in a column of the plan, where it is not `num_prompts`."""


def sizes(recipe: Recipe) -> str:
    """Return the sizes of the run, those that the recipe sets and those that follow from the number of prompts."""
    evaluation, iterations, monitor = recipe.evaluation, recipe.iterations, recipe.monitor
    sets = {
        "validation": evaluation.num_prompts,
        "second validation": evaluation.second_validation_size,
        "test": evaluation.test_size,
    }
    held_out = ", ".join(f"{size:,} {name}" for name, size in sets.items() if size)
    return entry(
        "sizes",
        f"{count(iterations.max, 'iteration')} of {count(iterations.num_prompts_per_iteration, 'prompt')}; held out: "
        f"{held_out} prompts; pass rate on {_verifiable(recipe)}; evaluation.preset {evaluation.preset}, "
        f"evaluation.num_judge_prompts {evaluation.num_judge_prompts}, monitor.horizon {monitor.horizon}, "
        f"monitor.min_pairs {monitor.min_pairs}, training.batch_size {recipe.training.batch_size}. Sizes that the "
        "recipe does not set follow the number of its prompts.",
    )


def _verifiable(recipe: Recipe) -> str:
    section = recipe.evaluation.verifiable
    if section is None:
        return "no prompts"
    if section == "validation":
        return "the validation prompts with checks"
    return f"{section.num_prompts:,} {'generated prompts' if section.path is None else f'prompts of {section.path}'}"


def resolution(recipe: Recipe) -> str:
    """Return the gain that the monitor can resolve (`statistics/resolution.py`), and the width of a pass rate."""
    return entry("resolves", f"{_resolved_gain(recipe)}{_resolved_pass_rate(recipe)}")


def _resolved_gain(recipe: Recipe) -> str:
    monitor, evaluation = recipe.monitor, recipe.evaluation
    num_prompts, num_more = evaluation.num_prompts, evaluation.second_validation_size
    first = monitor.alpha_stop * (monitor.first_analysis_share if num_more else 1)
    last = monitor.alpha_stop - first if num_more else first
    gain = smallest_resolvable_gain(num_prompts, alpha=first, horizon=monitor.horizon)
    needed = prompts_to_resolve(monitor.delta, alpha=last, horizon=monitor.horizon)
    named = count(num_prompts, "validation prompt")
    worth = f"monitor.delta, the gain that is worth an iteration, is {_points(monitor.delta)}"
    if gain >= (1 - TIE_RATE) / 2:  # no gain is larger at this share of ties
        return (
            f"{named} resolve no gain: expect INCONCLUSIVE. {worth}, which needs evaluation.num_prompts of {needed:,}."
        )
    text = f"{named} resolve a gain of about {_points(gain)}"
    if num_more:
        gain = smallest_resolvable_gain(num_prompts + num_more, alpha=last, horizon=monitor.horizon)
        text += f", and with the second validation set {count(num_prompts + num_more, 'prompt')} one of {_points(gain)}"
    text += (
        f": in {POWER:.0%} of such cases one analysis shows a gain of this size (CONTINUE), or shows that there is "
        f"none, at {TIE_RATE:.0%} ties, within the alpha-spending budget of {count(monitor.horizon, 'iteration')} "
        f"(2411.00640). {worth}"
    )
    if gain <= monitor.delta:
        return f"{text}, which is large enough."
    return f"{text}, which needs {needed:,}: expect INCONCLUSIVE when the gain is small or zero."


def _resolved_pass_rate(recipe: Recipe) -> str:
    section = recipe.evaluation.verifiable
    if section is None:
        return ""
    num_prompts = recipe.evaluation.num_prompts if section == "validation" else section.num_prompts
    interval = rate_interval([True] * (num_prompts // 2) + [False] * (num_prompts - num_prompts // 2))
    width = max(interval.mean - interval.low, interval.high - interval.mean)
    return f" A pass rate of {count(num_prompts, 'prompt')} has a 95% interval of up to ±{100 * width:.0f} points."


def share(iterations: Sequence[IterationWork], *, preset: str) -> str:
    """Return the share of the run's tokens that measures, and the keys of `evaluation` that lower it."""
    total, by_key = 0, Counter[str]()
    for iteration in iterations:
        for name, table in iteration.tables.items():
            num_tokens = sum(work.num_tokens for work in _works(iteration, name))
            total += num_tokens
            if table.group in MEASURES:
                by_key[f"evaluation.{KEYS.get(table.column, 'num_prompts')}"] += num_tokens
    if not total or not by_key:
        return ""
    keys = ", ".join(f"{key} ({number / total:.0%})" for key, number in by_key.most_common() if number)
    lighter = "" if preset == "light" else ", or evaluation.preset: light"
    return entry(
        "measuring", f"{by_key.total() / total:.0%} of the run's tokens are evaluation. Less: {keys}{lighter}."
    )


def _works(iteration: IterationWork, stage: str) -> list[Work]:
    inside = [iteration.stages[stage]] if stage in iteration.stages else []
    return [*inside, *iteration.outside_engine.get(stage, {}).values()]


def _points(gain: float) -> str:
    return f"{100 * gain:.3g} points"
