"""The policy's own log-probability of a response as its score: sharpening.

What it does: the score of a response y to x is log pi_by(y|x) in nats, over the sampled tokens themselves, the end
token included; `per_token` divides it by their number. Responses of the model that judges carry their log-probabilities
from sampling, so that judging them is free; others take one prefill each.

Paper: 2412.01951 (sharpening), section 2: self-reward log pi(y|x), whose maximisation moves probability to responses
that the model already considers likely. What the model does not know it cannot learn in this way, and what it wrongly
believes becomes more likely too.
Differs: the paper trains on the best of n responses, or with DPO against any other; here pairing chooses the pairs.
`per_token` is ours here. The policy changes from iteration to iteration, and with it the
judge; the paper keeps M_0 (`by: initial`). A truncated response has the log-probability of its first tokens, an upper
bound; pairing never chooses it unless told to. A response without text is unscored (`empty_response`).
"""

import math
from collections.abc import Sequence
from typing import Any, Final

from selfreward import recipe
from selfreward.judging.client import finite, plain_judgment
from selfreward.judging.log_probabilities import log_probabilities, score_request
from selfreward.parts import Engine, Models
from selfreward.readers import Unscored
from selfreward.records import Checkpoint, Judgment, Prompt, Response
from selfreward.requests import ScoreRequest
from selfreward.workload import Lengths, Requests, Workload, forward_requests

NAME: Final = "likelihood"


class LikelihoodJudge:
    """`parts.Judge` with scores up to 0 nats and one deterministic judgment for each response."""

    scale = None

    def __init__(self, section: recipe.LikelihoodSection, *, engine: Engine) -> None:
        self.by = frozenset({section.by})
        self._section = section
        self._engine = engine

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, models: Models, iteration: int
    ) -> list[Judgment]:
        """Return one judgment per response, in order; at most one load and one engine call. Raises EngineError."""
        model = models[self._section.by]
        known = {response.id: self._known(response, model) for response in responses}
        requests = [request for request in known.values() if isinstance(request, ScoreRequest)]
        computed = iter(log_probabilities(self._engine, model, requests))
        judgments: list[Judgment] = []
        for response in responses:
            found = known[response.id]
            value = next(computed) if isinstance(found, ScoreRequest) else found
            judgments.append(plain_judgment(response, NAME, **self._score(response, value), checkpoint_id=model.id))
        return judgments

    def max_requests(self, work: Workload, lengths: Lengths) -> list[Requests]:
        num_own = work.num_own if self._section.by == "policy" else 0
        times = work.num_responses - num_own
        if times == 0:
            return []
        return forward_requests(self._section.by, work.prompts, lengths, max_tokens=work.max_tokens, times=times)

    def _known(self, response: Response, model: Checkpoint) -> float | ScoreRequest | Unscored:
        """Return log pi(y|x) as sampled by the model itself; else the request for it, or why there is none."""
        request = score_request(response, context_tokens=self._engine.context_tokens)
        if isinstance(request, Unscored) or response.token_logprobs is None or response.checkpoint_id != model.id:
            return request
        return math.fsum(response.token_logprobs)

    def _score(self, response: Response, value: float | Unscored) -> dict[str, Any]:
        if isinstance(value, Unscored):
            return {"unscored": value.value}
        num_tokens = len(response.token_ids)
        text = f"log-probability of {num_tokens} tokens: {value:.4f}"
        return {**finite(value / num_tokens if self._section.per_token else value), "text": text}
