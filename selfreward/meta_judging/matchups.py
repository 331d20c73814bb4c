"""Which judgments meet: those of one response a prompt, the one about which the judge disagrees with itself most."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from selfreward.readers import without_reasoning
from selfreward.records import Judgment, Prompt, Response


@dataclass(frozen=True)
class Matchup:
    """Two judgments of one response in the order in which they are shown."""

    prompt: Prompt
    response: Response
    first: Judgment
    second: Judgment

    @property
    def id(self) -> str:
        return f"{self.first.id}~{self.second.id}"


def shown(judgment: Judgment) -> str:
    """What a meta-judge sees of a judgment."""
    return without_reasoning(judgment.text)


def matchups(
    prompts: Sequence[Prompt], responses: Sequence[Response], judgments: Sequence[Judgment], *, max_judgments: int
) -> list[Matchup]:
    """In the order of the prompts; those that show the same judgment first follow each other.

    The response is the one with the highest variance of scores, the lowest id among equals. A prompt whose responses
    have no variance, or fewer than two judgments that may fight, has no matchup.
    """
    fighters_of: defaultdict[str, list[Judgment]] = defaultdict(list)
    for judgment in judgments:
        if _is_eligible(judgment):
            fighters_of[judgment.response_id].append(judgment)
    responses_of: defaultdict[str, list[Response]] = defaultdict(list)
    for response in responses:
        responses_of[response.prompt_id].append(response)
    found: list[Matchup] = []
    for prompt in prompts:
        judged = sorted((r for r in responses_of[prompt.id] if r.id in fighters_of), key=lambda r: r.id)
        doubtful = max(judged, key=lambda r: _variance(fighters_of[r.id]), default=None)
        if doubtful is not None and _variance(fighters_of[doubtful.id]) > 0:
            eligible = _spread(fighters_of[doubtful.id], max_judgments)
            found += [Matchup(prompt, doubtful, first, second) for first, second in permutations(eligible, 2)]
    return found


def _is_eligible(judgment: Judgment) -> bool:
    """The judge's own score of this one response, in words that were sampled here: others cannot be trained on.

    A judgment without a verdict does not fight: it would be judged on what it fails to say.
    """
    own = judgment.part == "" and judgment.other_id == ""
    return own and judgment.score is not None and bool(judgment.token_ids) and bool(shown(judgment))


def _variance(eligible: Sequence[Judgment]) -> float:
    """Of the scores; exactly rounded, so that the order of the judgments cannot change a bit of it."""
    return statistics.pvariance([judgment.score for judgment in eligible if judgment.score is not None])


def _spread(eligible: Sequence[Judgment], most: int) -> list[Judgment]:
    """At most `most`, evenly through the ranking by score, both ends included: what they disagree about is kept."""
    ranked = sorted(eligible, key=lambda judgment: (judgment.score, judgment.id))
    if len(ranked) <= most:
        return ranked
    return [ranked[index * (len(ranked) - 1) // (most - 1)] for index in range(most)]
