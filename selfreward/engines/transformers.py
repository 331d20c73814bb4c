"""The transformers engine: runs anywhere, batched by length. On the CPU the same call gives the same bytes."""

import gc
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from selfreward.engines.blocks import Block
from selfreward.engines.in_process import InProcessEngine
from selfreward.engines.requests import check_generation, check_scores
from selfreward.engines.weight_samples import TensorSample, chosen_names, sample_of, whole
from selfreward.engines.weight_verification import State
from selfreward.errors import EngineError, RecipeError, SelfRewardError
from selfreward.model_files.quiet import quiet_transformers
from selfreward.model_files.reading import reading_model
from selfreward.records import Checkpoint
from selfreward.requests import GenerationRequest, Sample, ScoreRequest

if TYPE_CHECKING:
    from selfreward.engines.decoding import Row

T = TypeVar("T")

_FAILURES = (RuntimeError, ValueError, OSError, MemoryError)


class TransformersEngine(InProcessEngine):
    """A `parts.Engine` on transformers."""

    name = "transformers"
    enforces_schema = False
    determinism = (
        "transformers, batches formed from the call alone: on the CPU the same call on the same machine gives the same "
        "bytes; on a GPU equal but for the rounding of its kernels"
    )

    _model: Any = None

    # Weights.

    def load(self, checkpoint: Checkpoint) -> None:
        self.wake()
        if self._loaded is not None and self._loaded.id == checkpoint.id:
            return
        started, starts = time.monotonic(), self._model is None
        self._verifier.require_readable(checkpoint)
        self._loaded = None
        with self._engine_errors("loading of weights"):
            if starts:
                self._model = self._read(checkpoint).to(_device()).eval()
            else:
                self._reload(checkpoint)
        reload_s = time.monotonic() - started
        self._verify(checkpoint)
        if not starts:
            self._synced(reload_s=reload_s, weight_sync_s=time.monotonic() - started)

    def _read(self, checkpoint: Checkpoint) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        # A progress bar at every weight sync would not inform a user.
        kind = EngineError if checkpoint.iteration else RecipeError  # of the run, or of the user
        with quiet_transformers(on_a_terminal_too=True), reading_model(f"model {checkpoint.path}", kind=kind):
            return AutoModelForCausalLM.from_pretrained(
                self._weights_folder(checkpoint),
                dtype=getattr(torch, self._section.dtype),
                trust_remote_code=self._trust_remote_code,
                use_safetensors=True,
            )

    def _reload(self, checkpoint: Checkpoint) -> None:
        self._model.load_state_dict(self._read(checkpoint).state_dict())

    def _samples_of_weights(self) -> list[TensorSample]:
        # Experts, which transformers stacks in memory and not on disk, have three dimensions.
        tensors = {name: tensor for name, tensor in self._model.named_parameters() if tensor.dim() in (1, 2)}
        return [
            sample_of(name, tensors[name].detach(), sources=[[whole(name, tensors[name].shape[0])]])
            for name in chosen_names(list(tensors))
        ]

    def _state_of_weights(self) -> list[State]:
        from selfreward.engines.checksums import state_of

        return [state_of(self._model)]

    def sleep(self) -> None:
        """Move the weights to host memory. No-op on the CPU."""
        if self._model is None or self._asleep or _device() == "cpu":
            return
        import torch

        self._model.to("cpu")
        self._asleep = True
        torch.cuda.empty_cache()

    def wake(self) -> None:
        if self._asleep:
            with self._engine_errors("waking"):
                self._model.to(_device())
            self._asleep = False

    def close(self) -> None:
        self._model = self._loaded = None
        self._asleep = False
        gc.collect()

    def _ready(self) -> Any:
        """Return the model, awake and with a verified checkpoint."""
        if self._model is None:
            self.load(self._first)
        self.wake()
        if self._loaded is None:
            raise EngineError(
                "transformers engine: the last weight sync failed; a verified checkpoint is needed; "
                "run the same command to resume from the last finished shard"
            )
        return self._model

    # Work.

    def generate(self, requests: Sequence[GenerationRequest]) -> list[list[Sample]]:
        check_generation(requests, context_tokens=self.context_tokens)
        if not requests:
            return []
        if any(request.json_schema for request in requests):
            raise RecipeError(
                "engine.kind: transformers cannot enforce a JSON schema; vllm and endpoints can; set "
                "engine.kind to vllm, or `structured: false`"
            )
        from selfreward.engines.decoding import draw_batch, generation_rows

        model = self._ready()
        samples: list[list[Sample]] = [[] for _ in requests]
        rows = generation_rows(requests)
        section = self._section
        cut = self._generation_batches(rows)
        by_row: dict[tuple[int, int], Sample] = {}
        with self._engine_errors("generation"):
            for batch in _with_progress(cut, "generate"):
                draws = draw_batch(model, batch, has_ended=self._has_ended, seeded=section.seeded)
                for row, draw in zip(batch, draws, strict=True):
                    by_row[row.request_index, row.draw] = self._sample(row.request, draw)
        for row in rows:
            copies = row.request.n if row.request.temperature == 0 else 1
            samples[row.request_index] += [by_row[row.request_index, row.draw]] * copies
        self._usage.generated(requests, samples)
        return samples

    def _has_ended(self, request: GenerationRequest, token_ids: Sequence[int]) -> bool:
        return self._stopping(request).has_ended(token_ids)

    def _sample(self, request: GenerationRequest, draw: Any) -> Sample:
        stopping = self._stopping(request)
        return Sample(
            token_ids=tuple(draw.token_ids),
            token_logprobs=tuple(draw.token_logprobs),
            text=stopping.text(draw.token_ids),
            finish_reason="stop" if stopping.has_ended(draw.token_ids) else "length",
            choice_logprobs=draw.choice_logprobs,
        )

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        check_scores(requests, context_tokens=self.context_tokens)
        self._ready()
        scores = self._score(requests, progress=True)
        self._usage.scored(requests)
        return scores

    def _score(self, requests: Sequence[ScoreRequest], *, progress: bool) -> list[tuple[float, ...]]:
        from selfreward.engines.decoding import score_batch

        cut = self._score_batches(requests)
        scores: list[tuple[float, ...]] = [() for _ in requests]
        with self._engine_errors("scoring"):
            for batch in _with_progress(cut, "score") if progress else cut:
                found = score_batch(self._model, [request for _, request in batch])
                for (index, _), logprobs in zip(batch, found, strict=True):
                    scores[index] = logprobs
        return scores

    # A block is a batch of the call: an engine that gets a block alone makes the same single batch of it.

    def generation_blocks(self, requests: Sequence[GenerationRequest]) -> list[Block[GenerationRequest]]:
        from selfreward.engines.decoding import generation_rows, requests_of_rows

        cut = self._generation_batches(generation_rows(requests))
        return [Block(*zip(*requests_of_rows(batch), strict=True)) for batch in cut]

    def score_blocks(self, requests: Sequence[ScoreRequest]) -> list[Block[ScoreRequest]]:
        return [Block(*zip(*batch, strict=True)) for batch in self._score_batches(requests)]

    def _generation_batches(self, rows: Sequence["Row"]) -> list[list["Row"]]:
        from selfreward.engines.decoding import generation_batches

        return generation_batches(rows, batch_tokens=self._section.batch_tokens, max_rows=self._max_num_seqs)

    def _score_batches(self, requests: Sequence[ScoreRequest]) -> list[list[tuple[int, ScoreRequest]]]:
        from selfreward.engines.decoding import score_batches

        return score_batches(
            [(index, request) for index, request in enumerate(requests) if request.token_ids],
            batch_tokens=self._section.batch_tokens,
            max_rows=self._max_num_seqs,
            vocab_size=self._vocab_size,
        )

    @cached_property
    def _vocab_size(self) -> int:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(self._first.path, trust_remote_code=self._trust_remote_code)
        return int(config.get_text_config().vocab_size)

    @contextmanager
    def _engine_errors(self, what: str) -> Iterator[None]:
        """Turn exceptions of torch and transformers into EngineError."""
        try:
            yield
        except SelfRewardError:
            raise
        except _FAILURES as error:
            raise EngineError(
                f"transformers engine: {what}: {type(error).__name__}: {error}; the call must not fail; if memory was "
                "short, lower engine.batch_tokens or engine.context_tokens; then run the same command to resume from "
                "the last finished shard"
            ) from error


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _with_progress(cut: Sequence[T], what: str) -> Iterable[T]:
    """Show a progress bar on a terminal only, with the rate and the time left."""
    from tqdm import tqdm

    shown: Iterable[T] = tqdm(cut, desc=what, unit="batch", disable=None, dynamic_ncols=True)
    return shown
