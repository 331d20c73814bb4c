"""The evaluator with the real parts: engine, anchor, prompts, store, on a small random model."""

import json
from dataclasses import asdict

import pytest
from cases.evaluation import EvaluationRunner

from selfreward import engines, evaluation, judging, prompts
from selfreward.chats.local import LocalChat
from selfreward.evaluation import tables
from selfreward.evaluation.tables import OUTCOMES, SECOND_VALIDATION_OUTCOMES, TEST_OUTCOMES
from selfreward.model_files import checkpoint_of, materialise
from selfreward.monitoring.evidence import tabulate
from selfreward.readers import without_reasoning
from selfreward.recipe import (
    BuiltinPrompts,
    EngineSection,
    EvaluationSection,
    IterationsSection,
    ModelSection,
    PairwiseSection,
    SamplingSection,
    VerifiableEvaluation,
)
from selfreward.records import Checkpoint, Evaluation, Interval
from selfreward.reporting.formatting import centre
from selfreward.roles import Roles
from selfreward.store import Store

SEED = 3
NUM_SECOND, NUM_TEST = 8, 6
SECTION = EvaluationSection(
    num_prompts=24, num_second_validation_prompts=NUM_SECOND, num_test_prompts=NUM_TEST,
    verifiable=VerifiableEvaluation(num_prompts=16), max_tokens=24,
)  # fmt: skip
ENGINE = EngineSection(kind="transformers", dtype="float32", context_tokens=4096)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """M_0, M_1 with a little and M_2 with more noise on every weight, and M_3 with the weights of M_0."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = materialise(ModelSection(model="random:tiny"))
    made = [checkpoint_of(folder, iteration=0)]
    for iteration, noise in ((1, 0.003), (2, 0.03), (3, 0.0)):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        generator = torch.Generator().manual_seed(iteration)
        with torch.no_grad():
            for _, weight in sorted(model.named_parameters()):
                weight.add_(noise * torch.randn(weight.shape, generator=generator))
        path = tmp_path_factory.mktemp(f"m{iteration}")
        model.save_pretrained(path)
        AutoTokenizer.from_pretrained(folder).save_pretrained(path)
        made.append(checkpoint_of(path, iteration=iteration))
    return made


def evaluator(engine, initial: Checkpoint):
    source = prompts.build(
        BuiltinPrompts(kind="builtin"),
        evaluation=SECTION,
        iterations=IterationsSection(max=1, num_prompts_per_iteration=8),
        seed=SEED,
    )
    chats = {name: LocalChat(name, engine) for name in ("policy", "initial")}
    judge = judging.build(PairwiseSection(kind="pairwise", by="policy"), chats=chats, engine=engine, seed=SEED)
    evaluator = evaluation.Evaluator(
        source, engine, judging.build_anchor(SECTION.anchor, chats=chats, engine=engine, seed=SEED),
        evaluation.Decoding(SECTION.temperature, SamplingSection().top_p, 24), SEED, shard_prompts=16,
    )  # fmt: skip
    return EvaluationRunner(evaluator, judge, SECTION)


def roles(iteration, checkpoints):
    """M_1 is the best until the end."""
    trained, before = checkpoints[iteration], checkpoints[max(iteration - 1, 0)]
    best = checkpoints[min(1, max(iteration - 1, 0))]
    weights = {"policy": before, "previous": before, "trained": trained, "initial": checkpoints[0], "best": best}
    return Roles(weights, models={}, at_iteration_start=weights, at_previous_start={})


@pytest.fixture(scope="module")
def measured(checkpoints, tmp_path_factory):
    """The store after evaluations 0 to 3, what they measured, and how often the engine swapped in each."""
    store = Store(tmp_path_factory.mktemp("run") / "run", name="test")
    engine = engines.build(ENGINE, first=checkpoints[0])
    made = evaluator(engine, checkpoints[0])
    found, swaps = [], []
    for checkpoint in checkpoints:
        before = engine.usage()["num_weight_syncs"]
        found.append(made.evaluate(store, checkpoint.iteration, roles(checkpoint.iteration, checkpoints)))
        swaps.append(engine.usage()["num_weight_syncs"] - before)
    engine.close()
    yield store, found, swaps
    store.close()


def test_every_metric_is_there_and_survives_json(measured):
    _, found, _ = measured
    for measured_of in found:
        again = Evaluation.from_json(json.loads(json.dumps(asdict(measured_of), allow_nan=False)))
        assert again == measured_of
    names = {
        "win_rate_vs_previous", "win_rate_vs_initial", "position_consistency_rate", "anchor_unscored_rate",
        "anchor_valid", "pass_rate", "pass_rate_vs_previous", "pass_rate_vs_initial", "response_tokens",
        "response_tokens_vs_previous", "response_tokens_vs_initial", "truncation_rate", "kl_initial_nats",
        "kl_previous_nats", "length_adjusted_win_rate_vs_previous", "self_win_rate_vs_initial", "repetition_rate",
    }  # fmt: skip
    assert names <= found[2].metrics.keys()
    assert {"win_rate_vs_best", "self_win_rate_vs_best", "pass_rate_vs_best"} <= found[3].metrics.keys()
    assert {f"distinct_{n}" for n in (1, 2, 3)} <= found[2].metrics.keys() | found[2].not_measured.keys()


def test_the_same_weights_are_the_same_in_every_number(measured):
    _, found, _ = measured
    same = found[3].metrics
    for name in ("pass_rate_vs_initial", "response_tokens_vs_initial"):
        assert same[name].mean == 0.0
    # Scores of the same tokens under the same weights, computed twice.
    assert centre(same["kl_initial_nats"]) == pytest.approx(0.0, abs=1e-3)
    assert same["same_response_rate_vs_initial"].mean == 1.0 and "win_rate_vs_initial" not in same
    assert same["pass_rate"] == found[0].metrics["pass_rate"]
    assert same["kl_previous_nats"].low > 0.0


def test_kl_agrees_with_the_full_vocabulary_on_the_same_draws(measured, checkpoints):
    store, found, _ = measured
    draws = list(store.read(2, tables.KL_RESPONSES))
    exact = full_vocabulary_kl(draws, checkpoints[2], checkpoints[0])
    estimate = found[2].metrics["kl_initial_nats"]
    assert isinstance(estimate, Interval) and estimate.num_units == len(draws) == 24
    # Both estimate the same number from the same texts; the one without sampling error lies in the other's interval.
    assert exact > 0.1
    assert estimate.low < exact < estimate.high
    assert found[1].metrics["kl_initial_nats"].mean < found[2].metrics["kl_initial_nats"].low


def full_vocabulary_kl(draws, p, q):
    """Mean over draws of the sum over positions of sum_v p(v) (log p(v) - log q(v)), with plain transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    models = [AutoModelForCausalLM.from_pretrained(c.path, dtype=torch.float32).eval() for c in (p, q)]
    total = 0.0
    for draw in draws:
        ids = torch.tensor([[*draw.prompt_token_ids, *draw.token_ids]])
        start = len(draw.prompt_token_ids) - 1
        with torch.no_grad():
            log_p, log_q = (model(ids).logits[0, start:-1].log_softmax(-1) for model in models)
        total += float((log_p.exp() * (log_p - log_q)).sum())
    return total / len(draws)


def test_the_anchor_was_shown_both_orders_of_different_texts_only(measured):
    store, found, _ = measured
    comparisons = list(store.read(2, tables.COMPARISONS))
    texts = {r.id: r.text for t in range(3) for r in store.read(t, tables.RESPONSES)}
    shown_first = {}
    for comparison in comparisons:
        assert texts[comparison.response_id] != texts[comparison.other_id]
        shown_first.setdefault((comparison.response_id, comparison.other_id), set()).add(comparison.shown_first)
    assert comparisons and all(len(shown) == 2 for shown in shown_first.values())
    # A random model prefers a letter, not a text: this must not count as a measurement.
    if found[2].metrics["position_consistency_rate"].mean < 0.6:
        assert found[2].metrics["anchor_valid"] == 0.0 and "INVALID" in found[2].not_measured["anchor"]


def test_the_runs_judge_compared_each_text_with_each_other_one(measured, checkpoints):
    store, found, _ = measured
    responses = {r.id: r for t in range(4) for r in store.read(t, tables.RESPONSES)}
    judgments = list(store.read(3, tables.SELF_JUDGMENTS))
    assert judgments and len({judged.id for judged in judgments}) == len(judgments)
    assert {j.unscored for j in judgments if not j.other_id} <= {"no_opponent", "empty_response"}
    compared = {
        (j.prompt_id, responses[j.response_id].text, responses[j.other_id].text) for j in judgments if j.other_id
    }
    by_prompt = {}
    for t in (1, 2, 3, 0):
        for response in store.read(t, tables.RESPONSES):
            if without_reasoning(response.text):  # the others are not compared
                by_prompt.setdefault(response.prompt_id, set()).add(response.text)
    expected = {(p, a, b) for p, texts in by_prompt.items() for a in texts for b in texts if a != b}
    assert compared == expected
    assert {j.checkpoint_id for j in judgments} == {checkpoints[2].id}
    # M_3 has the weights of M_0, so all judges give them the same outcomes.
    assert "self_win_rate_vs_initial" not in found[3].metrics  # the responses are equal


def test_outcomes_are_those_of_the_metrics(measured):
    store, found, _ = measured
    tables = tabulate(store.read(3, OUTCOMES))
    assert tables.keys() == {
        (by, on, k)
        for by, on in (("anchor", "validation"), ("self", "validation"), ("checks", "verifiable"))
        for k in range(3)
    }
    for name, k in (("previous", 2), ("initial", 0), ("best", 1)):
        for by, metric in (("anchor", "win_rate"), ("self", "self_win_rate")):
            outcomes = tables[by, "validation", k].values
            if name == "initial":  # M_3 is M_0: the responses are equal, so nobody was asked, and there is no win rate
                assert set(outcomes) == {0.5} and f"{metric}_vs_initial" not in found[3].metrics
            else:
                assert outcomes.mean() == pytest.approx(found[3].metrics[f"{metric}_vs_{name}"].mean)
        passed = 2 * tables["checks", "verifiable", k].values.mean() - 1
        assert passed == pytest.approx(found[3].metrics[f"pass_rate_vs_{name}"].mean)
    assert len(tables["anchor", "validation", 0].values) + tables["anchor", "validation", 0].num_unscored == 24


def test_second_validation_and_test_set_are_other_prompts(measured, checkpoints):
    store, _, _ = measured
    engine = engines.build(ENGINE, first=checkpoints[0])
    made = evaluator(engine, checkpoints[0])
    made.evaluate_second_validation(store, 2, roles(2, checkpoints))
    test_metrics = made.run_test(store, 3, roles(3, checkpoints))
    engine.close()
    monitor = {row.prompt_id for row in store.read(3, OUTCOMES)}
    second_validation = list(store.read(2, SECOND_VALIDATION_OUTCOMES))
    test_set = list(store.read(3, TEST_OUTCOMES))
    assert {row.against for row in second_validation} == {1} and len(second_validation) == NUM_SECOND
    assert {row.against for row in test_set} == {0} and len(test_set) == NUM_TEST
    ids = [monitor, {row.prompt_id for row in second_validation}, {row.prompt_id for row in test_set}]
    assert len(set.union(*ids)) == sum(map(len, ids))
    values = [row.outcome for row in test_set if row.outcome is not None]
    assert test_metrics.metrics["test_win_rate_vs_initial"].mean == pytest.approx(sum(values) / len(values))


def test_the_engine_syncs_weights_no_more_often_than_needed(measured):
    _, _, swaps = measured
    # M_0 may be there already; then M_1 and M_0; then M_2, M_1 and M_0; M_3 has the weights of M_0.
    assert swaps[0] <= 1 and swaps[1:3] == [2, 3] and swaps[3] <= 3


def test_a_second_run_measures_the_same(measured, checkpoints, tmp_path):
    _, found, _ = measured
    engine = engines.build(ENGINE, first=checkpoints[0])
    with Store(tmp_path / "again", name="again") as store:
        made = evaluator(engine, checkpoints[0])
        again = made.evaluate(store, 0, roles(0, checkpoints))
        later = made.evaluate(store, 1, roles(1, checkpoints))
    engine.close()
    assert again == found[0]
    assert later == found[1]
