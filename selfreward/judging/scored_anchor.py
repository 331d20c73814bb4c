"""A judge that scores, used as anchor: the response with the higher mean score is the better one.

What it does: each response is scored separately, and two are compared by the means of their draws: 1, 0.5 or 0. That is
one comparison, in which neither response was shown first: the judge is never shown both in one prompt, so it cannot
have a position bias.

Paper: none; the papers of the judges are cited in their own files. Only the order of the two scores counts, so that
outcomes of every kind of judge are on one scale. A response without text, which most judges leave unscored, loses
against any that has a score: a model that stops responding must lose, not drop out of the data. Draws are always seeded
as in iteration 0, so that a response which is measured again, as a baseline of the next checkpoint, gets the same
scores.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from selfreward.judging.comparing import SAME_TEXT, Matchup, matchups
from selfreward.parts import Judge, Models
from selfreward.readers import Unscored
from selfreward.records import Comparison, Judgment, Prompt, Response
from selfreward.statistics.scores import mean_scores, preferred
from selfreward.workload import Lengths, Requests, Workload


@dataclass(frozen=True)
class _Score:
    """The mean score of a response, None if it has none; `draw` is its first judgment."""

    mean: float | None
    draw: Judgment

    @property
    def rank(self) -> float | None:
        """The mean score; minus infinity for a response without text."""
        silent = self.mean is None and self.draw.unscored == Unscored.EMPTY_RESPONSE.value
        return -math.inf if silent else self.mean

    def __str__(self) -> str:
        return f"unscored ({self.draw.unscored})" if self.mean is None else f"{self.mean:g}"


class ScoredAnchor:
    """`parts.Anchor` made of a judge that scores; `name` is the judge's name in its comparisons."""

    def __init__(self, judge: Judge, *, name: str) -> None:
        self.by = judge.by
        self._judge = judge
        self._name = name

    def compare(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[Response],
        others: Sequence[Response],
        *,
        models: Models,
        iteration: int,
    ) -> list[Comparison]:
        """Return one comparison of each `responses[i]` with `others[i]`; the judge is called once, each response scored
        once.

        Two responses with the same text get exactly 0.5 and are not scored. Where one has no score, the comparison is
        unscored, with its reason. Raises what the judge raises, and ValueError when a response does not belong to its
        prompt.
        """
        pairs = list(zip(prompts, matchups(prompts, responses, others), strict=True))
        differing = [(prompt, matchup) for prompt, matchup in pairs if not matchup.is_even]
        scores = self._scores(differing, models) if differing else {}
        return [self._comparison(matchup, scores) for _, matchup in pairs]

    def max_requests(self, work: Workload, lengths: Lengths) -> list[Requests]:
        """Return an upper bound on the requests: one scoring per response; an endpoint's earlier replies are reused."""
        pairs = self._judge.max_requests(work, lengths)
        if not work.already_judged:
            return pairs
        num_seen = work.num_responses - 1
        return [replace(each, num_cached=each.times * num_seen // work.num_responses) for each in pairs]

    def _scores(self, pairs: Sequence[tuple[Prompt, Matchup]], models: Models) -> Mapping[str, _Score]:
        """Return the scores by response id. Parts of a judgment, such as a rubric's criteria, are ignored."""
        prompts = {prompt.id: prompt for prompt, _ in pairs}
        responses = {response.id: response for _, c in pairs for response in (c.response, c.other)}
        drawn: defaultdict[str, list[Judgment]] = defaultdict(list)
        for judgment in self._judge.judge([*prompts.values()], [*responses.values()], models=models, iteration=0):
            if not judgment.part:
                drawn[judgment.response_id].append(judgment)
        return {
            response_id: _Score(mean_scores(draws).get(response_id), draws[0]) for response_id, draws in drawn.items()
        }

    def _comparison(self, matchup: Matchup, scores: Mapping[str, _Score]) -> Comparison:
        response, other = matchup.response, matchup.other
        comparison = Comparison(
            id=f"{response.id}~{other.id}/{self._name}",
            prompt_id=response.prompt_id,
            response_id=response.id,
            other_id=other.id,
            shown_first="",
            judge=self._name,
            preference=0.5,
            unscored=None,
            text=SAME_TEXT,
        )
        return comparison if matchup.is_even else _with_preference(comparison, scores[response.id], scores[other.id])


def _with_preference(comparison: Comparison, mine: _Score, theirs: _Score) -> Comparison:
    missing = next((score.draw.unscored for score in (mine, theirs) if score.rank is None), None)
    return replace(
        comparison,
        preference=preferred(mine.rank, theirs.rank),
        unscored=missing,
        text=f"{mine} against {theirs}",
        checkpoint_id=mine.draw.checkpoint_id,
        template_sha256=mine.draw.template_sha256,
    )
