"""Matchups of judgments: per prompt, those of the response on which the judge disagrees with itself most."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from selfreward.readers import without_reasoning
from selfreward.records import Judgment, Prompt, Response


@dataclass(frozen=True)
class JudgmentMatchup:
    """Two judgments of one response in the order in which they are shown."""

    prompt: Prompt
    response: Response
    first: Judgment
    second: Judgment

    @property
    def id(self) -> str:
        return f"{self.first.id}~{self.second.id}"


def shown(judgment: Judgment) -> str:
    """Return the text of a judgment that a meta-judge is shown, without reasoning."""
    return without_reasoning(judgment.text)


def matchups(
    prompts: Sequence[Prompt], responses: Sequence[Response], judgments: Sequence[Judgment], *, max_judgments: int
) -> list[JudgmentMatchup]:
    """Return the matchups in the order of the prompts, grouped by the judgment that is shown first.

    The response is the one with the highest variance of scores, ties to the lower id. A prompt whose responses have no
    variance, or fewer than two eligible judgments, has no matchup.
    """
    eligible_of: defaultdict[str, list[Judgment]] = defaultdict(list)
    for judgment in judgments:
        if _is_eligible(judgment):
            eligible_of[judgment.response_id].append(judgment)
    responses_of: defaultdict[str, list[Response]] = defaultdict(list)
    for response in responses:
        responses_of[response.prompt_id].append(response)
    found: list[JudgmentMatchup] = []
    for prompt in prompts:
        judged = sorted((r for r in responses_of[prompt.id] if r.id in eligible_of), key=lambda r: r.id)
        most_varied = max(judged, key=lambda r: _variance(eligible_of[r.id]), default=None)
        if most_varied is not None and _variance(eligible_of[most_varied.id]) > 0:
            eligible = _spread(eligible_of[most_varied.id], max_judgments)
            found += [
                JudgmentMatchup(prompt, most_varied, first, second) for first, second in permutations(eligible, 2)
            ]
    return found


def _is_eligible(judgment: Judgment) -> bool:
    """Whether a judgment is an overall score of one response with sampled tokens; others cannot be trained on.

    A judgment without a verdict is not eligible: the meta-judge would compare a missing verdict.
    """
    own = judgment.part == "" and judgment.other_id == ""
    return own and judgment.score is not None and bool(judgment.token_ids) and bool(shown(judgment))


def _variance(eligible: Sequence[Judgment]) -> float:
    """Return the variance of the scores, exactly rounded, so that it does not depend on the order of the judgments."""
    return statistics.pvariance([judgment.score for judgment in eligible if judgment.score is not None])


def _spread(eligible: Sequence[Judgment], max_judgments: int) -> list[Judgment]:
    """Return at most `max_judgments` judgments, evenly spaced in the ranking by score, including both ends."""
    ranked = sorted(eligible, key=lambda judgment: (judgment.score, judgment.id))
    if len(ranked) <= max_judgments:
        return ranked
    return [ranked[index * (len(ranked) - 1) // (max_judgments - 1)] for index in range(max_judgments)]
