"""The tokens of the choices, for verdicts that are read from the probabilities of single tokens."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from selfreward.errors import EngineError, RecipeError
from selfreward.parts import Engine
from selfreward.requests import Sample


@dataclass(frozen=True)
class ChoiceTokens:
    """The assistant's turn ends with `opening_ids`; the next token is one of `choice_ids`, in the requested order."""

    opening_ids: tuple[int, ...]
    choice_ids: tuple[int, ...]


def choice_tokens(engine: Engine, *, opening: str, choices: Sequence[str]) -> ChoiceTokens:
    """Return this tokenizer's encoding of `opening` followed by each choice.

    The choices are encoded in context, never alone: some tokenizers merge the space before a digit into the digit's
    token, others into the opening. The encodings must differ in the last token only. Raises RecipeError.
    """
    encoded = [engine.encode_text(opening + choice) for choice in choices]
    openings = {token_ids[:-1] for token_ids in encoded}
    choice_ids = tuple(token_ids[-1] for token_ids in encoded if token_ids)
    if len(openings) != 1 or len(set(choice_ids)) != len(choices):
        spelt = ", ".join(f"{opening + choice!r} as {list(ids)}" for choice, ids in zip(choices, encoded, strict=True))
        raise RecipeError(
            f"judging: the judge's tokenizer encodes {spelt}; the choices must be one token each, after the same "
            "prefix; use `kind: additive` with this model"
        )
    return ChoiceTokens(opening_ids=openings.pop(), choice_ids=choice_ids)


def checked_logprobs(sample: Sample, tokens: ChoiceTokens) -> tuple[float, ...]:
    """Return the choices' log-probabilities, each at most 0 (up to rounding) or -inf. Raises EngineError."""
    logprobs = sample.choice_logprobs
    if len(logprobs) != len(tokens.choice_ids) or any(math.isnan(value) or value > 1e-3 for value in logprobs):
        raise EngineError(
            f"judging: the engine returned {list(logprobs)} for the choice tokens {list(tokens.choice_ids)}; "
            "each must have one log-probability of at most 0; check the engine's weights and version"
        )
    return logprobs
