"""The interfaces between the rooms. `loop.py` knows nothing else, and runs in tests on fakes of these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from selfreward.records import (
    Checkpoint,
    Comparison,
    Decision,
    Evaluation,
    FinishReason,
    IterationSummary,
    Judgment,
    Message,
    Prompt,
    Response,
    Selection,
)


@dataclass(frozen=True)
class GenerationRequest:
    """`n` draws that continue `prompt_token_ids`, `max_tokens` at most each.

    Temperature 0 is greedy. Draw i is seeded with `seed` + i. When `choice_token_ids` is given, the raw
    log-probabilities of exactly these tokens at the first sampled position come back with each sample.
    """

    prompt_token_ids: tuple[int, ...]
    max_tokens: int
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    choice_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One draw. `token_ids` include the end token when `finish_reason` is "stop"; `text` does not."""

    token_ids: tuple[int, ...]
    token_logprobs: tuple[float, ...]
    text: str
    finish_reason: FinishReason
    choice_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True)
class ScoreRequest:
    """Asks for the log-probabilities of `token_ids`, each given all tokens before it."""

    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]


class Engine(Protocol):
    """The one inference engine of a run. It starts at its first use, and holds one checkpoint at a time."""

    @property
    def context_tokens(self) -> int:
        """Prompt and response together may not be longer than this."""

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of a conversation in the chat template, ready for the assistant's turn."""

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Token ids of plain text, without special tokens."""

    def load(self, checkpoint: Checkpoint) -> None:
        """Swap the weights in place unless they are loaded, and prove it. Raises EngineError."""

    def generate(self, requests: Sequence[GenerationRequest]) -> list[list[Sample]]:
        """One list of `n` samples for each request, in the order of the requests."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        """Natural log-probabilities, one for each of `token_ids`."""

    def sleep(self) -> None:
        """Give accelerator memory back (to the trainer); the next use wakes the engine."""

    def wake(self) -> None: ...

    def close(self) -> None: ...

    def usage(self) -> Mapping[str, float]:
        """Counters since the start: num_requests, num_prompt_tokens, num_generated_tokens, num_swaps, swap_s."""

    def facts(self) -> Mapping[str, Any]:
        """For the report: engine, versions, device, dtype, determinism guarantee, proof of the last swap."""


class PromptSource(Protocol):
    """Where prompts come from. Training, monitor and verifiable prompts are disjoint."""

    def training_prompts(self, iteration: int) -> Sequence[Prompt]:
        """The fresh prompts of iteration 1, 2, ...; the same ones whenever it is asked."""

    def monitor_prompts(self) -> Sequence[Prompt]:
        """Held-out prompts on which checkpoints are compared. Never trained on."""

    def verifiable_prompts(self) -> Sequence[Prompt]:
        """Held-out prompts with checks, for the pass rate; empty when there are none. Never trained on."""

    def facts(self) -> Mapping[str, Any]:
        """For the report: where the prompts came from, sizes, overlap checks made, diversity."""


class Sampler(Protocol):
    """Turns prompts into responses of one checkpoint."""

    def sample(self, prompts: Sequence[Prompt], *, model: Checkpoint, iteration: int) -> list[Response]: ...


class Judge(Protocol):
    """Scores responses one by one. `by` names the model that judges (`policy`, `initial`, ...)."""

    @property
    def by(self) -> str: ...

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, model: Checkpoint, iteration: int
    ) -> list[Judgment]:
        """At least one judgment for every response; an unreadable verdict is an unscored judgment."""


class PairwiseJudge(Protocol):
    """Compares two responses to the same prompt, in both orders."""

    @property
    def by(self) -> str: ...

    def compare(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[Response],
        others: Sequence[Response],
        *,
        model: Checkpoint,
        iteration: int,
    ) -> list[Comparison]:
        """Two comparisons for each prompt i: `responses[i]` against `others[i]`, shown first and shown second."""


class PairSelector(Protocol):
    """Decides which responses become a preference pair."""

    def select(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], judgments: Sequence[Judgment]
    ) -> Selection: ...


@dataclass(frozen=True)
class TrainingJob:
    """Training as a function of files: all that it reads, and the folder that is its alone.

    `samples_files` hold the responses (and judgments) that pairs were made of, with the engine's log-probabilities.
    `work_folder` survives a kill, so that training resumes inside; the trained model, which plain
    `transformers` loads, ends up in `work_folder / "checkpoint"`. `policy` and `initial` are model folders.
    """

    iteration: int
    pairs_file: Path
    policy: Path
    initial: Path
    work_folder: Path
    seed: int
    samples_files: tuple[Path, ...] = ()


class Trainer(Protocol):
    """Makes M_t of M_{t-1} and preference pairs."""

    def train(self, job: TrainingJob) -> Mapping[str, Any]:
        """Returns metrics (losses, margins before and after, steps, seconds). Raises TrainingError."""


class Stages(Protocol):
    """What a room may ask of the store: run something once, by shards, and keep what it made."""

    def once(self, iteration: int, stage: str, record_type: type, shard: int, make: Any) -> list[Any]: ...


class Evaluator(Protocol):
    """Measures a checkpoint on held-out prompts."""

    def evaluate(
        self, stages: Stages, iteration: int, *, policy: Checkpoint, previous: Checkpoint | None, initial: Checkpoint
    ) -> Evaluation:
        """Iteration 0 measures M_0 alone (`previous` is None)."""


class Monitor(Protocol):
    """Decides whether another iteration is worth its cost."""

    def may_train(self, counts: Mapping[str, int]) -> bool:
        """Whether an iteration with these counts may train; when not, `decide` stops the run and says why."""

    def decide(self, history: Sequence[IterationSummary], *, elapsed_s: float) -> Decision:
        """`history` holds iterations 1..t in order; the decision is about iteration t."""


class Reporter(Protocol):
    """Writes what people read."""

    def write(
        self, history: Sequence[IterationSummary], decisions: Sequence[Decision], initial: Evaluation | None = None
    ) -> None:
        """Brings report.md of the last iteration, and report.html and report.json of the run, up to date.

        `initial` is the evaluation of M_0.
        """


@dataclass(frozen=True)
class Parts:
    """Everything the loop works with. `models` are the recipe's models by name, `initial` is M_0."""

    prompts: PromptSource
    engine: Engine
    sampler: Sampler
    judge: Judge
    selector: PairSelector
    trainer: Trainer
    evaluator: Evaluator
    monitor: Monitor
    reporter: Reporter
    initial: Checkpoint
    models: Mapping[str, Checkpoint]
    seed: int
    shard_prompts: int
    keep_checkpoints: int | None
    recipe_text: str
