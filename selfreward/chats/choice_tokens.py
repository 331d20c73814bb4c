"""Verdicts that are read from the probabilities of single tokens: which tokens stand for the choices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from selfreward.errors import EngineError, RecipeError
from selfreward.parts import Engine
from selfreward.requests import Sample


@dataclass(frozen=True)
class ChoiceTokens:
    """The assistant's turn ends with `opening_ids`; the next token is one of `choice_ids`, in the order asked for."""

    opening_ids: tuple[int, ...]
    choice_ids: tuple[int, ...]


def choice_tokens(engine: Engine, *, opening: str, choices: Sequence[str]) -> ChoiceTokens:
    """How this tokenizer writes `opening` followed by each choice.

    The choices are encoded in their place, never alone: some tokenizers put the space before a digit into the
    digit's token, others keep it in the opening. They must differ in the last token only. Raises RecipeError.
    """
    encoded = [engine.encode_text(opening + choice) for choice in choices]
    openings = {token_ids[:-1] for token_ids in encoded}
    choice_ids = tuple(token_ids[-1] for token_ids in encoded if token_ids)
    if len(openings) != 1 or len(set(choice_ids)) != len(choices):
        spelt = ", ".join(f"{opening + choice!r} as {list(ids)}" for choice, ids in zip(choices, encoded, strict=True))
        raise RecipeError(
            f"judging: the judge's tokenizer writes {spelt}; the choices must be one token each, after the same "
            "beginning; use `kind: additive` with this model"
        )
    return ChoiceTokens(opening_ids=openings.pop(), choice_ids=choice_ids)


def checked_logprobs(sample: Sample, tokens: ChoiceTokens) -> tuple[float, ...]:
    """The choices' log-probabilities, each at most 0 (rounding aside) and possibly -inf. Raises EngineError."""
    logprobs = sample.choice_logprobs
    if len(logprobs) != len(tokens.choice_ids) or any(math.isnan(value) or value > 1e-3 for value in logprobs):
        raise EngineError(
            f"judging: the engine gave {list(logprobs)} for the choice tokens {list(tokens.choice_ids)}; one "
            "log-probability of at most 0 for each was asked for; check the engine's weights and version"
        )
    return logprobs
