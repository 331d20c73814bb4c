"""Pairwise comparison in both orders: a judge that labels responses, and the anchor.

What it does: the judge prompt ends right before the letter of the better response, and the preference is the
probability of its letter relative to both letters; with `reasoning` the judge explains itself first. Judges have a
position bias; the mean over both orders cancels it. For labelling, each response to a prompt is compared with every
other one, and its score is its mean probability of being preferred.

Paper: 2402.04792, section 3.1 (annotator: probabilities of the two verdict tokens, both orders averaged).
Differs: letters instead of 1 and 2, so that scores and choices cannot be confused; more than two responses per prompt;
the two orders are stored separately, because their agreement is the position consistency; two responses with the same
text get exactly 0.5 without a call. For labelling, an empty response is not compared (`empty_response`); for
measuring, it is compared like any other: a model that stops responding must lose, not drop out of the data.
"""

from collections.abc import Sequence

from selfreward import recipe
from selfreward.judging.client import JudgeClient
from selfreward.judging.comparing import Comparer, Matchup, matchups, num_opponents, opponents
from selfreward.parts import Chat, Models
from selfreward.records import Comparison, Judgment, Prompt, Response
from selfreward.templates import Template
from selfreward.workload import Lengths, Requests, Workload

NAME = "pairwise"


class PairwiseJudge:
    """`parts.Judge` that compares each response to a prompt with every other one."""

    scale = (0.0, 1.0)

    def __init__(self, section: recipe.PairwiseSection, *, chat: Chat, seed: int) -> None:
        self.by = frozenset((section.by,))
        self._comparer = comparer(section, chat=chat, seed=seed)

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, models: Models, iteration: int
    ) -> list[Judgment]:
        """Return (N - 1) * 2 * num_draws judgments for each of a prompt's N responses, from one engine call."""
        pairs = [Matchup(response, other) for response, other in opponents(responses)]
        return self._comparer.judge(prompts, responses, pairs, models=models, iteration=iteration)

    def max_requests(self, work: Workload, lengths: Lengths) -> list[Requests]:
        return self._comparer.max_requests(work, lengths, num_matchups=num_opponents(work.num_responses))


class PairwiseAnchor:
    """`parts.Anchor` that is shown both responses of a comparison in one prompt."""

    def __init__(self, section: recipe.ComparisonSection, *, chat: Chat, seed: int) -> None:
        self.by = frozenset((section.by,))
        self._comparer = comparer(section, chat=chat, seed=seed)

    def compare(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[Response],
        others: Sequence[Response],
        *,
        models: Models,
        iteration: int,
    ) -> list[Comparison]:
        """Return comparisons whose `preference` is for `responses[i]` in either order, from one engine call.

        Raises RecipeError when the tokenizer does not write A and B as one token each, EngineError, and ValueError when
        a response does not belong to its prompt.
        """
        compared = matchups(prompts, responses, others)
        return self._comparer.compare(prompts, compared, models=models, iteration=iteration)

    def max_requests(self, work: Workload, lengths: Lengths) -> list[Requests]:
        num_matchups = work.num_responses - 1
        return self._comparer.max_requests(work, lengths, num_matchups=num_matchups, num_own=num_matchups)


def comparer(section: recipe.ComparisonSection, *, chat: Chat, seed: int) -> Comparer:
    return Comparer(section, JudgeClient(NAME, section, chat, seed), Template.load(NAME))
