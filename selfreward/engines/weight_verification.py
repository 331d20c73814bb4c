"""Verification that an engine has the weights of a checkpoint: samples of tensors, a canary, and checksums of all.

The engine hashes a few rows of its matrices and all of its norms and biases. The same rows are read from the
checkpoint's safetensors files, cast to the engine's dtype, and hashed here; the hashes must be equal. This detects a
weight sync that did not happen, even if the update is too small to change any log-probability. The canary is the
log-probability of a fixed text: it detects weights that are right in memory but wrong in use. Checksums of every
parameter and buffer must be what they were when this checkpoint was loaded before, and those of buffers that no
checkpoint contains, such as tables of positions, must never change: this finds what a wake or a sync has spoiled
outside of the samples.

A weight sync that silently does nothing is the worst fault of an iterated loop: one trainer's weights did not reach its
engine for ten months, while training continued.
"""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfreward.engines.weight_samples import TensorSample, expected_values, hash_of
from selfreward.errors import EngineError
from selfreward.records import Checkpoint
from selfreward.store.model_folder import require_unchanged

State = Mapping[str, Mapping[str, str]]
"""Checksums of a rank's `parameters` and `buffers`, by name."""
CANARY_TEXT = (
    "The river rose slowly after the rain. By the morning it had covered the lower road, and the people of the village "
    "carried what they could to the hill: 12 blankets, 3 lamps and one small radio."
)


class WeightVerifier:
    """Compares an engine with checkpoints, storing the last one's sampled values. Tolerances are in nats."""

    def __init__(self, *, dtype: str) -> None:
        # Mean absolute difference of a token's log-probability, engine in its dtype and float32 trainer.
        self.trainer_tolerance = 0.02 if dtype == "float32" else 0.25
        # The same difference for the same weights in the same engine.
        self.repeat_tolerance = 0.005
        self._values: dict[str, Any] = {}
        self._canaries: dict[str, tuple[float, ...]] = {}
        self._states: dict[str, Sequence[State]] = {}
        self._buffers: Sequence[Mapping[str, str]] | None = None

    def require_readable(self, checkpoint: Checkpoint) -> None:
        """Raise an error when files of the model were changed, or EngineError when a weights file is missing or
        truncated, before the engine's weights are changed."""
        require_unchanged(checkpoint)
        _index(checkpoint.path)

    def tensors(self, samples: Sequence[TensorSample], checkpoint: Checkpoint) -> dict[str, Any]:
        """Return facts of the comparison; raises EngineError when a tensor differs or none can be compared."""
        index = _index(checkpoint.path)
        differing, values_by_name = [], {}
        with _OpenFiles() as files:
            for sample in samples:
                values = _values_of(sample, index, files)
                if values is None:
                    continue
                values_by_name[sample.where] = values
                if hash_of(values) != sample.sha256:
                    differing.append(sample.where)
        if differing:
            raise EngineError(
                f"engine weights: after loading checkpoint {checkpoint.id} ({checkpoint.path}) {len(differing)} of "
                f"{len(values_by_name)} sampled tensors differ from the checkpoint's, for example "
                f"{', '.join(differing[:3])}; all must be equal after the cast; the weight sync did not happen or "
                "failed: run the same command again, and report it if it repeats"
            )
        if not any(values.dim() == 2 for values in values_by_name.values()):
            raise EngineError(
                f"engine weights: no matrix of checkpoint {checkpoint.path} has a counterpart of the same name in the "
                "engine; at least one is needed to verify a weight sync; use engine.kind: transformers for this model"
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
        """Return the share of sampled values changed since the previous checkpoint, in the engine's dtype, or None."""
        if self._values.keys() != values_by_name.keys():
            return None
        pairs = [(self._values[name], values) for name, values in values_by_name.items()]
        num_changed = sum(int((before != after).sum()) for before, after in pairs)
        num_values = sum(int(after.numel()) for _, after in pairs)
        return num_changed / num_values

    def state(self, states: Sequence[State], checkpoint: Checkpoint) -> dict[str, Any]:
        """Return facts of the checksums of all ranks; raises EngineError for a tensor that is not as it was."""
        before = self._states.get(checkpoint.id)
        if before is not None:
            found = [(state["parameters"] | state["buffers"]) for state in states]  # type: ignore[operator]
            known = [(state["parameters"] | state["buffers"]) for state in before]  # type: ignore[operator]
            _require_same(known, found, f"since checkpoint {checkpoint.id} was loaded before")
        loaded = _index(checkpoint.path).keys()
        buffers = [{name: sum_ for name, sum_ in state["buffers"].items() if name not in loaded} for state in states]
        _require_same(self._buffers or buffers, buffers, f"by loading checkpoint {checkpoint.id}")
        self._states[checkpoint.id] = states
        self._buffers = buffers
        return {
            "num_tensors_checksummed": sum(len(group) for state in states for group in state.values()),
            "checksums_against": None if before is None else "the same checkpoint, loaded before",
        }

    def canary(self, checkpoint: Checkpoint, *, default_ids: Sequence[int]) -> "Canary":
        """Return the text to score, and its expected log-probabilities if they are known."""
        file = checkpoint.path / "canary.json"
        if file.is_file():
            return _trainers_canary(file, tolerance=self.trainer_tolerance)
        seen = self._canaries.get(checkpoint.id)
        return Canary(tuple(default_ids), seen, "the engine's own first pass over it", self.repeat_tolerance)

    def check_canary(self, canary: "Canary", logprobs: Sequence[float], checkpoint: Checkpoint) -> dict[str, Any]:
        """Return facts of the comparison; raises EngineError."""
        if not all(math.isfinite(logprob) for logprob in logprobs):
            raise EngineError(
                f"engine canary: checkpoint {checkpoint.id} ({checkpoint.path}) gives a fixed text a log-probability "
                "that is not finite; it must be finite; the weights have overflowed: lower the learning rate or use a "
                "wider dtype"
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
                f"text differs from {canary.against} by {difference:.3f} nats per token; {canary.tolerance} is "
                "allowed; the engine does not compute with these weights: run the same command again, and report it "
                "if it repeats"
            )
        return facts | {"canary_against": canary.against, "canary_difference_nats": difference}


def _require_same(before: Sequence[Mapping[str, str]], now: Sequence[Mapping[str, str]], when: str) -> None:
    """Raise EngineError for tensors of a rank that are not as they were."""
    changed = [
        f"{name} of rank {rank}" if rank else name
        for rank, (old, new) in enumerate(zip(before, now, strict=True))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if changed:
        raise EngineError(
            f"engine weights: {len(changed)} tensors in the engine changed {when}: {', '.join(changed[:3])}; all bytes "
            "must be the same; a wake or a weight sync spoiled them: run the same command again, and report it if it "
            "repeats"
        )


@dataclass(frozen=True)
class Canary:
    """`logprobs` are those of `token_ids[1:]`, conditioned on all tokens before each; None when not known yet."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    against: str
    tolerance: float


def _trainers_canary(file: Path, *, tolerance: float) -> Canary:
    """Reads `{"token_ids": [...], "token_logprobs": [...]}`; the first token's log-probability is optional."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        token_ids = tuple(int(token) for token in content["token_ids"])
        logprobs = tuple(content["token_logprobs"])[-(len(token_ids) - 1) :]
        logprobs = tuple(float(logprob) for logprob in logprobs)
        if len(token_ids) < 2 or len(logprobs) != len(token_ids) - 1:
            raise ValueError(f"{len(token_ids)} token ids and {len(content['token_logprobs'])} log-probabilities")
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"canary file {file}: it cannot be read ({error}); it needs token_ids and one log-probability for each "
            "token after the first; delete the file, or make the checkpoint again"
        ) from error
    return Canary(token_ids, logprobs, "the trainer's", tolerance)


def _index(folder: Path) -> dict[str, Path]:
    """Map each tensor name to its file."""
    from safetensors import SafetensorError, safe_open

    index: dict[str, Path] = {}
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise EngineError(
            f"checkpoint {folder}: it has no .safetensors file; the engine reads weights from safetensors files; "
            "run the same command to make the checkpoint again"
        )
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                index.update(dict.fromkeys(tensors.keys(), file))
        except SafetensorError as error:
            raise EngineError(
                f"checkpoint file {file}: it cannot be read ({error}); it must be a complete safetensors file; "
                "delete the checkpoint and run the same command to make it again"
            ) from error
    return index


def _values_of(sample: TensorSample, index: Mapping[str, Path], files: "_OpenFiles") -> Any:
    """Return the expected values, or None when the checkpoint has no tensors of these names and shapes."""
    for source in sample.sources:
        if all(part.name in index for part in source):
            return expected_values(sample, source, lambda name: files.of(index[name]).get_slice(name))
    return None


class _OpenFiles(ExitStack):
    """The weight files of a checkpoint, each opened once; tensors are read from them in part."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[Path, Any] = {}

    def of(self, path: Path) -> Any:
        from safetensors import safe_open

        if path not in self._open:
            self._open[path] = self.enter_context(safe_open(path, framework="pt"))
        return self._open[path]
