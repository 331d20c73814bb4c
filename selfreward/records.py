"""Records that the packages exchange: plain frozen dataclasses, one parquet row each.

Token-in, token-out: the token ids that were sampled are the ids that are trained on. Text is carried
for judges and people. Log-probabilities are natural, raw (before temperature and top-p) and belong to
the token of the same index.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

FinishReason = Literal["stop", "length"]

TOOLS: Final = "tools"
TOOL_CALLS: Final = "tool_calls"
TOOL: Final = "tool"


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; `role` is system, user, assistant, or one of three of conversations with tools.

    `tools`: the tools that are offered, as a JSON list; at most one, before the first user turn. `tool_calls`: the
    calls of the assistant, after its text if it has any, as a JSON list of `{"name", "arguments", "id"}`. `tool`: the
    result of a call, in the order of the calls.
    """

    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """A conversation that ends with a user turn or the result of a tool.

    `checks` are declarative requirements on a response, `{"kind": ..., **arguments}` each (see `selfreward.checks`).
    `reference` is a response known to be good, for judges configured to use it; "" when there is none.
    """

    id: str
    messages: tuple[Message, ...]
    checks: tuple[Mapping[str, Any], ...] = ()
    source: str = ""
    reference: str = ""


@dataclass(frozen=True)
class Response:
    """One sampled response. When `finish_reason` is "stop", its token ids end with the end token, or with the tokens
    that complete a stop string of the recipe; `text` has neither."""

    id: str
    prompt_id: str
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    token_logprobs: tuple[float, ...] | None
    text: str
    finish_reason: FinishReason
    seed: int
    checkpoint_id: str


@dataclass(frozen=True)
class Judgment:
    """One draw of one judge on one response. Exactly one of `score` and `unscored` is set.

    `unscored` is the reason why no verdict could be read. Judges that do not sample (a verifier), and models behind an
    endpoint, leave the token fields empty.

    `part` is "" for the judge's own score. Otherwise it names the component that was scored separately, a criterion of
    a rubric or a member of an ensemble; the judge's own score is then in another judgment. A judge that compares also
    gives the response compared with (`other_id`) and the one of the two that was shown first (`shown_first`); `score`
    is then the probability in [0, 1] that `response_id` is the better one, and each comparison yields two judgments,
    one for each response.
    """

    id: str
    prompt_id: str
    response_id: str
    judge: str
    draw: int
    score: float | None
    unscored: str | None
    text: str
    prompt_token_ids: tuple[int, ...] = ()
    token_ids: tuple[int, ...] = ()
    token_logprobs: tuple[float, ...] | None = None
    finish_reason: FinishReason | None = None
    seed: int = 0
    checkpoint_id: str = ""
    template_sha256: str = ""
    part: str = ""
    other_id: str = ""
    shown_first: str = ""


@dataclass(frozen=True)
class Battle:
    """Two judgments of one response, shown to a meta-judge in one order (Meta-Rewarding, 2407.19594, section 2.2).

    `winner_id` is the id of the better judgment, "" for a tie. When `unscored` is set there is no verdict, and
    `winner_id` is "".
    """

    id: str
    prompt_id: str
    response_id: str
    first_id: str
    second_id: str
    winner_id: str
    unscored: str | None
    text: str
    checkpoint_id: str = ""
    template_sha256: str = ""


@dataclass(frozen=True)
class Comparison:
    """Two responses to one prompt, shown to a judge in one order.

    `preference` is the probability in [0, 1] that the judge prefers `response_id` to `other_id`, regardless of the
    order in which they were shown. `shown_first` is the id of the one shown first, "" when each was scored separately.
    Exactly one of `preference` and `unscored` is set.
    """

    id: str
    prompt_id: str
    response_id: str
    other_id: str
    shown_first: str
    judge: str
    preference: float | None
    unscored: str | None
    text: str = ""
    checkpoint_id: str = ""
    template_sha256: str = ""


@dataclass(frozen=True)
class PreferencePair:
    """Chosen and rejected share `prompt_token_ids`; `margin` is chosen minus rejected score, always > 0.

    In training the pair's loss is multiplied by `weight` (at least 0), and `label` in [0, 1] is the probability that
    chosen is the better one (CREAM, 2410.12735): the loss is `label` times the loss of the pair plus 1 - `label` times
    the loss of the pair with chosen and rejected swapped.
    """

    id: str
    prompt_id: str
    kind: Literal["response", "judgment"]
    chosen_id: str
    rejected_id: str
    prompt_token_ids: tuple[int, ...]
    chosen_token_ids: tuple[int, ...]
    rejected_token_ids: tuple[int, ...]
    chosen_text: str
    rejected_text: str
    chosen_score: float
    rejected_score: float
    margin: float
    weight: float = 1.0
    label: float = 1.0


@dataclass(frozen=True)
class DroppedPrompt:
    """A prompt that gave no pair of responses, with the reason, so that the counts add up."""

    prompt_id: str
    reason: str


@dataclass(frozen=True)
class Selection:
    """The result of a pair selector for one shard: every prompt is in exactly one of `pairs` and `dropped`."""

    pairs: tuple[PreferencePair, ...]
    dropped: tuple[DroppedPrompt, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk: a folder that plain `transformers` loads. `id` is a hash of its weights.

    `iteration` t means M_t; the initial model is M_0. `stamp` is the state of the folder's files when they were read
    (`store.model_folder.stamp_of`), so that a change within the run is noticed; "" when it is not known.
    """

    id: str
    path: Path
    iteration: int
    stamp: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; `num_units` is the number of independent units (prompts)."""

    mean: float
    low: float
    high: float
    num_units: int
    level: float = 0.95
    method: str = "bootstrap_t"


@dataclass(frozen=True)
class Evaluation:
    """The metrics of M_t on held-out prompts, by metric name (docs/metrics.md explains each).

    A metric that could not be measured is absent from `metrics` and has its reason in `not_measured`.
    """

    iteration: int
    metrics: Mapping[str, Interval | float]
    not_measured: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Evaluation":
        """The inverse of `dataclasses.asdict` after a trip through JSON."""
        metrics = {name: Interval(**m) if isinstance(m, dict) else m for name, m in value["metrics"].items()}
        return cls(value["iteration"], metrics, value["not_measured"])


OutcomeSet = Literal["validation", "second_validation", "test", "verifiable", "gold"]


@dataclass(frozen=True)
class PromptOutcome:
    """The outcome of M_t on one held-out prompt, one row of `iteration-NN/outcomes.parquet`.

    `outcome` lies in [0, 1]: 1 when M_t is better than M_k, k = `against`, 0.5 when there is no difference, 0 when it
    is worse; None is unscored. `by` names the source: the anchor, this iteration's own judge (`self`), or the `checks`
    of a verifiable prompt. `length_delta_tokens` is the length of M_t's response minus that of M_k's. On the gold set
    there is no other checkpoint (`against` is -1), and the outcome is 1 when this iteration's judge orders the pair
    correctly, 0.5 when it finds no difference, and 0 when it orders it wrongly.
    """

    prompt_id: str
    set: OutcomeSet
    by: Literal["anchor", "self", "checks"]
    against: int
    outcome: float | None
    length_delta_tokens: float | None = None


@dataclass(frozen=True)
class GoldPair:
    """Two responses to a prompt whose order is known: `chosen` is the text of the better one."""

    prompt: Prompt
    chosen: str
    rejected: str


@dataclass(frozen=True)
class IterationSummary:
    """Everything that the monitor and the reports need about one finished iteration.

    `counts` is the funnel (`num_prompts`, `num_responses`, `num_judgments`, `num_unscored_judgments`, `num_pairs`,
    `num_dropped_prompts`, and `num_unscored_judgments:REASON`, `num_dropped_prompts:REASON`). `training` contains the
    trainer's metrics. `judging` contains the metrics of the judge's reliability. `outcomes` are the outcomes on
    held-out prompts, including the second validation set where it was evaluated. `seconds_by_stage` and
    `usage_by_stage` give the time and the engine's tokens per stage; `groups` maps a stage to the name under which its
    cost is summed with that of others. `test_set` is measured when the run ends. `recipe_changes` are the keys in which
    the iteration's recipe differs from the run's because of interventions.
    """

    iteration: int
    counts: Mapping[str, int]
    training: Mapping[str, Any]
    evaluation: Evaluation
    seconds_by_stage: Mapping[str, float]
    usage_by_stage: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    judging: Evaluation | None = None
    outcomes: tuple[PromptOutcome, ...] = ()
    recipe_changes: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    test_set: Evaluation | None = None


DecisionName = Literal["INVALID", "HARM", "OVEROPT", "PLATEAU", "DRIFT", "STARVED", "INCONCLUSIVE", "CONTINUE"]


@dataclass(frozen=True)
class Decision:
    """The monitor's decision on one iteration. (Judges give verdicts.)

    `decision` follows from the data (`monitoring/decide.py`), and `reason` explains it in one sentence. `bounds`
    contains the numbers of each test by name: estimate, confidence bounds, prompts. `alpha_spending` contains the error
    probability spent so far and in total, by `stop` and `harm`. `num_analyses` is 2 when the second validation set was
    evaluated, and `wants_second_validation` requests that. `best_iteration` is the checkpoint to use now. `stopped_by`
    is "" while the run continues, else the decision or the limit (MAX_ITERATIONS, MAX_HOURS, TOO_MANY_UNSCORED,
    TOO_FEW_PAIRS) that ended it; in mode `report_only` no decision ends it. `numbers` are the inputs of the limits and
    checks, and `failed_checks` the names of the checks that failed. `intervention` names the recipe patch of the next
    iteration. `effect` describes the result of the intervention active in this iteration: its `name`, the decision that
    it was `tried_for`, and whether it `helped`. `notes` are sentences on what the decision cannot show. `exit_code` is
    3 when the run ended without any training or because too few verdicts could be parsed, else 0.
    """

    iteration: int
    decision: DecisionName
    reason: str
    best_iteration: int
    stopped_by: str = ""
    bounds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    alpha_spending: Mapping[str, float] = field(default_factory=dict)
    num_analyses: int = 1
    wants_second_validation: bool = False
    numbers: Mapping[str, float] = field(default_factory=dict)
    failed_checks: tuple[str, ...] = ()
    intervention: str = ""
    effect: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    exit_code: int = 0

    @property
    def stops(self) -> bool:
        return self.stopped_by != ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Decision":
        """The inverse of `dataclasses.asdict` after a trip through JSON."""
        return cls(**{**value, "failed_checks": tuple(value["failed_checks"]), "notes": tuple(value["notes"])})
