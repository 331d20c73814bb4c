"""An ensemble of judges, so that a response has to score well with all of them.

What it does: each member judges separately. Its scores are z-scored over all responses judged together, unless
`normalise` is false; the ensemble's score is their mean, their minimum (`worst_case`) or mean - lambda * variance.
The members' judgments are stored with those of the ensemble, with the member's name as `part`.

Paper: 2310.02743 (Coste et al.), mean, worst-case and uncertainty-weighted optimisation: with four or five members the
latter two remove over-optimisation in best-of-n, the plain mean does not.
Differs: the members are different judges, not one reward model trained with different seeds, hence the z-scores, which
the paper does not need; they depend on which responses are judged in one call. Draws are preserved: draw d combines the
d-th draws of all members; a verifier contributes the same score to each. If any member draws only once, there is one
judgment, of all members' means: a score repeated in every draw would count as agreement between draws, and a judge that
guesses would look reliable. lambda is 1 unless given; the paper tunes it. A draw that one member could not score is
unscored for the ensemble, with that member's reason: a worst case or a mean over fewer members is another quantity, and
a response would win because one of them could not parse its verdict.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, assert_never

from selfreward import recipe
from selfreward.judging.client import plain_judgment
from selfreward.judging.normalising import z_scores
from selfreward.parts import Judge, Models
from selfreward.records import Judgment, Prompt, Response
from selfreward.statistics.scores import mean_scores
from selfreward.workload import Lengths, Requests, Workload

NAME: Final = "ensemble"


@dataclass(frozen=True)
class _MemberScore:
    """A member's score in one draw: `raw` as given, `value` as used (normalised or raw), or the reason for neither."""

    raw: float | None
    value: float | None
    unscored: str | None

    def line(self, name: str, *, normalised: bool) -> str:
        if self.value is None:
            return f"{name}: unscored, {self.unscored}"
        return f"{name}: {self.raw:g}" + (f" (z {self.value:+.3f})" if normalised else "")


# By response id and draw.
_MemberScores = Mapping[str, Mapping[int, _MemberScore]]


class EnsembleJudge:
    """`parts.Judge`: for each response the judgments of the members, sorted by name, and then those of the ensemble."""

    def __init__(self, section: recipe.EnsembleSection, members: Mapping[str, Judge]) -> None:
        self._section = section
        self._members = dict(sorted(members.items()))
        self.by: frozenset[str] = frozenset().union(*(member.by for member in members.values()))

    @property
    def scale(self) -> tuple[float, float] | None:
        """The members' scale, if they share one; None with z-scores or a variance term, whose range is unbounded."""
        scales = {member.scale for member in self._members.values()}
        if self._section.normalise or self._section.combine == "mean_minus_variance" or len(scales) > 1:
            return None
        return scales.pop()

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, models: Models, iteration: int
    ) -> list[Judgment]:
        """Return the judgments; scores do not depend on the order of members or responses. Raises what members
        raise."""
        given = {
            name: self._members[name].judge(prompts, responses, models=models, iteration=iteration)
            for name in sorted(self._members, key=self._load_order)
        }
        draws_once = any(_draws_once(given[name]) for name, member in self._members.items() if member.by)
        member_scores = {name: self._member_scores(given[name], draws_once=draws_once) for name in self._members}
        kept: defaultdict[str, list[Judgment]] = defaultdict(list)
        for name in self._members:
            for judgment in given[name]:
                kept[judgment.response_id].append(_as_member_judgment(name, judgment))
        return [
            judgment
            for response in responses
            for judgment in (*kept[response.id], *self._judgments(response, member_scores))
        ]

    def max_requests(self, work: Workload, lengths: Lengths) -> list[Requests]:
        return [requests for member in self._members.values() for requests in member.max_requests(work, lengths)]

    def _load_order(self, name: str) -> tuple[bool, int, list[str], str]:
        """Sort key that groups members by their models, first the policy, which the engine has just sampled from."""
        by = self._members[name].by
        return "policy" not in by, len(by), sorted(by), name

    def _member_scores(self, judgments: Sequence[Judgment], *, draws_once: bool) -> _MemberScores:
        drawn: defaultdict[tuple[str, int], list[Judgment]] = defaultdict(list)
        for judgment in judgments:
            if not judgment.part:
                drawn[judgment.response_id, 0 if draws_once else judgment.draw].append(judgment)
        means = {key: mean_scores(_in_both_orders(draws)).get(key[0]) for key, draws in drawn.items()}
        given = {key: score for key, score in means.items() if score is not None}
        counted = z_scores(given) if self._section.normalise else given
        member_scores: defaultdict[str, dict[int, _MemberScore]] = defaultdict(dict)
        for (response_id, draw), draws in drawn.items():
            key = response_id, draw
            unscored = None if key in given else next(j.unscored for j in draws if j.unscored is not None)
            member_scores[response_id][draw] = _MemberScore(given.get(key), counted.get(key), unscored)
        return member_scores

    def _judgments(self, response: Response, member_scores: Mapping[str, _MemberScores]) -> list[Judgment]:
        """Return the ensemble's judgments of one response, one for each draw."""
        of_response = {name: member_scores[name][response.id] for name in self._members}
        draws = sorted({draw for drawn in of_response.values() for draw in drawn})
        return [
            self._judgment(response, draw, {name: _score_at_draw(draw, drawn) for name, drawn in of_response.items()})
            for draw in draws
        ]

    def _judgment(self, response: Response, draw: int, member_scores: Mapping[str, _MemberScore]) -> Judgment:
        counted = [member_score.value for member_score in member_scores.values() if member_score.value is not None]
        complete = len(counted) == len(member_scores)
        return plain_judgment(
            response,
            NAME,
            draw=draw,
            score=self._combined(counted) if complete else None,
            unscored=None if complete else next(o.unscored for o in member_scores.values() if o.value is None),
            text="\n".join(o.line(name, normalised=self._section.normalise) for name, o in member_scores.items()),
        )

    def _combined(self, scores_M: Sequence[float]) -> float:
        section = self._section
        mean = math.fsum(scores_M) / len(scores_M)
        match section.combine:
            case "mean":
                return mean
            case "worst_case":
                return min(scores_M)
            case "mean_minus_variance":
                weight = 1.0 if section.variance_weight is None else section.variance_weight
                return mean - weight * (math.fsum((score - mean) ** 2 for score in scores_M) / len(scores_M))
            case _:
                assert_never(section.combine)


def _score_at_draw(draw: int, drawn: Mapping[int, _MemberScore]) -> _MemberScore:
    if draw in drawn:
        return drawn[draw]
    (only,) = drawn.values()  # a verifier's score is the same in each draw
    return only


def _in_both_orders(judgments: Sequence[Judgment]) -> list[Judgment]:
    """Drop comparisons that are unscored in one of their orders: the other order alone favours a position."""
    scored = {(j.other_id, j.shown_first) for j in judgments if j.score is not None}
    one_sided = {j.other_id for j in judgments if j.other_id and (j.other_id, j.shown_first) not in scored}
    return [judgment for judgment in judgments if judgment.other_id not in one_sided]


def _draws_once(judgments: Sequence[Judgment]) -> bool:
    return all(judgment.draw == 0 for judgment in judgments)


def _as_member_judgment(name: str, judgment: Judgment) -> Judgment:
    own_id = judgment.id.removeprefix(f"{judgment.response_id}/")
    return replace(
        judgment,
        id=f"{judgment.response_id}/{NAME}/{name}/{own_id}",
        part=f"{name}/{judgment.part}" if judgment.part else name,
    )
