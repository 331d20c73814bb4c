"""Responses and judgments to make pairs of, as short as a case can be written."""

from collections.abc import Sequence

from selfreward.parts import PairingInputs
from selfreward.records import Judgment, Message, Prompt, Response

Scores = Sequence[float | None]


def prompt(name: str = "p0") -> Prompt:
    return Prompt(id=name, messages=(Message("user", "Name a sea."),))


def response(
    index: int, *, tokens: int = 3, text: str | None = None, truncated: bool = False, to: str = "p0", by: str = "m"
) -> Response:
    """`by` is part of the id when it is not the policy `m`."""
    first_token = 100 * index + (50 if by == "m" else 0)
    return Response(
        id=f"{to}#{index}" if by == "m" else f"{to}#{by}{index}",
        prompt_id=to,
        prompt_token_ids=(7, 8),
        token_ids=(*range(first_token, first_token + tokens - 1), 2),
        token_logprobs=None,
        text=f"response {by}{index}" if text is None else text,
        finish_reason="length" if truncated else "stop",
        seed=0,
        checkpoint_id=by,
    )


def judgments(of: Response, *scores: float | None, other: str = "", part: str = "") -> list[Judgment]:
    """One draw for each score."""
    return [
        Judgment(
            id=f"{of.id}/judge/{other}{part}{draw}",
            prompt_id=of.prompt_id,
            response_id=of.id,
            judge="judge",
            draw=draw,
            score=score,
            unscored="no_verdict" if score is None else None,
            text="",
            other_id=other,
            part=part,
        )
        for draw, score in enumerate(scores)
    ]


def scored(*scores: float, to: str = "p0", by: str = "m") -> list[tuple[Response, Scores]]:
    """Responses 0, 1, ... with one draw each."""
    return [(response(index, to=to, by=by), [score]) for index, score in enumerate(scores)]


def judged(
    policy: Sequence[tuple[Response, Scores]],
    *,
    initial: Sequence[tuple[Response, Scores]] = (),
    previous: Sequence[tuple[Response, Scores]] = (),
    more: Sequence[Judgment] = (),
    prompts: Sequence[Prompt] | None = None,
) -> PairingInputs:
    """`previous`: what the previous judge said of the policy's responses. `more`: further judgments of this judge."""
    names = sorted({item.prompt_id for item, _ in policy}) or ["p0"]
    return PairingInputs(
        prompts=[prompt(name) for name in names] if prompts is None else prompts,
        responses=[item for item, _ in policy],
        judgments=[*(j for item, draws in (*policy, *initial) for j in judgments(item, *draws)), *more],
        initial_responses=[item for item, _ in initial],
        previous_judgments=[j for item, draws in previous for j in judgments(item, *draws)],
    )
