"""LLM-as-a-judge with a rubric: named criteria, each critiqued and scored separately, 0 to 5.

What it does: one question per criterion about each response, `num_draws` times. A judgment with `part` set to the
criterion's name stores critique and score. The response's overall score (`part` "") is, draw by draw, the mean over
criteria with the recipe's weights; with `normalise` it is the mean of z-scores, computed per criterion over all
responses judged together. A draw in which a criterion is unscored is unscored: a mean of the rest is another quantity.

Paper: 2310.08491 (Prometheus), section 3: a judge given its own score rubric writes feedback, then a score.
Differs: one question for each criterion instead of one for all, 0 to 5 instead of 1 to 5, and no training of the judge.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from selfreward import recipe
from selfreward.judging.generative import GenerativeJudge, ScoreQuestion
from selfreward.judging.normalising import z_scores
from selfreward.parts import Chat, Models
from selfreward.records import Judgment, Prompt, Response
from selfreward.templates import Verbatim

NAME = "rubric"


class RubricJudge:
    """`parts.Judge` with `num_draws` judgments for every response, and as many again for each criterion."""

    def __init__(self, section: recipe.RubricSection, *, chat: Chat, seed: int) -> None:
        self._section = section
        criteria = [
            ScoreQuestion(c.name, {"criterion": Verbatim(f"{c.name}: {c.description}")}) for c in section.criteria
        ]
        self._writer = GenerativeJudge(NAME, section, chat, seed, criteria)
        self.by, self.max_requests = self._writer.by, self._writer.max_requests
        self.scale = None if section.normalise else (0.0, 5.0)

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, models: Models, iteration: int
    ) -> list[Judgment]:
        """Return for each response the judgments by criterion, then the overall ones, from one engine call."""
        parts = self._writer.judge(prompts, responses, models=models, iteration=iteration)
        counted = self._counted(parts)
        num_draws = self._section.num_draws
        size = len(self._section.criteria) * num_draws
        judgments: list[Judgment] = []
        for start in range(0, len(parts), size):
            of_response = parts[start : start + size]
            judgments += of_response
            judgments += [self._overall(draw, of_response[draw::num_draws], counted) for draw in range(num_draws)]
        return judgments

    def _counted(self, parts: Sequence[Judgment]) -> dict[str, float]:
        """Return the value of each criterion's judgment by id: its score, or its z-score."""
        scores = {j.id: j.score for j in parts if j.score is not None}
        if not self._section.normalise:
            return scores
        counted: dict[str, float] = {}
        for criterion in self._section.criteria:
            counted |= z_scores({j.id: scores[j.id] for j in parts if j.part == criterion.name and j.id in scores})
        return counted

    def _overall(self, draw: int, parts: Sequence[Judgment], counted: dict[str, float]) -> Judgment:
        """Return the overall judgment of one draw, from the judgments of all criteria in order."""
        criteria = self._section.criteria
        unscored = next((part.unscored for part in parts if part.unscored is not None), None)
        score = None
        if unscored is None:
            weighted = (c.weight * counted[part.id] for c, part in zip(criteria, parts, strict=True))
            score = math.fsum(weighted) / math.fsum(c.weight for c in criteria)
        lines = (f"{part.part}: {part.unscored if part.score is None else f'{part.score:g}'}" for part in parts)
        return replace(
            parts[0],
            id=f"{parts[0].response_id}/{NAME}/{draw}",
            draw=draw,
            part="",
            score=score,
            unscored=unscored,
            text="\n".join(lines),
            prompt_token_ids=(),
            token_ids=(),
            token_logprobs=None,
            finish_reason=None,
            seed=0,
        )
