"""The engine of several replicas. A call is cut into blocks that do not depend on their number (`blocks.py`)."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from selfreward.devices import visible_gpus
from selfreward.engines.blocks import Block, joined
from selfreward.engines.in_process import InProcessEngine
from selfreward.engines.pool.replica import Replica, Settings
from selfreward.engines.pool.replicas import Replicas
from selfreward.engines.pool.size import Share
from selfreward.engines.requests import Usage, check_generation, check_scores
from selfreward.errors import EngineError
from selfreward.parts import ResumableEngine
from selfreward.ray_cluster import Cluster, ray
from selfreward.recipe import EngineSection
from selfreward.records import Checkpoint, Message
from selfreward.requests import GenerationRequest, Sample, ScoreRequest

R = TypeVar("R", GenerationRequest, ScoreRequest)
KV_CACHE = "kv_cache"


class PooledEngine:
    """A `parts.Engine` of `num_replicas` engines like `engine`, which itself never starts: it encodes and cuts calls.

    `num_replicas` None: as many as the GPUs of the cluster at `address` allow.
    """

    def __init__(
        self,
        engine: InProcessEngine,
        section: EngineSection,
        *,
        address: str | None,
        num_replicas: int | None,
        num_nodes: int = 1,
    ) -> None:
        self._engine, self._section = engine, section
        self._address, self._num_replicas, self._num_nodes = address, num_replicas, num_nodes
        self._usage = Usage()
        self._cluster: Cluster | None = None
        self._replicas: Replicas | None = None
        self._loaded: Checkpoint | None = None
        self._is_awake = False
        self._kept: Mapping[str, Any] = {}
        self._record: Callable[[Mapping[str, Any]], None] = lambda _: None
        self._freed_gib: list[float] = []
        self._measures_memory = False
        self._on_gpus = False

    # What needs no weights.

    @property
    def context_tokens(self) -> int:
        return self._engine.context_tokens

    @property
    def enforces_schema(self) -> bool:
        return self._engine.enforces_schema

    @property
    def control_tokens(self) -> tuple[str, ...]:
        return self._engine.control_tokens

    def encode(self, messages: Sequence[Message], *, thinking: bool = True) -> tuple[int, ...]:
        return self._engine.encode(messages, thinking=thinking)

    def encode_text(self, text: str) -> tuple[int, ...]:
        return self._engine.encode_text(text)

    # Weights.

    def resume_from(self, facts: Mapping[str, Any], record: Callable[[Mapping[str, Any]], None]) -> None:
        """Keep the size of the KV cache with which the run began; `record` stores the facts of a start."""
        self._kept, self._record = dict(facts), record

    def load(self, checkpoint: Checkpoint) -> None:
        checkpoint = replace(checkpoint, path=checkpoint.path.absolute())
        if self._loaded is None or self._loaded.id != checkpoint.id:
            self._engine.require_readable(checkpoint)
        is_first = self._replicas is None
        replicas = self._replicas = self._replicas or self._connected()
        started, self._loaded = time.monotonic(), None
        if is_first and self._measures_memory:
            replicas.load(checkpoint, kept=self._kept, at_most=1)
            self._kept = dict(replicas.ready[0].facts)
        if any(loaded.is_synced for loaded in replicas.load(checkpoint, kept=self._kept)):
            self._usage.synced(time.monotonic() - started)
        self._loaded, self._is_awake = checkpoint, True
        if is_first:
            self._record(self.facts())

    def _connected(self) -> Replicas:
        """Connect to Ray; no replica has started yet."""
        import torch

        section, num_gpus = self._section, len(visible_gpus())
        settings = Settings(num_threads=torch.get_num_threads())
        cluster = self._cluster = Cluster(
            self._address,
            num_nodes=self._num_nodes,
            num_gpus=num_gpus,
            num_cpus=(self._num_replicas or 1) * (1 if num_gpus else settings.num_threads),
        )
        on_gpus = self._on_gpus = cluster.has_gpus()
        share = Share(section.tensor_parallel_size, 1) if on_gpus else Share(0, settings.num_threads)
        self._measures_memory = on_gpus and isinstance(self._engine, ResumableEngine) and KV_CACHE not in self._kept
        actor = (
            ray()
            .remote(Replica)
            .options(num_gpus=share.num_gpus, num_cpus=share.num_cpus, max_restarts=0, scheduling_strategy="SPREAD")
        )
        engine = ray().put(self._engine)
        return Replicas(
            lambda: actor.remote(engine, settings),
            capacity=lambda: cluster.capacity(share.times_in),
            wanted=self._num_replicas or (max(1, cluster.capacity(share.times_in)) if on_gpus else 1),
            minimum=section.min_replicas,
        )

    def sleep(self) -> None:
        """Return when every replica sleeps and has said how much memory its GPUs have got back."""
        if self._replicas is None or not self._is_awake:
            return
        self._freed_gib = [freed for freed in self._replicas.each("sleep") if freed is not None]
        self._is_awake = False

    def wake(self) -> None:
        if self._loaded is not None and not self._is_awake:
            self.load(self._loaded)

    def close(self) -> None:
        if self._replicas is not None:
            self._replicas.close()
        if self._cluster is not None:
            self._cluster.close()
        self._replicas = self._cluster = self._loaded = None

    def _ready(self) -> Replicas:
        """Return the replicas, awake and with a verified checkpoint."""
        if self._replicas is None:
            self.load(self._engine.first)
        self.wake()
        if self._loaded is None or self._replicas is None:
            raise EngineError(
                "engine.replicas: the last weight sync failed; a verified checkpoint is needed; run the same command "
                "to resume from the last finished shard"
            )
        return self._replicas

    # Work.

    def generate(self, requests: Sequence[GenerationRequest]) -> list[list[Sample]]:
        check_generation(requests, context_tokens=self.context_tokens)
        if not requests:
            return []
        blocks = self._engine.generation_blocks(requests)
        samples: list[list[Sample]] = joined(len(requests), blocks, self._map("generate", blocks))
        self._usage.generated(requests, samples)
        return samples

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        check_scores(requests, context_tokens=self.context_tokens)
        blocks = self._engine.score_blocks(requests)
        scores: list[list[float]] = joined(len(requests), blocks, self._map("score", blocks))
        self._usage.scored(requests)
        return list(map(tuple, scores))

    def _map(self, method: str, blocks: Sequence[Block[R]]) -> list[Any]:
        """Call a method of the replicas for each block, with a progress bar on a terminal."""
        from tqdm import tqdm

        replicas = self._ready()
        with tqdm(total=len(blocks), desc=method, unit="block", disable=None, dynamic_ncols=True) as bar:
            # On GPUs a replica computes several blocks as one call: the end of each would leave the device half empty.
            return replicas.map(method, [block.requests for block in blocks], several=self._on_gpus, on_done=bar.update)

    # Facts.

    def usage(self) -> Mapping[str, float]:
        return self._usage.snapshot()

    def facts(self) -> Mapping[str, Any]:
        """Return the facts of the replica with the lowest number, and of the replicas together."""
        ready = self._replicas.ready if self._replicas else []
        of_one = ready[0].facts if ready else self._engine.facts()
        return {
            **of_one,
            "determinism": self._determinism(of_one["determinism"]),
            "replicas": {
                "num": len(ready),
                "min": self._section.min_replicas,
                "tensor_parallel_size": self._section.tensor_parallel_size,
                "places": [slot.place for slot in ready],
                "lost": list(self._replicas.lost) if self._replicas else [],
                "gib_freed_by_sleep": self._freed_gib,
            },
        }

    def _determinism(self, of_one: str) -> str:
        if not self._section.seeded:
            return of_one
        return (
            "several engines on Ray: a call is cut into blocks that do not depend on their number, and each block is a "
            f"call of one engine. Of such a call: {of_one}"
        )
