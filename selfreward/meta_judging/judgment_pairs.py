"""Selection of pairs of judgments, and the limit on their number.

* Best against worst by Elo, with different scores. Judgments without a verdict were not compared and have no Elo: none
is
  chosen, and none is rejected either, since its margin is unknown.
* A truncated judgment has no end token: it is never chosen, and may be rejected.
* A pair whose chosen judgment is too long is left out, and no shorter one is substituted, as in the paper.
* Judgments with the same visible text, or the same tokens, never form a pair.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction

from selfreward.meta_judging.matchups import shown
from selfreward.records import Battle, Judgment, PreferencePair
from selfreward.statistics.elo import elo


def judgment_pairs(
    judgments: Sequence[Judgment],
    battles: Sequence[Battle],
    *,
    weights: tuple[float, float],
    max_chosen_chars: int | None,
) -> list[PreferencePair]:
    """Return at most one pair for each response with battles. `max_chosen_chars` counts the text that is trained on.

    Raises ValueError for battles between judgments that are not among these, and for judgments sampled from
    different prompts.
    """
    by_id = {judgment.id: judgment for judgment in judgments}
    battles_of: defaultdict[str, list[Battle]] = defaultdict(list)
    for battle in battles:
        battles_of[battle.response_id].append(battle)
    pairs: list[PreferencePair] = []
    for compared in battles_of.values():
        scores = elo(compared, weights=weights)
        if unknown_ids := sorted(scores.keys() - by_id.keys()):
            raise ValueError(f"meta_judging: there are battles of {unknown_ids[:3]}, which are not among the judgments")
        pair = _best_against_worst([by_id[name] for name in scores], scores)
        if pair is not None and (max_chosen_chars is None or len(pair.chosen_text) <= max_chosen_chars):
            pairs.append(pair)
    return pairs


def max_pairs(max_share: float, num_response_pairs: int) -> int:
    """Return the number of pairs at which judgments make up at most `max_share` of all pairs."""
    share = Fraction(str(max_share))  # the exact decimal: the binary rounding of 0.7 could change the floor
    return math.floor(share / (1 - share) * num_response_pairs)


def largest_margins(pairs: Sequence[PreferencePair], num_pairs: int) -> tuple[PreferencePair, ...]:
    """Return the `num_pairs` pairs with the largest margins, ties to the lower id, sorted by id."""
    by_margin = sorted(pairs, key=lambda pair: (-pair.margin, pair.id))[: max(num_pairs, 0)]
    return tuple(sorted(by_margin, key=lambda pair: pair.id))


def _best_against_worst(eligible: Sequence[Judgment], scores: Mapping[str, float]) -> PreferencePair | None:
    """Return the pair of best and worst judgment, ties to the lower id, or None if it is not valid."""
    choosable = [judgment for judgment in eligible if judgment.finish_reason == "stop"]
    if not choosable:
        return None
    chosen = min(choosable, key=lambda judgment: (-scores[judgment.id], judgment.id))
    rejected = min(eligible, key=lambda judgment: (scores[judgment.id], judgment.id))
    if scores[chosen.id] <= scores[rejected.id]:
        return None
    if shown(chosen) == shown(rejected) or chosen.token_ids == rejected.token_ids:
        return None
    if chosen.prompt_token_ids != rejected.prompt_token_ids:
        raise ValueError(f"meta_judging: {chosen.id} and {rejected.id} were sampled from different prompt tokens")
    return PreferencePair(
        id=f"{chosen.prompt_id}#judgments",
        prompt_id=chosen.prompt_id,
        kind="judgment",
        chosen_id=chosen.id,
        rejected_id=rejected.id,
        prompt_token_ids=chosen.prompt_token_ids,
        chosen_token_ids=chosen.token_ids,
        rejected_token_ids=rejected.token_ids,
        chosen_text=chosen.text,
        rejected_text=rejected.text,
        chosen_score=scores[chosen.id],
        rejected_score=scores[rejected.id],
        margin=scores[chosen.id] - scores[rejected.id],
    )
