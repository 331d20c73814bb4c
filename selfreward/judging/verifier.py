"""A program as judge: the share of a prompt's declarative checks that a response passes.

What it does: runs the checks of `selfreward.checks` on the text of each response, in their strict form. It uses no
model and no sampling: one deterministic judgment for each response.

Paper: 2311.07911 (IFEval), section 2.2: strict accuracy, by instruction (`share`) or by prompt (`all`).
Differs: the share is computed within one prompt, to serve as a score.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from selfreward import recipe
from selfreward.checks import passes
from selfreward.judging.client import plain_judgment
from selfreward.parts import Models
from selfreward.readers import Unscored, without_reasoning
from selfreward.records import Judgment, Prompt, Response
from selfreward.workload import Lengths, Requests, Workload

NAME: Final = "verifier"


class VerifierJudge:
    """`parts.Judge` with scores in [0, 1], or only 0 and 1 for aggregate "all"; needs no engine.

    A response without text passes no check and scores 0. A response to a prompt without checks is unscored:
    `no_checks`. A judgment's `text` has a line for each check, and its `template_sha256` is the hash of the checks.
    """

    def __init__(self, section: recipe.VerifierSection) -> None:
        self._aggregate = section.aggregate

    by: frozenset[str] = frozenset()
    scale = (0.0, 1.0)

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, models: Models, iteration: int
    ) -> list[Judgment]:
        """Return one judgment for each response, in order. Raises RecipeError for a check that does not validate."""
        checks = {prompt.id: prompt.checks for prompt in prompts}
        return [self._judgment(response, checks[response.prompt_id]) for response in responses]

    def max_requests(self, work: Workload, lengths: Lengths) -> list[Requests]:
        """Return no requests: no model is queried."""
        return []

    def _judgment(self, response: Response, checks: Sequence[Mapping[str, Any]]) -> Judgment:
        text = without_reasoning(response.text)
        outcomes = [passes(check, text) for check in checks]
        lines = [
            f"{'pass' if passed else 'fail'} {_shown(check)}" for check, passed in zip(checks, outcomes, strict=True)
        ]
        return plain_judgment(
            response,
            NAME,
            score=self._score(outcomes) if outcomes else None,
            unscored=None if outcomes else Unscored.NO_CHECKS.value,
            text="\n".join(lines),
            template_sha256=hashlib.sha256("\n".join(map(_shown, checks)).encode()).hexdigest(),
        )

    def _score(self, outcomes: Sequence[bool]) -> float:
        return float(all(outcomes)) if self._aggregate == "all" else sum(outcomes) / len(outcomes)


def _shown(check: Mapping[str, Any]) -> str:
    """Return one line, identical for equal checks; null arguments are omitted, like those not given."""
    return json.dumps({key: value for key, value in check.items() if value is not None}, sort_keys=True)
