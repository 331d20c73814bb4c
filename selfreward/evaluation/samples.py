"""Diversity, repetition and truncation of the responses that an iteration samples.

Self-BLEU and the Vendi score, the most expensive metrics, are computed on a sample of the prompts.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selfreward.evaluation.metrics import MetricTable
from selfreward.evaluation.responding import text_token_ids
from selfreward.parts import PairingInputs
from selfreward.records import Interval, Response
from selfreward.seeding import seed_of
from selfreward.statistics import NotEnoughDataError
from selfreward.statistics.intervals import mean_interval, rate_interval
from selfreward.statistics.scores import mean_scores
from selfreward.statistics.texts import is_stuck, self_bleu, vendi

MAX_PROMPTS = 256
RATE = (0.0, 1.0)


@dataclass(frozen=True)
class SampledPrompt:
    """Statistics of a prompt's responses: rates, and whether all scored ones have the same mean score.

    `zero_variance` is None with fewer than two scored responses. `failing_rate` (the share of responses below the full
    score) is None unless the judge is a program.
    """

    stuck_rate: float
    ended_rate: float
    zero_variance: bool | None
    failing_rate: float | None


@dataclass(frozen=True)
class SampledTexts:
    """Token ids of a prompt's responses, without end tokens; prompts are sampled by the lowest `sampling_key`."""

    sampling_key: int
    texts: tuple[tuple[int, ...], ...]


def sampled_prompts(shard: PairingInputs, *, full_score: float | None) -> list[SampledPrompt]:
    """Return the statistics by prompt. `full_score` is the maximum score of a judge that is a program; None for a
    model."""
    scores = mean_scores(shard.judgments)
    found = []
    for responses in _by_prompt(shard).values():
        num = len(responses)
        of_prompt = [scores[response.id] for response in responses if response.id in scores]
        found.append(
            SampledPrompt(
                stuck_rate=sum(is_stuck(text_token_ids(response)) for response in responses) / num,
                ended_rate=sum(response.finish_reason == "stop" for response in responses) / num,
                zero_variance=min(of_prompt) == max(of_prompt) if len(of_prompt) > 1 else None,
                failing_rate=None
                if full_score is None or not of_prompt
                else sum(score < full_score for score in of_prompt) / len(of_prompt),
            )
        )
    return found


def sampled_texts(shard: PairingInputs, before: Sequence[SampledTexts], *, seed: int) -> list[SampledTexts]:
    """Sample MAX_PROMPTS of the prompts with at least two responses, from this shard and the sample `before`."""
    found = [
        SampledTexts(seed_of(seed, 0, "samples", prompt_id), tuple(map(text_token_ids, responses)))
        for prompt_id, responses in _by_prompt(shard).items()
        if len(responses) > 1
    ]
    return sorted([*before, *found], key=lambda sampled: sampled.sampling_key)[:MAX_PROMPTS]


def measure_samples(
    table: MetricTable, prompts: Sequence[SampledPrompt], sample: Sequence[SampledTexts], *, seed: int
) -> None:
    def mean_over_prompts(measure: Callable[[Sequence[Sequence[int]]], float], bounds: tuple[float, float]) -> Interval:
        if not sample:
            raise NotEnoughDataError("no prompt has two responses")
        return mean_interval([measure(sampled.texts) for sampled in sample], bounds=bounds, seed=seed)

    max_texts = max((len(sampled.texts) for sampled in sample), default=1)
    spread = [prompt.zero_variance for prompt in prompts if prompt.zero_variance is not None]
    table.put("sample_self_bleu", lambda: mean_over_prompts(self_bleu, RATE))
    table.put("sample_vendi", lambda: mean_over_prompts(vendi, (1.0, max_texts)))
    table.put("sample_repetition_rate", lambda: mean_interval([p.stuck_rate for p in prompts], bounds=RATE, seed=seed))
    table.put(
        "sample_end_of_sequence_rate", lambda: mean_interval([p.ended_rate for p in prompts], bounds=RATE, seed=seed)
    )
    table.put("zero_variance_prompt_rate", lambda: _rate(spread))
    failing = [prompt.failing_rate for prompt in prompts if prompt.failing_rate is not None]
    table.put("failing_response_rate", lambda: _failing(failing, seed))


def _rate(found: Sequence[bool]) -> Interval:
    if not found:
        raise NotEnoughDataError("no prompt has two scored responses")
    return rate_interval(found)


def _failing(rates: Sequence[float], seed: int) -> Interval:
    if not rates:
        raise NotEnoughDataError("the judge is a model, whose maximum score does not prove that a response passes")
    return mean_interval(rates, bounds=RATE, seed=seed)


def _by_prompt(shard: PairingInputs) -> dict[str, list[Response]]:
    found: defaultdict[str, list[Response]] = defaultdict(list)
    for response in shard.responses:
        found[response.prompt_id].append(response)
    return dict(found)
