"""How far an iteration's judge is to be trusted, what its own judgments say, and what others say.

Beside the statistics of its judgments (`statistics/judges.py`) three things are asked anew:

* A pool of prompts and responses of the first iteration is judged by every later judge; Kendall's tau between this
  judge and the one before says whether they still rank alike (CREAM, 2410.12735). On fresh responses it could not be
  told from a change of the responses.
* On some prompts the anchor compares the response with the highest mean score with the one with the lowest.
* Gold pairs, where there are any, are judged (`gold.py`).

What the sampled responses look like (`samples.py`) is read in the same pass.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from selfreward.evaluation.gold import GOLD_ACCURACY, GOLD_UNSCORED, accuracy, gold_outcomes, unscored_rate
from selfreward.evaluation.metrics import Sheet
from selfreward.evaluation.preference import anchor_health, outcomes
from selfreward.evaluation.samples import (
    SampledPrompt,
    SampledTexts,
    measure_samples,
    sampled_prompts,
    sampled_texts,
)
from selfreward.parts import Engine, Judge, Judged, Models, PairwiseJudge, PromptSource, Stages
from selfreward.records import Comparison, Evaluation, Interval, Judgment, Prompt, PromptOutcome, Response
from selfreward.seeding import seed_of
from selfreward.statistics import NotEnoughDataError
from selfreward.statistics.intervals import mean_interval
from selfreward.statistics.judges import measure_judge
from selfreward.statistics.kendall import mean_tau
from selfreward.statistics.scores import mean_scores

TAU = "judge_tau_previous"
AGREEMENT = "judge_anchor_agreement_rate"
POOL_PROMPTS, POOL_RESPONSES, POOL_JUDGMENTS = "judge_pool_prompts", "judge_pool_responses", "judge_pool_judgments"
BEST_AND_WORST = "judge_anchor_comparisons"


@dataclass(frozen=True)
class _Case:
    """One prompt with what was said about it; `place` is the number by which a sample of prompts is drawn."""

    place: int
    prompt: Prompt
    responses: list[Response]
    judgments: list[Judgment]


@dataclass(frozen=True)
class JudgeEvaluator:
    """Measures `judge`. `num_prompts` is the size of the pool and of the sample that the anchor sees; 0: neither."""

    judge: Judge
    anchor: PairwiseJudge
    prompts: PromptSource
    engine: Engine
    num_prompts: int
    seed: int
    shard_prompts: int

    def evaluate(self, stages: Stages, iteration: int, *, judged: Iterable[Judged], models: Models) -> Evaluation:
        """From all shards of what the judge judged in this iteration; texts of one shard at a time are in memory.

        Beside them are those of samples.
        """
        lengths: dict[str, int] = {}
        sample: list[_Case] = []
        prompts: list[SampledPrompt] = []
        texts: list[SampledTexts] = []
        full_score = self.judge.scale[1] if self.judge.scale and not self.judge.by else None

        def judgments() -> Iterable[Judgment]:
            nonlocal sample, texts
            for shard in judged:
                own = {response.id for response in shard.responses}
                lengths.update((response.id, len(response.token_ids)) for response in shard.responses)
                sample = sorted([*sample, *self._cases(shard)], key=lambda case: case.place)[: self.num_prompts]
                prompts.extend(sampled_prompts(shard, full_score=full_score))
                texts = sampled_texts(shard, texts, seed=self.seed)
                yield from (judgment for judgment in shard.judgments if judgment.response_id in own)

        sheet = Sheet(*measure_judge(judgments(), response_lengths=lengths, scale=self.judge.scale, seed=self.seed))
        measure_samples(sheet, prompts, texts, seed=self.seed)
        # The judge is asked before the anchor, so that the engine holds each model once.
        sheet.put(TAU, lambda: self._tau(stages, iteration, sample, models))
        rows = self._gold(stages, iteration, models)
        sheet.put(GOLD_ACCURACY, lambda: accuracy(rows, seed=self.seed))
        sheet.put(GOLD_UNSCORED, lambda: unscored_rate(rows))
        sheet.put(AGREEMENT, lambda: self._agreement(stages, iteration, sample, models))
        return Evaluation(iteration, sheet.metrics, sheet.not_measured)

    def _cases(self, shard: Judged) -> list[_Case]:
        responses: defaultdict[str, list[Response]] = defaultdict(list)
        for response in shard.responses:
            responses[response.prompt_id].append(response)
        judgments: defaultdict[str, list[Judgment]] = defaultdict(list)
        own = {response.id for response in shard.responses}
        for judgment in shard.judgments:
            if judgment.response_id in own and not judgment.part:
                judgments[judgment.prompt_id].append(judgment)
        return [
            _Case(seed_of(self.seed, 0, "judge", prompt.id), prompt, responses[prompt.id], judgments[prompt.id])
            for prompt in shard.prompts
        ]

    def _tau(self, stages: Stages, iteration: int, sample: Sequence[_Case], models: Models) -> Interval:
        """Kendall's tau between this judge and the previous one on the pool. Raises NotEnoughDataError."""
        self._check_size()
        if not self.judge.by & {"policy", "best"}:
            raise NotEnoughDataError("the judge is the same in every iteration")
        # The first iteration's sample is the pool, and it was judged already.
        prompts = stages.once(1, POOL_PROMPTS, Prompt, 0, lambda: [case.prompt for case in sample])
        responses = stages.once(1, POOL_RESPONSES, Response, 0, lambda: [r for case in sample for r in case.responses])
        stages.once(1, POOL_JUDGMENTS, Judgment, 0, lambda: [j for case in sample for j in case.judgments])
        if iteration == 1:
            raise NotEnoughDataError("there was no judge before this one")

        def judge_again() -> list[Judgment]:
            # With the first iteration's seeds: what chance adds is then as alike as it can be.
            judged = self.judge.judge(prompts, responses, models=models, iteration=1)
            return [judgment for judgment in judged if not judgment.part]

        now = stages.once(iteration, POOL_JUDGMENTS, Judgment, 0, judge_again)
        before = stages.once(iteration - 1, POOL_JUDGMENTS, Judgment, 0, list)
        tau = mean_tau(now, before, seed=self.seed)
        if tau is None:
            raise NotEnoughDataError("no prompt of the pool has a ranking by both judges")
        return tau

    def _agreement(self, stages: Stages, iteration: int, sample: Sequence[_Case], models: Models) -> Interval:
        """How often a valid anchor prefers what the judge scored highest to what it scored lowest.

        Raises NotEnoughDataError.
        """
        self._check_size()
        extremes = [
            (case.prompt, *ends)
            for case in sample
            if (ends := _best_and_worst(case.responses, case.judgments)) is not None
        ]
        if not extremes:
            raise NotEnoughDataError("no prompt has two responses with different scores and texts")
        prompts, best, worst = (list(side) for side in zip(*extremes, strict=True))
        comparisons: list[Comparison] = stages.once(
            iteration, BEST_AND_WORST, Comparison, 0,
            lambda: self.anchor.compare(prompts, best, worst, models=models, iteration=iteration),
        )  # fmt: skip
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

    def _gold(self, stages: Stages, iteration: int, models: Models) -> list[PromptOutcome]:
        pairs = self.prompts.gold_pairs()
        if not pairs:
            return []
        return gold_outcomes(
            stages, iteration, pairs,
            judge=self.judge, engine=self.engine, models=models, size=self.shard_prompts,
        )  # fmt: skip


def _best_and_worst(responses: Sequence[Response], judgments: Sequence[Judgment]) -> tuple[Response, Response] | None:
    scores: Mapping[str, float] = mean_scores(judgments)
    scored = sorted((r for r in responses if r.id in scores), key=lambda r: (scores[r.id], r.id))
    if len(scored) < 2 or scores[scored[0].id] == scores[scored[-1].id] or scored[0].text == scored[-1].text:
        return None
    return scored[-1], scored[0]
