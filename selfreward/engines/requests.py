"""Checks of requests before any work is done, and usage counters, for all engines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from selfreward.errors import EngineError
from selfreward.requests import GenerationRequest, Sample, ScoreRequest

# vLLM's limit on the number of tokens whose log-probabilities can be requested.
MAX_CHOICES = 128


def check_generation(requests: Sequence[GenerationRequest], *, context_tokens: int) -> None:
    """Raise an EngineError for the first request that cannot be served."""
    for index, request in enumerate(requests):
        where = f"generation request {index} of {len(requests)}"
        num_prompt = len(request.prompt_token_ids)
        if num_prompt == 0:
            raise EngineError(f"{where}: its prompt has no tokens; at least one is needed; encode it as a conversation")
        if request.n < 1 or request.max_tokens < 1:
            raise EngineError(
                f"{where}: n is {request.n} and max_tokens {request.max_tokens}; both must be at least 1; correct them"
            )
        if num_prompt + request.max_tokens > context_tokens:
            raise EngineError(
                f"{where}: {num_prompt} prompt tokens and max_tokens {request.max_tokens} are "
                f"{num_prompt + request.max_tokens} tokens; {context_tokens} are allowed (engine.context_tokens, or "
                "the model's maximum); shorten the prompt, lower max_tokens, or raise engine.context_tokens"
            )
        choices = request.choice_token_ids
        if len(set(choices)) != len(choices) or len(choices) > MAX_CHOICES:
            raise EngineError(
                f"{where}: {len(choices)} choice tokens, {len(set(choices))} of them distinct; up to {MAX_CHOICES} "
                "distinct tokens are allowed; list each token once"
            )


def check_scores(requests: Sequence[ScoreRequest], *, context_tokens: int) -> None:
    """Raise an EngineError for the first request that cannot be served."""
    for index, request in enumerate(requests):
        where = f"score request {index} of {len(requests)}"
        num_prompt, num_scored = len(request.prompt_token_ids), len(request.token_ids)
        if num_prompt == 0:
            raise EngineError(
                f"{where}: its prompt has no tokens; scoring needs at least one token of context; add one"
            )
        if num_prompt + num_scored > context_tokens:
            raise EngineError(
                f"{where}: {num_prompt} prompt tokens and {num_scored} scored tokens; {context_tokens} in total are "
                "allowed (engine.context_tokens, or the model's maximum); shorten the text, or raise "
                "engine.context_tokens"
            )


@dataclass
class Usage:
    """Counters since the start. A prompt counts once per request, regardless of its number of samples."""

    counts: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(
            ("num_requests", "num_prompt_tokens", "num_generated_tokens", "num_weight_syncs", "weight_sync_s"), 0
        )
    )

    def generated(self, requests: Sequence[GenerationRequest], samples: Sequence[Sequence[Sample]]) -> None:
        self.counts["num_requests"] += len(requests)
        self.counts["num_prompt_tokens"] += sum(len(request.prompt_token_ids) for request in requests)
        self.counts["num_generated_tokens"] += sum(len(sample.token_ids) for draws in samples for sample in draws)

    def scored(self, requests: Sequence[ScoreRequest]) -> None:
        self.counts["num_requests"] += len(requests)
        self.counts["num_prompt_tokens"] += sum(len(r.prompt_token_ids) + len(r.token_ids) for r in requests)

    def synced(self, seconds: float) -> None:
        self.counts["num_weight_syncs"] += 1
        self.counts["weight_sync_s"] += seconds

    def snapshot(self) -> Mapping[str, float]:
        return dict(self.counts)
