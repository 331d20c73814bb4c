"""What judgments say together: mean scores, their distribution, and how far a judge can be reproduced.

An unscored judgment is missing data everywhere: it is counted, and never enters a mean.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable

from selfreward.records import Judgment


def mean_scores(judgments: Iterable[Judgment]) -> dict[str, float]:
    """Mean over the scored draws, by response id. A response without one is absent.

    Exactly rounded, so that the order of the judgments cannot change a bit of it.
    """
    return {response_id: math.fsum(scores) / len(scores) for response_id, scores in _draws(judgments).items()}


def unscored_counts(judgments: Iterable[Judgment]) -> dict[str, int]:
    """How many judgments have no score, by reason, in the order of the reasons' names."""
    counts = Counter(judgment.unscored for judgment in judgments if judgment.unscored is not None)
    return dict(sorted(counts.items()))


def score_distribution(judgments: Iterable[Judgment], *, max_bars: int = 21) -> dict[float, int]:
    """The histogram of the scored draws: bar (a score) to count, ascending; the counts add up to the scored draws.

    Each distinct score is a bar of its own while there are `max_bars` of them at most. Beyond that the bars are
    the middles of `max_bars` bins of equal width between the lowest and the highest score.
    """
    scores = [judgment.score for judgment in judgments if judgment.score is not None]
    counts = Counter(scores)
    if len(counts) <= max_bars:
        return dict(sorted(counts.items()))
    low, high = min(scores), max(scores)
    width = (high - low) / max_bars
    bins = Counter(min(int((score - low) / width), max_bars - 1) for score in scores)
    return {low + (index + 0.5) * width: bins[index] for index in range(max_bars)}


def reliability(judgments: Iterable[Judgment]) -> float | None:
    """ICC of the mean score, in [0, 1]: which share of the differences between responses to a prompt is reproducible.

    r = B / (B + W / J), where W is the variance between draws on one response and B the variance between the true
    means of a prompt's responses: what their observed means vary, less W / J, which drawing again explains.
    B and W are pooled over prompts before they are divided, because a ratio of four responses is mostly noise.

    0 for a judge that draws at random, and for one that gives every response the same score; close to 1 for one that
    repeats itself. It says nothing of whether the judge is right. None when it cannot be known: without
    a response that has two scored draws, or without a prompt that has two scored responses.
    """
    draws_of: defaultdict[str, dict[str, list[float]]] = defaultdict(dict)
    prompt_of: dict[str, str] = {}
    judgments = list(judgments)
    for judgment in judgments:
        prompt_of[judgment.response_id] = judgment.prompt_id
    for response_id, scores in sorted(_draws(judgments).items()):
        draws_of[prompt_of[response_id]][response_id] = scores

    every = [scores for by_response in draws_of.values() for scores in by_response.values()]
    freedom_within = sum(len(scores) - 1 for scores in every)
    several = [list(by_response.values()) for _, by_response in sorted(draws_of.items()) if len(by_response) >= 2]
    freedom_between = sum(len(responses) - 1 for responses in several)
    if freedom_within == 0 or freedom_between == 0:
        return None
    within = math.fsum(_squares(scores) for scores in every) / freedom_within  # W
    observed = math.fsum(_squares([_mean(scores) for scores in responses]) for responses in several) / freedom_between
    # W / J, J being the number of scored draws, which may differ between responses.
    explained = within * (
        math.fsum((len(responses) - 1) * _mean([1 / len(scores) for scores in responses]) for responses in several)
        / freedom_between
    )
    between = max(observed - explained, 0.0)  # B; below 0 it is 0 and noise
    return between / (between + explained) if between > 0 else 0.0


def _draws(judgments: Iterable[Judgment]) -> dict[str, list[float]]:
    draws: defaultdict[str, list[float]] = defaultdict(list)
    for judgment in judgments:
        if judgment.score is not None:
            draws[judgment.response_id].append(judgment.score)
    return dict(draws)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _squares(values: list[float]) -> float:
    """The sum of squared distances from the mean."""
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values)
