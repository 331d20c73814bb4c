"""The reasons why a prompt gave no pair: a closed set, counted in every report."""

from enum import StrEnum


class DropReason(StrEnum):
    NO_RESPONSES = "no_responses"
    # Fewer than `min_scored` of the policy's responses have a score.
    TOO_FEW_SCORED = "too_few_scored"
    # No response scored above another that may be rejected: a tie is never trained as a win.
    TIE = "tie"
    # Every response with more than the lowest score is truncated.
    TRUNCATED_CHOSEN = "truncated_chosen"
    # The strategy found nothing worth pairing.
    NOTHING_PROPOSED = "nothing_proposed"
    # Chosen scored below `min_chosen_score`.
    LOW_CHOSEN_SCORE = "low_chosen_score"
    # Scores no further apart than `min_margin`.
    SMALL_MARGIN = "small_margin"
    # The same text or tokens on both sides.
    IDENTICAL_TEXT = "identical_text"
    # `min_reliability`: the judge's reliability is too low, or cannot be measured (`reliability.py`).
    LOW_RELIABILITY = "low_reliability"
    RELIABILITY_NOT_MEASURED = "reliability_not_measured"
    # `label: preference`: the two were never compared, or the comparison does not favour chosen (`labels.py`).
    NO_PREFERENCE = "no_preference"
    PREFERENCE_DISAGREES = "preference_disagrees"
    # `label: consistency`: no two rankings to compare, or they agree no better than chance (`labels.py`).
    CONSISTENCY_NOT_MEASURED = "consistency_not_measured"
    JUDGES_DISAGREE = "judges_disagree"
