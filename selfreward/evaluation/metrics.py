"""From collected records to metrics with intervals: pure functions. docs/metrics.md explains each number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from selfreward import checks
from selfreward.evaluation.outcomes import length_deltas
from selfreward.evaluation.preference import Outcome, anchor_health
from selfreward.evaluation.responding import text_token_ids
from selfreward.readers import without_reasoning
from selfreward.records import Comparison, Evaluation, Interval, Prompt, Response
from selfreward.statistics import NotEnoughDataError
from selfreward.statistics.divergence import kl_interval
from selfreward.statistics.diversity import distinct_n
from selfreward.statistics.intervals import mean_interval, paired_interval, rate_interval
from selfreward.statistics.length_adjusted import adjusted_interval
from selfreward.statistics.texts import is_stuck

DISTINCT_SHARE = 0.5
"""The token budget of distinct-n is this share of M_0's tokens, the same for every checkpoint of a run."""


@dataclass(frozen=True)
class HeldOutResponses:
    """One checkpoint's responses to the monitor prompts and to the verifiable prompts, each in their order."""

    monitor: Sequence[Response]
    verifiable: Sequence[Response]


@dataclass(frozen=True)
class Rivalry:
    """The policy against one earlier checkpoint.

    `name` is previous, initial or best; `outcomes` over the monitor prompts are the anchor's, and `self_outcomes` those
    of the run's own judge, or the reason why there are none. The log-probabilities are those of the policy's own
    draws, under the policy and under the rival, in nats per response; None for `best`.
    """

    name: str
    held_out: HeldOutResponses
    outcomes: Sequence[Outcome]
    own_logprobs: Sequence[float] | None
    logprobs: Sequence[float] | None
    self_outcomes: Sequence[Outcome] | str = "the run's judge was not asked"


@dataclass(frozen=True)
class Sheet:
    """Metrics as they come in; what the data cannot give becomes a reason."""

    metrics: dict[str, Interval | float] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, make: Callable[[], Interval | float]) -> None:
        try:
            self.metrics[name] = make()
        except NotEnoughDataError as error:
            self.not_measured[name] = str(error)


def measure(
    iteration: int,
    *,
    own: HeldOutResponses,
    initial: HeldOutResponses,
    rivals: Sequence[Rivalry],
    comparisons: Sequence[Comparison],
    verifiable_prompts: Sequence[Prompt],
    max_tokens: int,
    seed: int,
) -> Evaluation:
    """All metrics of one checkpoint. `rivals` is empty for M_0; `initial` is M_0's responses.

    All responses are to the same prompts in the same order, as `evaluation/bench.py` has checked.
    """
    sheet = Sheet()
    passed = passes(verifiable_prompts, own)
    _measure_texts(sheet, own, initial, max_tokens=max_tokens, seed=seed)
    _measure_passes(sheet, passed)
    for rival in rivals:
        _measure_against(sheet, own, rival, max_tokens=max_tokens, seed=seed)
        if passed:
            theirs = passes(verifiable_prompts, rival.held_out)
            sheet.metrics[f"pass_rate_vs_{rival.name}"] = paired_interval(passed, theirs, bounds=(0, 1), seed=seed)
    if rivals:
        measure_anchor(sheet, comparisons, [o for rival in rivals for o in rival.outcomes], seed=seed)
    return Evaluation(iteration, sheet.metrics, sheet.not_measured)


def passes(prompts: Sequence[Prompt], held_out: HeldOutResponses) -> list[bool]:
    """Whether each response to the verifiable prompts meets all checks, as a verifier judge reads it."""
    return [
        checks.pass_all(prompt.checks, without_reasoning(response.text))
        for prompt, response in zip(prompts, held_out.verifiable, strict=True)
    ]


def _lengths(held_out: HeldOutResponses) -> list[int]:
    return [len(text_token_ids(response)) for response in held_out.monitor]


def _cut_off(held_out: HeldOutResponses) -> list[bool]:
    return [response.finish_reason == "length" for response in held_out.monitor]


def _measure_passes(sheet: Sheet, passed: Sequence[bool]) -> None:
    if passed:
        sheet.metrics["pass_rate"] = rate_interval(passed)
    else:
        sheet.not_measured["pass_rate"] = "there are no verifiable prompts"


def _measure_texts(
    sheet: Sheet, own: HeldOutResponses, initial: HeldOutResponses, *, max_tokens: int, seed: int
) -> None:
    sheet.put("response_tokens", lambda: mean_interval(_lengths(own), bounds=(0, max_tokens), seed=seed))
    sheet.put("cut_off_rate", lambda: rate_interval(_cut_off(own)))
    sheet.put("end_of_sequence_rate", lambda: rate_interval([not is_cut for is_cut in _cut_off(own)]))
    texts = [text_token_ids(response) for response in own.monitor]
    sheet.put("repetition_rate", lambda: rate_interval([is_stuck(text) for text in texts]))
    budget = int(DISTINCT_SHARE * sum(_lengths(initial)))
    for n in (1, 2, 3):
        sheet.put(f"distinct_{n}", partial(distinct_n, texts, n, budget_tokens=budget, seed=seed))


def _measure_against(sheet: Sheet, own: HeldOutResponses, rival: Rivalry, *, max_tokens: int, seed: int) -> None:
    theirs = rival.held_out
    deltas = length_deltas(own.monitor, theirs.monitor)
    same = [a.text == b.text for a, b in zip(own.monitor, theirs.monitor, strict=True)]
    put_win_rates(sheet, f"win_rate_vs_{rival.name}", rival.outcomes, deltas, seed=seed)
    put_win_rates(sheet, f"self_win_rate_vs_{rival.name}", rival.self_outcomes, deltas, seed=seed)
    sheet.put(f"same_response_rate_vs_{rival.name}", lambda: rate_interval(same))
    sheet.put(
        f"response_tokens_vs_{rival.name}",
        lambda: paired_interval(_lengths(own), _lengths(theirs), bounds=(0, max_tokens), seed=seed),
    )
    sheet.put(
        f"cut_off_rate_vs_{rival.name}",
        lambda: paired_interval(_cut_off(own), _cut_off(theirs), bounds=(0, 1), seed=seed),
    )
    own_logprobs, logprobs = rival.own_logprobs, rival.logprobs
    if own_logprobs is not None and logprobs is not None:
        sheet.put(f"kl_{rival.name}_nats", lambda: kl_interval(own_logprobs, logprobs, seed=seed))


def put_win_rates(
    sheet: Sheet, name: str, outcomes: Sequence[Outcome] | str, deltas: Sequence[float], *, seed: int
) -> None:
    """`name`, and the same at equal length; `deltas` are the length differences of the same prompts, in tokens."""
    adjusted = f"length_adjusted_{name}"
    if isinstance(outcomes, str):
        sheet.not_measured.update(dict.fromkeys((name, adjusted), outcomes))
        return
    scored = [(o.value, delta) for o, delta in zip(outcomes, deltas, strict=True) if o.value is not None]
    values, known = [value for value, _ in scored], [delta for _, delta in scored]
    sheet.put(name, lambda: mean_interval(values, bounds=(0, 1), seed=seed))
    sheet.put(adjusted, lambda: adjusted_interval(values, known, seed=seed))


def measure_anchor(sheet: Sheet, comparisons: Sequence[Comparison], outcomes: Sequence[Outcome], *, seed: int) -> None:
    """An invalid anchor leaves its win rates in place, with `anchor_valid` 0 and the reason under `anchor`."""
    health = anchor_health(comparisons, outcomes, seed=seed)
    if health is None:
        reason = "every response has the same text as those it is compared with, so the anchor was not asked"
        sheet.not_measured.update(dict.fromkeys(("position_consistency_rate", "anchor_valid"), reason))
        return
    sheet.metrics["anchor_unscored_rate"] = health.unscored_rate
    sheet.metrics["anchor_valid"] = float(health.invalid is None)
    if health.consistency is not None:
        sheet.metrics["position_consistency_rate"] = health.consistency
    elif health.invalid is None:
        sheet.not_measured["position_consistency_rate"] = "the anchor scores each response by itself"
    if health.invalid is not None:
        sheet.not_measured["anchor"] = f"INVALID: {health.invalid}"
