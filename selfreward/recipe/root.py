"""The complete recipe, and its small sections."""

import re
from pathlib import PurePath
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from selfreward.recipe.evaluation import EvaluationSection
from selfreward.recipe.judging import AdditiveSection, ExpectedScoreSection, JudgingSection, MetaJudgingSection
from selfreward.recipe.launch import LaunchSection
from selfreward.recipe.models import EndpointSection, ModelSection, NamedModel
from selfreward.recipe.monitor import MonitorSection
from selfreward.recipe.pairing import BestVsWorst, PairingSection
from selfreward.recipe.prompts import PromptsSection
from selfreward.recipe.section import AutoOrNumber, Changeable, Section
from selfreward.recipe.training import TrainingSection
from selfreward.roles import RESERVED


class EngineSection(Section):
    """`kind: auto` is vLLM when it is installed, else transformers. `dtype: auto` is bfloat16 where the device computes
    in it, else float32 (`dtypes.py`); a run keeps the dtype it began with. `seeded: false` trades reproducible draws
    for speed. `max_num_seqs: auto` is 1,024 on a GPU of 80 GB or more, and 256 elsewhere. `batch_invariant`: vLLM on a
    GPU computes each request as if it were alone, at a cost of speed. `sleep_level: 1` keeps the weights in host memory
    while the trainer works, so that waking up reads no file; 2 keeps nothing. `tensor_parallel_size`: the GPUs that
    share one engine (vLLM). `replicas`: engines that work side by side, on Ray; `auto` is the number of GPUs divided by
    `tensor_parallel_size`, and 1 on a CPU. A run that loses engines continues with at least `min_replicas`."""

    kind: Literal["auto", "vllm", "transformers"] = "auto"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    context_tokens: int = Field(4096, ge=16)
    seeded: bool = True
    batch_invariant: bool = False
    sleep_level: Literal[1, 2] = Changeable(2)
    max_num_seqs: AutoOrNumber = Changeable("auto")
    kv_cache_gib: float = Changeable(2.0, gt=0, description="CPU only: GiB for the KV cache")
    gpu_memory_utilization: float = Changeable(0.85, gt=0, le=1)
    batch_tokens: int = Changeable(8192, ge=1, description="transformers engine: padded tokens in one forward batch")
    tensor_parallel_size: int = Changeable(1, ge=1)
    replicas: AutoOrNumber = Changeable("auto")
    min_replicas: int = Changeable(1, ge=1)

    @model_validator(mode="after")
    def _replicas_are_possible(self) -> "EngineSection":
        if self.replicas != "auto" and self.min_replicas > self.replicas:
            raise ValueError(
                f"min_replicas: found {self.min_replicas}; at most replicas, which is {self.replicas}, is allowed; "
                "lower it, or raise replicas"
            )
        if self.tensor_parallel_size > 1 and self.kind == "transformers":
            raise ValueError(
                "tensor_parallel_size: the transformers engine uses one GPU; set it to 1 and use several replicas, or "
                "kind to vllm"
            )
        return self

    @model_validator(mode="after")
    def _batch_invariance_is_possible(self) -> "EngineSection":
        if self.batch_invariant and self.kind == "transformers":
            raise ValueError(
                "batch_invariant: the transformers engine has no such mode; set it to false, or kind to vllm"
            )
        if self.batch_invariant and not self.seeded:
            raise ValueError(
                "batch_invariant: draws without seeds depend on the batch; set seeded to true, or batch_invariant to "
                "false"
            )
        return self


class IterationsSection(Section):
    """`max` and `num_prompts_per_iteration`, where they are not set, are at most these and follow the number of
    training prompts (`sizes.py`)."""

    max: int = Changeable(4, ge=1)
    num_prompts_per_iteration: int = Field(512, ge=1)
    shard_prompts: int = Field(1024, ge=1)


class SamplingSection(Section):
    """Self-Rewarding (2401.10020) draws 4 at T 0.7, p 0.9; Meta-Rewarding (2407.19594) 7 at T 0.8, p 0.95.

    `top_k` (0 or -1: all tokens), `min_p`, `repetition_penalty` and `stop` mean what they mean in vLLM, and are off by
    default. Held-out responses are sampled with them too. A text that reaches a stop string ends before it.
    """

    num_responses: int = Field(4, ge=2)
    temperature: float = Field(0.8, gt=0)
    top_p: float = Field(0.95, gt=0, le=1)
    top_k: int = Field(0, ge=-1)
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0)
    stop: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    max_tokens: int = Field(512, ge=1)

    @field_validator("stop", mode="before")
    @classmethod
    def _is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class CheckpointsSection(Section):
    """`keep`: the number of newest checkpoints retained on disk in addition to `best`; null retains all."""

    keep: int | None = Changeable(None, ge=1)


DEFAULT_OUTPUT_DIR: Final = "runs/{name}-{seed}"
_PLACEHOLDERS: Final = ("{name}", "{seed}")


def named_after(tree: dict[str, Any], file: str | None) -> dict[str, Any]:
    """Return the keys of a recipe with a name made of its file's, where it sets none and `output_dir` contains it."""
    output_dir = tree.get("output_dir", DEFAULT_OUTPUT_DIR)
    if file is None or "name" in tree or not isinstance(output_dir, str) or "{name}" not in output_dir:
        return tree
    tree["name"] = _as_name(file)
    return tree


def _as_name(text: str) -> str:
    """Return a text in the letters of a name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-") or "run"


def _name_of_folder(fields: dict[str, Any]) -> str:
    """Return the last part of `output_dir`; "run" where that contains a placeholder."""
    folder = PurePath(str(fields.get("output_dir", ""))).name
    return "run" if "{" in folder else _as_name(folder)


class Recipe(Section):
    """`output_dir` is the run folder, relative to the working directory; {name} and {seed} in it are replaced."""

    output_dir: str = Changeable(
        DEFAULT_OUTPUT_DIR, min_length=1, description="a run folder may be moved or written differently"
    )
    name: str = Field(
        default_factory=_name_of_folder,
        validate_default=True,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="unset: the name of the recipe's file, or the last part of an output_dir without {name}",
    )
    seed: int = Field(0, ge=0)
    note: str | None = Changeable(None, description="shown at the top of every report")
    regime: Literal["iteration"] = "iteration"
    models: dict[str, NamedModel]
    engine: EngineSection = EngineSection()
    iterations: IterationsSection = IterationsSection()
    prompts: PromptsSection
    sampling: SamplingSection = SamplingSection()
    refinement: None = None
    judging: JudgingSection = ExpectedScoreSection(kind="expected_score")
    meta_judging: MetaJudgingSection | None = None
    pairing: PairingSection = BestVsWorst(kind="best_vs_worst")
    training: TrainingSection = TrainingSection()
    launch: LaunchSection = LaunchSection()
    evaluation: EvaluationSection = EvaluationSection()
    monitor: MonitorSection = MonitorSection()
    checkpoints: CheckpointsSection = CheckpointsSection()

    @field_validator("output_dir")
    @classmethod
    def _placeholders_are_known(cls, value: str) -> str:
        if unknown := [found for found in re.findall(r"\{[^{}]*\}|[{}]", value) if found not in _PLACEHOLDERS]:
            raise ValueError(
                f"{unknown[0]} is not a placeholder; {' and '.join(_PLACEHOLDERS)} are replaced; remove the braces"
            )
        return value

    @model_validator(mode="after")
    def _placeholders_are_replaced(self) -> "Recipe":
        replaced = self.output_dir.replace("{name}", self.name).replace("{seed}", str(self.seed))
        object.__setattr__(self, "output_dir", replaced)  # the one change of a frozen recipe, before anybody has it
        return self

    @model_validator(mode="after")
    def _models_are_named(self) -> "Recipe":
        if "policy" not in self.models:
            raise ValueError("models: `policy` is missing; it is the model that is trained; add `policy: {model: ...}`")
        if taken := RESERVED & self.models.keys():
            raise ValueError(f"models: {', '.join(taken)} is a reserved name; choose another name")
        if isinstance(self.models["policy"], EndpointSection):
            raise ValueError("models.policy: an endpoint cannot be trained; a local model is needed; use `model: ...`")
        local = self.local_models
        if adapted := [name for name, model in local.items() if model.lora and name != "policy"]:
            raise ValueError(f"models.{adapted[0]}: lora has no effect; only the policy is trained; remove it")
        if len({model.trust_remote_code for model in local.values()}) > 1:
            raise ValueError(
                "models: trust_remote_code is true for some and false for others; one process loads them all, so the "
                "code of one could reach each; set it to the same value for all"
            )
        return self

    @model_validator(mode="after")
    def _sections_are_compatible(self) -> "Recipe":
        judge = self.judging
        trained = isinstance(judge, AdditiveSection) and judge.by == "policy" and judge.num_draws > 1
        if self.meta_judging is not None and not trained:
            raise ValueError(
                "meta_judging: it pairs several judgments of one response written by the policy; it needs judging: "
                "{kind: additive, by: policy} with several draws; change judging or remove meta_judging"
            )
        if "consistency" in (self.pairing.label, self.pairing.weight) and self.checkpoints.keep == 1:
            raise ValueError(
                "checkpoints.keep: 1 retains no previous judge for pairing by consistency; set it to 2 or null"
            )
        return self

    @property
    def local_models(self) -> dict[str, ModelSection]:
        return {name: model for name, model in self.models.items() if isinstance(model, ModelSection)}

    @property
    def endpoints(self) -> dict[str, EndpointSection]:
        return {name: model for name, model in self.models.items() if isinstance(model, EndpointSection)}

    @property
    def policy(self) -> ModelSection:
        return self.local_models["policy"]
