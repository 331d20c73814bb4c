"""What autograd saves in a forward pass of a model, and its numbers of parameters, from its configuration alone.

Activations are not estimated by a formula: a forward pass of one and of two layers runs on fake tensors, which have
shapes and no data, and the tensors that autograd saves for the backward pass are counted. A token of a micro-batch adds
as many bytes for each further layer, and so does a key that is copied for a segment of a packed micro-batch. Padded,
the count is that of rows of different lengths: rows of one length have no mask, and no copies of keys that heads share.
"""

import copy
import functools
import gc
import json
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from selfreward.recipe import LoraSection
from selfreward.updates.packing import attention, forward
from selfreward.updates.packing.layout import PairTokens, lay_out_pairs
from selfreward.updates.packing.padded_batch import padded_batch

_TRACED = ((256, 128), (512, 256), (512, 2))  # tokens of a pair, and those of its prompt


@dataclass(frozen=True)
class Activations:
    """Tensors that a layer saves for the backward pass.

    `per_token`, `per_key` and `fixed` are the bytes of one layer, for each token, for each key that is copied for a
    segment after a prefix, and in all; the last are copies of its weights in 16 bits. `boundary` is what a layer with
    gradient checkpointing saves for each token.
    """

    per_token: float
    per_key: float
    fixed: int
    boundary: float
    num_layers: int


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters of the model without adapters; `trained` are all of them, or those of the adapters.

    `head` are those of the output layer, `vocabulary` those of embeddings and head, which may be the same, and
    `largest_trained` those of the largest trained tensor besides the embeddings.
    """

    all: int
    trained: int
    embeddings: int
    head: int
    vocabulary: int
    largest_layer: int
    largest_trained: int


def traced(
    config: PretrainedConfig, *, dtype: str, autocast: bool, packed: bool, lora: LoraSection | None, trust: bool
) -> tuple[Parameters, Activations]:
    """Return the parameters and activations of a model; the trace of a configuration is made once.

    Raises what transformers raises for a configuration that it cannot make a model of.
    """
    kind: Any = type(config)
    return _traced(
        json.dumps(config.to_dict(), default=str, sort_keys=True), kind, dtype, autocast, packed, lora, trust
    )


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
    options: dict[str, Any] = {"dtype": getattr(torch, dtype), "autocast": autocast, "packed": packed, "lora": lora,
                               "trust": trust}  # fmt: skip
    one, two = (_saved(_with_layers(config, n), checkpointing=False, **options) for n in (1, 2))
    boundary = [_saved(_with_layers(config, n), checkpointing=True, **options)[1] for n in (1, 2)]
    gc.collect()  # TRL's head puts the traced models into reference cycles
    short, long, other = (in_two - in_one for in_one, in_two in zip(one, two, strict=True))
    pairs = [_pair(*each, packed=packed) for each in _TRACED]
    num_keys = [lay_out_pairs([pair]).num_keys if packed else 0 for pair in pairs]
    per_key = (long - other) / (num_keys[1] - num_keys[2]) if packed else 0.0
    num_tokens = _TRACED[1][0] - _TRACED[0][0]
    per_token = (long - short - per_key * (num_keys[1] - num_keys[0])) / num_tokens
    activations = Activations(
        per_token=per_token,
        per_key=per_key,
        fixed=round(long - per_token * _TRACED[1][0] - per_key * num_keys[1]),
        boundary=(boundary[1] - boundary[0]) / _TRACED[1][0],
        num_layers=config.num_hidden_layers,
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
) -> list[int]:  # fmt: skip
    """Return the bytes that a forward pass saves for its backward pass, apart from parameters, of each pair."""
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
        pairs = [_pair(*each, packed=packed) for each in _TRACED]
        return [_saved_by(model, pair, own, mode, autocast=autocast, packed=packed) for pair in pairs]


def _pair(num_tokens: int, num_prompt: int, *, packed: bool) -> PairTokens:
    """Return a prompt and two responses; padded, rows of one token of the prompt."""
    prompt, own = (num_prompt, (num_tokens - num_prompt) // 2) if packed else (1, num_tokens // 2 - 1)
    return PairTokens((1,) * prompt, (1,) * own, (2,) * own)


def _adapted(model: PreTrainedModel, lora: LoraSection) -> PreTrainedModel:
    from selfreward.updates.adapters import add_adapters

    with torch.device("meta"):
        return add_adapters(model, lora, seed=0)


def _saved_by(
    model: torch.nn.Module, pair: PairTokens, own: set[int], mode: FakeTensorMode, *, autocast: bool, packed: bool
) -> int:
    saved: dict[int, torch.Tensor] = {}  # with the tensors themselves, so that no storage is used again

    def record(tensor: torch.Tensor) -> torch.Tensor:
        if _storage(tensor) not in own:
            saved[_storage(tensor)] = tensor
        return tensor

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
    embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    layers = [sum(p.numel() for p in layer.parameters()) for layer in _layers(model)]
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    if lora is not None:
        model = _adapted(model, lora)
    trained = {id(parameter): parameter.numel() for parameter in model.parameters() if parameter.requires_grad}
    return Parameters(
        all=num_parameters,
        trained=sum(trained.values()),
        embeddings=embeddings.numel(),
        head=head.numel(),
        vocabulary=embeddings.numel() + (0 if head is embeddings else head.numel()),
        largest_layer=max(layers, default=num_parameters),
        largest_trained=max(number for key, number in trained.items() if key != id(embeddings)),
    )


def _layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the decoder layers: the members of the longest list of modules."""
    lists = [[*module] for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return max(lists, key=len, default=[])
