"""The engine on vLLM, GPU or CPU build, inside the driver's process.

In-process, and with the prefix cache reset at the start of each call, the same call gives the same bytes. Weights of
other checkpoints are loaded in place, without a restart. vLLM is imported when the engine starts, at its first use.
"""

import gc
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from subprocess import SubprocessError
from typing import Any

from selfreward.batch_sizes import SMALL_BATCH
from selfreward.devices import visible_gpus
from selfreward.engines.blocks import Block, consecutive_blocks, joined
from selfreward.engines.in_process import InProcessEngine
from selfreward.engines.requests import check_generation, check_scores
from selfreward.engines.vllm_runtime import (
    KV_CACHE,
    determinism,
    kept_kv_blocks,
    kv_conditions,
    runtime_facts,
    used_gib,
    vllm_version,
)
from selfreward.engines.vllm_start import start_vllm
from selfreward.engines.weight_samples import TensorSample, TensorSlice
from selfreward.engines.weight_verification import State
from selfreward.errors import EngineError, SelfRewardError
from selfreward.recipe import EngineSection
from selfreward.records import Checkpoint
from selfreward.requests import GenerationRequest, Sample, ScoreRequest

# Exceptions of vLLM for a bad setting, a failed kernel, a full disk or too little memory.
_FAILURES = (RuntimeError, ValueError, OSError, MemoryError, AssertionError, SubprocessError)


class VllmEngine(InProcessEngine):
    """A `parts.Engine` on vLLM."""

    name = "vllm"
    enforces_schema = True
    _llm: Any = None
    _dead: str | None = None
    _record: Callable[[Mapping[str, Any]], None] = staticmethod(lambda _: None)

    def __init__(self, section: EngineSection, **arguments: Any) -> None:
        super().__init__(section, **arguments)
        self._runtime: dict[str, Any] = {}

    @property
    def determinism(self) -> str:
        return determinism(self._section)

    def resume_from(self, facts: Mapping[str, Any], record: Callable[[Mapping[str, Any]], None]) -> None:
        """Keep the size of the KV cache with which the run began (`facts`); `record` stores the facts of a start."""
        self._runtime, self._record = dict(facts), record

    # Weights.

    def load(self, checkpoint: Checkpoint) -> None:
        if self._dead is None and self._loaded is not None and self._loaded.id == checkpoint.id and not self._asleep:
            return
        self._verifier.require_readable(checkpoint)
        self._require_alive()
        if self._llm is None:
            self._start(checkpoint)
        elif self._asleep:
            self._wake(checkpoint)
        else:
            self._sync(checkpoint)

    def sleep(self) -> None:
        """Free weights and KV cache on the device. No-op on the CPU."""
        if self._llm is None or self._asleep or not visible_gpus():
            return
        with self._engine_errors("sleep"):
            self._llm.sleep(level=self._section.sleep_level)
        self._asleep = True
        self._runtime["gpu_gib_while_asleep"] = used_gib()

    def wake(self) -> None:
        if self._asleep:
            self._wake(self._loaded or self._first)

    def close(self) -> None:
        if self._llm is None:
            return
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self._llm.llm_engine.engine_core.shutdown()
        self._llm = self._loaded = None
        self._asleep = False
        gc.collect()
        cleanup_dist_env_and_memory()

    def _ready(self) -> Any:
        """Return the engine, awake and with a verified checkpoint."""
        self._require_alive()
        if self._llm is None:
            self._start(self._first)
        elif self._asleep:
            self.wake()
        elif self._loaded is None:
            raise EngineError(
                "vLLM engine: the last weight sync failed; a verified checkpoint is needed; "
                "run the same command to resume from the last finished shard"
            )
        return self._llm

    def _require_alive(self) -> None:
        if self._dead is not None:
            raise EngineError(
                f"vLLM engine: it failed before ({self._dead}); a failed engine is not used again; "
                "run the same command to resume from the last finished shard"
            )

    def _start(self, checkpoint: Checkpoint) -> None:
        conditions = kv_conditions(self._section, context_tokens=self.context_tokens, max_num_seqs=self._max_num_seqs)
        with self._engine_errors("start"):
            self._llm = start_vllm(
                self._section,
                model=self._weights_folder(checkpoint),
                tokenizer=self._first.path,
                context_tokens=self.context_tokens,
                max_num_seqs=self._max_num_seqs,
                num_kv_blocks=kept_kv_blocks(self._runtime, conditions),
                trust_remote_code=self._trust_remote_code,
            )
            self._runtime = runtime_facts(self._llm)
            self._runtime[KV_CACHE]["conditions"] = conditions
        self._verify(checkpoint)
        self._record(self.facts())  # before anything is generated with it

    def _sync(self, checkpoint: Checkpoint) -> None:
        started = time.monotonic()
        self._loaded = None
        with self._engine_errors("weight sync"):
            self._reload(checkpoint)
            self._llm.reset_prefix_cache()
        reload_s = time.monotonic() - started
        self._verify(checkpoint)
        self._synced(reload_s=reload_s, weight_sync_s=time.monotonic() - started)

    def _wake(self, checkpoint: Checkpoint) -> None:
        started = time.monotonic()
        is_kept = self._section.sleep_level == 1 and self._loaded is not None and self._loaded.id == checkpoint.id
        self._loaded = None
        with self._engine_errors("waking"):
            self._llm.wake_up(tags=["weights"])
            # At level 2 the weights are discarded: without a reload the engine would silently generate garbage.
            if not is_kept:
                self._reload(checkpoint)
            self._llm.wake_up(tags=["kv_cache"])
            self._llm.reset_prefix_cache()
        self._asleep = False
        self._verify(checkpoint)
        self._usage.synced(time.monotonic() - started)

    def _reload(self, checkpoint: Checkpoint) -> None:
        self._llm.collective_rpc("swap_weights", kwargs={"weights_path": str(self._weights_folder(checkpoint))})

    def _samples_of_weights(self) -> list[TensorSample]:
        with self._engine_errors("verification of the weights"):
            found = self._llm.collective_rpc("sample_weights")
        return [_as_sample(sample) for rank in found for sample in rank]

    def _state_of_weights(self) -> list[State]:
        with self._engine_errors("verification of the weights"):
            return list(self._llm.collective_rpc("weight_state"))

    # Work.

    def generate(self, requests: Sequence[GenerationRequest]) -> list[list[Sample]]:
        check_generation(requests, context_tokens=self.context_tokens)
        if not requests:
            return []
        llm = self._ready()
        outputs = []
        for block in [requests] if visible_gpus() else [block.requests for block in self.generation_blocks(requests)]:
            outputs += self._run(llm, [self._generation(request) for request in block], progress=True)
        samples = [self._samples(request, output) for request, output in zip(requests, outputs, strict=True)]
        self._usage.generated(requests, samples)
        return samples

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        check_scores(requests, context_tokens=self.context_tokens)
        if not any(request.token_ids for request in requests):
            return [() for _ in requests]
        self._ready()
        if visible_gpus():
            scores = self._score(requests, progress=True)
        else:
            blocks = self.score_blocks(requests)
            results = [self._score(block.requests, progress=True) for block in blocks]
            scores = list(map(tuple, joined(len(requests), blocks, results)))
        self._usage.scored(requests)
        return scores

    # On a CPU a call is computed block by block. On a GPU an engine computes it whole, because the end of each block
    # would leave the device half empty.

    def generation_blocks(self, requests: Sequence[GenerationRequest]) -> list[Block[GenerationRequest]]:
        return consecutive_blocks(
            enumerate(requests),
            num_sequences=lambda request: request.n if request.temperature > 0 else 1,
            max_sequences=self._block_sequences,
        )

    def score_blocks(self, requests: Sequence[ScoreRequest]) -> list[Block[ScoreRequest]]:
        scored = [(index, request) for index, request in enumerate(requests) if request.token_ids]
        return consecutive_blocks(scored, num_sequences=lambda _: 1, max_sequences=self._block_sequences)

    @property
    def _block_sequences(self) -> int:
        chosen = self._section.max_num_seqs
        return SMALL_BATCH if chosen == "auto" else chosen

    def _run(self, llm: Any, jobs: Sequence[tuple[tuple[int, ...], Any]], *, progress: bool) -> list[Any]:
        """Make one vLLM call for all (prompt token ids, sampling parameters)."""
        with self._engine_errors("call"):
            llm.reset_prefix_cache()
            outputs = llm.generate(
                [{"prompt_token_ids": list(token_ids)} for token_ids, _ in jobs],
                [params for _, params in jobs],
                use_tqdm=progress and sys.stderr.isatty(),
            )
        return list(outputs)

    def _generation(self, request: GenerationRequest) -> tuple[tuple[int, ...], Any]:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        greedy = request.temperature == 0
        choices, stopping = list(request.choice_token_ids), self._stopping(request)
        params = SamplingParams(
            # Greedy samples are all the same: vLLM refuses more than one, so one is made and returned n times.
            n=1 if greedy else request.n,
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=max(0, request.top_k),
            min_p=request.min_p,
            repetition_penalty=request.repetition_penalty,
            max_tokens=request.max_tokens,
            seed=request.seed if self._section.seeded and not greedy else None,
            # 0: only the sampled token's, raw, before penalties and temperature. With choices: the choices' as well.
            logprobs=None if choices else 0,
            logprob_token_ids=choices or None,
            stop_token_ids=list(stopping.end_token_ids),
            stop=list(stopping.strings) or None,
            detokenize=bool(stopping.strings),  # vLLM finds stop strings in its own text
            flat_logprobs=True,
            structured_outputs=StructuredOutputsParams(json=dict(request.json_schema)) if request.json_schema else None,
        )
        return request.prompt_token_ids, params

    def _samples(self, request: GenerationRequest, output: Any) -> list[Sample]:
        draws = [self._sample(request, draw) for draw in sorted(output.outputs, key=lambda draw: draw.index)]
        if request.temperature == 0:
            draws *= request.n
        if len(draws) != request.n:
            raise EngineError(
                f"vLLM engine: {len(draws)} samples were returned for a request of {request.n}; all must be returned; "
                "run the same command to resume from the last finished shard"
            )
        return draws

    def _sample(self, request: GenerationRequest, draw: Any) -> Sample:
        token_ids, stopping = tuple(draw.token_ids), self._stopping(request)
        at_string = isinstance(draw.stop_reason, str)
        stopped = at_string or (bool(token_ids) and token_ids[-1] in stopping.end_token_ids)
        if draw.finish_reason not in ("stop", "length") or (draw.finish_reason == "stop") != stopped:
            raise EngineError(
                f"vLLM engine: a sample of {len(token_ids)} tokens finished with {draw.finish_reason!r}; an end "
                "token, a stop string or max_tokens must end it; run the same command to resume from the last finished "
                "shard"
            )
        flat = draw.logprobs
        choice_logprobs: tuple[float, ...] = ()
        if request.choice_token_ids:
            first = slice(flat.start_indices[0] + 1, flat.start_indices[0] + 1 + len(request.choice_token_ids))
            if tuple(flat.token_ids[first]) != request.choice_token_ids:
                raise EngineError(
                    "vLLM engine: it returned log-probabilities of tokens that were not requested; "
                    "exactly the requested ones are needed; use a vLLM version that the project supports"
                )
            choice_logprobs = tuple(flat.logprobs[first])
        return Sample(
            token_ids=token_ids,
            token_logprobs=tuple(flat.logprobs[start] for start in flat.start_indices),
            text=stopping.text(token_ids),
            finish_reason="stop" if stopped else "length",
            choice_logprobs=choice_logprobs,
        )

    def _score(self, requests: Sequence[ScoreRequest], *, progress: bool) -> list[tuple[float, ...]]:
        """The last token is requested as a choice at the first sampled position, so that a request may fill the
        context; the tokens before it are prompt log-probabilities. A single token can thus use the prefix cache."""
        from vllm import SamplingParams

        jobs = []
        for request in requests:
            if request.token_ids:
                params = SamplingParams(
                    max_tokens=1,
                    temperature=0.0,
                    prompt_logprobs=0 if len(request.token_ids) > 1 else None,
                    logprob_token_ids=[request.token_ids[-1]],
                    detokenize=False,
                    flat_logprobs=True,
                )
                jobs.append(((*request.prompt_token_ids, *request.token_ids[:-1]), params))
        outputs = iter(self._run(self._llm, jobs, progress=progress))
        return [_scores(request, outputs) if request.token_ids else () for request in requests]

    # Facts.

    def facts(self) -> Mapping[str, Any]:
        facts = super().facts()
        chosen = {key: value for key, value in self._runtime.items() if key not in facts}
        return {**facts, **chosen, "versions": {"vllm": vllm_version(), **facts["versions"]}}

    @contextmanager
    def _engine_errors(self, what: str) -> Iterator[None]:
        """Turn exceptions of vLLM into EngineError, and mark the engine as failed."""
        try:
            yield
        except SelfRewardError:
            raise
        except _FAILURES as error:
            self._dead = f"{what}: {type(error).__name__}: {error}"
            raise EngineError(
                f"vLLM engine: {self._dead}; the call must not fail; if memory was short, lower engine.max_num_seqs, "
                "engine.context_tokens or engine.kv_cache_gib (CPU), or engine.gpu_memory_utilization (GPU); then run "
                "the same command to resume from the last finished shard"
            ) from error


def _as_sample(found: Mapping[str, Any]) -> TensorSample:
    sources = tuple(tuple(TensorSlice(**part) for part in source) for source in found["sources"])
    return TensorSample(**{**found, "sources": sources})


def _scores(request: ScoreRequest, outputs: Iterator[Any]) -> tuple[float, ...]:
    output = next(outputs)
    last = output.outputs[0].logprobs
    position = last.start_indices[0] + 1
    if last.token_ids[position] != request.token_ids[-1]:
        raise EngineError(
            "vLLM engine: it returned the log-probability of another token than requested; exactly the requested one "
            "is needed; use a vLLM version that the project supports"
        )
    before: list[float] = []
    if len(request.token_ids) > 1:
        flat = output.prompt_logprobs
        starts = flat.start_indices[len(request.prompt_token_ids) :]
        before = [flat.logprobs[start] for start in starts]
    return (*before, last.logprobs[position])
