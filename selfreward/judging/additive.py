"""The model as a judge that explains itself: an additive rubric of 0 to 5 points, several draws.

What it does: each response is shown with its conversation and the rubric, the judge writes a short justification and
`Score: n`, `num_draws` times; later stages average the draws that could be read.

Paper: 2401.10020, section 2.2 (rubric, three draws averaged); 2407.19594, section 2.1 (eleven draws, unreadable
draws left out of the mean).
Differs: our own wording; the rubric asks nothing of a web search, which no model here has; the response stands last, so
that the engine's prefix cache pays for rubric and conversation once; an unreadable draw is kept as an unscored
judgment with its reason instead of disappearing; a response without text is unscored (`empty_response`), and what a
thinking model thought before it is not shown.
"""

from collections.abc import Sequence

from selfreward import recipe
from selfreward.judging.asking import Questioner
from selfreward.judging.written import ScoreQuestion, judge_in_writing, most_in_writing
from selfreward.parts import Chat, Models
from selfreward.records import Judgment, Prompt, Response
from selfreward.templates import Template
from selfreward.workload import Lengths, Requests, Workload

NAME = "additive"


class AdditiveJudge:
    """`parts.Judge` with `num_draws` judgments for every response."""

    scale = (0.0, 5.0)

    def __init__(self, section: recipe.AdditiveJudge, *, chat: Chat, seed: int) -> None:
        self._section = section
        self._questioner = Questioner(NAME, section, chat, seed)
        self._template = Template.load(NAME)

    @property
    def by(self) -> frozenset[str]:
        return frozenset((self._section.by,))

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, models: Models, iteration: int
    ) -> list[Judgment]:
        """`num_draws` judgments for each response, in the order of the responses; one engine call for all of them.

        Raises EngineError from the model; never because of what a model wrote.
        """
        return judge_in_writing(
            prompts,
            responses,
            [ScoreQuestion()],
            section=self._section,
            questioner=self._questioner,
            template=self._template,
            models=models,
            iteration=iteration,
        )

    def most(self, work: Workload, lengths: Lengths) -> list[Requests]:
        return most_in_writing(
            work,
            lengths,
            [ScoreQuestion()],
            section=self._section,
            questioner=self._questioner,
            template=self._template,
        )
