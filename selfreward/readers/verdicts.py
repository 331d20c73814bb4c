"""What a reader gives back: a number, or the reason why there is none."""

from dataclasses import dataclass
from enum import StrEnum


class Unscored(StrEnum):
    """Why a judgment or a comparison has no verdict. A closed set: reports list exactly these."""

    EMPTY_RESPONSE = "empty_response"  # the response has no visible text: there is nothing to judge
    TOO_LONG = "too_long"  # the judge prompt and its verdict do not fit into the engine's context
    EMPTY_VERDICT = "empty_verdict"  # the judge wrote nothing
    TRUNCATED = "truncated"  # the token limit came before a complete verdict
    NO_VERDICT = "no_verdict"  # nothing that stands as a verdict
    OUT_OF_RANGE = "out_of_range"  # a number outside the scale, or a letter that was not to choose from
    OTHER_SCALE = "other_scale"  # out of another total, or per cent
    CONFLICTING = "conflicting"  # two verdicts that contradict each other, or a range
    RAN_ON = "ran_on"  # after its verdict the judge went on to another conversation or response
    NO_CHECKS = "no_checks"  # the prompt has no checks for a verifier to run
    LOW_SCORE_MASS = "low_score_mass"  # the score tokens have too little probability to mean anything
    NO_PROBABILITIES = "no_probabilities"  # the server wrote a label, and gave no probabilities of the labels
    NO_REFERENCE = "no_reference"  # the recipe wants a reference response and the prompt has none
    NO_OPPONENT = "no_opponent"  # the judge compares, and the prompt has no other response with text
    ONE_ORDER = "one_order"  # the other order could not be read, and one alone keeps the bias of its place
    CONTROL_TOKENS = "control_tokens"  # the text would have become control tokens in the judge's tokenizer
    REFUSED = "refused"  # the endpoint did not serve the request, for example because of its content filter
    NOT_FINITE = "not_finite"  # a reward model gave no finite number


@dataclass(frozen=True)
class Verdict:
    """Exactly one of `score` and `unscored` is set."""

    score: float | None = None
    unscored: Unscored | None = None

    def __post_init__(self) -> None:
        if (self.score is None) == (self.unscored is None):
            raise ValueError(f"a verdict has a score or a reason, never both or none: {self.score}, {self.unscored}")
