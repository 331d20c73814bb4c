"""LLM-as-a-judge with an additive rubric of 0 to 5 points: a short justification, then the score, in several draws.

What it does: the judge is shown each response with its conversation and the rubric, and writes a short justification
and `Score: n`, `num_draws` times. Later stages average the draws that could be parsed.

Paper: 2401.10020, section 2.2 (rubric, three draws averaged); 2407.19594, section 2.1 (eleven draws, unreadable
draws left out of the mean).
Differs: our own prompt text; the rubric does not mention a web search, which no model here has; the response comes last
in the prompt, so that the engine's prefix cache computes rubric and conversation once; an unreadable draw is stored as
an unscored judgment with its reason instead of being removed; a response without text is unscored (`empty_response`),
and the reasoning of a thinking model is not shown.
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
