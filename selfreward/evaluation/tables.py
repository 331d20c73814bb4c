"""Tables of the evaluation, on held-out prompts and on the judge. The monitor's decisions are based on `outcomes`."""

from selfreward.evaluation.records import ResponseLogprob
from selfreward.records import Comparison, Judgment, Prompt, PromptOutcome, Response
from selfreward.tables import EVALUATION, JUDGE, TEST, Table

SECOND_VALIDATION = "second_validation"

RESPONSES = Table("evaluation_responses", Response, EVALUATION, "validation")
VERIFIABLE_RESPONSES = Table(
    "evaluation_verifiable_responses", Response, EVALUATION, "checks", "responses to verifiable prompts"
)
GREEDY_RESPONSES = Table(
    "evaluation_greedy_responses", Response, EVALUATION, "checks", "and greedy ones, beside the sampled ones"
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
    "evaluation_comparisons", Comparison, EVALUATION, "anchor", "it compares held-out responses (validation prompts)"
)
OUTCOMES = Table("outcomes", PromptOutcome, EVALUATION)

# Seeds are derived from the original names of these tables, so that a run samples the same tokens.
_SECOND_VALIDATION_NOTE = "upper bound: it is evaluated only where the validation prompts leave a decision open"
SECOND_VALIDATION_RESPONSES = Table(
    "evaluation_second_validation_responses", Response, EVALUATION, SECOND_VALIDATION, _SECOND_VALIDATION_NOTE,
    seeds="evaluation_reserve_responses",
)  # fmt: skip
SECOND_VALIDATION_RESPONSES_OF = {
    role: Table(
        f"{SECOND_VALIDATION_RESPONSES.name}_{role}", Response, EVALUATION, SECOND_VALIDATION, _SECOND_VALIDATION_NOTE,
        seeds=SECOND_VALIDATION_RESPONSES.seed_name,
    )
    for role in ("previous", "best")
}  # fmt: skip
SECOND_VALIDATION_COMPARISONS = Table(
    "evaluation_second_validation_comparisons", Comparison, EVALUATION, SECOND_VALIDATION, _SECOND_VALIDATION_NOTE
)
SECOND_VALIDATION_OUTCOMES = Table("second_validation_outcomes", PromptOutcome, EVALUATION)

_TEST_NOTE = "evaluated once, after the last iteration, unless the initial model is still the best"
TEST_RESPONSES_OF = {
    role: Table(
        f"evaluation_test_responses_{role}", Response, EVALUATION, TEST, _TEST_NOTE, seeds="evaluation_seal_responses"
    )
    for role in ("best", "initial")
}
TEST_COMPARISONS = Table("evaluation_test_comparisons", Comparison, EVALUATION, TEST, _TEST_NOTE)
TEST_OUTCOMES = Table("test_outcomes", PromptOutcome, EVALUATION)

POOL_PROMPTS = Table("judge_pool_prompts", Prompt, JUDGE)
POOL_RESPONSES = Table("judge_pool_responses", Response, JUDGE)
POOL_JUDGMENTS = Table(
    "judge_pool_judgments", Judgment, JUDGE, JUDGE, "the judge scores prompts of the first iteration again"
)
BEST_AND_WORST = Table(
    "judge_anchor_comparisons", Comparison, JUDGE, JUDGE,
    "the anchor compares the best and the worst response of some prompts",
)  # fmt: skip
GOLD_JUDGMENTS = Table(
    "judge_gold_judgments", Judgment, JUDGE, JUDGE, "the judge scores both responses of each gold pair"
)
GOLD_OUTCOMES = Table("gold_outcomes", PromptOutcome, JUDGE)
