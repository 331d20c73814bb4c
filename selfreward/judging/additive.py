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

from selfreward.judging.generative import GenerativeJudge
from selfreward.parts import Chat
from selfreward.recipe.judging import AdditiveSection as Section

NAME = "additive"


class AdditiveJudge(GenerativeJudge):
    """`parts.Judge` with `num_draws` judgments for every response."""

    scale = (0.0, 5.0)

    def __init__(self, section: Section, *, chat: Chat, seed: int) -> None:
        super().__init__(NAME, section, chat, seed)
