"""Models packed against padded, in the precision of the training: log-probabilities and gradients."""

from contextlib import nullcontext
from typing import Any

import torch
from attention import relative
from models import TINY, config_of, random_model, random_pairs
from step import Step, main

from selfreward.errors import SelfRewardError
from selfreward.updates.packing import attention, forward, support
from selfreward.updates.packing.layout import PairTokens, lay_out_pairs
from selfreward.updates.packing.padded_batch import padded_batch

WINDOW = {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 0}
MODELS = {
    "llama": ("llama", TINY),
    "qwen2 with biases": ("qwen2", TINY),
    "qwen2 with windows": ("qwen2", TINY | WINDOW),
}
EXACT = 1e-4


def run(step: Step) -> None:
    pairs = random_pairs(3, 100, vocabulary=512) + random_pairs(3, 80 if step.quick else 1500, vocabulary=512, seed=1)
    for kernel in attention.KERNELS:
        try:
            attention.kernel_for(kernel, device=torch.device(step.device), is_16_bit=step.on_cuda, head_sizes={64})
        except SelfRewardError as error:
            step.figure(kernel, f"not here: {str(error).partition(';')[0]}")
            continue
        for name in MODELS:
            with step.attempt(f"{kernel}, {name}"):
                compare(step, kernel, name, pairs)


def compare(step: Step, kernel: str, name: str, pairs: tuple[PairTokens, ...]) -> None:
    """Check log-probabilities as before a training, and gradients against those of the padded batch in float32."""
    kind, size = MODELS[name]
    model = random_model(config_of(kind, size), device=step.device)
    plain = _gradients(model, pairs, packed=False, autocast=False)
    rounded = _gradients(model, pairs, packed=False, autocast=step.on_cuda)
    model.set_attn_implementation(attention.implementation(kernel))
    forward.install(model)
    device = torch.device(step.device)
    dtype = torch.bfloat16 if step.on_cuda else torch.float32
    with _precision(step.on_cuda, step.device):
        largest = support.verify(model, pairs, device=device, dtype=dtype)
    step.at_most(f"{kernel}, {name}: log-probability, nats", largest, support.TOLERANCE[dtype][0])
    packed = _gradients(model, pairs, packed=True, autocast=step.on_cuda)
    # Packed may round differently from padded, and not more.
    limit = max(EXACT, 2 * relative(rounded, plain))
    step.at_most(f"{kernel}, {name}: gradient, relative", relative(packed, plain), limit)


def _gradients(model: Any, pairs: tuple[PairTokens, ...], *, packed: bool, autocast: bool) -> torch.Tensor:
    """Return the gradient of a weighted sum of all log-probabilities, as one vector."""
    if not hasattr(model, "has_head"):
        forward.add_fused_lm_head(model)
        model.has_head = True
    device = model.device
    inputs: dict[str, Any] = {key: values.to(device) for key, values in padded_batch(pairs).items()}
    if packed:
        inputs["layout"] = lay_out_pairs(pairs)
    model.zero_grad()
    with _precision(autocast, device.type):
        logps_BT = forward.label_logps(model, inputs)
    signs_B1 = torch.tensor([1.0] * len(pairs) + [-1.0] * len(pairs), device=device)[:, None]
    (logps_BT * signs_B1).sum().backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


def _precision(autocast: bool, device: str) -> Any:
    return torch.autocast(device, dtype=torch.bfloat16) if autocast else nullcontext()


if __name__ == "__main__":
    main(run)
