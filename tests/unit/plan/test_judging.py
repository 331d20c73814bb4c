"""What a plan counts for each kind of judge, for its checks and for pairs, against sums made by hand.

There are 3 prompts an iteration with 4 responses of 50 words each; see `tests/cases/plan.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cases.plan import Source, count, make_recipe, rubric, without_repeats, words

from selfreward.plan.amounts import Work
from selfreward.plan.work import IterationWork
from selfreward.records import Prompt
from selfreward.seeding import seed_of
from selfreward.templates import Template, Verbatim

FIRST, SECOND = (Source().training_prompts(t) for t in (1, 2))
RESPONSES, JUDGMENTS = "responses", "judgments"
POOL, BEST_AND_WORST = "judge_pool_judgments", "judge_anchor_comparisons"
SELF, GOLD = "evaluation_self_judgments", "judge_gold_judgments"
COMPARISON = {"response_a": "", "response_b": ""}
YES = Verbatim("yes")
CONSISTENCY = "pairing={kind: best_vs_worst, label: consistency}"
SERVER = "models.gpt={endpoint: 'http://localhost:1/v1', model: m, price: {prompt: 2.0, generated: 10.0}}"


def planned(*overrides: str, source: Source | None = None) -> tuple[IterationWork, IterationWork]:
    """Iterations 1 and 2."""
    (_, first, second), warnings = count(make_recipe(*overrides), source)
    assert warnings == []
    return first, second


def total(lengths: Callable[[Prompt], int], prompts: Sequence[Prompt] = FIRST) -> int:
    return sum(map(lengths, prompts))


def opening(name: str) -> int:
    return len(Template.load(name).opening.split())


def plain(work: Work) -> Work:
    return replace(without_repeats(work), parts=())


# Judges that give a score


def test_each_prompt_variant_of_an_expected_score_is_its_own_prefill() -> None:
    first, _ = planned("judging={kind: expected_score, num_draws: 3}")
    names = ("expected_score", "expected_score_2", "expected_score_3")
    expected = sum(4 * total(lambda p, n=name: rubric(n, p, response="") + opening(n) + 50) for name in names)
    assert plain(first.stages[JUDGMENTS]) == Work(36, expected, 36, 36, 1)
    once = [call.num_prompt_tokens for call in first.stages[JUDGMENTS].calls]
    assert len(set(once)) == 3  # the prompt variants differ in length


def test_an_expected_score_after_reasoning_is_written_once_and_read_once_a_draw() -> None:
    first, _ = planned("judging={kind: expected_score, num_draws: 5, reasoning: {max_tokens: 30}}")
    asked = 4 * total(lambda p: rubric("expected_score", p, response="", reasoning=YES) + 50)
    written, read = first.stages[JUDGMENTS].calls
    assert without_repeats(written) == Work(12, asked, 12 * 5 * 30, 60, 30)
    # What was written ends in a line break, a word of its own for a careful tokenizer.
    assert without_repeats(read) == Work(60, 5 * asked + 60 * (31 + opening("expected_score")), 60, 60, 1)
    assert read.num_repeated_tokens == 5 * asked
    assert first.stages[JUDGMENTS].num_requests == 72


def test_a_judge_that_commits_itself_responds_once_a_prompt_and_is_shown_its_response() -> None:
    first, _ = planned("judging={kind: additive, num_draws: 5, max_tokens: 30, commit_first: {max_tokens: 7}}")
    committed, judged = first.stages[JUDGMENTS].calls
    assert committed == Work(3, 69, 3 * 7, 3, 7)
    expected = 4 * total(lambda p: rubric("additive", p, response="", own_response="") + 7 + 50)
    assert without_repeats(judged) == Work(12, expected, 12 * 5 * 30, 60, 30)
    assert judged.num_prompt_tokens - judged.num_repeated_tokens < judged.num_prompt_tokens / 2


class WithReferences(Source):
    """Of the training prompts all but the last one have a reference of five words."""

    def training_prompts(self, iteration: int) -> Sequence[Prompt]:
        *known, last = super().training_prompts(iteration)
        return [*(replace(prompt, reference="a b c d e") for prompt in known), last]


def test_a_reference_is_shown_and_a_prompt_without_one_is_not_judged() -> None:
    first, _ = planned("judging={kind: expected_score, num_draws: 1, reference_answer: true}", source=WithReferences())
    lengths = [rubric("expected_score", p, response="", reference="a b c d e") for p in FIRST[:2]]
    expected = 4 * sum(length + opening("expected_score") + 50 for length in lengths)
    assert plain(first.stages[JUDGMENTS]) == Work(8, expected, 8, 8, 1)
    without_references, _ = planned("judging={kind: expected_score, reference_answer: true}")
    assert JUDGMENTS not in without_references.stages


def test_a_form_that_the_engine_enforces_changes_the_prompt() -> None:
    first, _ = planned("judging={kind: additive, num_draws: 5, max_tokens: 30, structured: true}")
    expected = 4 * total(lambda p: rubric("additive", p, response="", structured=Verbatim("json")) + 50)
    assert plain(first.stages[JUDGMENTS]) == Work(12, expected, 12 * 5 * 30, 60, 30)


def test_a_rubric_makes_a_request_for_each_criterion() -> None:
    criteria = "[{name: tone, description: it is kind}, {name: facts, description: all that it says is really true}]"
    first, _ = planned(f"judging={{kind: rubric, num_draws: 2, max_tokens: 30, criteria: {criteria}}}")
    shown = (Verbatim("tone: it is kind"), Verbatim("facts: all that it says is really true"))
    expected = sum(4 * total(lambda p, c=c: rubric("rubric", p, response="", criterion=c) + 50) for c in shown)
    assert plain(first.stages[JUDGMENTS]) == Work(24, expected, 24 * 2 * 30, 48, 30)


# Judges that compare


def test_a_pairwise_judge_compares_every_two_responses_in_both_orders() -> None:
    first, _ = planned("judging={kind: pairwise}")
    expected = 12 * total(lambda p: rubric("pairwise", p, **COMPARISON) + opening("pairwise") + 100)
    assert plain(first.stages[JUDGMENTS]) == Work(36, expected, 36, 36, 1)  # 4 * 3 / 2 matchups, 3 prompts


def test_a_pairwise_judge_that_reasons_writes_every_draw_in_either_order() -> None:
    first, _ = planned("judging={kind: pairwise, num_draws: 2, reasoning: {max_tokens: 30}}")
    asked = 12 * total(lambda p: rubric("pairwise", p, **COMPARISON, reasoning=YES) + 100)
    written, read = map(without_repeats, first.stages[JUDGMENTS].calls)
    assert written == Work(36, asked, 36 * 2 * 30, 72, 30)
    assert read == Work(72, 2 * asked + 72 * (31 + opening("pairwise")), 72, 72, 1)


def test_a_constitution_asks_one_principle_or_all_and_the_longest_bounds_the_one(tmp_path: Path) -> None:
    principles = ("Be kind.", "Say only what is true.", "Be brief.")
    (tmp_path / "principles.yaml").write_text("".join(f"- {principle}\n" for principle in principles))
    judging = f"judging={{kind: constitution, principles: '{tmp_path / 'principles.yaml'}', each_judgment: %s}}"

    def asked(principle: str) -> int:
        shown = {**COMPARISON, "principle": Verbatim(principle)}
        return 12 * total(lambda p: rubric("constitution", p, **shown) + opening("constitution") + 100)

    one, _ = planned(judging % "one")
    assert plain(one.stages[JUDGMENTS]) == Work(36, asked(principles[1]), 36, 36, 1)
    all_, _ = planned(judging % "all")
    assert plain(all_.stages[JUDGMENTS]) == Work(108, sum(map(asked, principles)), 108, 108, 1)


# Judges without a prompt text


def test_an_intrinsic_judge_scores_each_response_with_two_models_once_they_differ() -> None:
    first, second = planned("judging={kind: intrinsic}")
    assert JUDGMENTS not in first.stages  # policy and initial are both M_0
    one_model = Work(12, total(lambda p: 4 * (len(p.messages[0].content.split()) + 2 + 50), SECOND))
    assert second.stages[JUDGMENTS].parts == (one_model, one_model)
    other, _ = planned("judging={kind: intrinsic, reference: other}", "models.other={model: 'random:tiny'}")
    assert other.stages[JUDGMENTS].num_requests == 24


def test_a_likelihood_judge_scores_only_responses_of_others() -> None:
    first, second = planned("judging={kind: likelihood}", "pairing={kind: initial_rejected}")
    assert JUDGMENTS not in first.stages and JUDGMENTS not in planned("judging={kind: self_consistency}")[1].stages
    assert second.stages[JUDGMENTS].num_requests == 12  # M_0's responses; log-probabilities of its own are known
    assert planned("judging={kind: likelihood, by: initial}")[0].stages[JUDGMENTS].num_requests == 12


def test_a_reward_model_scores_every_response_outside_the_engine() -> None:
    first, second = planned("judging={kind: reward_model, by: rm}", "models.rm={model: 'random:tiny'}")
    assert not {JUDGMENTS, SELF} & first.stages.keys()
    assert first.outside_engine[JUDGMENTS] == {"rm": Work(12, 4 * 69 + 12 * 50)}
    assert first.outside_engine[SELF] == {"rm": Work(80, 80 * 27)}  # those of M_0 and M_1 to 40 validation prompts
    assert POOL not in second.outside_engine  # it judges as before


def test_an_ensemble_makes_the_requests_of_its_members() -> None:
    members = ("{kind: additive, num_draws: 5, max_tokens: 30}", "{kind: pairwise}", "{kind: verifier}")
    alone = [planned(f"judging={member}")[0].stages.get(JUDGMENTS) for member in members]
    first, _ = planned(f"judging={{kind: ensemble, members: [{', '.join(members)}]}}")
    assert first.stages[JUDGMENTS].parts == tuple(work for work in alone if work)
    assert first.stages[JUDGMENTS].num_requests == 12 + 36


# Judges behind an endpoint


def test_an_endpoint_is_not_work_of_the_engine_and_every_draw_may_be_a_request() -> None:
    judging = "judging={kind: additive, by: gpt, num_draws: 5, max_tokens: 30}"
    first, second = planned(judging, SERVER)
    assert not {JUDGMENTS, SELF} & first.stages.keys()
    asked = 4 * total(lambda p: rubric("additive", p, response="") + 50)
    expected = Work(60, 5 * asked, 60 * 30, 60, 30, num_repeated_tokens=4 * asked)
    assert first.outside_engine[JUDGMENTS] == {"gpt": expected}
    assert first.outside_engine.keys() == second.outside_engine.keys() == {JUDGMENTS, SELF}


def test_a_choice_leaves_an_endpoint_room_for_its_own_words() -> None:
    first, _ = planned("judging={kind: expected_score, by: gpt, num_draws: 1}", SERVER)
    # 16 tokens and one for three bytes of "Score: ".
    assert first.outside_engine[JUDGMENTS]["gpt"].max_generated_tokens == 16 + 3
    reasoned, _ = planned("judging={kind: expected_score, by: gpt, num_draws: 2, reasoning: {max_tokens: 30}}", SERVER)
    assert reasoned.outside_engine[JUDGMENTS]["gpt"].num_requests == 24
    assert reasoned.outside_engine[JUDGMENTS]["gpt"].num_generated_tokens == 24 * (30 + 16 + 3)


def test_cached_replies_of_an_endpoint_are_not_requested_again() -> None:
    """A policy among the members judges the pool again, and its predecessor the same responses."""
    members = "[{kind: additive, num_draws: 5, max_tokens: 30}, {kind: pairwise, by: gpt}]"
    judging = f"judging={{kind: ensemble, members: {members}}}"
    first, second = planned(judging, SERVER, CONSISTENCY, source=Source(num_gold=2))
    assert first.outside_engine.keys() == {JUDGMENTS, SELF, GOLD} and second.outside_engine.keys() == {JUDGMENTS, SELF}
    assert second.stages[GOLD].num_requests == 4
    assert second.stages[POOL].num_requests == second.stages["previous_judgments"].num_requests == 12


def test_an_anchor_behind_an_endpoint_leaves_no_comparison_to_the_engine() -> None:
    first, second = planned("evaluation.anchor={kind: pairwise, by: gpt}", SERVER)
    assert not {"evaluation_comparisons", BEST_AND_WORST} & first.stages.keys()
    assert first.outside_engine["evaluation_comparisons"]["gpt"].num_requests == 80
    assert second.outside_engine["evaluation_comparisons"]["gpt"].num_requests == 160
    assert second.outside_engine[BEST_AND_WORST]["gpt"].num_requests == 6


# Anchors that score


def test_a_scoring_anchor_scores_each_response_once() -> None:
    first, second = planned("evaluation.anchor={kind: additive, by: initial, num_draws: 2, max_tokens: 9}")
    monitor = Source().validation_prompts()[0]
    one = rubric("additive", monitor, response="") + 20
    assert plain(first.stages["evaluation_comparisons"]) == Work(80, 80 * one, 80 * 2 * 9, 160, 9)
    assert second.stages["evaluation_comparisons"].num_requests == 120
    assert first.stages[BEST_AND_WORST].num_requests == 6


def test_a_scoring_endpoint_scores_only_new_responses() -> None:
    first, second = planned("evaluation.anchor={kind: additive, by: gpt, num_draws: 2, max_tokens: 9}", SERVER)
    asked = [work.outside_engine["evaluation_comparisons"]["gpt"].num_requests for work in (first, second)]
    assert asked == [2 * 80, 2 * 40]  # two draws of M_0's and M_1's, then of M_2's
    assert second.outside_engine[BEST_AND_WORST]["gpt"].num_requests == 2 * 6


def test_an_anchor_may_be_a_reward_model_or_a_verifier() -> None:
    first, _ = planned("evaluation.anchor={kind: reward_model, by: rm}", "models.rm={model: 'random:tiny'}")
    assert first.outside_engine["evaluation_comparisons"] == {"rm": Work(80, 80 * 27)}
    first, _ = planned("evaluation.anchor={kind: verifier}")
    assert not {"evaluation_comparisons", BEST_AND_WORST} & (first.stages.keys() | first.outside_engine.keys())


# What a judge is checked with


class Twenty(Source):
    """Twenty training prompts, all of different lengths."""

    def training_prompts(self, iteration: int) -> Sequence[Prompt]:
        return [words(f"t{iteration}-{i}", 10 + 2**i % 97 + iteration) for i in range(20)]


def test_the_pool_is_the_first_iterations_and_judged_again_by_each_later_judge() -> None:
    first, second = planned("evaluation.num_judge_prompts=5", source=Twenty())
    assert POOL not in first.stages
    pool = sorted(Twenty().training_prompts(1), key=lambda p: seed_of(0, 0, "judge", p.id))[:5]
    expected = 4 * total(lambda p: rubric("additive", p, response="") + 50, pool)
    assert plain(second.stages[POOL]) == Work(20, expected, 20 * 5 * 30, 100, 30)


def test_the_anchor_compares_best_and_worst_on_prompts_of_each_iteration() -> None:
    for number, work in enumerate(planned("evaluation.num_judge_prompts=5", source=Twenty()), start=1):
        drawn = sorted(Twenty().training_prompts(number), key=lambda p: seed_of(0, 0, "judge", p.id))[:5]
        expected = 2 * total(lambda p: rubric("pairwise", p, **COMPARISON) + opening("pairwise") + 100, drawn)
        assert plain(work.stages[BEST_AND_WORST]) == Work(10, expected, 10, 10, 1)


@pytest.mark.parametrize(
    ("judging", "is_asked_again"),
    [
        ("{kind: additive, by: best}", True),
        ("{kind: additive, by: initial}", False),
        ("{kind: intrinsic}", True),
        ("{kind: likelihood}", True),
        ("{kind: likelihood, by: initial}", False),
        ("{kind: self_consistency}", False),
        ("{kind: intrinsic, by: other, reference: best}", True),
        ("{kind: ensemble, members: [{kind: pairwise, by: initial}, {kind: expected_score}]}", True),
        ("{kind: ensemble, members: [{kind: pairwise, by: initial}, {kind: verifier}]}", False),
    ],
)
def test_only_a_judge_that_changes_judges_again(judging: str, is_asked_again: bool) -> None:
    _, second = planned(f"judging={judging}", "models.other={model: 'random:tiny'}")
    assert (POOL in second.stages) is is_asked_again
    assert BEST_AND_WORST in second.stages
    _, unchecked = planned(
        f"judging={judging}", "models.other={model: 'random:tiny'}", "evaluation.num_judge_prompts=0"
    )
    assert not {POOL, BEST_AND_WORST} & unchecked.stages.keys()


def test_an_anchor_that_commits_itself_responds_once_for_each_baseline() -> None:
    first, second = planned("evaluation.anchor={kind: pairwise, commit_first: {max_tokens: 7}}")
    for work, num_rivals in ((first, 1), (second, 2)):
        committed, compared = map(without_repeats, work.stages["evaluation_comparisons"].calls)
        assert committed == Work(40 * num_rivals, 40 * num_rivals * 7, 40 * num_rivals * 7, 40 * num_rivals, 7)
        assert compared.num_requests == 80 * num_rivals


# Pairs


def test_responses_of_the_initial_model_are_sampled_and_judged_from_the_second_iteration_on() -> None:
    first, second = planned("pairing={kind: initial_rejected}", "judging={kind: pairwise}")
    assert "initial_responses" not in first.stages and first.stages[JUDGMENTS].num_requests == 36
    assert second.stages["initial_responses"] == second.stages[RESPONSES]
    assert second.stages[JUDGMENTS].num_requests == 3 * 8 * 7  # all eight of a prompt are compared with each other
    assert second.stages[POOL].num_requests == 36  # and four in the pool
    assert second.update.num_pairs == 3


def test_for_consistency_the_previous_judge_judges_the_same_responses() -> None:
    first, second = planned(CONSISTENCY)
    assert "previous_judgments" not in first.stages
    assert second.stages["previous_judgments"] == second.stages[JUDGMENTS]
    # In the second iteration the previous judge is that of the first: both of its models are M_0.
    _, intrinsic = planned(CONSISTENCY, "judging={kind: intrinsic}")
    assert "previous_judgments" not in intrinsic.stages and JUDGMENTS in intrinsic.stages


@pytest.mark.parametrize(("k", "num_pairs"), [(1, 3), (2, 6), (3, 6)])
def test_four_responses_give_two_pairs_at_most(k: int, num_pairs: int) -> None:
    first, _ = planned(f"pairing={{kind: top_k, k: {k}}}", "training.num_epochs=1")
    assert (first.update.num_pairs, first.update.num_steps) == (num_pairs, -(-num_pairs // 2))
    assert first.update.num_training_tokens == num_pairs // 3 * (69 + 3 * 100)


META = "meta_judging={max_judgments: 4, max_tokens: 9, max_share: %s, iterations: [1]}"


def test_four_of_five_judgments_meet_each_other_in_both_orders_in_the_first_iterations() -> None:
    first, second = planned(META % 0.15)
    shown = {"response": "", "judgment_a": "", "judgment_b": ""}
    expected = 12 * total(lambda p: rubric("meta_judge", p, **shown) + 50 + 2 * 30)
    assert without_repeats(first.stages["battles"]) == Work(36, expected, 36 * 9, 36, 9)
    assert "battles" not in second.stages
    fewer, _ = planned(META % 0.15, "judging={kind: additive, num_draws: 3}")
    assert fewer.stages["battles"].num_requests == 3 * 3 * 2


def test_pairs_of_judgments_keep_to_their_share_and_are_as_long_as_their_rubric() -> None:
    first, second = planned(META % 0.4, "training.num_epochs=1")
    # Of 3 pairs of responses 0.4 / 0.6 are 2; theirs are the two longest prompts.
    assert (first.update.num_pairs, first.update.num_judgment_pairs, first.update.num_steps) == (5, 2, 3)
    asked = [rubric("additive", prompt, response="") + 50 for prompt in FIRST]
    assert first.update.num_training_tokens == 69 + 3 * 100 + sum(asked[1:]) + 2 * 60
    assert first.update.longest_pair_tokens == asked[2] + 60
    assert (second.update.num_pairs, second.update.num_judgment_pairs) == (3, 0)
    none, _ = planned(META % 0.15)
    assert (none.update.num_pairs, none.update.num_judgment_pairs) == (3, 0)


def test_the_share_of_judgment_pairs_is_that_of_the_iteration() -> None:
    whole, _ = planned(META % 0.5, "iterations.shard_prompts=3")
    assert whole.update.num_judgment_pairs == 3
    parts, _ = planned(META % 0.4, "iterations.shard_prompts=1")
    assert parts.update.num_judgment_pairs == 2  # 0.67 a shard, but what one cannot use the next one can
    padded, _ = planned(META % 0.4, "training.packing=padded", "training.num_epochs=1")
    packed, _ = planned(META % 0.4, "training.num_epochs=1")
    asked = [rubric("additive", prompt, response="") + 50 for prompt in FIRST]
    assert padded.update.num_training_tokens - packed.update.num_training_tokens == 69 + sum(asked[1:])
