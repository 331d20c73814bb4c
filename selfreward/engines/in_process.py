"""What the engines of this process share: tokens, the proof of the loaded weights, and what is told of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from selfreward.engines.proof import CANARY_TEXT, SwapProof, TensorSample
from selfreward.engines.requests import Usage
from selfreward.model_files.tokenizer import ChatTokenizer
from selfreward.recipe import EngineSection
from selfreward.records import Checkpoint, Message
from selfreward.requests import ScoreRequest


class InProcessEngine(ABC):
    """An engine but for its model: how weights are loaded and text is drawn is the subclass's.

    `first` gives tokenizer and configuration, and the weights unless another checkpoint is loaded first.
    """

    name: ClassVar[str]
    determinism: ClassVar[str]
    enforces_schema: ClassVar[bool]

    def __init__(self, section: EngineSection, *, first: Checkpoint, trust_remote_code: bool = False) -> None:
        self._section = section
        self._first = first
        self._trust_remote_code = trust_remote_code
        self._chat = ChatTokenizer(first.path, trust_remote_code=trust_remote_code)
        self._proof = SwapProof(dtype=section.dtype)
        self._usage = Usage()
        self._loaded: Checkpoint | None = None
        self._asleep = False
        self._context_tokens: int | None = None
        self._last_swap: dict[str, Any] = {}

    @property
    def context_tokens(self) -> int:
        if self._context_tokens is None:
            self._context_tokens = self._chat.context_tokens(self._section.context_tokens)
        return self._context_tokens

    @property
    def control_tokens(self) -> tuple[str, ...]:
        return self._chat.control_tokens

    def encode(self, messages: Sequence[Message], *, thinking: bool = True) -> tuple[int, ...]:
        return self._chat.encode(messages, thinking=thinking)

    def encode_text(self, text: str) -> tuple[int, ...]:
        return self._chat.encode_text(text)

    def usage(self) -> Mapping[str, float]:
        return self._usage.snapshot()

    @abstractmethod
    def _score(self, requests: Sequence[ScoreRequest], *, progress: bool) -> list[tuple[float, ...]]:
        """What `score` gives, on a model that is loaded and awake, with nothing checked or counted."""

    def _prove(self, samples: Sequence[TensorSample], checkpoint: Checkpoint) -> None:
        """Holds `samples` of the weights in use against the checkpoint. Sets `_loaded`, or raises EngineError."""
        tensors = self._proof.tensors(samples, checkpoint)
        canary = self._proof.canary(checkpoint, default_ids=self.encode_text(CANARY_TEXT))
        (logprobs,) = self._score([ScoreRequest(canary.token_ids[:1], canary.token_ids[1:])], progress=False)
        self._last_swap = {
            "checkpoint_id": checkpoint.id,
            **tensors,
            **self._proof.check_canary(canary, logprobs, checkpoint),
        }
        self._loaded = checkpoint

    def _swapped(self, *, reload_s: float, weight_sync_s: float) -> None:
        """`weight_sync_s` holds the reading of the weights, `reload_s`, and their proof."""
        self._last_swap |= {"reload_s": reload_s, "weight_sync_s": weight_sync_s}
        self._usage.swapped(weight_sync_s)

    def facts(self) -> Mapping[str, Any]:
        import torch
        import transformers

        return {
            "engine": self.name,
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "dtype": self._section.dtype,
            "context_tokens": self.context_tokens,
            "seeded": self._section.seeded,
            "determinism": self.determinism if self._section.seeded else "none: engine.seeded is false",
            "last_swap": dict(self._last_swap),
        }
