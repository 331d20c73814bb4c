"""The recipe: the schema of a run, one section per room. Reading YAML and reporting errors is in `recipe_file.py`.

Unknown keys are refused. Keys marked `Runtime` may change on a started run; a change of any other is refused.
Defaults are the vetted settings; the paper they come from stands beside them.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


def Runtime(default: Any, **constraints: Any) -> Any:
    """A field that may change on a started run, because it changes how and not what."""
    return Field(default, json_schema_extra={"runtime": True}, **constraints)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


class LoraSection(Section):
    """Low-rank adapters (2106.09685) in all linear layers; merged at the end of each iteration into a plain model."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)


class ModelSection(Section):
    """A model by name. `model`: hub id, local folder, .gguf file, package:NAME/FILE.gguf, or random:tiny."""

    model: str
    revision: str | None = None
    lora: LoraSection | None = None
    trust_remote_code: bool = False


class EngineSection(Section):
    """`auto` is vLLM when it is installed, else transformers. `seeded: false` gives up reproducible draws for speed."""

    kind: Literal["auto", "vllm", "transformers"] = "auto"
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    context_tokens: int = Field(4096, ge=16)
    seeded: bool = True
    max_num_seqs: int = Runtime(256, ge=1)
    kv_cache_gib: float = Runtime(2.0, gt=0, description="CPU only: GiB for the KV cache")
    gpu_memory_utilization: float = Runtime(0.85, gt=0, le=1)
    batch_tokens: int = Runtime(8192, ge=1, description="transformers engine: padded tokens in one forward batch")


class IterationsSection(Section):
    max: int = Runtime(4, ge=1)
    num_prompts_per_iteration: int = Field(512, ge=1)
    shard_prompts: int = Field(1024, ge=1)


class _Prompts(Section):
    system_prompt: str | None = None


class BuiltinPrompts(_Prompts):
    """The varied prompts that ship with the package."""

    kind: Literal["builtin"]


class FilePrompts(_Prompts):
    """A JSONL or Parquet file; each row has `prompt` (text or a list of messages), optionally `id` and `checks`."""

    kind: Literal["file"]
    path: str
    column: str = "prompt"


class DatasetPrompts(_Prompts):
    """A dataset by the name that the `datasets` library loads."""

    kind: Literal["dataset"]
    name: str
    config: str | None = None
    split: str = "train"
    column: str = "prompt"
    revision: str | None = None


class VerifiablePrompts(_Prompts):
    """Generated prompts, topics times checks, each with its declarative checks; split by topic."""

    kind: Literal["verifiable"]
    num_checks: int = Field(1, ge=1, le=3)
    check_kinds: list[str] | None = Field(None, min_length=1, description="null: every kind the generator knows")


PromptsSection = Annotated[
    BuiltinPrompts | FilePrompts | DatasetPrompts | VerifiablePrompts, Field(discriminator="kind")
]


class SamplingSection(Section):
    """Self-Rewarding (2401.10020) draws 4 at T 0.7, p 0.9; Meta-Rewarding (2407.19594) 7 at T 0.8, p 0.95."""

    num_responses: int = Field(4, ge=2)
    temperature: float = Field(0.8, gt=0)
    top_p: float = Field(0.95, gt=0, le=1)
    max_tokens: int = Field(512, ge=1)


class AdditiveJudge(Section):
    """Additive 0-5 rubric, reasoning then `Score: n`, draws averaged (Self-Rewarding, 2401.10020, section 2.2)."""

    kind: Literal["additive"]
    by: str = "policy"
    num_draws: int = Field(3, ge=1)
    temperature: float = Field(0.7, ge=0)
    top_p: float = Field(0.9, gt=0, le=1)
    max_tokens: int = Field(384, ge=1)

    @model_validator(mode="after")
    def _draws_differ(self) -> "AdditiveJudge":
        if self.temperature == 0 and self.num_draws > 1:
            raise ValueError(
                f"num_draws: {self.num_draws} has no effect at temperature 0, where all draws are the same; "
                "set num_draws to 1 or the temperature above 0"
            )
        return self


class ExpectedScoreJudge(Section):
    """Expected score under the probabilities of the score token, one prefill (RLAIF, 2309.00267, section 2.3)."""

    kind: Literal["expected_score"]
    by: str = "policy"
    min_score_mass: float = Field(
        0.0, ge=0, le=1, description="below this total probability of the score tokens a judgment is unscored"
    )


class VerifierJudge(Section):
    """The share of a prompt's checks that a response passes, or 1/0 for all of them."""

    kind: Literal["verifier"]
    aggregate: Literal["share", "all"] = "share"


JudgingSection = Annotated[AdditiveJudge | ExpectedScoreJudge | VerifierJudge, Field(discriminator="kind")]


class _Pairing(Section):
    """`min_scored`: responses of a prompt that must have a score before a pair is made of them."""

    min_scored: int = Field(2, ge=2)
    allow_cut_off_chosen: bool = False


class BestVsWorst(_Pairing):
    """Highest against lowest mean score; where all scores are equal, no pair (2401.10020, section 2.3)."""

    kind: Literal["best_vs_worst"]


class LengthControlled(_Pairing):
    """Shortest near the top against longest near the bottom (Meta-Rewarding, 2407.19594, section 2.3)."""

    kind: Literal["length_controlled"]
    rho: float = Field(0.35, ge=0, lt=0.5)


PairingSection = Annotated[BestVsWorst | LengthControlled, Field(discriminator="kind")]


Weight = Annotated[float, Field(gt=0, description="the factor of a loss in the sum of losses")]


class TrlLoss(Section):
    """A loss of TRL's `DPOTrainer` by its TRL name. `sigmoid_norm` is DPO on length-normalised log-ratios."""

    kind: Literal[
        "sigmoid", "hinge", "ipo", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down",
        "discopop", "sft", "sigmoid_norm",
    ]  # fmt: skip
    weight: Weight = 1.0


class ExoPairLoss(Section):
    """TRL's `exo_pair` (2402.00856, section 5); not defined without smoothing."""

    kind: Literal["exo_pair"]
    weight: Weight = 1.0
    label_smoothing: float = Field(1e-3, gt=0, lt=0.5)


class RobustLoss(Section):
    """TRL's `robust` (2403.00409): unbiased when a share `label_smoothing` of the pairs is the wrong way round."""

    kind: Literal["robust"]
    weight: Weight = 1.0
    label_smoothing: float = Field(0.1, gt=0, lt=0.5)


class NllLoss(Section):
    """Negative log-likelihood of the chosen response per token: weight 1 in Iterative RPO (2404.19733), 0.1 in SPaR."""

    kind: Literal["nll"]
    weight: Weight = 1.0


class SimpoLoss(Section):
    """SimPO (2405.14734): no reference, a target margin gamma; beta 2 to 10, gamma / beta 0.3 to 0.5 in the paper."""

    kind: Literal["simpo"]
    weight: Weight = 1.0
    beta: float = Field(2.0, gt=0)
    gamma: float = Field(1.0, ge=0)


class LengthRegularizedLoss(Section):
    """R-DPO (2403.19159): DPO with a price of `alpha` nats for each token of length."""

    kind: Literal["length_regularized"]
    alpha: float = Field(gt=0)
    weight: Weight = 1.0


_Loss = TrlLoss | ExoPairLoss | RobustLoss | NllLoss | SimpoLoss | LengthRegularizedLoss
LossSection = Annotated[_Loss, Field(discriminator="kind")]


class TrainingSection(Section):
    """On-policy DPO (2305.18290); beta 0.1 and 5e-7 are what Online DPO (2402.04792) and iterative RLHF use.

    `batch_size` counts pairs per optimizer step; they are computed in micro-batches of at most `micro_batch_tokens`
    tokens and `micro_batch_size` pairs (null: no limit), which changes memory and speed and not the result.
    `reference`: the policy at the start of the iteration, or M_0. `reference_logprobs: sampler` takes the engine's
    numbers for responses that the reference sampled, while their root mean square error on the reward margin (beta
    times nats) is at most `max_reference_gap`; 0.1 is off by 5 % in a pair's weight in the gradient.
    `packing: shared_prefix` computes what rows share once and no padding (2410.20305); `padded` is TRL's rectangle.
    Weights are float32 by default: a bfloat16 weight does not see updates of 5e-7.
    """

    losses: list[LossSection] = Field([TrlLoss(kind="sigmoid")], min_length=1)
    beta: float = Field(0.1, gt=0)
    learning_rate: float = Field(5e-7, gt=0)
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    warmup_ratio: float = Field(0.0, ge=0, lt=1)
    num_epochs: int = Field(1, ge=1)
    batch_size: int = Field(16, ge=1)
    reference: Literal["iteration_start", "initial"] = "iteration_start"
    reference_logprobs: Literal["trainer", "sampler"] = "trainer"
    max_reference_gap: float = Field(0.1, gt=0)
    micro_batch_tokens: int | None = Runtime(2048, ge=1)
    micro_batch_size: int | None = Runtime(None, ge=1)
    max_pairs: int | None = Field(None, ge=1)
    max_grad_norm: float = Field(1.0, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    packing: Literal["shared_prefix", "padded"] = Runtime("shared_prefix")
    weights_dtype: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = Runtime(False)
    save_every_steps: int = Runtime(50, ge=1)


class LaunchSection(Section):
    """Processes of this machine that make the update, one a GPU. `fsdp` splits the model and its states over them."""

    num_processes: int = Runtime(1, ge=1)
    sharding: Literal["none", "fsdp"] = Runtime("none")


class AnchorSection(Section):
    """The judge that measures: pairwise, both orders, token probabilities averaged (OAIF, 2402.04792)."""

    kind: Literal["pairwise"] = "pairwise"
    by: str = "initial"

    @model_validator(mode="after")
    def _stays_the_same(self) -> "AnchorSection":
        if self.by == "policy":
            raise ValueError("by: the policy changes with every iteration; an anchor stays the same; use initial")
        return self


class VerifiableEvaluation(Section):
    """Pass rate on generated prompts with checks, on topics that training never sees."""

    num_prompts: int = Field(128, ge=1)
    num_checks: int = Field(1, ge=1, le=3)
    check_kinds: list[str] | None = Field(None, min_length=1)


class EvaluationSection(Section):
    """`prompts: null` holds the monitor prompts out of the recipe's own source."""

    anchor: AnchorSection = AnchorSection()
    prompts: PromptsSection | None = None
    num_prompts: int = Field(128, ge=2)
    verifiable: VerifiableEvaluation | None = VerifiableEvaluation()
    temperature: float = Field(0.0, ge=0)
    max_tokens: int | None = Field(None, ge=1, description="null: sampling.max_tokens")


class MonitorSection(Section):
    """Gates stop the run only in mode `enforce`; `report_only` writes what they would have said."""

    mode: Literal["enforce", "report_only"] = "enforce"
    min_pairs: int = Field(8, ge=1)
    max_unscored_rate: float = Field(0.5, ge=0, le=1)
    max_hours: float | None = Runtime(None, gt=0)


class CheckpointsSection(Section):
    """`keep`: how many of the newest checkpoints stay on disk beside `best`; null keeps all."""

    keep: int | None = Runtime(None, ge=1)


class Recipe(Section):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0)
    note: str | None = Runtime(None, description="shown at the top of every report")
    output_dir: str = Runtime(..., min_length=1, description="a run folder may be moved or spelt otherwise")
    regime: Literal["iteration"] = "iteration"
    models: dict[str, ModelSection]
    engine: EngineSection = EngineSection()
    iterations: IterationsSection = IterationsSection()
    prompts: PromptsSection
    sampling: SamplingSection = SamplingSection()
    refinement: None = None
    judging: JudgingSection
    meta_judging: None = None
    pairing: PairingSection = BestVsWorst(kind="best_vs_worst")
    training: TrainingSection = TrainingSection()
    launch: LaunchSection = LaunchSection()
    evaluation: EvaluationSection = EvaluationSection()
    monitor: MonitorSection = MonitorSection()
    checkpoints: CheckpointsSection = CheckpointsSection()

    @model_validator(mode="after")
    def _models_are_named(self) -> "Recipe":
        if "policy" not in self.models:
            raise ValueError("models: no `policy`; it is the model that is trained; add `policy: {model: ...}`")
        if taken := {"initial", "best"} & self.models.keys():
            raise ValueError(f"models: {', '.join(taken)} is always there and cannot be given; rename it")
        if adapted := [name for name, model in self.models.items() if model.lora and name != "policy"]:
            raise ValueError(f"models.{adapted[0]}: lora has no effect; only the policy is trained; remove it")
        if self.models["policy"].lora and self.launch.sharding == "fsdp":
            raise ValueError("launch.sharding: fsdp does not go with models.policy.lora; set one of them to none/null")
        if len({model.trust_remote_code for model in self.models.values()}) > 1:
            raise ValueError(
                "models: trust_remote_code is true for some and false for others; one process holds them all, so trust "
                "in one is trust in each; set it alike"
            )
        return self
