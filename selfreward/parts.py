"""The interfaces between the packages; tests use fakes of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

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
"""The checkpoint of each name in this iteration: the roles (`roles.py`) and the names of the recipe."""


class Chat(Protocol):
    """A model that judges query by its name in the recipe, in the engine or behind an endpoint."""

    @property
    def by(self) -> str: ...

    @property
    def is_local(self) -> bool:
        """Whether its weights are local."""

    def model_id(self, models: Models) -> str:
        """Return the `checkpoint_id` for judgments: the id of the current checkpoint of `by`."""

    def usage(self) -> Mapping[str, float]:
        """Return counters since the start that the engine does not count; none for a model in the engine."""

    def notes(self) -> Sequence[str]:
        """Return sentences that the user should read about the replies since the start; their number only grows."""

    def reply(self, requests: Sequence[ChatRequest], *, models: Models) -> list[list[Reply]]:
        """Return `n` replies to each request, in order. `models` maps each name to its current checkpoint.

        Raises EngineError when the model fails, and RecipeError when its tokenizer cannot encode the choices.
        """


class Encoder(Protocol):
    """Encodes the conversations of one model in its chat template, with the variables that the recipe gives it."""

    def encode(self, messages: Sequence[Message], *, thinking: bool = True) -> tuple[int, ...]:
        """Return the token ids of a conversation in the chat template, up to the start of the assistant's turn.

        `thinking=False`: for a thinking model, up to the end of an empty thinking block.
        """


class OwnTemplate(Encoder, Protocol):
    """Encodes the conversations of a model whose chat template is not the policy's."""

    @property
    def turn_end(self) -> str:
        """What the template writes after the text of an assistant, where a reply ends; "" when that is not known."""


class Engine(Encoder, Protocol):
    """The inference engine of a run. It starts at its first use, and has one checkpoint loaded at a time.

    It encodes the conversations of the policy.
    """

    @property
    def context_tokens(self) -> int:
        """The maximum length of prompt plus response."""

    @property
    def enforces_schema(self) -> bool:
        """Whether `json_schema` of a request is enforced; if not, such a request raises RecipeError."""

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """Texts that the tokenizer encodes as control tokens wherever they occur."""

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Return the token ids of plain text, without special tokens."""

    def load(self, checkpoint: Checkpoint) -> None:
        """Load the weights in place unless they are loaded, and verify them. Raises EngineError."""

    def generate(self, requests: Sequence[GenerationRequest]) -> list[list[Sample]]:
        """Return one list of `n` samples for each request, in the order of the requests."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        """Return natural log-probabilities, one for each of `token_ids`."""

    def sleep(self) -> None:
        """Release accelerator memory (for the trainer); the next use wakes the engine."""

    def wake(self) -> None: ...

    def close(self) -> None: ...

    def usage(self) -> Mapping[str, float]:
        """Return counters since the start.

        They are num_requests, num_prompt_tokens, num_generated_tokens, num_weight_syncs and weight_sync_s.
        """

    def facts(self) -> Mapping[str, Any]:
        """Return facts for the report: engine, versions, device, dtype, determinism, check of the last weight sync."""


@runtime_checkable
class ResumableEngine(Protocol):
    """An engine that keeps choices of its first start, such as the size of its KV cache, for the life of a run."""

    def resume_from(self, facts: Mapping[str, Any], record: Callable[[Mapping[str, Any]], None]) -> None:
        """Take the engine's facts of the process before (none in a new run), and `record` those of each start."""


@dataclass(frozen=True)
class LeftOut:
    """A prompt that cannot be used: too long for the context, refused by the chat template, or without checks.

    `found` and `advice` are for messages.
    """

    prompt_id: str
    kind: Literal["too_long", "refused_by_template", "no_checks"]
    found: str
    advice: str


class PromptSource(Protocol):
    """The source of prompts. All sets are disjoint, and only training prompts are ever trained on."""

    def training_prompts(self, iteration: int) -> Sequence[Prompt]:
        """Return the fresh prompts of iteration 1, 2, ...; every call returns the same prompts."""

    def left_out(self, iteration: int | None) -> Sequence[LeftOut]:
        """Return the prompts that were left out of an iteration's, or with None of those that are held out."""

    def notes(self) -> Sequence[str]:
        """Return sentences that the user should read about the rows of the source: dropped, repeated."""

    def validation_prompts(self) -> Sequence[Prompt]:
        """Return the held-out prompts on which checkpoints are compared. Never trained on."""

    def second_validation_prompts(self) -> Sequence[Prompt]:
        """Return the held-out prompts for a second analysis of an inconclusive decision; may be empty."""

    def test_prompts(self) -> Sequence[Prompt]:
        """Return the held-out prompts that are used once, when the run has ended; may be empty."""

    def verifiable_prompts(self) -> Sequence[Prompt]:
        """Return the held-out prompts with checks, for the pass rate; may be empty. Never trained on.

        They are disjoint from the validation prompts, or some of these.
        """

    def gold_pairs(self) -> Sequence[GoldPair]:
        """Return pairs of responses whose order is known, for the judge's accuracy; may be empty."""

    def num_overlapping(self, prompts: Sequence[Prompt]) -> int:
        """Return how many of these training prompts overlap with held-out prompts of any set; 0 is guaranteed."""

    def facts(self) -> Mapping[str, Any]:
        """Return facts for the report: origin of the prompts, sizes, overlap checks, diversity."""


class Judge(Protocol):
    """Scores responses."""

    @property
    def by(self) -> frozenset[str]:
        """Names of the models that it queries; with `policy` among them the judge changes in every iteration."""

    @property
    def scale(self) -> tuple[float, float] | None:
        """The lowest and the highest score; None when scores are unbounded."""

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, models: Models, iteration: int
    ) -> list[Judgment]:
        """Return at least one judgment for every response; an unparsable verdict gives an unscored judgment."""

    def max_requests(self, work: Workload, lengths: Lengths) -> list[Requests]:
        """Return an upper bound on the requests of `judge` for this workload, by model."""


class Anchor(Protocol):
    """The judge that measures. It compares two responses, pairwise in both orders or by separate scores."""

    @property
    def by(self) -> frozenset[str]: ...

    def compare(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], others: Sequence[Response],
        *, models: Models, iteration: int,
    ) -> list[Comparison]:  # fmt: skip
        """Compare `responses[i]` with `others[i]` for each prompt i, at least once per order, or once without order."""

    def max_requests(self, work: Workload, lengths: Lengths) -> list[Requests]:
        """Return an upper bound on the requests of `compare` for the first response against all others."""


@dataclass(frozen=True)
class PairingInputs:
    """The inputs of pair selection. `judgments` also cover `initial_responses`, M_0's responses to the same prompts.

    `previous_judgments` are by the previous iteration's judge on the same responses. Both are empty unless the selector
    reads them, and in iteration 1, where M_0 is the policy and there is no previous judge.
    """

    prompts: Sequence[Prompt]
    responses: Sequence[Response]
    judgments: Sequence[Judgment]
    initial_responses: Sequence[Response] = ()
    previous_judgments: Sequence[Judgment] = ()


@dataclass(frozen=True)
class ExtraPairs:
    """Pairs in addition to pairs of responses: `make` takes the reading of a shard and its number of response pairs."""

    reads: tuple[Read, ...]
    make: Callable[[Reading, int], Iterable[PreferencePair]]


class Monitor(Protocol):
    """Decides whether another iteration is worth its cost."""

    def may_train(self, counts: Mapping[str, int], judging: Evaluation | None) -> bool:
        """Return whether there is something to learn from an iteration; `decide` gives the reason if not."""

    def decide(self, history: Sequence[IterationSummary], decided: Sequence[Decision], *, elapsed_s: float) -> Decision:
        """Decide on iteration t, given iterations 1..t in order and the decisions on 1..t-1."""


class Reporter(Protocol):
    """Writes the reports of a run."""

    def write(
        self, history: Sequence[IterationSummary], decisions: Sequence[Decision], initial: Evaluation | None = None
    ) -> None:
        """Update report.md of the last iteration, and report.html and report.json of the run.

        `initial` is the evaluation of M_0.
        """
