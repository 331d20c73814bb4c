"""Result of a parser: a number, or the reason why there is none."""

from dataclasses import dataclass
from enum import StrEnum


class Unscored(StrEnum):
    """The reasons why a judgment or a comparison has no verdict: a closed set, which reports list."""

    EMPTY_RESPONSE = "empty_response"  # the response has no visible text
    TOO_LONG = "too_long"  # the judge prompt and its verdict do not fit into the engine's context
    EMPTY_VERDICT = "empty_verdict"  # the judge wrote nothing
    TRUNCATED = "truncated"  # the token limit was reached before a complete verdict
    NO_VERDICT = "no_verdict"  # no statement that can be read as a verdict
    OUT_OF_RANGE = "out_of_range"  # a number outside the scale, or a letter that is not one of the choices
    OTHER_SCALE = "other_scale"  # out of another total, or in per cent
    CONFLICTING = "conflicting"  # two verdicts that contradict each other, or a range
    AMBIGUOUS = "ambiguous"  # two verdicts that differ and may be about different texts
    CONTINUED = "continued_after_verdict"  # after its verdict the judge continued with another conversation or response
    NO_CHECKS = "no_checks"  # the prompt has no checks for a verifier to run
    LOW_SCORE_MASS = "low_score_mass"  # the total probability of the score tokens is too low
    NO_PROBABILITIES = "no_probabilities"  # the server returned a label, but no probabilities of the labels
    NO_ANSWER = "no_answer"  # the response has no final answer to compare with those of others
    TOO_FEW_RESPONSES = "too_few_responses"  # too few responses to the prompt for a vote
    NO_REFERENCE = "no_reference"  # the recipe requires a reference response, and the prompt has none
    NO_OPPONENT = "no_opponent"  # the judge compares, and the prompt has no other response with text
    ONE_ORDER = "one_order"  # the other order could not be parsed, and one order alone has position bias
    CONTROL_TOKENS = "control_tokens"  # the text would have become control tokens in the judge's tokenizer
    REFUSED = "refused"  # the endpoint or the chat template did not take the request, for example by a content filter
    TOO_LARGE = "too_large"  # the endpoint sent more than a reply of the requested length can be
    NOT_FINITE = "not_finite"  # a reward model's output is not finite


NOTHING_STATED = (Unscored.NO_VERDICT, Unscored.EMPTY_VERDICT)


@dataclass(frozen=True)
class Verdict:
    """Exactly one of `score` and `unscored` is set."""

    score: float | None = None
    unscored: Unscored | None = None

    def __post_init__(self) -> None:
        if (self.score is None) == (self.unscored is None):
            raise ValueError(f"a verdict has a score or a reason, never both or none: {self.score}, {self.unscored}")
