"""Outcomes by prompt from the anchor's comparisons, and the validity of the anchor.

The outcome X of a prompt is the mean of the anchor's preference over both orders: 1 when the checkpoint's response is
preferred with certainty, 0.5 when there is no difference, 0 when the other one is preferred. Two responses with the
same text have X = 0.5 by definition, so the anchor is not queried. A prompt with an unscored comparison in either order
has no outcome: it is unscored, never a tie.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from selfreward.records import Comparison, Interval, Prompt, Response
from selfreward.statistics.intervals import mean_interval

MIN_POSITION_CONSISTENCY = 0.6
"""Below this rate the anchor depends more on the position than on the text."""

MIN_DIFFERING_RATE = 0.02
"""Minimum share of different texts to validate an anchor: below it, no possible gain exceeds half of that share."""

CHANCE_CONSISTENCY = 0.5
"""Consistency of a random anchor; the interval of a valid anchor's consistency must lie entirely above it."""

EQUAL_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Outcome:
    """`value` is X in [0, 1], None when unscored; `was_compared` is False where two texts are the same.

    `consistent` is None unless both orders have a preference, and always None for an anchor that scores separately.
    """

    prompt_id: str
    value: float | None
    consistent: bool | None = None
    was_compared: bool = False


@dataclass(frozen=True)
class AnchorHealth:
    """The anchor's validity according to the comparisons of one evaluation.

    `invalid` is the reason why its win rates are meaningless, or None: an anchor is valid only on positive evidence, so
    it is invalid on so few prompts that a random anchor could pass. `consistency` is over prompts, None when no prompt
    has a preference in both orders.
    """

    consistency: Interval | None
    unscored_rate: float
    invalid: str | None


def different_pairs(
    prompts: Sequence[Prompt], responses: Sequence[Response], baselines: Sequence[Sequence[Response]]
) -> list[tuple[Prompt, Response, Response]]:
    """Return the pairs for the anchor: each pair of different texts once, even if two baselines wrote the same text."""
    compared: dict[tuple[str, str], tuple[Prompt, Response, Response]] = {}
    for others in baselines:
        for prompt, response, other in zip(prompts, responses, others, strict=True):
            if response.text != other.text:
                compared.setdefault((prompt.id, other.text), (prompt, response, other))
    return list(compared.values())


def outcomes(
    responses: Sequence[Response],
    others: Sequence[Response],
    comparisons: Iterable[Comparison],
    baselines: Sequence[Sequence[Response]],
) -> list[Outcome]:
    """Return X of `responses` against `others` for each prompt; `baselines` are all responses compared with."""
    text_of = {baseline.id: baseline.text for side in baselines for baseline in side}
    preferences: defaultdict[tuple[str, str], dict[str, list[float]]] = defaultdict(dict)
    for comparison in comparisons:
        if comparison.preference is not None:
            first = comparison.shown_first
            order = "" if not first else "ours" if first == comparison.response_id else "theirs"
            pair = comparison.prompt_id, text_of[comparison.other_id]
            preferences[pair].setdefault(order, []).append(comparison.preference)
    return [
        Outcome(other.prompt_id, 0.5)
        if response.text == other.text
        else _outcome(other.prompt_id, preferences[other.prompt_id, other.text])
        for response, other in zip(responses, others, strict=True)
    ]


def _outcome(prompt_id: str, by_order: Mapping[str, Sequence[float]]) -> Outcome:
    """Return the outcome from the draws by order; "" is the order of an anchor that scores responses separately."""
    mean = {order: sum(drawn) / len(drawn) for order, drawn in by_order.items()}
    if "" in mean:
        return Outcome(prompt_id, mean[""], was_compared=True)
    if len(mean) < 2:
        return Outcome(prompt_id, None, was_compared=True)
    first, second = (mean[order] - 0.5 for order in ("ours", "theirs"))
    consistent = first * second > 0 or first == second == 0
    return Outcome(prompt_id, 0.5 + (first + second) / 2, consistent, was_compared=True)


def anchor_health(
    comparisons: Sequence[Comparison], compared: Sequence[Outcome], *, seed: int = 0
) -> AnchorHealth | None:
    """Validate the anchor by all its comparisons in this evaluation; None when it compared nothing.

    Comparisons with all baselines are used, since the anchor itself is tested here, and a good anchor must find two
    nearly equal checkpoints equal. An anchor that ignores the texts gives X = 0.5 everywhere, with any position bias,
    since the two orders cancel; so only that counts as a lack of variance, and a unanimous win does not. An
    anchor that scores each response separately has no position bias, and is not tested for it.
    """
    if not comparisons:
        return None
    unscored_rate = sum(c.preference is None for c in comparisons) / len(comparisons)
    by_prompt: defaultdict[str, list[bool]] = defaultdict(list)
    for outcome in compared:
        if outcome.consistent is not None:
            by_prompt[outcome.prompt_id].append(outcome.consistent)
    values = [outcome.value for outcome in compared if outcome.value is not None and outcome.was_compared]
    if not values:
        return AnchorHealth(None, unscored_rate, "no prompt has a preference of the anchor in both orders")
    consistency = (
        mean_interval([sum(c) / len(c) for c in by_prompt.values()], bounds=(0.0, 1.0), seed=seed)
        if by_prompt
        else None
    )
    nearly_all_equal = sum(outcome.was_compared for outcome in compared) < MIN_DIFFERING_RATE * len(compared)
    invalid = None if nearly_all_equal else _why_invalid(consistency, values)
    return AnchorHealth(consistency, unscored_rate, invalid)


def _why_invalid(consistency: Interval | None, values: Sequence[float]) -> str | None:
    found = (
        "" if consistency is None else f"the anchor prefers the same response in both orders for {consistency.mean:.0%}"
    )
    if consistency is not None and consistency.mean < MIN_POSITION_CONSISTENCY:
        return f"{found} of the prompts; below {MIN_POSITION_CONSISTENCY:.0%} it depends more on position than on text"
    if all(abs(value - 0.5) < EQUAL_TOLERANCE for value in values):
        return (
            f"the anchor gave 0.5 to each of {len(values)} comparisons of different texts; it cannot distinguish them"
        )
    if consistency is not None and consistency.low <= CHANCE_CONSISTENCY:
        return (
            f"{found} of {consistency.num_units} prompts, {consistency.level:.0%} interval {consistency.low:.0%} to "
            f"{consistency.high:.0%}; the {CHANCE_CONSISTENCY:.0%} of a random anchor is not excluded, so more prompts "
            "are needed"
        )
    return None
