"""`training`: the update and its losses."""

from typing import Annotated, Literal

from pydantic import Field

from selfreward.recipe.section import Changeable, Section

Weight = Annotated[float, Field(gt=0, description="the factor of a loss in the sum of losses")]


class TrlLoss(Section):
    """A loss of TRL's `DPOTrainer`, by TRL's name. `sigmoid_norm` is DPO on length-normalised log-ratios."""

    kind: Literal[
        "sigmoid", "hinge", "ipo", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down",
        "discopop", "sft", "sigmoid_norm",
    ]  # fmt: skip
    weight: Weight = 1.0


class ExoPairLoss(Section):
    """TRL's `exo_pair` (2402.00856, section 5); undefined without label smoothing."""

    kind: Literal["exo_pair"]
    weight: Weight = 1.0
    label_smoothing: float = Field(1e-3, gt=0, lt=0.5)


class RobustLoss(Section):
    """TRL's `robust` (2403.00409): unbiased when a share `label_smoothing` of the pairs has the wrong label."""

    kind: Literal["robust"]
    weight: Weight = 1.0
    label_smoothing: float = Field(0.1, gt=0, lt=0.5)


class NllLoss(Section):
    """Per-token negative log-likelihood of the chosen response: weight 1 in Iterative RPO (2404.19733), 0.1 in SPaR."""

    kind: Literal["nll"]
    weight: Weight = 1.0


class SimpoLoss(Section):
    """SimPO (2405.14734): no reference, a target margin gamma; beta 2 to 10, gamma / beta 0.3 to 0.5 in the paper."""

    kind: Literal["simpo"]
    weight: Weight = 1.0
    beta: float = Field(2.0, gt=0)
    gamma: float = Field(1.0, ge=0)


class LengthRegularizedLoss(Section):
    """R-DPO (2403.19159): DPO with a penalty of `alpha` nats per token of response length."""

    kind: Literal["length_regularized"]
    alpha: float = Field(gt=0)
    weight: Weight = 1.0


_Loss = TrlLoss | ExoPairLoss | RobustLoss | NllLoss | SimpoLoss | LengthRegularizedLoss
LossSection = Annotated[_Loss, Field(discriminator="kind")]


class TrainingSection(Section):
    """On-policy DPO (2305.18290); beta 0.1 and 5e-7 are what Online DPO (2402.04792) and iterative RLHF use.

    `batch_size` is the number of pairs per optimizer step; unset, it is at most 16, and follows the number of prompts
    (`sizes.py`). They are computed in micro-batches of at most
    `micro_batch_tokens` tokens and `micro_batch_size` pairs (null: no limit), which changes memory and speed but not
    the result; `auto` is as many tokens as the memory of the GPU holds, and 2,048 on a CPU.
    `reference`: the policy at the start of the iteration, or M_0. `reference_logprobs: sampler` uses the engine's
    numbers for responses that the reference sampled, as long as their root mean square error of the reward margin (beta
    times nats) is at most `max_reference_gap`; 0.1 changes a pair's weight in the gradient by 5 %.
    `packing: shared_prefix` computes shared prefixes once and no padding (2410.20305); `padded` is TRL's padded batch.
    `packed_attention` is the kernel of the former: `varlen` is FlashAttention (CUDA, bfloat16), `flex` is FlexAttention
    (CUDA, compiled by Triton), `segments` works everywhere; `auto` is `varlen` where it works, and else `segments`.
    `optimizer`: Adafactor is what Online DPO (2402.04792) uses; `adamw_8bit` (2110.02861) and `adamw_offload`, whose
    moments may leave the GPU (2305.14314, section 3), need the extra `optimizers`.
    `gradient_checkpointing` (1604.06174): true computes all layers again in the backward pass, n the first n layers.
    A save every `save_every_steps` steps, but less often where saves are slow: they take at most about 5 % of the time.
    The schedule begins again in every iteration. Warm-up is a share of its steps (`warmup_ratio`; 0.1 in SPaR,
    2412.11605) or a number of steps (`warmup_steps`; 150 in Online DPO). `min_lr_ratio`: final learning rate of
    `linear` and `cosine`, as a share of `learning_rate`; 0.1 in Self-Rewarding (2401.10020), which decays from 1e-6 to
    1e-7.
    Weights are float32 by default, because updates of 5e-7 are lost when weights are rounded to the nearest bfloat16.
    `stochastic_rounding` (2010.06192) rounds bfloat16 weights up or down at random, so that updates arrive on average;
    `adamw` and `adamw_8bit` can, with the extra `optimizers`. It has no effect on float32 weights and on adapters.
    """

    losses: list[LossSection] = Field([TrlLoss(kind="sigmoid")], min_length=1)
    beta: float = Field(0.1, gt=0)
    learning_rate: float = Field(5e-7, gt=0)
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    warmup_ratio: float = Field(0.0, ge=0, lt=1)
    warmup_steps: int | None = Field(None, ge=0)
    min_lr_ratio: float = Field(0.0, ge=0, lt=1)
    optimizer: Literal["adamw", "adamw_8bit", "adamw_offload", "adafactor"] = "adamw"
    num_epochs: int = Field(1, ge=1)
    batch_size: int = Field(16, ge=1)
    reference: Literal["iteration_start", "initial"] = "iteration_start"
    reference_logprobs: Literal["trainer", "sampler"] = "trainer"
    max_reference_gap: float = Field(0.1, gt=0)
    micro_batch_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Changeable("auto")
    micro_batch_size: int | None = Changeable(None, ge=1)
    max_pairs: int | None = Field(None, ge=1)
    max_grad_norm: float = Field(1.0, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    packing: Literal["shared_prefix", "padded"] = Changeable("shared_prefix")
    packed_attention: Literal["auto", "segments", "varlen", "flex"] = Changeable("auto")
    weights_dtype: Literal["float32", "bfloat16"] = "float32"
    stochastic_rounding: bool = True
    gradient_checkpointing: bool | Annotated[int, Field(ge=1)] = Changeable(False)
    save_every_steps: int = Changeable(50, ge=1)
