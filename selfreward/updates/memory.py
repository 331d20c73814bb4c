"""Memory of an update: what the weights and their states take, and what each token of a micro-batch adds.

Sizes are in bytes, of one process. States follow ZeRO (1910.02054, section 3.1).
"""

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, PretrainedConfig

from selfreward.errors import RecipeError
from selfreward.recipe import LoraSection, TrainingSection
from selfreward.updates.settings import Settings
from selfreward.updates.traced_model import Activations, Parameters, traced

STATE_BYTES = {"adamw": 8.0, "adamw_8bit": 2.03, "adamw_offload": 8.0, "adafactor": 0.01}
"""Bytes of the optimizer's state for each trained float32 weight."""
BASE_BYTES = {"float32": 4.0, "bfloat16": 2.0, "nf4": 0.53}
"""Bytes of a frozen weight below adapters; in 4 bits with a scale for each block of 64, and not for embeddings and
head, which stay in 16 bits."""
LOGIT_BYTES = 3 * 4  # on the CPU for each label and token of the vocabulary: logits, softmax and gradient, float32
STEP_BYTES = {
    ("adamw_8bit", "float32"): (12, 20),
    ("adamw_8bit", "nearest"): (16, 24),
    ("adamw_8bit", "random"): (0, 8),
    ("adafactor", "float32"): (8, 8),
    ("adafactor", "nearest"): (16, 16),
}
"""Bytes that an optimizer's step makes for each weight of the tensor that it is at, by the dtype of the weights or how
bfloat16 ones are rounded: of embeddings, whose moments have 32 bits, and of others. Measured on a CPU. Adafactor's
operations are the same on a GPU, where those of the others are one kernel."""
TILE_TOKENS, TILE_VOCABULARY = 4096, 32768  # the largest tile of logits in TRL's fused head
TILE_COPIES = 7.25  # of a tile in float32 that its backward pass makes where there is no Triton
UNTRACEABLE = (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError, OSError, RecipeError)
"""What models of unknown architectures raise on fake tensors."""
MARGIN = 0.9  # of the free memory: kernels' workspaces, and freed memory in pieces
MAX_TOKENS = 65_536  # a larger micro-batch is no faster
_TRACED = ((256, 128), (512, 256), (512, 2))  # tokens of a pair, and those of its prompt


@dataclass(frozen=True)
class TrainingMemory:
    """Memory of an update on one device; `copies` are the weights in 16 bits that autocast or sharding makes.

    `per_token` and `per_key` are what the forward pass saves of each token of a micro-batch and of each key that is
    copied for a segment. Beside that there are, one after the other, the output layer (`head` in all, `per_label` for
    each token with a label, `per_tile_token` for each token of a tile of logits) and a layer in its backward pass
    (`per_token_in_layer` and `per_key_in_layer`, also what a pass without gradients takes). Activations are freed
    before the optimizer takes `optimizer` bytes for its largest tensor.
    """

    weights: int
    gradients: int
    states: int
    copies: int
    per_token: float
    per_token_in_layer: float
    head: int = 0
    per_label: float = 0.0
    per_tile_token: float = 0.0
    per_key: float = 0.0
    per_key_in_layer: float = 0.0
    optimizer: int = 0

    @property
    def fixed(self) -> int:
        return self.weights + self.gradients + self.states + self.copies

    def peak(self, num_tokens: int, num_labels: int, num_keys: int = 0) -> int:
        """Return the largest memory in the step of a micro-batch; keys as `Layout.num_keys` counts them."""
        saved = num_tokens * self.per_token + num_keys * self.per_key
        output = self.head + num_labels * self.per_label + min(num_tokens, TILE_TOKENS) * self.per_tile_token
        layer = self._in_layer(num_tokens, num_keys)
        return int(self.fixed + max(saved + max(output, layer), self.optimizer))

    def tokens_without_gradients(self, num_tokens: int) -> int:
        """Return the tokens of a pass that takes as much for its layers as a step of `num_tokens`, all with a key."""
        saved = num_tokens * (self.per_token + self.per_key)
        return int((saved + self._in_layer(num_tokens, num_tokens)) / self._in_layer(1, 1))

    def _in_layer(self, num_tokens: int, num_keys: int) -> float:
        return num_tokens * self.per_token_in_layer + num_keys * self.per_key_in_layer

    def tokens_that_fit(self, available: int) -> int:
        """Return the tokens of the largest micro-batch in `available` bytes, where each may be a label and have a key
        that is copied; 0 for none."""
        sizes = range(MAX_TOKENS + 1)
        return max(0, bisect_right(sizes, available * MARGIN, key=lambda size: self.peak(size, size, size)) - 1)

    @property
    def key_cost(self) -> float:
        """A copied key's share of the memory of a token with its key."""
        return _share(self.per_key + self.per_key_in_layer, self.per_token + self.per_token_in_layer)

    @property
    def key_cost_without_gradients(self) -> float:
        return _share(self.per_key_in_layer, self.per_token_in_layer)


def _share(key: float, token: float) -> float:
    return key / (key + token) if key else 0.0


def training_memory(
    config: PretrainedConfig, settings: Settings, *, on_cuda: bool, trust_remote_code: bool = False
) -> TrainingMemory:
    """Return the memory of an update of a model with this configuration. Raises what transformers raises for it."""
    section, launch, lora = settings.training, settings.launch, settings.lora
    stored = section.weights_dtype if lora is None else _base_dtype(lora, on_cuda=on_cuda)
    packed = section.packing == "shared_prefix"
    # Below adapters in 4 bits, the model computes in what embeddings and head are stored in.
    computed = ("bfloat16" if on_cuda else "float32") if stored == "nf4" else stored
    parameters, activations = traced(
        config, dtype=computed, autocast=on_cuda, packed=packed, lora=lora, trust=trust_remote_code
    )
    num_shards = launch.num_processes if launch.sharding == "fsdp" else 1
    frozen = 0.0
    if lora is not None:
        outside = int(BASE_BYTES[computed]) * parameters.vocabulary
        frozen = BASE_BYTES[stored] * (parameters.all - parameters.vocabulary) + outside
    size = 4 if lora else int(BASE_BYTES[stored])  # adapters are float32
    # Activations of layers without checkpointing are kept; a copy of a key is one.
    whole = activations.num_layers - _num_checkpointed(section, activations.num_layers)
    per_key = 0.0 if section.packed_attention == "flex" else activations.per_key
    vocabulary = config.get_text_config().vocab_size
    is_tiled = not on_cuda and not packed
    return TrainingMemory(
        weights=int(frozen + size * parameters.trained) // num_shards,
        gradients=size * parameters.trained // num_shards,
        states=_states(section, parameters, size, on_cuda=on_cuda) // num_shards,
        copies=_copies(parameters, activations, whole, lora=lora, is_sharded=num_shards > 1),
        head=_head(parameters, size, lora=lora, on_cuda=on_cuda, packed=packed, is_sharded=num_shards > 1),
        per_token=activations.per_token * whole + activations.boundary * (activations.num_layers - whole),
        per_token_in_layer=activations.per_token + activations.boundary,
        per_key=per_key * whole,
        per_key_in_layer=per_key,
        per_label=0.0 if on_cuda or is_tiled else float(LOGIT_BYTES * vocabulary),
        per_tile_token=4 * (TILE_VOCABULARY + TILE_COPIES * min(vocabulary, TILE_VOCABULARY)) if is_tiled else 0.0,
        optimizer=_of_a_step(section, parameters, size, on_cuda=on_cuda),
    )


def _copies(
    parameters: Parameters, activations: Activations, whole: int, *, lora: LoraSection | None, is_sharded: bool
) -> int:
    if is_sharded:
        # The layer that is computed and the next one in 16 bits, and one layer's gradient before it is reduced. The
        # head is gathered in the forward pass and stays.
        return (2 * 2 + 4) * parameters.largest_layer + 2 * parameters.head
    # Autocast keeps its copies of trained weights until the forward pass ends. Copies of frozen ones are saved like
    # activations, so not with checkpointing.
    return activations.fixed * (activations.num_layers if lora is None else max(1, whole))


def _head(
    parameters: Parameters, size: int, *, lora: LoraSection | None, on_cuda: bool, packed: bool, is_sharded: bool
) -> int:
    """Return what TRL's fused head takes in its backward pass: a tile, and the gradient of its weights in float32.

    That gradient is cast to 16 bits for weights of 16 bits; a sharded one is then reduced in float32.
    """
    if not on_cuda and packed:
        return 0  # plain logits
    trained = 0 if lora else parameters.head
    per_weight = 10 if is_sharded else 6 if size == 2 else 4
    return per_weight * trained + (4 * TILE_TOKENS * TILE_VOCABULARY if on_cuda else 0)


def _of_a_step(section: TrainingSection, parameters: Parameters, size: int, *, on_cuda: bool) -> int:
    """Return the most that the optimizer's step takes for one tensor."""
    if on_cuda and section.optimizer != "adafactor":
        return 0
    rounding = "float32" if size == 4 else "random" if section.stochastic_rounding else "nearest"
    of_embeddings, of_others = STEP_BYTES.get((section.optimizer, rounding), (0, 0))
    embeddings = parameters.embeddings if parameters.trained == parameters.all else 0
    return max(of_embeddings * embeddings, of_others * parameters.largest_trained)


def traced_memory(folder: Path, settings: Settings, *, on_cuda: bool) -> TrainingMemory | None:
    """Return the memory of an update of the model in `folder`, of which only config.json is read, or None for a model
    that cannot be traced."""
    trust = settings.trust_remote_code
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust)
    except UNTRACEABLE:
        return None
    return countable_memory(config, settings, on_cuda=on_cuda)


def countable_memory(config: PretrainedConfig, settings: Settings, *, on_cuda: bool) -> TrainingMemory | None:
    """Return the memory of an update of a model with this configuration, or None for one that cannot be traced."""
    try:
        return training_memory(config, settings, on_cuda=on_cuda, trust_remote_code=settings.trust_remote_code)
    except UNTRACEABLE:
        return None


def _num_checkpointed(section: TrainingSection, num_layers: int) -> int:
    asked = section.gradient_checkpointing
    return num_layers * asked if isinstance(asked, bool) else min(num_layers, asked)


def _base_dtype(lora: LoraSection, *, on_cuda: bool) -> str:
    """Return how the frozen weights are stored; `auto` as on a GPU that computes in bfloat16, which a plan may name."""
    auto = "bfloat16" if on_cuda else "float32"
    return auto if lora.base_dtype == "auto" else lora.base_dtype


def _states(section: TrainingSection, parameters: Parameters, size: int, *, on_cuda: bool) -> int:
    """Return the bytes of the optimizer's state, for trained weights of `size` bytes."""
    if on_cuda and section.optimizer == "adamw_offload":
        return 0
    each = STATE_BYTES[section.optimizer]
    if size == 2 and section.optimizer == "adamw":  # first moments in bfloat16; second ones too without random rounding
        each = 6.0 if section.stochastic_rounding else 4.0
    states = each * parameters.trained
    if section.optimizer == "adamw_8bit" and parameters.trained == parameters.all:
        states += (8 - each) * parameters.embeddings  # their moments stay in 32 bits
    return int(states)
