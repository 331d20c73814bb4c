"""DPO's implicit reward as a judge: the log-probability ratio of a response under a model and a reference model.

What it does: the score of a response y to x is log pi_by(y|x) - log pi_reference(y|x) in nats, over the sampled tokens
themselves, the end token included; `per_token` divides it by their number. There is no judge prompt and no sampling:
two prefills for each response.

Paper: 2410.12735 (CREAM), section 4: responses are ranked by the DPO reward of the current policy against M_0, because
models of 7B judge badly when prompted.
Differs: beta, a constant factor, is left out: margins are in nats. The partition function is left out as in the paper;
it is the same for all responses to a prompt, so ranks within a prompt are preserved, but scores of different prompts
are not comparable. `per_token` is ours. A response without text is unscored (`empty_response`), as with other judges.
"""

from collections.abc import Sequence
from typing import Final

from selfreward import recipe
from selfreward.judging.client import finite, plain_judgment
from selfreward.judging.log_probabilities import log_probabilities, score_request
from selfreward.parts import Engine, Models
from selfreward.readers import Unscored
from selfreward.records import Checkpoint, Judgment, Prompt, Response
from selfreward.requests import ScoreRequest
from selfreward.roles import POLICY_MODELS
from selfreward.workload import Lengths, Requests, Workload, forward_requests

NAME: Final = "intrinsic"


class IntrinsicJudge:
    """`parts.Judge` with unbounded scores and one deterministic judgment for each response.

    While both names refer to the same checkpoint, every score is exactly 0 and the engine is not called.
    """

    scale = None

    def __init__(self, section: recipe.IntrinsicSection, *, engine: Engine) -> None:
        self.by = frozenset({section.by, section.reference})
        self._section = section
        self._engine = engine

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, models: Models, iteration: int
    ) -> list[Judgment]:
        """Return one judgment per response, in order; one load and one engine call per model. Raises EngineError."""
        model, reference = models[self._section.by], models[self._section.reference]
        requests_or_unscored = [score_request(r, context_tokens=self._engine.context_tokens) for r in responses]
        requests = [request for request in requests_or_unscored if not isinstance(request, Unscored)]
        log_ratios = iter(self._log_ratios(requests, model, reference))
        judgments: list[Judgment] = []
        for response, request in zip(responses, requests_or_unscored, strict=True):
            if isinstance(request, Unscored):
                judgments.append(plain_judgment(response, NAME, unscored=request.value, checkpoint_id=model.id))
                continue
            log_ratio, text = next(log_ratios)
            score = log_ratio / len(request.token_ids) if self._section.per_token else log_ratio
            found = finite(score)  # not finite where a token has probability 0 under one of the models
            judgments.append(plain_judgment(response, NAME, **found, text=text, checkpoint_id=model.id))
        return judgments

    def max_requests(self, work: Workload, lengths: Lengths) -> list[Requests]:
        if work.iteration == 1 and self.by <= POLICY_MODELS:
            return []  # all of them are M_0
        return [
            requests
            for name in sorted(self.by)
            for requests in forward_requests(
                name, work.prompts, lengths, max_tokens=work.max_tokens, times=work.num_responses
            )
        ]

    def _log_ratios(
        self, requests: Sequence[ScoreRequest], model: Checkpoint, reference: Checkpoint
    ) -> list[tuple[float, str]]:
        """Return, for each request, the log-ratio in nats and a line with its two log-probabilities."""
        by, other = self._section.by, self._section.reference
        if model.id == reference.id:
            return [(0.0, f"{by} and {other} are the same checkpoint")] * len(requests)
        sums, other_sums = (log_probabilities(self._engine, name, requests) for name in (model, reference))
        return [
            (
                ours - theirs,
                f"log-probability of {len(request.token_ids)} tokens: {ours:.4f} {by}, {theirs:.4f} {other}",
            )
            for request, ours, theirs in zip(requests, sums, other_sums, strict=True)
        ]
