"""Outcomes of the run's own judge on held-out prompts, for comparison with the anchor's.

It is the judge of this iteration, M_{t-1} where the policy judges, and it judges the responses that the anchor
compares. A gain that only the run's own judge measures is over-optimisation. Its outcome is 1, 0 or 0.5, by which of
two responses has the higher mean score, as in labelling. Judges that compare are given all different responses to a
prompt at once, as in labelling. A response without text, which most judges leave unscored, loses against any other, as
with the anchor.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from selfreward.evaluation.preference import Outcome
from selfreward.parts import Judge, Models
from selfreward.readers import without_reasoning
from selfreward.records import Judgment, Prompt, Response
from selfreward.statistics.scores import mean_scores, preferred


def self_judgments(
    prompts: Sequence[Prompt], sides: Sequence[Sequence[Response]], *, judge: Judge, models: Models, iteration: int
) -> list[Judgment]:
    """Return the judge's overall judgments (`part` is "") of each prompt's different texts; `sides` are by checkpoint.

    Makes one call; prompts to which all checkpoints wrote the same text are left out.
    """
    rows = zip(prompts, *sides, strict=True)
    different = [(prompt, texts) for prompt, *responses in rows if len(texts := _different(responses)) > 1]
    if not different:
        return []
    judged = judge.judge(
        [prompt for prompt, _ in different],
        [response for _, texts in different for response in texts.values()],
        models=models,
        iteration=iteration,
    )
    return [judgment for judgment in judged if not judgment.part]


def self_outcomes(
    responses: Sequence[Response],
    others: Sequence[Response],
    judgments: Sequence[Judgment],
    sides: Sequence[Sequence[Response]],
) -> list[Outcome] | str:
    """Return an outcome for each prompt, unscored when one of two different texts is.

    Returns the reason as a text when the judge scored no response at all.
    """
    if judgments and all(judgment.score is None for judgment in judgments):
        why, _ = Counter(judgment.unscored for judgment in judgments).most_common(1)[0]
        return f"the run's judge scored none of {len(judgments)} judgments of the evaluation's responses: {why}"
    text_of = {response.id: response.text for side in sides for response in side}
    prompt_of = {judgment.response_id: judgment.prompt_id for judgment in judgments}
    scores = {(prompt_of[i], text_of[i]): score for i, score in mean_scores(judgments).items()}
    return [
        Outcome(response.prompt_id, 0.5)
        if response.text == other.text
        else Outcome(response.prompt_id, preferred(*(_rank(r, scores) for r in (response, other))))
        for response, other in zip(responses, others, strict=True)
    ]


def _rank(response: Response, scores: Mapping[tuple[str, str], float]) -> float | None:
    """Return the mean score; minus infinity for a response without text."""
    return scores.get((response.prompt_id, response.text)) if without_reasoning(response.text) else -math.inf


def _different(responses: Sequence[Response]) -> dict[str, Response]:
    """Return the first response of each distinct text."""
    found: dict[str, Response] = {}
    for response in responses:
        found.setdefault(response.text, response)
    return found
