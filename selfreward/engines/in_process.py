"""The common part of the engines in this process: tokenisation, verification of loaded weights, usage and facts."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from selfreward.batch_sizes import max_num_seqs
from selfreward.devices import visible_gpus
from selfreward.dtypes import engine_dtype
from selfreward.engines.blocks import Block
from selfreward.engines.requests import Usage
from selfreward.engines.stopping import Stopping
from selfreward.engines.weight_samples import TensorSample
from selfreward.engines.weight_verification import CANARY_TEXT, State, WeightVerifier
from selfreward.model_files.engine_copy import weights_folder
from selfreward.model_files.tokenizer import ChatTokenizer
from selfreward.recipe import EngineSection
from selfreward.records import Checkpoint, Message
from selfreward.requests import GenerationRequest, Sample, ScoreRequest


class InProcessEngine(ABC):
    """An engine without its model: subclasses load weights and generate text.

    `first` gives tokenizer and configuration, and the weights unless another checkpoint is loaded first. `chat` is the
    tokenizer with the recipe's variables of the chat template.
    """

    name: ClassVar[str]
    enforces_schema: ClassVar[bool]

    def __init__(
        self,
        section: EngineSection,
        *,
        first: Checkpoint,
        trust_remote_code: bool = False,
        chat: ChatTokenizer | None = None,
    ) -> None:
        dtype, gpu = engine_dtype(section).name, next(iter(visible_gpus()), None)
        self._section = section.model_copy(update={"dtype": dtype})
        self._max_num_seqs = max_num_seqs(section, gpu.memory_bytes if gpu else None)
        self._first = first
        self._trust_remote_code = trust_remote_code
        self._chat = chat or ChatTokenizer(first.path, trust_remote_code=trust_remote_code)
        self._verifier = WeightVerifier(dtype=dtype)
        self._stoppings: dict[tuple[str, ...], Stopping] = {}
        self._usage = Usage()
        self._loaded: Checkpoint | None = None
        self._asleep = False
        self._context_tokens: int | None = None
        self._last_sync: dict[str, Any] = {}

    @property
    def first(self) -> Checkpoint:
        """The checkpoint of tokenizer and configuration, and of the weights unless another is loaded first."""
        return self._first

    @property
    @abstractmethod
    def determinism(self) -> str:
        """What is promised of repeated calls."""

    @property
    def context_tokens(self) -> int:
        if self._context_tokens is None:
            _ = self._chat.end_token_ids  # so that a model without any is refused before a run
            self._context_tokens = self._chat.context_tokens(self._section.context_tokens)
        return self._context_tokens

    @property
    def control_tokens(self) -> tuple[str, ...]:
        return self._chat.control_tokens

    def encode(self, messages: Sequence[Message], *, thinking: bool = True) -> tuple[int, ...]:
        return self._chat.encode(messages, thinking=thinking)

    def encode_text(self, text: str) -> tuple[int, ...]:
        return self._chat.encode_text(text)

    def _stopping(self, request: GenerationRequest) -> Stopping:
        if request.stop not in self._stoppings:
            self._stoppings[request.stop] = Stopping.of(self._chat, request.stop)
        return self._stoppings[request.stop]

    def _weights_folder(self, checkpoint: Checkpoint) -> Path:
        """Return the folder to read the weights from: the checkpoint's copy in the engine's dtype, if it has one."""
        return weights_folder(checkpoint, dtype=self._section.dtype)

    def usage(self) -> Mapping[str, float]:
        return self._usage.snapshot()

    def require_readable(self, checkpoint: Checkpoint) -> None:
        """Raise an error for a checkpoint that cannot be loaded, before weights are changed."""
        self._verifier.require_readable(checkpoint)

    @abstractmethod
    def load(self, checkpoint: Checkpoint) -> None: ...

    @abstractmethod
    def sleep(self) -> None: ...

    @abstractmethod
    def wake(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def generate(self, requests: Sequence[GenerationRequest]) -> list[list[Sample]]: ...

    @abstractmethod
    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]: ...

    @abstractmethod
    def generation_blocks(self, requests: Sequence[GenerationRequest]) -> list[Block[GenerationRequest]]:
        """Return the blocks in which a call of `generate` is computed. The engine need not have started."""

    @abstractmethod
    def score_blocks(self, requests: Sequence[ScoreRequest]) -> list[Block[ScoreRequest]]:
        """Return the blocks of a call of `score`, without the requests that have nothing to score."""

    @abstractmethod
    def _score(self, requests: Sequence[ScoreRequest], *, progress: bool) -> list[tuple[float, ...]]:
        """Return the results of `score` on a loaded, awake model, without checks and counters."""

    @abstractmethod
    def _samples_of_weights(self) -> list[TensorSample]:
        """Return samples of the weights in use, of all ranks."""

    @abstractmethod
    def _state_of_weights(self) -> list[State]:
        """Return the checksums of each rank."""

    def _verify(self, checkpoint: Checkpoint) -> None:
        """Compare the weights in use with the checkpoint. Sets `_loaded`, or raises EngineError."""
        samples = self._samples_of_weights()
        tensors = self._verifier.tensors(samples, checkpoint)
        canary = self._verifier.canary(checkpoint, default_ids=self.encode_text(CANARY_TEXT))
        (logprobs,) = self._score([ScoreRequest(canary.token_ids[:1], canary.token_ids[1:])], progress=False)
        self._last_sync = {
            "checkpoint_id": checkpoint.id,
            **tensors,
            **self._verifier.check_canary(canary, logprobs, checkpoint),
            # After the canary: a layer may cast its buffers in the first forward pass.
            **self._verifier.state(self._state_of_weights(), checkpoint),
        }
        self._loaded = checkpoint

    def _synced(self, *, reload_s: float, weight_sync_s: float) -> None:
        """Record a weight sync; `weight_sync_s` includes reading the weights, `reload_s`, and their verification."""
        self._last_sync |= {"reload_s": reload_s, "weight_sync_s": weight_sync_s}
        self._usage.synced(weight_sync_s)

    def facts(self) -> Mapping[str, Any]:
        import torch
        import transformers

        return {
            "engine": self.name,
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "dtype": self._section.dtype,
            "context_tokens": self.context_tokens,
            "max_num_seqs": self._max_num_seqs,
            "seeded": self._section.seeded,
            "determinism": self.determinism if self._section.seeded else "none: engine.seeded is false",
            "last_weight_sync": dict(self._last_sync),
        }
