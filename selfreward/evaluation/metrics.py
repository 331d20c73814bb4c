"""From collected records to metrics with intervals: pure functions. docs/metrics.md explains each number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from selfreward import checks
from selfreward.evaluation.preference import AnchorHealth, Outcome, anchor_health
from selfreward.evaluation.responding import text_token_ids
from selfreward.records import Comparison, Evaluation, Interval, Prompt, Response
from selfreward.statistics import NotEnoughDataError
from selfreward.statistics.divergence import kl_interval
from selfreward.statistics.diversity import distinct_n
from selfreward.statistics.intervals import mean_interval, paired_interval, rate_interval

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

    `name` is previous or initial; `outcomes` are over the monitor prompts; the log-probabilities are those of the
    policy's own draws, under the policy and under the rival, in nats per response.
    """

    name: str
    held_out: HeldOutResponses
    outcomes: Sequence[Outcome]
    own_logprobs: Sequence[float]
    logprobs: Sequence[float]


@dataclass(frozen=True)
class _Sheet:
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

    All responses are to the same prompts in the same order, as the evaluator has checked.
    """
    sheet = _Sheet()
    passed = _passed(verifiable_prompts, own)
    _measure_texts(sheet, own, initial, max_tokens=max_tokens, seed=seed)
    _measure_passes(sheet, passed)
    for rival in rivals:
        _measure_against(sheet, own, rival, max_tokens=max_tokens, seed=seed)
        if passed:
            theirs = _passed(verifiable_prompts, rival.held_out)
            sheet.metrics[f"pass_rate_vs_{rival.name}"] = paired_interval(passed, theirs, bounds=(0, 1), seed=seed)
    if rivals:
        health = anchor_health(comparisons, [o for rival in rivals for o in rival.outcomes], seed=seed)
        _measure_anchor(sheet, health)
    return Evaluation(iteration, sheet.metrics, sheet.not_measured)


def _passed(prompts: Sequence[Prompt], held_out: HeldOutResponses) -> list[bool]:
    return [
        checks.pass_all(prompt.checks, response.text)
        for prompt, response in zip(prompts, held_out.verifiable, strict=True)
    ]


def _lengths(held_out: HeldOutResponses) -> list[int]:
    return [len(text_token_ids(response)) for response in held_out.monitor]


def _cut_off(held_out: HeldOutResponses) -> list[bool]:
    return [response.finish_reason == "length" for response in held_out.monitor]


def _measure_passes(sheet: _Sheet, passed: Sequence[bool]) -> None:
    if passed:
        sheet.metrics["pass_rate"] = rate_interval(passed)
    else:
        sheet.not_measured["pass_rate"] = "there are no verifiable prompts"


def _measure_texts(
    sheet: _Sheet, own: HeldOutResponses, initial: HeldOutResponses, *, max_tokens: int, seed: int
) -> None:
    sheet.put("response_tokens", lambda: mean_interval(_lengths(own), bounds=(0, max_tokens), seed=seed))
    sheet.put("cut_off_rate", lambda: rate_interval(_cut_off(own)))
    texts = [text_token_ids(response) for response in own.monitor]
    budget = int(DISTINCT_SHARE * sum(_lengths(initial)))
    for n in (1, 2, 3):
        sheet.put(f"distinct_{n}", partial(distinct_n, texts, n, budget_tokens=budget, seed=seed))


def _measure_against(sheet: _Sheet, own: HeldOutResponses, rival: Rivalry, *, max_tokens: int, seed: int) -> None:
    values = [outcome.value for outcome in rival.outcomes if outcome.value is not None]
    same = [a.text == b.text for a, b in zip(own.monitor, rival.held_out.monitor, strict=True)]
    theirs = rival.held_out
    sheet.put(f"win_rate_vs_{rival.name}", lambda: mean_interval(values, bounds=(0, 1), seed=seed))
    sheet.put(f"same_response_rate_vs_{rival.name}", lambda: rate_interval(same))
    sheet.put(
        f"response_tokens_vs_{rival.name}",
        lambda: paired_interval(_lengths(own), _lengths(theirs), bounds=(0, max_tokens), seed=seed),
    )
    sheet.put(
        f"cut_off_rate_vs_{rival.name}",
        lambda: paired_interval(_cut_off(own), _cut_off(theirs), bounds=(0, 1), seed=seed),
    )
    sheet.put(f"kl_{rival.name}_nats", lambda: kl_interval(rival.own_logprobs, rival.logprobs, seed=seed))


def _measure_anchor(sheet: _Sheet, health: AnchorHealth | None) -> None:
    """An invalid anchor leaves its win rates in place, with `anchor_valid` 0 and the reason under `anchor`."""
    if health is None:
        reason = "every response has the same text as those it is compared with, so the anchor was not asked"
        sheet.not_measured.update(dict.fromkeys(("position_consistency_rate", "anchor_valid"), reason))
        return
    sheet.metrics["anchor_unscored_rate"] = health.unscored_rate
    sheet.metrics["anchor_valid"] = float(health.invalid is None)
    if health.consistency is not None:
        sheet.metrics["position_consistency_rate"] = health.consistency
    if health.invalid is not None:
        sheet.not_measured["anchor"] = f"INVALID: {health.invalid}"
