"""The interfaces between the packages; tests use fakes of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from selfreward.records import (
    Checkpoint,
    Comparison,
    Decision,
    Evaluation,
    GoldPair,
    IterationSummary,
    Judgment,
    Message,
    PreferencePair,
    Prompt,
    Response,
)
from selfreward.requests import ChatRequest, GenerationRequest, Reply, Sample, ScoreRequest
from selfreward.steps import Read, Reading
from selfreward.workload import Lengths, Requests, Workload

Models = Mapping[str, Checkpoint]
"""Which checkpoint each name stands for in this iteration: the roles (`roles.py`) and the recipe's own names."""


class Chat(Protocol):
    """A model by its name in the recipe, in the engine or behind an endpoint, to which judges put their questions."""

    @property
    def by(self) -> str: ...

    @property
    def is_local(self) -> bool:
        """Whether its weights are here."""

    def model_id(self, models: Models) -> str:
        """What stands in a judgment's `checkpoint_id`: the id of the checkpoint that `by` names now."""

    def usage(self) -> Mapping[str, float]:
        """Counters since the start of what is not in the engine's: none for a model in the engine."""

    def reply(self, requests: Sequence[ChatRequest], *, models: Models) -> list[list[Reply]]:
        """`n` replies to each request, in their order. `models` says which checkpoint each name stands for now.

        Raises EngineError when the model fails, and RecipeError when its tokenizer cannot write the choices.
        """


class Engine(Protocol):
    """The one inference engine of a run. It starts at its first use, and holds one checkpoint at a time."""

    @property
    def context_tokens(self) -> int:
        """Prompt and response together may not be longer than this."""

    @property
    def enforces_schema(self) -> bool:
        """Whether `json_schema` of a request is enforced; where it is not, such a request raises RecipeError."""

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
        """Counters since the start: num_requests, num_prompt_tokens, num_generated_tokens, num_weight_syncs, weight_sync_s."""

    def facts(self) -> Mapping[str, Any]:
        """For the report: engine, versions, device, dtype, determinism guarantee, proof of the last swap."""


class PromptSource(Protocol):
    """Where prompts come from. All sets are disjoint, and only the first is ever trained on."""

    def training_prompts(self, iteration: int) -> Sequence[Prompt]:
        """The fresh prompts of iteration 1, 2, ...; the same ones whenever it is asked."""

    def validation_prompts(self) -> Sequence[Prompt]:
        """Held-out prompts on which checkpoints are compared. Never trained on."""

    def second_validation_prompts(self) -> Sequence[Prompt]:
        """Held-out prompts for a second look, when the validation prompts leave a decision open; may be empty."""

    def test_prompts(self) -> Sequence[Prompt]:
        """Held-out prompts that are asked once, when the run has ended; may be empty."""

    def verifiable_prompts(self) -> Sequence[Prompt]:
        """Held-out prompts with checks, for the pass rate; empty when there are none. Never trained on."""

    def gold_pairs(self) -> Sequence[GoldPair]:
        """Pairs of responses whose order is known, for the judge's accuracy; empty when there are none."""

    def num_overlapping(self, prompts: Sequence[Prompt]) -> int:
        """How many of these (training) prompts overlap with held-out prompts of any set; 0, as guaranteed."""

    def facts(self) -> Mapping[str, Any]:
        """For the report: where the prompts came from, sizes, overlap checks made, diversity."""


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

    def most(self, work: Workload, lengths: Lengths) -> list[Requests]:
        """What `judge` asks about so many responses at most, by each model."""


class Anchor(Protocol):
    """Measures: compares two responses to the same prompt, side by side in both orders or each scored by itself."""

    @property
    def by(self) -> frozenset[str]: ...

    def compare(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], others: Sequence[Response],
        *, models: Models, iteration: int,
    ) -> list[Comparison]:  # fmt: skip
        """For each prompt i `responses[i]` against `others[i]`, each order once or more, or once without an order."""

    def most(self, work: Workload, lengths: Lengths) -> list[Requests]:
        """What `compare` asks at most when the first response to each prompt meets all others."""


@dataclass(frozen=True)
class Judged:
    """What pairs are made of. `judgments` are also about `initial_responses`, those of M_0 to the same prompts.

    `previous_judgments` are the previous iteration's judge on the same responses. Both are empty unless the selector
    reads them, and in the first iteration, where M_0 is the policy and no judge came before.
    """

    prompts: Sequence[Prompt]
    responses: Sequence[Response]
    judgments: Sequence[Judgment]
    initial_responses: Sequence[Response] = ()
    previous_judgments: Sequence[Judgment] = ()


@dataclass(frozen=True)
class MorePairs:
    """Pairs that come on top of those of responses: `make` gets the shard and how many of these it gave."""

    reads: tuple[Read, ...]
    make: Callable[[Reading, int], Iterable[PreferencePair]]


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
