"""How often this iteration's judge puts pairs of responses whose order is known into that order."""

from collections.abc import Mapping, Sequence

from selfreward.evaluation.blocks import by_shards
from selfreward.evaluation.outcomes import GOLD_OUTCOMES
from selfreward.parts import Engine, Judge, Models, Stages
from selfreward.records import GoldPair, Interval, Judgment, PromptOutcome, Response
from selfreward.statistics import NotEnoughDataError
from selfreward.statistics.intervals import mean_interval, rate_interval
from selfreward.statistics.scores import mean_scores, preferred

GOLD_JUDGMENTS = "judge_gold_judgments"
GOLD_ACCURACY = "judge_gold_accuracy"
GOLD_UNSCORED = "judge_gold_unscored_rate"
NO_CHECKPOINT = -1
CHOSEN, REJECTED = "chosen", "rejected"


def gold_outcomes(
    stages: Stages,
    iteration: int,
    pairs: Sequence[GoldPair],
    *,
    judge: Judge,
    engine: Engine,
    models: Models,
    size: int,
) -> list[PromptOutcome]:
    """One for each pair, stored; one call for each block of `size` pairs. Raises what engine and judge raise."""

    def make(block: Sequence[GoldPair]) -> list[Judgment]:
        prompts = [pair.prompt for pair in block]
        responses = [response for pair in block for response in _responses(pair, engine)]
        # With the first iteration's seeds: what chance adds to two judges is then as alike as it can be.
        judged = judge.judge(prompts, responses, models=models, iteration=1)
        return [judgment for judgment in judged if not judgment.part]

    scores = mean_scores(by_shards(stages, iteration, GOLD_JUDGMENTS, Judgment, pairs, make, size=size))
    found = [PromptOutcome(p.prompt.id, "gold", "self", NO_CHECKPOINT, _outcome(p, scores)) for p in pairs]
    return stages.once(iteration, GOLD_OUTCOMES, PromptOutcome, 0, lambda: found)


def accuracy(rows: Sequence[PromptOutcome], *, seed: int) -> Interval:
    """Over the pairs that have an outcome. Raises NotEnoughDataError when there are none."""
    values = [row.outcome for row in rows if row.outcome is not None]
    if not values:
        why = (
            f"the judge scored none of {len(rows)} gold pairs" if rows else "there are no gold pairs (evaluation.gold)"
        )
        raise NotEnoughDataError(why)
    return mean_interval(values, bounds=(0, 1), seed=seed)


def unscored_rate(rows: Sequence[PromptOutcome]) -> Interval:
    """Raises NotEnoughDataError when there are no pairs."""
    if not rows:
        raise NotEnoughDataError("there are no gold pairs (evaluation.gold)")
    return rate_interval([row.outcome is None for row in rows])


def _responses(pair: GoldPair, engine: Engine) -> list[Response]:
    """Chosen and rejected as if they had been sampled; of texts the tokens are known, and no end token."""
    prompt_token_ids = engine.encode(pair.prompt.messages)
    return [
        Response(
            id=f"{pair.prompt.id}/{side}",
            prompt_id=pair.prompt.id,
            prompt_token_ids=prompt_token_ids,
            token_ids=engine.encode_text(text),
            token_logprobs=None,
            text=text,
            finish_reason="stop",
            seed=0,
            checkpoint_id="gold",
        )
        for side, text in ((CHOSEN, pair.chosen), (REJECTED, pair.rejected))
    ]


def _outcome(pair: GoldPair, scores: Mapping[str, float]) -> float | None:
    chosen, rejected = (scores.get(f"{pair.prompt.id}/{side}") for side in (CHOSEN, REJECTED))
    return preferred(chosen, rejected)
