"""Two responses compared, in both orders: the judge that labels pairs of responses, and the anchor.

What it does: the judge prompt ends right before the letter of the better response, and the preference is the
probability of its letter among the two; with `reasoning` the judge explains itself first. Judges favour a place; the
mean over both orders removes what is due to the place alone. To label, each response of a prompt meets each other, and
its score is its mean probability of being preferred.

Paper: 2402.04792, section 3.1 (annotator: probabilities of the two verdict tokens, both orders averaged).
Differs: letters instead of 1 and 2, so that scores and choices cannot be mixed up; more than two responses a prompt;
the two orders are kept apart, because their disagreement is the position consistency; two responses with the same text
are exactly 0.5 without a call. When it labels, an empty response meets nobody (`empty_response`); when it measures, it
is compared like any other: a model that falls silent must lose, not go missing.
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
    """`parts.Judge`: each response of a prompt meets each other."""

    scale = (0.0, 1.0)

    def __init__(self, section: recipe.PairwiseSection, *, chat: Chat, seed: int) -> None:
        self.by = frozenset((section.by,))
        self._comparer = comparer(section, chat=chat, seed=seed)

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, models: Models, iteration: int
    ) -> list[Judgment]:
        """(N - 1) * 2 * num_draws judgments for each of a prompt's N responses; one engine call for all of them."""
        met = [Matchup(response, other) for response, other in opponents(responses)]
        return self._comparer.judge(prompts, responses, met, models=models, iteration=iteration)

    def most(self, work: Workload, lengths: Lengths) -> list[Requests]:
        return self._comparer.most(work, lengths, num_matchups=num_opponents(work.num_responses))


class PairwiseAnchor:
    """`parts.Anchor`: the two responses of each comparison side by side."""

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
        """`preference` is that of `responses[i]` in either order. One engine call for all.

        Raises RecipeError when the tokenizer does not write A and B as one token each, EngineError, and ValueError when
        the three sequences do not belong together.
        """
        asked = matchups(prompts, responses, others)
        return self._comparer.compare(prompts, asked, models=models, iteration=iteration)

    def most(self, work: Workload, lengths: Lengths) -> list[Requests]:
        num_matchups = work.num_responses - 1
        return self._comparer.most(work, lengths, num_matchups=num_matchups, num_own=num_matchups)


def comparer(section: recipe.ComparisonSection, *, chat: Chat, seed: int) -> Comparer:
    return Comparer(section, JudgeClient(NAME, section, chat, seed), Template.load(NAME))
