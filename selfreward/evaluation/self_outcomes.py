"""The run's own judge on held-out prompts: what it thinks of M_t beside what the anchor thinks.

It is the judge of this iteration, M_{t-1} where the policy judges, and it sees what the anchor sees. A gain that only
it can see is one that was trained into its blind spot. It says which of two responses has the higher mean score, as
when it labels: 1, 0 or 0.5. Judges that compare meet all different responses to a prompt at once, as then. A response
without text, which most judges leave unscored, loses against any other, as before the anchor.
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
    """The judge's own judgments (`part` is "") of each prompt's different texts; `sides` are by checkpoint.

    One call. Where all wrote the same there is nothing to ask.
    """
    rows = zip(prompts, *sides, strict=True)
    asked = [(prompt, texts) for prompt, *responses in rows if len(texts := _different(responses)) > 1]
    if not asked:
        return []
    judged = judge.judge(
        [prompt for prompt, _ in asked],
        [response for _, texts in asked for response in texts.values()],
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
    """One for each prompt, unscored when one of two different texts is; or why this judge says nothing at all."""
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
    """The mean score; that of a response without text is below all others."""
    return scores.get((response.prompt_id, response.text)) if without_reasoning(response.text) else -math.inf


def _different(responses: Sequence[Response]) -> dict[str, Response]:
    """The first response of each text."""
    found: dict[str, Response] = {}
    for response in responses:
        found.setdefault(response.text, response)
    return found
