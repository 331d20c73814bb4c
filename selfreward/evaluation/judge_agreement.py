"""Reliability of an iteration's judge: statistics of its judgments, and its agreement with other judges and gold pairs.

In addition to the statistics of its judgments (`statistics/judge_metrics.py`), three things are measured:

* A fixed pool of prompts and responses of the first iteration is judged by every later judge; Kendall's tau between
this
  judge and the previous one measures whether they still rank it similarly (CREAM, 2410.12735). On fresh responses a
  change of the judge could not be distinguished from a change of the responses.
* On some prompts the anchor compares the response with the highest mean score with the one with the lowest.
* Gold pairs, if there are any, are judged (`gold.py`).

The statistics of the sampled responses (`samples.py`) are computed in the same pass.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from selfreward.evaluation.evaluator import Evaluator
from selfreward.evaluation.gold import GOLD_ACCURACY, GOLD_UNSCORED, accuracy, gold_stages, unscored_rate
from selfreward.evaluation.metrics import MetricTable
from selfreward.evaluation.preference import anchor_health, outcomes
from selfreward.evaluation.samples import SampledPrompt, SampledTexts, measure_samples, sampled_prompts, sampled_texts
from selfreward.evaluation.tables import BEST_AND_WORST, GOLD_OUTCOMES, POOL_JUDGMENTS, POOL_PROMPTS, POOL_RESPONSES
from selfreward.parts import Judge, PairingInputs
from selfreward.records import Comparison, Evaluation, Interval, Judgment, Prompt, Response
from selfreward.roles import CHANGING
from selfreward.seeding import seed_of
from selfreward.statistics import NotEnoughDataError
from selfreward.statistics.intervals import mean_interval
from selfreward.statistics.judge_metrics import measure_judge
from selfreward.statistics.kendall import mean_tau
from selfreward.statistics.scores import mean_scores
from selfreward.steps import Probe, Read, Reading, Stage
from selfreward.tables import JUDGE, JUDGMENTS, PROMPTS, RESPONSES, Table
from selfreward.workload import Workload, all_cached

TAU = "judge_tau_previous"
AGREEMENT = "judge_anchor_agreement_rate"
ALL_SHARDS = tuple(Read(table, "iteration") for table in (PROMPTS, RESPONSES, JUDGMENTS))


@dataclass(frozen=True)
class _JudgedPrompt:
    """One prompt with its responses and their judgments."""

    prompt: Prompt
    responses: list[Response]
    judgments: list[Judgment]


def judge_probe(evaluator: Evaluator, *, judge: Judge, work: Workload, num_prompts: int) -> Probe:
    """Return the measurements of `judge` on the responses of `work`.

    `num_prompts` is the size of the pool and of the anchor's sample; 0 switches both off.
    """
    return _JudgeProbe(evaluator, judge, work, num_prompts).probe(work.iteration)


@dataclass(frozen=True)
class _JudgeProbe:
    evaluator: Evaluator
    judge: Judge
    work: Workload
    num_prompts: int
    _drawn: list[list[_JudgedPrompt]] = field(default_factory=list, init=False, repr=False)

    @property
    def seed(self) -> int:
        return self.evaluator.seed

    def probe(self, iteration: int) -> Probe:
        """Return the probe; the judge runs before the anchor, so that the engine loads each model once."""
        gold = gold_stages(self.evaluator, iteration, judge=self.judge)
        pool, earlier = (self._pool(iteration), (Read(POOL_JUDGMENTS, "earlier"),)) if self._is_compared else ((), ())
        return Probe(JUDGE, (*pool, *gold, *self._anchored()), (*ALL_SHARDS, *earlier), self._measure)

    @property
    def _is_compared(self) -> bool:
        """Whether this judge and the previous one may rank the pool differently."""
        return self.num_prompts > 0 and bool(self.judge.by & CHANGING)

    # -- stages ---------------------------------------------------------------------------------------------------

    def _pool(self, iteration: int) -> tuple[Stage[Any], ...]:
        """Return the stages of the pool: in iteration 1 they store its sample and judgments, later they judge it
        again."""
        if iteration == 1:
            kept: tuple[tuple[Table[Any], Callable[[_JudgedPrompt], list[Any]]], ...] = (
                (POOL_PROMPTS, lambda case: [case.prompt]),
                (POOL_RESPONSES, lambda case: case.responses),
                (POOL_JUDGMENTS, lambda case: case.judgments),
            )
            return tuple(Stage(table, partial(self._kept, part), ALL_SHARDS, num_shards=1) for table, part in kept)
        work = self._sampled(self.evaluator.source.training_prompts(1), self.work.num_responses)
        again = Stage(
            POOL_JUDGMENTS, self._judge_again, queries=self.judge.by, num_shards=1,
            reads=(Read(POOL_PROMPTS, "earlier"), Read(POOL_RESPONSES, "earlier")),
            max_requests=lambda lengths: all_cached(self.judge.max_requests(work, lengths)),
            only_if=lambda reading: reading.has(POOL_PROMPTS, iteration=1),
        )  # fmt: skip
        return (again,)

    def _kept(self, part: Callable[[_JudgedPrompt], list[Any]], reading: Reading) -> list[Any]:
        return [record for case in self._sample(reading) for record in part(case)]

    def _judge_again(self, reading: Reading) -> list[Judgment]:
        """Judge the pool with the first iteration's seeds, so that sampling noise is as similar as possible."""
        prompts = list(reading.rows(POOL_PROMPTS, iteration=1))
        responses = list(reading.rows(POOL_RESPONSES, iteration=1))
        judged = self.judge.judge(prompts, responses, models=reading.roles, iteration=1)
        return [judgment for judgment in judged if not judgment.part]

    def _anchored(self) -> tuple[Stage[Comparison], ...]:
        if not self.num_prompts:
            return ()
        work, anchor = self._sampled(self.work.prompts, 2), self.evaluator.anchor

        def make(reading: Reading) -> list[Comparison]:
            prompts, best, worst = self._best_and_worst(reading)
            return anchor.compare(prompts, best, worst, models=reading.roles, iteration=reading.iteration)

        stage = Stage(
            BEST_AND_WORST, make, reads=ALL_SHARDS, queries=anchor.by, num_shards=1,
            max_requests=lambda lengths: anchor.max_requests(work, lengths),
            only_if=lambda reading: bool(self._best_and_worst(reading)[0]),
        )  # fmt: skip
        return (stage,)

    def _sampled(self, prompts: Sequence[Prompt], num_responses: int) -> Workload:
        drawn = sorted(prompts, key=lambda prompt: self._sampling_key(prompt.id))[: self.num_prompts]
        return replace(self.work, prompts=drawn, num_responses=num_responses)

    # -- samples --------------------------------------------------------------------------------------------------

    def _sampling_key(self, prompt_id: str) -> int:
        """Return the pseudo-random key by which prompts are sampled."""
        return seed_of(self.seed, 0, JUDGE, prompt_id)

    def _sample(self, reading: Reading) -> list[_JudgedPrompt]:
        """Return `num_prompts` sampled prompts with responses and judgments; read once, one shard at a time."""
        if not self._drawn:
            keyed: list[tuple[int, _JudgedPrompt]] = []
            for shard in _shards(reading):
                cases = [(self._sampling_key(case.prompt.id), case) for case in _cases(shard)]
                keyed = sorted([*keyed, *cases], key=lambda entry: entry[0])[: self.num_prompts]
            self._drawn.append([case for _, case in keyed])
        return self._drawn[0]

    def _best_and_worst(self, reading: Reading) -> tuple[list[Prompt], list[Response], list[Response]]:
        """Return the sampled prompts with the highest-scored and the lowest-scored response of each."""
        found = [(case.prompt, *ends) for case in self._sample(reading) if (ends := _best_and_worst(case)) is not None]
        return [row[0] for row in found], [row[1] for row in found], [row[2] for row in found]

    # -- measurements ---------------------------------------------------------------------------------------------

    def _measure(self, reading: Reading) -> Evaluation:
        """Compute the metrics over all shards; only one shard's texts and the samples are in memory at a time."""
        lengths: dict[str, int] = {}
        prompts: list[SampledPrompt] = []
        texts: list[SampledTexts] = []
        full_score = self.judge.scale[1] if self.judge.scale and not self.judge.by else None

        def judgments() -> Iterator[Judgment]:
            nonlocal texts
            for shard in _shards(reading):
                own = {response.id for response in shard.responses}
                lengths.update((response.id, len(response.token_ids)) for response in shard.responses)
                prompts.extend(sampled_prompts(shard, full_score=full_score))
                texts = sampled_texts(shard, texts, seed=self.seed)
                yield from (judgment for judgment in shard.judgments if judgment.response_id in own)

        table = MetricTable(
            *measure_judge(judgments(), response_lengths=lengths, scale=self.judge.scale, seed=self.seed)
        )
        measure_samples(table, prompts, texts, seed=self.seed)
        rows = list(reading.rows(GOLD_OUTCOMES)) if self.evaluator.source.gold_pairs() else []
        table.put(TAU, lambda: self._tau(reading))
        table.put(GOLD_ACCURACY, lambda: accuracy(rows, seed=self.seed))
        table.put(GOLD_UNSCORED, lambda: unscored_rate(rows))
        table.put(AGREEMENT, lambda: self._agreement(reading))
        return Evaluation(reading.iteration, table.metrics, table.not_measured)

    def _tau(self, reading: Reading) -> Interval:
        """Return Kendall's tau between this judge and the previous one on the pool. Raises NotEnoughDataError."""
        self._check_size()
        if not self._is_compared:
            raise NotEnoughDataError("the judge is the same in every iteration")
        before = reading.iteration - 1
        if before == 0 or not reading.has(POOL_JUDGMENTS, iteration=before):
            raise NotEnoughDataError("there was no previous judge")
        tau = mean_tau(reading.rows(POOL_JUDGMENTS), reading.rows(POOL_JUDGMENTS, iteration=before), seed=self.seed)
        if tau is None:
            raise NotEnoughDataError("no prompt of the pool has a ranking by both judges")
        return tau

    def _agreement(self, reading: Reading) -> Interval:
        """Return the rate at which a valid anchor prefers the judge's highest-scored to its lowest-scored response.

        Raises NotEnoughDataError.
        """
        self._check_size()
        _, best, worst = self._best_and_worst(reading)
        if not best:
            raise NotEnoughDataError("no prompt has two responses with different scores and texts")
        comparisons = list(reading.rows(BEST_AND_WORST))
        found = outcomes(best, worst, comparisons, [worst])
        health = anchor_health(comparisons, found, seed=self.seed)
        if health is not None and health.invalid is not None:
            raise NotEnoughDataError(f"the anchor is not usable: {health.invalid}")
        preferences = [outcome.value for outcome in found if outcome.value is not None]
        agrees = [1.0 if value > 0.5 else 0.0 if value < 0.5 else 0.5 for value in preferences]
        return mean_interval(agrees, bounds=(0.0, 1.0), seed=self.seed)

    def _check_size(self) -> None:
        if self.num_prompts == 0:
            raise NotEnoughDataError("evaluation.num_judge_prompts is 0")


def _shards(reading: Reading) -> Iterator[PairingInputs]:
    for shard in range(reading.num_shards(PROMPTS)):
        yield PairingInputs(
            list(reading.rows(PROMPTS, shard=shard)),
            list(reading.rows(RESPONSES, shard=shard)),
            list(reading.rows(JUDGMENTS, shard=shard)),
        )


def _cases(shard: PairingInputs) -> list[_JudgedPrompt]:
    """Return the shard by prompt, without parts of judgments and without judgments of M_0's responses."""
    responses: defaultdict[str, list[Response]] = defaultdict(list)
    for response in shard.responses:
        responses[response.prompt_id].append(response)
    judgments: defaultdict[str, list[Judgment]] = defaultdict(list)
    own = {response.id for response in shard.responses}
    for judgment in shard.judgments:
        if judgment.response_id in own and not judgment.part:
            judgments[judgment.prompt_id].append(judgment)
    return [_JudgedPrompt(prompt, responses[prompt.id], judgments[prompt.id]) for prompt in shard.prompts]


def _best_and_worst(case: _JudgedPrompt) -> tuple[Response, Response] | None:
    scores: Mapping[str, float] = mean_scores(case.judgments)
    scored = sorted((r for r in case.responses if r.id in scores), key=lambda r: (scores[r.id], r.id))
    if len(scored) < 2 or scores[scored[0].id] == scores[scored[-1].id] or scored[0].text == scored[-1].text:
        return None
    return scored[-1], scored[0]
