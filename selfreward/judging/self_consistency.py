"""Agreement of a prompt's responses on their final answer as the score of each: self-consistency.

What it does: a response's score is the share of the model's responses to the prompt that reach the same final answer.
No model is queried; the answers are read and compared by `selfreward.checks`.

Paper: 2411.04109 (ScPO), section 2: the vote share; the most against the least consistent response.
Differs: the paper's weight by the difference of the votes is `pairing.weight: margin`; its threshold on the winner's
share is `pairing.min_chosen_score`. A response without a final answer is unscored (`no_answer`) and never rejected; it
counts among the responses of which the share is taken. Responses of two checkpoints do not vote together. With fewer
than three responses no vote can have a majority, and they are unscored (`too_few_responses`): so the responses of two
checkpoints, or a gold pair, cannot be compared by this judge.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

from selfreward import recipe
from selfreward.checks import answer_classes
from selfreward.judging.client import plain_judgment
from selfreward.parts import Models
from selfreward.readers import Unscored, without_reasoning
from selfreward.records import Judgment, Prompt, Response
from selfreward.workload import Lengths, Requests, Workload

NAME: Final = "self_consistency"
MIN_RESPONSES: Final = 3


class SelfConsistencyJudge:
    """`parts.Judge` with scores in (0, 1] and one deterministic judgment for each response; needs no engine."""

    def __init__(self, section: recipe.SelfConsistencySection) -> None:
        self._section = section

    by: frozenset[str] = frozenset()
    scale = (0.0, 1.0)

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, models: Models, iteration: int
    ) -> list[Judgment]:
        """Return one judgment for each response, in order."""
        voters: defaultdict[tuple[str, str], list[Response]] = defaultdict(list)
        for response in responses:
            voters[response.prompt_id, response.checkpoint_id].append(response)
        judged = {judgment.response_id: judgment for group in voters.values() for judgment in self._votes(group)}
        return [judged[response.id] for response in responses]

    def max_requests(self, work: Workload, lengths: Lengths) -> list[Requests]:
        """Return no requests: no model is queried."""
        return []

    def _votes(self, responses: Sequence[Response]) -> list[Judgment]:
        """Return the judgments of the responses of one checkpoint to one prompt."""
        if len(responses) < MIN_RESPONSES:
            return [plain_judgment(r, NAME, unscored=Unscored.TOO_FEW_RESPONSES.value) for r in responses]
        texts = [without_reasoning(response.text) for response in responses]
        classes = answer_classes(texts, self._section.answer, marker=self._section.marker)
        num_votes = Counter(classes)
        judgments: list[Judgment] = []
        for response, text, answer in zip(responses, texts, classes, strict=True):
            if answer is None:
                unscored = Unscored.NO_ANSWER if text else Unscored.EMPTY_RESPONSE
                judgments.append(plain_judgment(response, NAME, unscored=unscored.value))
                continue
            votes, total = num_votes[answer], len(responses)
            shown = f"answer {answer + 1}: {votes} of {total} responses"
            judgments.append(plain_judgment(response, NAME, score=votes / total, text=shown))
        return judgments
