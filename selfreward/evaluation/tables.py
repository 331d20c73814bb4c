"""What evaluation stores: of the held-out prompts, and of the judge. `outcomes` are what the monitor decides on."""

from selfreward.evaluation.records import ResponseLogprob
from selfreward.records import Comparison, Judgment, Prompt, PromptOutcome, Response
from selfreward.tables import EVALUATION, JUDGE, SEAL, Table

RESERVE = "reserve"

RESPONSES = Table("evaluation_responses", Response, EVALUATION, "monitor")
VERIFIABLE_RESPONSES = Table(
    "evaluation_verifiable_responses", Response, EVALUATION, "checks", "responses to verifiable prompts"
)
KL_RESPONSES = Table("evaluation_kl_responses", Response, EVALUATION, "KL")
LOGPROBS = {
    role: Table(f"evaluation_logprobs_{name}", ResponseLogprob, EVALUATION, "KL")
    for role, name in (("trained", "policy"), ("previous", "previous"), ("initial", "initial"))
}
SELF_JUDGMENTS = Table(
    "evaluation_self_judgments", Judgment, EVALUATION, "self", "the run's own judge on the same responses as the anchor"
)
COMPARISONS = Table(
    "evaluation_comparisons", Comparison, EVALUATION, "anchor", "it compares held-out responses (monitor)"
)
OUTCOMES = Table("outcomes", PromptOutcome, EVALUATION)

_RESERVE_NOTE = "at most, since it is asked only where the monitor prompts leave a decision open"
RESERVE_RESPONSES = Table("evaluation_reserve_responses", Response, EVALUATION, RESERVE, _RESERVE_NOTE)
RESERVE_RESPONSES_OF = {
    role: Table(
        f"{RESERVE_RESPONSES.name}_{role}", Response, EVALUATION, RESERVE, _RESERVE_NOTE, seeds=RESERVE_RESPONSES.name
    )
    for role in ("previous", "best")
}
RESERVE_COMPARISONS = Table("evaluation_reserve_comparisons", Comparison, EVALUATION, RESERVE, _RESERVE_NOTE)
RESERVE_OUTCOMES = Table("reserve_outcomes", PromptOutcome, EVALUATION)

_SEAL_NOTE = "asked once, when the run has ended, unless the best model is then the given one"
SEAL_RESPONSES_OF = {
    role: Table(
        f"evaluation_seal_responses_{role}", Response, EVALUATION, SEAL, _SEAL_NOTE, seeds="evaluation_seal_responses"
    )
    for role in ("best", "initial")
}
SEAL_COMPARISONS = Table("evaluation_seal_comparisons", Comparison, EVALUATION, SEAL, _SEAL_NOTE)
SEAL_OUTCOMES = Table("seal_outcomes", PromptOutcome, EVALUATION)

POOL_PROMPTS = Table("judge_pool_prompts", Prompt, JUDGE)
POOL_RESPONSES = Table("judge_pool_responses", Response, JUDGE)
POOL_JUDGMENTS = Table(
    "judge_pool_judgments", Judgment, JUDGE, JUDGE, "the judge asked again about prompts of the first iteration"
)
BEST_AND_WORST = Table(
    "judge_anchor_comparisons", Comparison, JUDGE, JUDGE,
    "the anchor asked about the best and the worst response of some prompts",
)  # fmt: skip
GOLD_JUDGMENTS = Table(
    "judge_gold_judgments", Judgment, JUDGE, JUDGE, "the judge asked about both responses of each gold pair"
)
GOLD_OUTCOMES = Table("gold_outcomes", PromptOutcome, JUDGE)
