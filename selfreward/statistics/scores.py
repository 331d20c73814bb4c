"""Mean scores. An unscored judgment is missing data everywhere: it never enters a mean."""

import math
from collections import defaultdict
from collections.abc import Iterable

from selfreward.records import Judgment


def mean_scores(judgments: Iterable[Judgment]) -> dict[str, float]:
    """Mean over the judge's own scored draws (`part` is ""), by response id. A response without one is absent.

    Exactly rounded, so that the order of the judgments cannot change a bit of it.
    """
    draws: defaultdict[str, list[float]] = defaultdict(list)
    for judgment in judgments:
        if judgment.score is not None and judgment.part == "":
            draws[judgment.response_id].append(judgment.score)
    return {response_id: math.fsum(scores) / len(scores) for response_id, scores in draws.items()}
