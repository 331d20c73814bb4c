"""Metrics with intervals, computed from records by pure functions. docs/metrics.md explains each metric."""

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
from selfreward.statistics.intervals import mean_interval, paired_interval, rate_interval, without_a_point
from selfreward.statistics.length_adjusted import adjusted_interval
from selfreward.statistics.texts import is_stuck

DISTINCT_SHARE = 0.5
"""The token budget of distinct-n is this share of M_0's tokens, the same for every checkpoint of a run."""


@dataclass(frozen=True)
class HeldOutResponses:
    """One checkpoint's responses to the validation prompts and to the verifiable prompts, each in their order.

    `greedy` are greedy ones to the verifiable prompts; None where `verifiable` are greedy already.
    """

    validation: Sequence[Response]
    verifiable: Sequence[Response]
    greedy: Sequence[Response] | None = None

    @property
    def by_pass_rate(self) -> dict[str, Sequence[Response]]:
        """The responses to the verifiable prompts by the name of their pass rate."""
        found = {"pass_rate": self.verifiable}
        return found if self.greedy is None else {**found, "greedy_pass_rate": self.greedy}


@dataclass(frozen=True)
class BaselineComparison:
    """The policy compared with one earlier checkpoint.

    `name` is previous, initial or best. `outcomes` are the anchor's outcomes on the validation prompts, and
    `self_outcomes` those of the run's own judge, or the reason why there are none. `own_logprobs` and `logprobs` are
    the log-probabilities of the policy's own draws, in nats per response, under the policy and under the baseline; None
    for `best`.
    """

    name: str
    held_out: HeldOutResponses
    outcomes: Sequence[Outcome]
    own_logprobs: Sequence[float] | None
    logprobs: Sequence[float] | None
    self_outcomes: Sequence[Outcome] | str = "the run's judge was not used"


@dataclass(frozen=True)
class MetricTable:
    """A table of metrics under construction; for a metric that the data do not allow it stores the reason."""

    metrics: dict[str, Interval | float] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, make: Callable[[], Interval | float]) -> None:
        try:
            made = make()
            self.metrics[name] = without_a_point(made) if isinstance(made, Interval) else made
        except NotEnoughDataError as error:
            self.not_measured[name] = str(error)


def measure(
    iteration: int,
    *,
    own: HeldOutResponses,
    initial: HeldOutResponses,
    baselines: Sequence[BaselineComparison],
    comparisons: Sequence[Comparison],
    verifiable_prompts: Sequence[Prompt],
    max_tokens: int,
    seed: int,
) -> Evaluation:
    """Compute all metrics of one checkpoint. `baselines` is empty for M_0; `initial` is M_0's responses.

    All responses are to the same prompts in the same order, as `evaluation/evaluator.py` has checked.
    """
    table = MetricTable()
    _measure_texts(table, own, initial, max_tokens=max_tokens, seed=seed)
    for baseline in baselines:
        _measure_against(table, own, baseline, max_tokens=max_tokens, seed=seed)
    _measure_passes(table, own, baselines, verifiable_prompts, seed=seed)
    if baselines:
        measure_anchor(table, comparisons, [o for baseline in baselines for o in baseline.outcomes], seed=seed)
    return Evaluation(iteration, table.metrics, table.not_measured)


def passes(prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[bool]:
    """Return whether each response to the verifiable prompts passes all checks, without its reasoning."""
    return [
        checks.pass_all(prompt.checks, without_reasoning(response.text))
        for prompt, response in zip(prompts, responses, strict=True)
    ]


def _lengths(held_out: HeldOutResponses) -> list[int]:
    return [len(text_token_ids(response)) for response in held_out.validation]


def _truncated(held_out: HeldOutResponses) -> list[bool]:
    return [response.finish_reason == "length" for response in held_out.validation]


def _measure_passes(
    table: MetricTable,
    own: HeldOutResponses,
    baselines: Sequence[BaselineComparison],
    prompts: Sequence[Prompt],
    *,
    seed: int,
) -> None:
    if not prompts:
        table.not_measured["pass_rate"] = "there are no verifiable prompts"
        return
    for name, responses in own.by_pass_rate.items():
        passed = passes(prompts, responses)
        table.metrics[name] = rate_interval(passed)
        for baseline in baselines:
            theirs = passes(prompts, baseline.held_out.by_pass_rate[name])
            table.metrics[f"{name}_vs_{baseline.name}"] = paired_interval(passed, theirs, bounds=(0, 1), seed=seed)


def _measure_texts(
    table: MetricTable, own: HeldOutResponses, initial: HeldOutResponses, *, max_tokens: int, seed: int
) -> None:
    table.put("response_tokens", lambda: mean_interval(_lengths(own), bounds=(0, max_tokens), seed=seed))
    table.put("truncation_rate", lambda: rate_interval(_truncated(own)))
    table.put("end_of_sequence_rate", lambda: rate_interval([not truncated for truncated in _truncated(own)]))
    texts = [text_token_ids(response) for response in own.validation]
    table.put("repetition_rate", lambda: rate_interval([is_stuck(text) for text in texts]))
    budget = int(DISTINCT_SHARE * sum(_lengths(initial)))
    for n in (1, 2, 3):
        table.put(f"distinct_{n}", partial(distinct_n, texts, n, budget_tokens=budget, seed=seed))


def _measure_against(
    table: MetricTable, own: HeldOutResponses, baseline: BaselineComparison, *, max_tokens: int, seed: int
) -> None:
    theirs = baseline.held_out
    deltas = length_deltas(own.validation, theirs.validation)
    same = [a.text == b.text for a, b in zip(own.validation, theirs.validation, strict=True)]
    put_win_rates(table, f"win_rate_vs_{baseline.name}", baseline.outcomes, deltas, same=same, seed=seed)
    put_win_rates(table, f"self_win_rate_vs_{baseline.name}", baseline.self_outcomes, deltas, same=same, seed=seed)
    table.put(f"same_response_rate_vs_{baseline.name}", lambda: rate_interval(same))
    table.put(
        f"response_tokens_vs_{baseline.name}",
        lambda: paired_interval(_lengths(own), _lengths(theirs), bounds=(0, max_tokens), seed=seed),
    )
    table.put(
        f"truncation_rate_vs_{baseline.name}",
        lambda: paired_interval(_truncated(own), _truncated(theirs), bounds=(0, 1), seed=seed),
    )
    own_logprobs, logprobs = baseline.own_logprobs, baseline.logprobs
    if own_logprobs is not None and logprobs is not None:
        table.put(f"kl_{baseline.name}_nats", lambda: kl_interval(own_logprobs, logprobs, seed=seed))


def put_win_rates(
    table: MetricTable,
    name: str,
    outcomes: Sequence[Outcome] | str,
    deltas: Sequence[float],
    *,
    same: Sequence[bool],
    seed: int,
) -> None:
    """Add the win rate `name`, raw and length-adjusted; `deltas` are the prompts' length differences in tokens.

    Where both texts of every prompt are the `same`, no judge was asked, and there is no win rate.
    """
    adjusted = f"length_adjusted_{name}"
    if same and all(same) and not isinstance(outcomes, str):
        outcomes = f"same responses: the two models' texts are equal on all {len(same)} prompts"
    if isinstance(outcomes, str):
        table.not_measured.update(dict.fromkeys((name, adjusted), outcomes))
        return
    scored = [(o.value, delta) for o, delta in zip(outcomes, deltas, strict=True) if o.value is not None]
    values, known = [value for value, _ in scored], [delta for _, delta in scored]
    table.put(name, lambda: mean_interval(values, bounds=(0, 1), seed=seed))
    table.put(adjusted, lambda: adjusted_interval(values, known, seed=seed))


def measure_anchor(
    table: MetricTable, comparisons: Sequence[Comparison], outcomes: Sequence[Outcome], *, seed: int
) -> None:
    """Add the anchor's metrics. For an invalid anchor `anchor_valid` is 0, with the reason under `anchor`."""
    health = anchor_health(comparisons, outcomes, seed=seed)
    if health is None:
        reason = "every response has the same text as those it is compared with, so the anchor was not used"
        table.not_measured.update(dict.fromkeys(("position_consistency_rate", "anchor_valid"), reason))
        return
    table.metrics["anchor_unscored_rate"] = health.unscored_rate
    table.metrics["anchor_valid"] = float(health.invalid is None)
    if health.consistency is not None:
        table.metrics["position_consistency_rate"] = health.consistency
    elif health.invalid is None:
        table.not_measured["position_consistency_rate"] = "the anchor scores each response separately"
    if health.invalid is not None:
        table.not_measured["anchor"] = f"INVALID: {health.invalid}"
