"""Memory of an update: what the weights and their states take, and what each token of a micro-batch adds.

Activations are not estimated by a formula: a forward pass of one and of two layers runs on fake tensors, which have
shapes and no data, and the tensors that autograd saves for the backward pass are counted. A token of a micro-batch adds
as many bytes for each further layer.

Sizes are in bytes, of one process. States follow ZeRO (1910.02054, section 3.1).
"""

import copy
import functools
import gc
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from selfreward.errors import RecipeError
from selfreward.recipe import LoraSection, TrainingSection
from selfreward.updates.packing import attention, forward
from selfreward.updates.packing.layout import PairTokens, lay_out_pairs
from selfreward.updates.packing.padded_batch import padded_batch
from selfreward.updates.settings import Settings

MOMENTS = {"adamw": 8.0, "adamw_8bit": 2.03, "adamw_offload": 8.0, "adafactor": 0.01}
"""Bytes of the optimizer's state for each trained float32 weight."""
BASE_BYTES = {"float32": 4.0, "bfloat16": 2.0, "nf4": 0.53}
"""Bytes of a frozen weight below adapters; in 4 bits with a scale for each block of 64."""
LOGIT_BYTES = 3 * 4  # on the CPU for each label and token of the vocabulary: logits, softmax and gradient, float32
FUSED_HEAD_BYTES = 4096 * 32768 * 4  # a tile of logits in TRL's fused head, on CUDA: tokens, vocabulary, float32
UNTRACEABLE = (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError, OSError, RecipeError)
"""What models of unknown architectures raise on fake tensors."""
MARGIN = 0.9  # of the free memory: kernels' workspaces, and freed memory in pieces
MAX_TOKENS = 65_536  # a larger micro-batch is no faster
_SHORT, _LONG = 256, 512


@dataclass(frozen=True)
class Activations:
    """Tensors that a layer saves for the backward pass.

    `per_token` and `fixed` are the bytes of one layer, for each token and in all; the latter are copies of its weights
    in 16 bits. `boundary` is what a layer with gradient checkpointing saves for each token.
    """

    per_token: float
    fixed: int
    boundary: float
    num_layers: int


@dataclass(frozen=True)
class TrainingMemory:
    """Memory of an update on one device; `copies` are the weights in 16 bits that autocast or sharding makes.

    `per_token` is what the forward pass saves of each token of a micro-batch. Beside that there are, one after the
    other, the logits (`per_label` for each token with a label) and a layer in its backward pass (`per_token_in_layer`,
    also what each token of a pass without gradients takes).
    """

    weights: int
    gradients: int
    states: int
    copies: int
    head: int
    per_token: float
    per_label: float
    per_token_in_layer: float

    @property
    def fixed(self) -> int:
        return self.weights + self.gradients + self.states + self.copies + self.head

    def peak(self, num_tokens: int, num_labels: int) -> int:
        """Return the largest memory in the step of a micro-batch."""
        beside = max(num_tokens * self.per_token_in_layer, num_labels * self.per_label)
        return int(self.fixed + num_tokens * self.per_token + beside)

    def tokens_that_fit(self, available: int) -> int:
        """Return the tokens of the largest micro-batch in `available` bytes, where all may be labels; 0 for none."""
        room = available * MARGIN - self.fixed
        return max(0, min(MAX_TOKENS, int(room / (self.peak(1, 1) - self.fixed))))


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters of the model without adapters; `trained` are all of them, or those of the adapters."""

    all: int
    trained: int
    embeddings: int
    largest_layer: int


def training_memory(
    config: PretrainedConfig, settings: Settings, *, on_cuda: bool, trust_remote_code: bool = False
) -> TrainingMemory:
    """Return the memory of an update of a model with this configuration. Raises what transformers raises for it."""
    section, launch, lora = settings.training, settings.launch, settings.lora
    stored = section.weights_dtype if lora is None else _base_dtype(lora, on_cuda=on_cuda)
    kind: Any = type(config)
    parameters, activations = _traced(
        json.dumps(config.to_dict(), default=str, sort_keys=True),
        kind,
        "float32" if stored == "float32" else "bfloat16",
        autocast=on_cuda,
        packed=section.packing == "shared_prefix",
        lora=lora,
        trust=trust_remote_code,
    )
    num_shards = launch.num_processes if launch.sharding == "fsdp" else 1
    frozen = parameters.all if lora else 0
    size = 4 if lora else int(BASE_BYTES[stored])  # adapters are float32
    weights = int(BASE_BYTES[stored] * frozen + size * parameters.trained) // num_shards
    states = 0 if on_cuda and section.optimizer == "adamw_offload" else _states(section, parameters, size) // num_shards
    # Autocast keeps its copies of trained weights until the forward pass ends. Copies of frozen ones are saved like
    # activations, so not with checkpointing.
    whole = activations.num_layers - _num_checkpointed(section, activations.num_layers)
    copies = activations.fixed * (activations.num_layers if lora is None else max(1, whole))
    if num_shards > 1:
        # The layer that is computed and the next one in 16 bits, and one layer's gradient before it is reduced.
        copies = (2 * 2 + 4) * parameters.largest_layer
    per_token = activations.per_token * whole + activations.boundary * (activations.num_layers - whole)
    return TrainingMemory(
        weights=weights,
        gradients=size * parameters.trained // num_shards,
        states=states,
        copies=copies,
        head=FUSED_HEAD_BYTES if on_cuda else 0,
        per_token=per_token,
        per_label=0.0 if on_cuda else float(LOGIT_BYTES * config.get_text_config().vocab_size),
        per_token_in_layer=activations.per_token + activations.boundary,
    )


def traced_memory(folder: Path, settings: Settings, *, on_cuda: bool) -> TrainingMemory | None:
    """Return the memory of an update of the model in `folder`, of which only config.json is read, or None for a model
    that cannot be traced."""
    trust = settings.trust_remote_code
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust)
        return training_memory(config, settings, on_cuda=on_cuda, trust_remote_code=trust)
    except UNTRACEABLE:
        return None


def _num_checkpointed(section: TrainingSection, num_layers: int) -> int:
    asked = section.gradient_checkpointing
    return num_layers * asked if isinstance(asked, bool) else min(num_layers, asked)


def _base_dtype(lora: LoraSection, *, on_cuda: bool) -> str:
    """Return how the frozen weights are stored; `auto` as on a GPU that computes in bfloat16, which a plan may name."""
    auto = "bfloat16" if on_cuda else "float32"
    return auto if lora.base_dtype == "auto" else lora.base_dtype


def _states(section: TrainingSection, parameters: Parameters, size: int) -> int:
    """Return the bytes of the optimizer's state, for trained weights of `size` bytes."""
    each = MOMENTS[section.optimizer]
    if size == 2 and section.optimizer == "adamw":  # first moments in bfloat16; second ones too without random rounding
        each = 6.0 if section.stochastic_rounding else 4.0
    states = each * parameters.trained
    if section.optimizer == "adamw_8bit" and parameters.trained == parameters.all:
        states += (8 - each) * parameters.embeddings  # their moments stay in 32 bits
    return int(states)


@functools.lru_cache(maxsize=8)
def _traced(
    config_json: str,
    kind: type[PretrainedConfig],
    dtype: str,
    autocast: bool,
    packed: bool,
    lora: LoraSection | None,
    trust: bool,
) -> tuple[Parameters, Activations]:
    config = kind.from_dict(json.loads(config_json))
    num_layers = config.num_hidden_layers
    options: dict[str, Any] = {"dtype": getattr(torch, dtype), "autocast": autocast, "packed": packed, "lora": lora,
                               "trust": trust}  # fmt: skip
    one, two = (_saved(_with_layers(config, n), checkpointing=False, **options) for n in (1, 2))
    boundary = [_saved(_with_layers(config, n), checkpointing=True, **options)[_LONG] for n in (1, 2)]
    gc.collect()  # TRL's head puts the traced models into reference cycles
    short, long = two[_SHORT] - one[_SHORT], two[_LONG] - one[_LONG]
    per_token = (long - short) / (_LONG - _SHORT)
    activations = Activations(
        per_token=per_token,
        fixed=round(long - per_token * _LONG),
        boundary=(boundary[1] - boundary[0]) / _LONG,
        num_layers=num_layers,
    )
    return _parameters(config, lora, trust), activations


def _with_layers(config: PretrainedConfig, num_layers: int) -> PretrainedConfig:
    changed = copy.deepcopy(config)
    changed.num_hidden_layers = num_layers
    if getattr(changed, "layer_types", None):
        changed.layer_types = changed.layer_types[:num_layers]
    return changed


def _saved(
    config: PretrainedConfig, *, dtype: torch.dtype, autocast: bool, packed: bool, lora: LoraSection | None,
    checkpointing: bool, trust: bool,
) -> dict[int, int]:  # fmt: skip
    """Return the bytes that a forward pass saves for its backward pass, apart from parameters, by number of tokens."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust).train()
    if packed:
        model.set_attn_implementation(attention.implementation("segments"))
        forward.install(model)
    forward.add_fused_lm_head(model)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if lora is not None:
        model = _adapted(model, lora)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        model.to_empty(device="cpu")  # fake tensors of this device, for which autocast does what it does for real ones
        own = {_storage(x) for x in (*model.parameters(), *model.buffers())}
        return {size: _saved_by(model, size, own, mode, autocast=autocast, packed=packed) for size in (_SHORT, _LONG)}


def _adapted(model: PreTrainedModel, lora: LoraSection) -> PreTrainedModel:
    from selfreward.updates.adapters import add_adapters

    with torch.device("meta"):
        return add_adapters(model, lora, seed=0)


def _saved_by(
    model: torch.nn.Module, size: int, own: set[int], mode: FakeTensorMode, *, autocast: bool, packed: bool
) -> int:
    saved: dict[int, torch.Tensor] = {}  # with the tensors themselves, so that no storage is used again

    def record(tensor: torch.Tensor) -> torch.Tensor:
        if _storage(tensor) not in own:
            saved[_storage(tensor)] = tensor
        return tensor

    # Packed, a prompt and two responses; padded, two rows of one token of the prompt.
    half = size // 2
    prompt, own_tokens = (half, half // 2) if packed else (1, half - 1)
    pair = PairTokens((1,) * prompt, (1,) * own_tokens, (2,) * own_tokens)
    inputs: dict[str, Any] = {name: mode.from_tensor(values) for name, values in padded_batch([pair]).items()}
    if packed:
        inputs["layout"] = lay_out_pairs([pair])
    with (
        torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        forward.label_logps(model, inputs)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def _storage(tensor: torch.Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address


def _parameters(config: PretrainedConfig, lora: LoraSection | None, trust: bool) -> Parameters:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
        embeddings = model.get_input_embeddings().weight.numel()
        layers = [sum(p.numel() for p in layer.parameters()) for layer in _layers(model)]
        num_parameters = sum(parameter.numel() for parameter in model.parameters())
    if lora is not None:
        model = _adapted(model, lora)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Parameters(num_parameters, trained, embeddings, max(layers, default=num_parameters))


def _layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the decoder layers: the members of the longest list of modules."""
    lists = [[*module] for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return max(lists, key=len, default=[])
