"""Upper bounds of the work of each stage, counted on the run's real prompts with the model's own tokenizer.

Stages have the names under which a run stores them, so that a plan can be laid beside a manifest.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, assert_never

from selfreward import recipe as schema
from selfreward.evaluation import evaluator as held_out
from selfreward.parts import PromptSource
from selfreward.recipe import Recipe
from selfreward.records import Message, Prompt
from selfreward.seeding import seed_of
from selfreward.templates import Template

RESPONSES, JUDGMENTS = "responses", "judgments"


class Tokenizer(Protocol):
    """Of an engine what counting needs."""

    def context_tokens(self, asked: int) -> int: ...

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]: ...

    def encode_text(self, text: str) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Work:
    """What one stage asks of the engine. A prompt counts once for each request, however many draws continue it.

    `num_sequences` are the draws; `max_generated_tokens` is the longest draw. `num_repeated_tokens` are those of the
    prompt tokens that begin another request's prompt too: a prefix cache may save them.
    """

    num_requests: int
    num_prompt_tokens: int
    num_generated_tokens: int = 0
    num_sequences: int = 0
    max_generated_tokens: int = 0
    num_repeated_tokens: int = 0

    @property
    def num_tokens(self) -> int:
        return self.num_prompt_tokens + self.num_generated_tokens


@dataclass(frozen=True)
class IterationWork:
    """Iteration 0 is the evaluation of M_0, which trains nothing. `num_training_tokens` are those of all steps."""

    iteration: int
    stages: Mapping[str, Work]
    num_pairs: int = 0
    num_steps: int = 0
    num_training_tokens: int = 0
    longest_pair_tokens: int = 0
    num_tokens_without_gradient: int = 0

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
        self._tokenizer = tokenizer
        self._context = tokenizer.context_tokens(recipe.engine.context_tokens)
        self._lengths: dict[str, int] = {}
        self._too_long: list[str] = []
        self._num_unjudged = 0
        self._evaluation_tokens = recipe.evaluation.max_tokens or recipe.sampling.max_tokens
        self._compare = Template.load("pairwise")

    def iteration(self, number: int) -> IterationWork:
        if number == 0:
            return IterationWork(0, self._evaluation(0))
        fresh = self._source.training_prompts(number)
        self._note_too_long(fresh)
        return IterationWork(
            number,
            {RESPONSES: self._responses(fresh), **self._judgments(fresh), **self._evaluation(number)},
            **self._training(fresh),
        )

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

    # Training.

    def _responses(self, prompts: Sequence[Prompt]) -> Work:
        sampling = self._recipe.sampling
        return self._draws(prompts, max_tokens=sampling.max_tokens, n=sampling.num_responses)

    def _judgments(self, prompts: Sequence[Prompt]) -> Mapping[str, Work]:
        judging, sampling = self._recipe.judging, self._recipe.sampling
        match judging:
            case schema.VerifierJudge():
                return {}
            case schema.AdditiveJudge():
                n, max_tokens = judging.num_draws, judging.max_tokens
            case schema.ExpectedScoreJudge():
                n, max_tokens = 1, 1
            case _:
                assert_never(judging)
        template = Template.load(judging.kind)
        rubrics = [self._rendered(template, prompt, response="") for prompt in prompts]
        return {
            JUDGMENTS: self._judged(
                rubrics, self._opening_tokens(template) + sampling.max_tokens,
                times=sampling.num_responses, max_tokens=max_tokens, n=n,
            )
        }  # fmt: skip

    def _training(self, prompts: Sequence[Prompt]) -> dict[str, int]:
        training = self._recipe.training
        num_pairs = min(len(prompts), training.max_pairs or len(prompts))
        # Both responses of a pair as long as allowed; the longest prompts if only some train. Packed, a pair's prompt
        # is computed once.
        times = 1 if training.packing == "shared_prefix" else 2
        longest_first = sorted(map(self._length, prompts), reverse=True)
        lengths = [times * length + 2 * self._recipe.sampling.max_tokens for length in longest_first]
        one_pass = sum(lengths[:num_pairs])
        passes = 2 if training.reference == "initial" else 1  # log-probabilities that training starts from
        return {
            "num_pairs": num_pairs,
            "num_steps": math.ceil(num_pairs / training.batch_size) * training.num_epochs,
            "num_training_tokens": one_pass * training.num_epochs,
            "longest_pair_tokens": lengths[0],
            "num_tokens_without_gradient": (passes + 1) * one_pass,  # and the pass that measures afterwards
        }

    # Evaluation.

    def _evaluation(self, number: int) -> dict[str, Work]:
        monitor, verifiable = self._source.monitor_prompts(), self._source.verifiable_prompts()
        stages = {held_out.RESPONSES: self._draws(monitor, max_tokens=self._evaluation_tokens)}
        if verifiable:
            stages[held_out.VERIFIABLE_RESPONSES] = self._draws(verifiable, max_tokens=self._evaluation_tokens)
        if number == 0:
            return stages
        stages[held_out.COMPARISONS] = self._comparisons(monitor, num_rivals=1 if number == 1 else 2)
        seed = self._recipe.seed
        drawn = sorted(monitor, key=lambda p: seed_of(seed, 0, held_out.KL_RESPONSES, p.id))[: held_out.KL_PROMPTS]
        stages[held_out.KL_RESPONSES] = draws = self._draws(drawn, max_tokens=self._evaluation_tokens)
        # In the first iteration M_{t-1} is M_0 and is asked once.
        for name in ("policy", "initial") if number == 1 else ("policy", "previous", "initial"):
            stages[f"{held_out.LOGPROBS}_{name}"] = Work(draws.num_requests, draws.num_tokens)
        return stages

    def _comparisons(self, prompts: Sequence[Prompt], *, num_rivals: int) -> Work:
        """Each rival in both orders; texts that turn out equal are not compared."""
        rubrics = [self._rendered(self._compare, prompt, response_a="", response_b="") for prompt in prompts]
        return self._judged(
            rubrics,
            self._opening_tokens(self._compare) + 2 * self._evaluation_tokens,
            times=2 * num_rivals,
            max_tokens=1,
        )

    def _judged(self, rubrics: Sequence[int], rest: int, *, times: int, max_tokens: int, n: int = 1) -> Work:
        """For each prompt `times` requests of its `rubrics` tokens (rubric and prompt, which come first) and `rest`."""
        asked = [self._fitted(length + rest, max_tokens) for length in rubrics for _ in range(times)]
        work = _generated(asked, [max_tokens] * len(asked), n=n)
        # The shortest is little more than the rubric, which is computed once; a prompt once for all its responses.
        shared = min(rubrics, default=0)
        computed = shared + sum(length - shared for length in rubrics)
        return replace(work, num_repeated_tokens=max(0, times * sum(rubrics) - computed))

    # Lengths.

    def _draws(self, prompts: Sequence[Prompt], *, max_tokens: int, n: int = 1) -> Work:
        lengths = [self._length(prompt) for prompt in prompts]
        return _generated(lengths, [max(0, min(max_tokens, self._context - length)) for length in lengths], n=n)

    def _length(self, prompt: Prompt) -> int:
        return self._cached(prompt.id, lambda: len(self._tokenizer.encode(prompt.messages)))

    def _rendered(self, template: Template, prompt: Prompt, **empty: str) -> int:
        """Tokens of a judge's prompt without the responses in it."""
        key = f"{template.name}\x1f{prompt.id}"
        return self._cached(key, lambda: len(self._tokenizer.encode(template.render(prompt=prompt.messages, **empty))))

    def _cached(self, key: str, measure: Callable[[], int]) -> int:
        if key not in self._lengths:
            self._lengths[key] = measure()
        return self._lengths[key]

    def _opening_tokens(self, template: Template) -> int:
        """What the assistant's turn begins with; the choice that follows is one token."""
        return len(self._tokenizer.encode_text(f"{template.opening}0")) - 1 if template.opening else 0

    def _fitted(self, length: int, max_tokens: int) -> int:
        room = self._context - max_tokens
        self._num_unjudged += length > room
        return min(length, room)

    def _note_too_long(self, prompts: Iterable[Prompt]) -> None:
        room = self._context - self._recipe.sampling.max_tokens
        self._too_long += [prompt.id for prompt in prompts if self._length(prompt) > room]


def _generated(lengths: Sequence[int], max_tokens: Sequence[int], *, n: int = 1) -> Work:
    """Requests with prompts of these lengths, each continued `n` times by as many tokens as allowed."""
    return Work(
        num_requests=len(lengths),
        num_prompt_tokens=sum(lengths),
        num_generated_tokens=n * sum(max_tokens),
        num_sequences=n * len(lengths),
        max_generated_tokens=max(max_tokens, default=0),
    )
