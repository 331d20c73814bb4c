"""Upper bounds of the work of each stage, counted on the run's real prompts with the model's own tokenizer.

Stages have the names under which a run stores them, so that a plan can be laid beside a manifest.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from selfreward import recipe as schema
from selfreward.evaluation import evaluator as held_out
from selfreward.evaluation import judge as judge_checks
from selfreward.evaluation.gold import GOLD_JUDGMENTS
from selfreward.evaluation.self_judge import SELF_JUDGMENTS
from selfreward.parts import PromptSource
from selfreward.plan.judges import (
    CHANGING,
    Judged,
    battles,
    comparisons,
    judge_requests,
    judgment_prompts,
    models_of,
)
from selfreward.plan.lengths import Lengths, Tokenizer
from selfreward.plan.requests import Requests, Work, endpoint_work, engine_work, generated, summed
from selfreward.recipe import Recipe
from selfreward.records import Prompt
from selfreward.seeding import seed_of

RESPONSES, INITIAL_RESPONSES = "responses", "initial_responses"
JUDGMENTS, PREVIOUS_JUDGMENTS, BATTLES = "judgments", "previous_judgments", "battles"
RESERVE_STAGES = (
    held_out.RESERVE_RESPONSES,
    f"{held_out.RESERVE_RESPONSES}_previous",
    f"{held_out.RESERVE_RESPONSES}_best",
    held_out.RESERVE_COMPARISONS,
)
SEAL_STAGES = (f"{held_out.SEAL_RESPONSES}_best", f"{held_out.SEAL_RESPONSES}_initial", held_out.SEAL_COMPARISONS)
PERHAPS = frozenset({*RESERVE_STAGES, *SEAL_STAGES})
"""Asked only when a decision stays open, and when the best checkpoint is not M_0."""


@dataclass(frozen=True)
class IterationWork:
    """Iteration 0 is the evaluation of M_0, which trains nothing. `num_training_tokens` are those of all steps.

    `stages` is the engine's work; `elsewhere` that of endpoints and reward models, by stage and name of the model.
    """

    iteration: int
    stages: Mapping[str, Work]
    num_pairs: int = 0
    num_judgment_pairs: int = 0
    num_steps: int = 0
    num_training_tokens: int = 0
    longest_pair_tokens: int = 0
    num_tokens_without_gradient: int = 0
    elsewhere: Mapping[str, Mapping[str, Work]] = field(default_factory=dict)

    @property
    def num_requests(self) -> int:
        return sum(work.num_requests for work in self.stages.values())

    @property
    def num_tokens(self) -> int:
        return sum(work.num_tokens for work in self.stages.values())


def count_work(
    recipe: Recipe, *, source: PromptSource, tokenizer: Tokenizer
) -> tuple[tuple[IterationWork, ...], list[str]]:
    """Iterations 0 to `iterations.max`, and warnings about prompts that do not fit the context."""
    counter = _Counter(recipe, source, tokenizer)
    iterations = (counter.iteration(number) for number in range(recipe.iterations.max + 1))
    return tuple(iterations), counter.warnings()


class _Counter:
    def __init__(self, recipe: Recipe, source: PromptSource, tokenizer: Tokenizer) -> None:
        self._recipe = recipe
        self._source = source
        self._lengths = Lengths(tokenizer)
        self._context = tokenizer.context_tokens(recipe.engine.context_tokens)
        self._too_long: list[str] = []
        self._num_unjudged = 0
        self._evaluation_tokens = recipe.evaluation.max_tokens or recipe.sampling.max_tokens

    def iteration(self, number: int) -> IterationWork:
        stages = self._responses(self._source.monitor_prompts(), held_out.RESPONSES)
        stages |= self._responses(self._source.verifiable_prompts(), held_out.VERIFIABLE_RESPONSES)
        if number == 0:
            return IterationWork(0, stages)
        fresh = self._source.training_prompts(number)
        self._note_too_long(fresh)
        in_engine, elsewhere = self._split(
            {**self._judging(number, fresh), **self._judge_checks(number, fresh), **self._held_out(number)}
        )
        stages = {**self._sampling(number, fresh), **in_engine, **stages, **self._divergence(number)}
        stages |= self._responses(self._source.reserve_prompts(), *RESERVE_STAGES[: 1 + min(number, 2)])
        if number == self._recipe.iterations.max:
            stages |= self._responses(self._source.seal_prompts(), *SEAL_STAGES[:2])
        return IterationWork(number, stages, elsewhere=elsewhere, **self._training(number, fresh))

    def warnings(self) -> list[str]:
        found = []
        if self._too_long:
            found.append(
                f"{len(self._too_long)} prompts leave less than sampling.max_tokens of the context of {self._context} "
                f"tokens, for example {self._too_long[0]!r}: `selfreward run` would refuse them"
            )
        if self._num_unjudged:
            found.append(
                f"up to {self._num_unjudged:,} judge prompts may exceed the context of {self._context} tokens; "
                "such a judgment or comparison is unscored (too_long)"
            )
        return found

    # Responses and judgments.

    def _sampling(self, number: int, fresh: Sequence[Prompt]) -> dict[str, Work]:
        sampling = self._recipe.sampling
        drawn = self._draws(fresh, max_tokens=sampling.max_tokens, n=sampling.num_responses)
        return {RESPONSES: drawn, INITIAL_RESPONSES: drawn} if self._has_initial(number) else {RESPONSES: drawn}

    def _judging(self, number: int, fresh: Sequence[Prompt]) -> dict[str, list[Requests]]:
        recipe, judge = self._recipe, self._recipe.judging
        judged = self._judged(fresh, number, with_initial=self._has_initial(number))
        asked = {JUDGMENTS: judge_requests(judge, judged, self._lengths)}
        if "consistency" in (recipe.pairing.label, recipe.pairing.weight) and number > 1:
            asked[PREVIOUS_JUDGMENTS] = self._again(replace(judged, iteration=number - 1))
        meta = recipe.meta_judging
        if meta is not None and number in meta.iterations and isinstance(judge, schema.AdditiveJudge):
            asked[BATTLES] = battles(meta, judge, judged, self._lengths)
        return asked

    def _judge_checks(self, number: int, fresh: Sequence[Prompt]) -> dict[str, list[Requests]]:
        """The judge on gold pairs and again on the pool of the first iteration, the anchor on best and worst ones."""
        asked = {GOLD_JUDGMENTS: gold} if (gold := self._gold(number)) else {}
        if not self._recipe.evaluation.num_judge_prompts:
            return asked
        best_and_worst = replace(self._judged(self._drawn_for_checks(fresh), number), num_responses=2)
        asked[judge_checks.BEST_AND_WORST] = self._compared(best_and_worst)
        if number > 1 and models_of(self._recipe.judging) & CHANGING:
            pool = self._drawn_for_checks(self._source.training_prompts(1))
            asked[judge_checks.POOL_JUDGMENTS] = self._again(self._judged(pool, number))
        return asked

    def _judged(self, prompts: Sequence[Prompt], number: int, *, with_initial: bool = False) -> Judged:
        sampling = self._recipe.sampling
        num_responses = sampling.num_responses * (2 if with_initial else 1)
        return Judged(prompts, num_responses, sampling.max_tokens, number)

    def _gold(self, number: int) -> list[Requests]:
        """Both responses of each pair, as long as the longest of all."""
        pairs = self._source.gold_pairs()
        longest = max((self._lengths.text(text) for pair in pairs for text in (pair.chosen, pair.rejected)), default=0)
        judged = Judged([pair.prompt for pair in pairs], 2, longest, number)
        return self._again(judged) if number > 1 else judge_requests(self._recipe.judging, judged, self._lengths)

    def _again(self, judged: Judged) -> list[Requests]:
        """What was judged before: an endpoint's replies to the same questions are kept, and not asked for again."""
        asked = judge_requests(self._recipe.judging, judged, self._lengths)
        return [requests for requests in asked if requests.by not in self._recipe.endpoints]

    def _held_out(self, number: int) -> dict[str, list[Requests]]:
        """The anchor and the run's own judge on held-out responses; rivals are M_{t-1}, M_0 and the best before."""
        source, tokens = self._source, self._evaluation_tokens
        monitor = Judged(source.monitor_prompts(), 1 + min(number, 3), tokens, number)
        asked = {held_out.COMPARISONS: self._compared(monitor, met_before=number > 1)}
        if self._recipe.evaluation.self_judge:
            asked[SELF_JUDGMENTS] = judge_requests(self._recipe.judging, monitor, self._lengths)
        if reserve := source.reserve_prompts():  # against M_{t-1} and the best
            asked[held_out.RESERVE_COMPARISONS] = self._compared(Judged(reserve, 1 + min(number, 2), tokens, number))
        if number == self._recipe.iterations.max and (seal := source.seal_prompts()):
            asked[held_out.SEAL_COMPARISONS] = self._compared(Judged(seal, 2, tokens, 1))
        return asked

    def _compared(self, judged: Judged, *, met_before: bool = False) -> list[Requests]:
        """By the anchor, one of the responses with each of the others; texts that turn out equal are not compared.

        An anchor that scores does so with each response; an endpoint's score of one that it `met_before` is kept.
        """
        anchor, num_rivals = self._recipe.evaluation.anchor, judged.num_responses - 1
        if isinstance(anchor, schema.PairwiseAnchor):
            return comparisons(anchor, judged, self._lengths, num_contests=num_rivals, num_own=num_rivals)
        if met_before and models_of(anchor) & self._recipe.endpoints.keys():
            judged = replace(judged, num_responses=1)
        return judge_requests(anchor, judged, self._lengths)

    def _has_initial(self, number: int) -> bool:
        """Whether M_0 responds to training prompts too; in the first iteration it is the policy."""
        return self._recipe.pairing.kind == "initial_rejected" and number > 1

    def _drawn_for_checks(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        by_seed = sorted(prompts, key=lambda prompt: seed_of(self._recipe.seed, 0, "judge", prompt.id))
        return by_seed[: self._recipe.evaluation.num_judge_prompts]

    def _split(self, asked: Mapping[str, Sequence[Requests]]) -> tuple[dict[str, Work], dict[str, dict[str, Work]]]:
        """What is asked of the engine by stage, and of other models by stage and name."""
        in_engine: dict[str, Work] = {}
        elsewhere: dict[str, dict[str, Work]] = {}
        for stage, groups in asked.items():
            calls: list[Work] = []
            others: defaultdict[str, list[Work]] = defaultdict(list)
            for requests in groups:
                if not requests.lengths:
                    continue
                endpoint = self._recipe.endpoints.get(requests.by)
                if endpoint is not None:
                    others[requests.by].append(endpoint_work(requests, endpoint))
                    continue
                works, num_too_long = engine_work(requests, context=self._context)
                if requests.in_engine:
                    calls += works
                    self._num_unjudged += num_too_long
                else:
                    others[requests.by] += works
            if calls:
                in_engine[stage] = summed(calls)
            if others:
                elsewhere[stage] = {name: summed(works) for name, works in others.items()}
        return in_engine, elsewhere

    # Training.

    def _training(self, number: int, fresh: Sequence[Prompt]) -> dict[str, int]:
        training = self._recipe.training
        of_judgments = self._judgment_pairs(number, fresh)
        # The longest pairs if only some train.
        lengths = sorted([*self._response_pairs(fresh), *of_judgments], reverse=True)
        num_pairs = min(len(lengths), training.max_pairs or len(lengths))
        one_pass = sum(lengths[:num_pairs])
        passes = 2 if training.reference == "initial" else 1  # log-probabilities that training starts from
        return {
            "num_pairs": num_pairs,
            "num_judgment_pairs": min(num_pairs, len(of_judgments)),
            "num_steps": math.ceil(num_pairs / training.batch_size) * training.num_epochs,
            "num_training_tokens": one_pass * training.num_epochs,
            "longest_pair_tokens": lengths[0],
            "num_tokens_without_gradient": (passes + 1) * one_pass,  # and the pass that measures afterwards
        }

    def _response_pairs(self, fresh: Sequence[Prompt]) -> list[int]:
        """Tokens of each pair, both responses as long as allowed."""
        return [
            self._pair_tokens(self._lengths.prompt(prompt), self._recipe.sampling.max_tokens)
            for prompt in fresh
            for _ in range(self._pairs_per_prompt())
        ]

    def _pairs_per_prompt(self) -> int:
        pairing = self._recipe.pairing
        return min(pairing.k, self._recipe.sampling.num_responses // 2) if isinstance(pairing, schema.TopK) else 1

    def _judgment_pairs(self, number: int, fresh: Sequence[Prompt]) -> list[int]:
        """One a prompt at most, and so few that their share stays within its cap."""
        meta, judge = self._recipe.meta_judging, self._recipe.judging
        if meta is None or number not in meta.iterations or not isinstance(judge, schema.AdditiveJudge):
            return []
        share = Fraction(str(meta.max_share))
        num_pairs = min(len(fresh), math.floor(share / (1 - share) * len(fresh) * self._pairs_per_prompt()))
        prompts = judgment_prompts(judge, self._judged(fresh, number), self._lengths)
        room = self._context - judge.max_tokens
        longest = sorted((min(length, room) for length in prompts), reverse=True)[:num_pairs]
        return [self._pair_tokens(length, judge.max_tokens) for length in longest]

    def _pair_tokens(self, prompt_tokens: int, max_tokens: int) -> int:
        """Packed, a pair's prompt is computed once."""
        times = 1 if self._recipe.training.packing == "shared_prefix" else 2
        return times * prompt_tokens + 2 * max_tokens

    # Evaluation.

    def _responses(self, prompts: Sequence[Prompt], *stages: str) -> dict[str, Work]:
        """One to each prompt, in each of these stages; nothing without prompts."""
        return dict.fromkeys(stages, self._draws(prompts, max_tokens=self._evaluation_tokens)) if prompts else {}

    def _divergence(self, number: int) -> dict[str, Work]:
        seed, monitor = self._recipe.seed, self._source.monitor_prompts()
        drawn = sorted(monitor, key=lambda p: seed_of(seed, 0, held_out.KL_RESPONSES, p.id))[: held_out.KL_PROMPTS]
        draws = self._draws(drawn, max_tokens=self._evaluation_tokens)
        # In the first iteration M_{t-1} is M_0 and is asked once.
        names = ("policy", "initial") if number == 1 else ("policy", "previous", "initial")
        scored = Work(draws.num_requests, draws.num_tokens)
        return {held_out.KL_RESPONSES: draws, **{f"{held_out.LOGPROBS}_{name}": scored for name in names}}

    # Lengths.

    def _draws(self, prompts: Sequence[Prompt], *, max_tokens: int, n: int = 1) -> Work:
        lengths = [self._lengths.prompt(prompt) for prompt in prompts]
        return generated(lengths, [max(0, min(max_tokens, self._context - length)) for length in lengths], n=n)

    def _note_too_long(self, prompts: Iterable[Prompt]) -> None:
        room = self._context - self._recipe.sampling.max_tokens
        self._too_long += [prompt.id for prompt in prompts if self._lengths.prompt(prompt) > room]
