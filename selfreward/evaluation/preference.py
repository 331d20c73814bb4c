"""From the anchor's comparisons to one outcome for each prompt, and whether the anchor is a usable instrument.

The outcome X of a prompt is the mean of the anchor's preference over both orders: 1 when the checkpoint's response is
preferred for certain, 0.5 when there is no difference, 0 when the other one is. Two responses with the same text have
X = 0.5 whatever the anchor thinks, so the anchor is not asked. A prompt with an unreadable comparison in either order
has no outcome: it is unscored, never a tie.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from selfreward.records import Comparison, Interval, Prompt, Response
from selfreward.statistics.intervals import mean_interval

MIN_POSITION_CONSISTENCY = 0.6
"""Below this the anchor follows the position more than the text."""

FEWEST_DIFFERENT = 0.02
"""With a smaller share of different texts all is said: no anchor could see more than half of it as a gain."""

COIN_CONSISTENCY = 0.5
"""What an anchor reaches that does not look; a usable one is shown to be better, by its whole interval."""

NOTHING_TOLD_APART = 1e-6


@dataclass(frozen=True)
class Outcome:
    """`value` is X in [0, 1], None when unscored; `asked` is False where two texts are the same.

    `consistent` is None unless both orders have a preference, and where the anchor never saw the two side by side.
    """

    prompt_id: str
    value: float | None
    consistent: bool | None = None
    asked: bool = False


@dataclass(frozen=True)
class AnchorHealth:
    """What the comparisons of one evaluation say about the anchor.

    `invalid` is the reason why its win rates mean nothing, None when there is none: the anchor is valid only on
    evidence, so the few prompts that a coin might pass by luck leave it invalid. `consistency` is over prompts,
    None when no prompt has a preference in both orders.
    """

    consistency: Interval | None
    unscored_rate: float
    invalid: str | None


def differing(
    prompts: Sequence[Prompt], responses: Sequence[Response], baselines: Sequence[Sequence[Response]]
) -> list[tuple[Prompt, Response, Response]]:
    """What the anchor has to compare: each pair of different texts once, even when two baselines wrote the same."""
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
    """X of `responses` against `others`, one for each prompt; `baselines` are all responses that were compared with."""
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
    """Each order is the mean of its draws; "" is the order of an anchor that saw each response by itself."""
    mean = {order: sum(drawn) / len(drawn) for order, drawn in by_order.items()}
    if "" in mean:
        return Outcome(prompt_id, mean[""], asked=True)
    if len(mean) < 2:
        return Outcome(prompt_id, None, asked=True)
    first, second = (mean[order] - 0.5 for order in ("ours", "theirs"))
    consistent = first * second > 0 or first == second == 0
    return Outcome(prompt_id, 0.5 + (first + second) / 2, consistent, asked=True)


def anchor_health(
    comparisons: Sequence[Comparison], compared: Sequence[Outcome], *, seed: int = 0
) -> AnchorHealth | None:
    """Judges the anchor by all that it compared in this evaluation; None when it compared nothing.

    Both baselines count, because two checkpoints that are almost the same must look the same to a good anchor: it is
    the instrument that is tested here. An anchor that does not read the texts gives X = 0.5 everywhere, whatever it
    thinks of positions, since the two orders cancel; so only that is a lack of variance, and a unanimous win is none.
    An anchor that scores each response by itself has no position to follow, and is not tested for it.
    """
    if not comparisons:
        return None
    unscored_rate = sum(c.preference is None for c in comparisons) / len(comparisons)
    by_prompt: defaultdict[str, list[bool]] = defaultdict(list)
    for outcome in compared:
        if outcome.consistent is not None:
            by_prompt[outcome.prompt_id].append(outcome.consistent)
    values = [outcome.value for outcome in compared if outcome.value is not None and outcome.asked]
    if not values:
        return AnchorHealth(None, unscored_rate, "the anchor gave no readable preference in both orders")
    consistency = (
        mean_interval([sum(c) / len(c) for c in by_prompt.values()], bounds=(0.0, 1.0), seed=seed)
        if by_prompt
        else None
    )
    nearly_all_alike = sum(outcome.asked for outcome in compared) < FEWEST_DIFFERENT * len(compared)
    invalid = None if nearly_all_alike else _why_invalid(consistency, values)
    return AnchorHealth(consistency, unscored_rate, invalid)


def _why_invalid(consistency: Interval | None, values: Sequence[float]) -> str | None:
    found = (
        "" if consistency is None else f"the anchor prefers the same response in both orders for {consistency.mean:.0%}"
    )
    if consistency is not None and consistency.mean < MIN_POSITION_CONSISTENCY:
        return (
            f"{found} of the prompts; below {MIN_POSITION_CONSISTENCY:.0%} it follows the position more than the text"
        )
    if all(abs(value - 0.5) < NOTHING_TOLD_APART for value in values):
        return f"the anchor gave 0.5 to each of {len(values)} comparisons of different texts; it tells nothing apart"
    if consistency is not None and consistency.low <= COIN_CONSISTENCY:
        return (
            f"{found} of {consistency.num_units} prompts, {consistency.level:.0%} interval {consistency.low:.0%} to "
            f"{consistency.high:.0%}; a coin's {COIN_CONSISTENCY:.0%} is not ruled out, so more prompts are needed"
        )
    return None
