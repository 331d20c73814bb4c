"""The interfaces between the rooms. `loop.py` knows nothing else, and runs in tests on fakes of these."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from selfreward.records import (
    Battle,
    Checkpoint,
    Comparison,
    Decision,
    Evaluation,
    FinishReason,
    GoldPair,
    IterationSummary,
    Judgment,
    Message,
    PreferencePair,
    Prompt,
    Response,
    Selection,
)

Models = Mapping[str, Checkpoint]
"""Which checkpoint each name stands for in this iteration: `policy`, `initial`, `best` and the recipe's own names."""


@dataclass(frozen=True)
class GenerationRequest:
    """`n` draws that continue `prompt_token_ids`, `max_tokens` at most each.

    Temperature 0 is greedy. Draw i is seeded with `seed` + i. When `choice_token_ids` is given, the raw
    log-probabilities of exactly these tokens at the first sampled position come back with each sample.
    `json_schema` enforces a JSON text of that form; an engine that cannot raises RecipeError.
    """

    prompt_token_ids: tuple[int, ...]
    max_tokens: int
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    choice_token_ids: tuple[int, ...] = ()
    json_schema: Mapping[str, Any] | None = None


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


@dataclass(frozen=True)
class ChatRequest:
    """`n` replies to a conversation, for which draw i is seeded with `seed` + i. Temperature 0 is greedy.

    With `choices`, texts that are one token each, a reply ends right before one of them, and their log-probabilities
    there come back: at once, after `opening` alone; or, with `max_tokens` > 0, after that many tokens of free text at
    most and then `opening`. Without choices, `max_tokens` of free text are all of it. `json_schema` enforces its form.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    opening: str = ""
    choices: tuple[str, ...] = ()
    json_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Reply:
    """One draw. `unsent` is the reason why the request was not sent at all or not served; all else is then empty.

    `choice_logprobs` belong to `choices`, natural and raw, -inf for one that is out of sight. `text` is the free text.
    Token fields are empty for a model whose tokens are not ours to see.
    """

    text: str = ""
    finish_reason: FinishReason | None = None
    choice_logprobs: tuple[float, ...] = ()
    prompt_token_ids: tuple[int, ...] = ()
    token_ids: tuple[int, ...] = ()
    token_logprobs: tuple[float, ...] | None = None
    unsent: str | None = None


class Chat(Protocol):
    """A model by its name in the recipe, in the engine or behind an endpoint, to which judges put their questions."""

    @property
    def by(self) -> str: ...

    @property
    def is_local(self) -> bool:
        """Whether its weights are here."""

    def model_id(self, models: Models) -> str:
        """What stands in a judgment's `checkpoint_id`: the id of the checkpoint that `by` names now."""

    def reply(self, requests: Sequence[ChatRequest], *, models: Models) -> list[list[Reply]]:
        """`n` replies to each request, in their order. `models` says which checkpoint each name stands for now.

        Raises EngineError when the model fails, and RecipeError when its tokenizer cannot write the choices.
        """


class Engine(Protocol):
    """The one inference engine of a run. It starts at its first use, and holds one checkpoint at a time."""

    @property
    def context_tokens(self) -> int:
        """Prompt and response together may not be longer than this."""

    def encode(self, messages: Sequence[Message], *, thinking: bool = True) -> tuple[int, ...]:
        """Token ids of a conversation in the chat template, ready for the assistant's turn.

        `thinking: false`: a model that would think first is past that, and ready for its final words.
        """

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """Texts that the tokenizer reads as control tokens wherever they stand."""

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
    """Where prompts come from. All sets are disjoint, and only the first is ever trained on."""

    def training_prompts(self, iteration: int) -> Sequence[Prompt]:
        """The fresh prompts of iteration 1, 2, ...; the same ones whenever it is asked."""

    def monitor_prompts(self) -> Sequence[Prompt]:
        """Held-out prompts on which checkpoints are compared. Never trained on."""

    def reserve_prompts(self) -> Sequence[Prompt]:
        """Held-out prompts for a second look, when the monitor prompts leave a decision open; may be empty."""

    def seal_prompts(self) -> Sequence[Prompt]:
        """Held-out prompts that are asked once, when the run has ended; may be empty."""

    def verifiable_prompts(self) -> Sequence[Prompt]:
        """Held-out prompts with checks, for the pass rate; empty when there are none. Never trained on."""

    def gold_pairs(self) -> Sequence[GoldPair]:
        """Pairs of responses whose order is known, for the judge's accuracy; empty when there are none."""

    def num_overlapping(self, prompts: Sequence[Prompt]) -> int:
        """How many of these (training) prompts overlap with held-out prompts of any set; 0 is the contract."""

    def facts(self) -> Mapping[str, Any]:
        """For the report: where the prompts came from, sizes, overlap checks made, diversity."""


class Sampler(Protocol):
    """Turns prompts into responses of one checkpoint."""

    def sample(
        self, prompts: Sequence[Prompt], *, model: Checkpoint, iteration: int, stage: str = "responses"
    ) -> list[Response]:
        """`stage` keeps ids and seeds of different models' responses to the same prompts apart."""


class Judge(Protocol):
    """Scores responses."""

    @property
    def by(self) -> frozenset[str]:
        """Names of the models that take part; with `policy` among them the judge changes with every iteration."""

    @property
    def scale(self) -> tuple[float, float] | None:
        """The lowest and the highest score; None when there are no bounds."""

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, models: Models, iteration: int
    ) -> list[Judgment]:
        """At least one judgment for every response; an unreadable verdict is an unscored judgment."""


class PairwiseJudge(Protocol):
    """Compares two responses to the same prompt: shown side by side in both orders, or each scored by itself."""

    def compare(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], others: Sequence[Response],
        *, models: Models, iteration: int,
    ) -> list[Comparison]:  # fmt: skip
        """For each prompt i `responses[i]` against `others[i]`, each order once or more, or once without an order."""


class MetaJudge(Protocol):
    """Judges judgments: the better and the worse one of a response become a preference pair."""

    def may_judge(self, iteration: int) -> bool:
        """Whether judgments are trained on in this iteration."""

    def battles(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], judgments: Sequence[Judgment],
        *, models: Models, iteration: int,
    ) -> list[Battle]:  # fmt: skip
        """Each judgment of a response against each other, in both orders, for one response of a prompt."""

    def pairs(
        self, judgments: Sequence[Judgment], battles: Sequence[Battle],
        *, all_battles: Iterable[Battle], num_response_pairs: int, num_judgment_pairs: int,
    ) -> tuple[PreferencePair, ...]:  # fmt: skip
        """Pairs of `kind: judgment` of a shard; `all_battles` are the iteration's.

        With the `num_judgment_pairs` of earlier shards their share beside `num_response_pairs` stays within its cap.
        """


@dataclass(frozen=True)
class Judged:
    """What pairs are made of. `judgments` are also about `initial_responses`, those of M_0 to the same prompts.

    `previous_judgments` are the previous iteration's judge on the same responses. Both are empty unless the selector
    `needs` them, and in the first iteration, where M_0 is the policy and no judge came before.
    """

    prompts: Sequence[Prompt]
    responses: Sequence[Response]
    judgments: Sequence[Judgment]
    initial_responses: Sequence[Response] = ()
    previous_judgments: Sequence[Judgment] = ()


class PairSelector(Protocol):
    """Decides which responses become preference pairs."""

    @property
    def needs(self) -> frozenset[Literal["initial_responses", "previous_judgments"]]: ...

    def select(self, judged: Judged) -> Selection: ...


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

    def has(self, iteration: int, stage: str) -> bool: ...


class Evaluator(Protocol):
    """Measures a checkpoint on held-out prompts. Outcomes by prompt are stages of `PromptOutcome` records."""

    def evaluate(self, stages: Stages, iteration: int, *, models: Models, previous: Checkpoint | None) -> Evaluation:
        """Measures `models["policy"]`; iteration 0 measures M_0 alone (`previous` is None). Stage `outcomes`."""

    def ask_reserve(self, stages: Stages, iteration: int, *, models: Models, previous: Checkpoint) -> None:
        """The same on the reserve prompts, outcomes alone. Stage `reserve_outcomes`."""

    def open_seal(self, stages: Stages, iteration: int, *, models: Models) -> Evaluation:
        """`models["best"]` against M_0 on the seal prompts. Stage `seal_outcomes`."""

    def evaluate_judge(self, stages: Stages, iteration: int, *, judged: Iterable[Judged], models: Models) -> Evaluation:
        """How far the judge of this iteration is to be trusted, from all shards of what it judged.

        Stage `gold_outcomes`.
        """


class Monitor(Protocol):
    """Decides whether another iteration is worth its cost."""

    def may_train(self, counts: Mapping[str, int], judging: Evaluation | None) -> bool:
        """Whether there is something to learn from an iteration like this; `decide` says why not."""

    def decide(self, history: Sequence[IterationSummary], decided: Sequence[Decision], *, elapsed_s: float) -> Decision:
        """`history` holds iterations 1..t in order, `decided` the decisions on 1..t-1; the decision is about t."""


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
    """Everything the loop works with. `models` are the recipe's models by name, `initial` is M_0.

    `changes` gives the parts, by name, that the monitor's interventions put in place of these for the next iteration.
    """

    prompts: PromptSource
    engine: Engine
    sampler: Sampler
    judge: Judge
    meta_judge: MetaJudge | None
    selector: PairSelector
    trainer: Trainer
    evaluator: Evaluator
    monitor: Monitor
    reporter: Reporter
    initial: Checkpoint
    models: Models
    seed: int
    shard_prompts: int
    keep_checkpoints: int | None
    recipe_text: str
    changes: Callable[[Sequence[Decision]], Mapping[str, Any]]
