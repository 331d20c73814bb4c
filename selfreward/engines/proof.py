"""Proof that an engine holds the weights of a checkpoint: hashes of sampled tensors, and a canary.

The engine hashes a few columns of its own matrices and all of its norms. The same columns are read from the
checkpoint's safetensors, cast to the engine's dtype, and hashed here. The two must be equal, bit by bit. This finds a
swap that did not happen, also where the update is too small to show in any log-probability. The canary is the
log-probability of a fixed text: it finds weights that are right in memory and wrong in use.

A swap that silently does nothing is the worst fault of an iterated loop: one trainer's weights did not reach its
engine for ten months, and training went on.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfreward.errors import EngineError
from selfreward.records import Checkpoint

MAX_TENSORS = 192
NUM_COLUMNS = 16
CANARY_TEXT = (
    "The river rose slowly after the rain. By the morning it had covered the lower road, and the people of the village "
    "carried what they could to the hill: 12 blankets, 3 lamps and one small radio."
)


@dataclass(frozen=True)
class TensorSample:
    """One tensor of the engine. `sources` are the ways in which a checkpoint may name it, each a list of tensors
    that are stacked by rows; `columns` is None for a vector; `num_rows` leaves padding rows out."""

    name: str
    sources: tuple[tuple[str, ...], ...]
    columns: tuple[int, ...] | None
    num_rows: int
    dtype: str
    sha256: str


def sampled_columns(width: int) -> tuple[int, ...]:
    """Up to NUM_COLUMNS columns, evenly spread, the first and the last among them."""
    count = min(width, NUM_COLUMNS)
    return tuple(sorted({round(i * (width - 1) / max(count - 1, 1)) for i in range(count)}))


def chosen_names(names: Sequence[str]) -> list[str]:
    """All names, or MAX_TENSORS of a large model's, spread over kinds and layers; first and last tensors always."""
    if len(names) <= MAX_TENSORS:
        return list(names)
    ranked = sorted(names[2:-8], key=lambda name: hashlib.sha256(name.encode()).digest())
    kept = {*names[:2], *names[-8:], *ranked[: MAX_TENSORS - 10]}
    return [name for name in names if name in kept]


def hash_of(values: Any) -> str:
    """SHA-256 of a tensor's bytes. Zeros lose their sign and subnormals become zero: a matrix kernel that is asked
    for its weights by one-hot inputs cannot show either."""
    import torch

    values = values.detach().to("cpu")
    values = torch.where(values.abs() < torch.finfo(values.dtype).tiny, torch.zeros_like(values), values)
    return hashlib.sha256(values.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


class SwapProof:
    """Compares an engine with checkpoints, and remembers what it saw of the last one. Tolerances are in nats."""

    def __init__(self, *, dtype: str) -> None:
        # Mean absolute difference of a token's log-probability, engine in its dtype against a float32 trainer.
        self.trainer_tolerance = 0.02 if dtype == "float32" else 0.25
        # The same weights in the same engine again.
        self.repeat_tolerance = 0.005
        self._values: dict[str, Any] = {}
        self._canaries: dict[str, tuple[float, ...]] = {}

    def require_readable(self, checkpoint: Checkpoint) -> None:
        """Raises EngineError when a weights file is missing or cut off: before the engine's own weights are touched."""
        _index(checkpoint.path)

    def tensors(self, samples: Sequence[TensorSample], checkpoint: Checkpoint) -> dict[str, Any]:
        """Facts of the comparison; raises EngineError when a tensor differs or nothing can be compared."""
        index = _index(checkpoint.path)
        differing, values_by_name = [], {}
        for sample in samples:
            values = _values_of(sample, index)
            if values is None:
                continue
            values_by_name[sample.name] = values
            if hash_of(values) != sample.sha256:
                differing.append(sample.name)
        if differing:
            raise EngineError(
                f"engine weights: after loading checkpoint {checkpoint.id} ({checkpoint.path}) {len(differing)} of "
                f"{len(values_by_name)} sampled tensors are not those of the checkpoint, for example "
                f"{', '.join(differing[:3])}; all must be equal after the cast; the swap did not happen or went "
                "wrong: run the same command again, and report it if it repeats"
            )
        if not any(values.dim() == 2 for values in values_by_name.values()):
            raise EngineError(
                f"engine weights: none of the matrices of checkpoint {checkpoint.path} has a counterpart in the engine "
                "by name; at least one must, or no swap can be proved; use engine.kind: transformers for this model"
            )
        facts = {
            "num_tensors_compared": len(values_by_name),
            "num_values_compared": sum(values.numel() for values in values_by_name.values()),
            "num_tensors_not_comparable": len(samples) - len(values_by_name),
            "changed_rate": self._changed_rate(values_by_name),
        }
        self._values = values_by_name
        return facts

    def _changed_rate(self, values_by_name: Mapping[str, Any]) -> float | None:
        """Share of sampled values that differ from the checkpoint before, in the engine's dtype; None at first."""
        if self._values.keys() != values_by_name.keys():
            return None
        pairs = [(self._values[name], values) for name, values in values_by_name.items()]
        num_changed = sum(int((before != after).sum()) for before, after in pairs)
        num_values = sum(int(after.numel()) for _, after in pairs)
        return num_changed / num_values

    def canary(self, checkpoint: Checkpoint, *, default_ids: Sequence[int]) -> "Canary":
        """The text to score now, and what its log-probabilities must be, if that is known."""
        file = checkpoint.path / "canary.json"
        if file.is_file():
            return _trainers_canary(file, tolerance=self.trainer_tolerance)
        seen = self._canaries.get(checkpoint.id)
        return Canary(tuple(default_ids), seen, "the engine's own first pass over it", self.repeat_tolerance)

    def check_canary(self, canary: "Canary", logprobs: Sequence[float], checkpoint: Checkpoint) -> dict[str, Any]:
        """Facts of the comparison; raises EngineError."""
        if not all(math.isfinite(logprob) for logprob in logprobs):
            raise EngineError(
                f"engine canary: checkpoint {checkpoint.id} ({checkpoint.path}) gives a fixed text a log-probability "
                "that is not finite; finite numbers are needed; its weights have overflowed: lower the learning rate "
                "or use a wider dtype"
            )
        facts: dict[str, Any] = {"canary_logprob": sum(logprobs), "canary_against": None}
        if canary.logprobs is None:
            self._canaries[checkpoint.id] = tuple(logprobs)
            return facts
        pairs = zip(logprobs, canary.logprobs, strict=True)
        difference = sum(abs(found - expected) for found, expected in pairs) / len(logprobs)
        if difference > canary.tolerance:
            raise EngineError(
                f"engine canary: with checkpoint {checkpoint.id} ({checkpoint.path}) the log-probability of a fixed "
                f"text differs from {canary.against} by {difference:.3f} nats a token; {canary.tolerance} is allowed; "
                "the engine does not compute with these weights: run the same command again, and report it if it "
                "repeats"
            )
        return facts | {"canary_against": canary.against, "canary_difference_nats": difference}


@dataclass(frozen=True)
class Canary:
    """`logprobs` are those of `token_ids[1:]`, each given all tokens before it; None when there is nothing to match."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    against: str
    tolerance: float


def _trainers_canary(file: Path, *, tolerance: float) -> Canary:
    """Reads `{"token_ids": [...], "token_logprobs": [...]}`; the first token's log-probability may be there or not."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        token_ids = tuple(int(token) for token in content["token_ids"])
        logprobs = tuple(content["token_logprobs"])[-(len(token_ids) - 1) :]
        logprobs = tuple(float(logprob) for logprob in logprobs)
        if len(token_ids) < 2 or len(logprobs) != len(token_ids) - 1:
            raise ValueError(f"{len(token_ids)} token ids and {len(content['token_logprobs'])} log-probabilities")
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"canary file {file}: it cannot be read ({error}); token_ids and one log-probability for each but the "
            "first are needed; delete the file, or make the checkpoint again"
        ) from error
    return Canary(token_ids, logprobs, "the trainer's", tolerance)


def _index(folder: Path) -> dict[str, Path]:
    """Tensor name to the file that holds it."""
    from safetensors import SafetensorError, safe_open

    index: dict[str, Path] = {}
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise EngineError(
            f"checkpoint {folder}: it has no .safetensors file; the engine reads its weights from one; "
            "run the same command to make the checkpoint again"
        )
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                index.update(dict.fromkeys(tensors.keys(), file))
        except SafetensorError as error:
            raise EngineError(
                f"checkpoint file {file}: it cannot be read ({error}); a whole safetensors file is needed; "
                "delete the checkpoint and run the same command to make it again"
            ) from error
    return index


def _values_of(sample: TensorSample, index: Mapping[str, Path]) -> Any:
    """What the engine should hold, or None when the checkpoint has no such tensor by name and shape."""
    import torch

    names = next((names for names in sample.sources if all(name in index for name in names)), None)
    if names is None:
        return None
    stacked = torch.cat([_part(index[name], name, sample.columns) for name in names])
    if stacked.shape[0] != sample.num_rows:
        return None
    return stacked.to(getattr(torch, sample.dtype))


def _part(file: Path, name: str, columns: tuple[int, ...] | None) -> Any:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        tensor = tensors.get_tensor(name)
    return tensor if columns is None else tensor[:, list(columns)]
