"""Accuracy of this iteration's judge on gold pairs, pairs of responses whose order is known."""

from collections.abc import Mapping, Sequence
from typing import Any

from selfreward.evaluation.evaluator import Evaluator
from selfreward.evaluation.tables import GOLD_JUDGMENTS, GOLD_OUTCOMES
from selfreward.parts import Engine, Judge
from selfreward.records import GoldPair, Interval, Judgment, PromptOutcome, Response
from selfreward.statistics import NotEnoughDataError
from selfreward.statistics.intervals import mean_interval, rate_interval
from selfreward.statistics.scores import mean_scores, preferred
from selfreward.steps import Read, Reading, Stage
from selfreward.workload import Lengths, Requests, Workload, all_cached

GOLD_ACCURACY = "judge_gold_accuracy"
GOLD_UNSCORED = "judge_gold_unscored_rate"
NO_CHECKPOINT = -1
CHOSEN, REJECTED = "chosen", "rejected"


def gold_stages(evaluator: Evaluator, iteration: int, *, judge: Judge) -> tuple[Stage[Any], ...]:
    """Return the stages that judge both responses of each gold pair, one call per block, and compute the outcomes."""
    pairs, size = evaluator.source.gold_pairs(), evaluator.shard_prompts
    if not pairs:
        return ()

    def make_judgments(reading: Reading) -> list[Judgment]:
        block = pairs[reading.shard * size : (reading.shard + 1) * size]
        responses = [response for pair in block for response in _responses(pair, evaluator.engine)]
        # With the first iteration's seeds: sampling noise is then as similar as possible for different judges.
        found = judge.judge([pair.prompt for pair in block], responses, models=reading.roles, iteration=1)
        return [judgment for judgment in found if not judgment.part]

    def max_requests(lengths: Lengths) -> list[Requests]:
        """Return an upper bound on the requests, with all responses as long as the longest one."""
        longest = max(lengths.text(text) for pair in pairs for text in (pair.chosen, pair.rejected))
        requests = judge.max_requests(Workload([pair.prompt for pair in pairs], 2, longest, iteration), lengths)
        return all_cached(requests) if iteration > 1 else requests

    def make_outcomes(reading: Reading) -> list[PromptOutcome]:
        scores = mean_scores(reading.rows(GOLD_JUDGMENTS))
        return [PromptOutcome(p.prompt.id, "gold", "self", NO_CHECKPOINT, _outcome(p, scores)) for p in pairs]

    return (
        Stage(
            GOLD_JUDGMENTS,
            make_judgments,
            queries=judge.by,
            max_requests=max_requests,
            num_shards=evaluator.num_shards(pairs),
        ),
        Stage(GOLD_OUTCOMES, make_outcomes, reads=(Read(GOLD_JUDGMENTS, "iteration"),), num_shards=1),
    )


def accuracy(rows: Sequence[PromptOutcome], *, seed: int) -> Interval:
    """Return the accuracy over the pairs that have an outcome. Raises NotEnoughDataError when there are none."""
    values = [row.outcome for row in rows if row.outcome is not None]
    if not values:
        why = (
            f"the judge scored none of {len(rows)} gold pairs" if rows else "there are no gold pairs (evaluation.gold)"
        )
        raise NotEnoughDataError(why)
    return mean_interval(values, bounds=(0, 1), seed=seed)


def unscored_rate(rows: Sequence[PromptOutcome]) -> Interval:
    """Return the share of pairs without an outcome. Raises NotEnoughDataError when there are no pairs."""
    if not rows:
        raise NotEnoughDataError("there are no gold pairs (evaluation.gold)")
    return rate_interval([row.outcome is None for row in rows])


def _responses(pair: GoldPair, engine: Engine) -> list[Response]:
    """Return chosen and rejected as responses; their texts are tokenised, without an end token."""
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
