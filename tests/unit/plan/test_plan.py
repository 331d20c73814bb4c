"""The counts of a plan, checked against sums made by hand, and its text."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases.plan import Source, count, make_recipe, rubric, without_repeats

from selfreward import recipe_file
from selfreward.dtypes import engine_dtype
from selfreward.errors import RecipeError
from selfreward.parts import LeftOut
from selfreward.plan import Plan, render
from selfreward.plan.amounts import Work
from selfreward.plan.endpoints import beyond_budget
from selfreward.plan.history import History, read_history
from selfreward.plan.machine import Machine
from selfreward.plan.memory import ASLEEP_BYTES, memory_of
from selfreward.plan.model_shape import ModelShape, read_shape
from selfreward.plan.seconds import REAL_RATE, START_S, Seconds, estimate
from selfreward.plan.storage import disk_of
from selfreward.plan.work import IterationWork
from selfreward.recipe import Recipe
from selfreward.records import PreferencePair, Prompt
from selfreward.store import Store
from selfreward.tables import PAIRS, TRAINING
from selfreward.templates import Template
from selfreward.updates.memory import TrainingMemory
from selfreward.workload import UpdateWork

MODEL = ModelShape(
    num_parameters=1_000_000, num_matrix_parameters=900_000, num_layers=4, hidden_size=64, num_kv_heads=2, head_size=16,
    vocabulary=1000,
)  # fmt: skip
CPU = Machine("cpu", "2 CPU threads", 1e11, 5e10, 1e10, 8 * 2**30)


# Counts


def test_the_first_row_is_only_the_evaluation_of_the_initial_model() -> None:
    (first, *_), warnings = count(make_recipe())
    assert warnings == []
    assert (first.iteration, first.outside_engine, first.update) == (0, {}, UpdateWork())
    assert first.stages == {
        "evaluation_responses": Work(40, 40 * 7, 40 * 20, 40, 20),
        "evaluation_verifiable_responses": Work(6, 6 * 10, 6 * 20, 6, 20),
    }


def test_a_prompt_counts_once_for_each_request_and_every_draw_generates() -> None:
    (_, first, second), _ = count(make_recipe())
    # 3 prompts of 11, 21, 31 words and 2 tokens of the chat, then 12, 22, 32.
    assert first.stages["responses"] == Work(3, 69, 3 * 4 * 50, 12, 50)
    assert second.stages["responses"] == Work(3, 72, 3 * 4 * 50, 12, 50)


def test_an_additive_judgment_counts_its_rubric_the_response_and_every_draw() -> None:
    (_, first, _), _ = count(make_recipe())
    prompts = Source().training_prompts(1)
    expected = sum(4 * (rubric("additive", prompt, response="") + 50) for prompt in prompts)
    assert expected > 12 * 200  # the rubric is most of it
    assert without_repeats(first.stages["judgments"]) == Work(12, expected, 12 * 5 * 30, 60, 30)


def test_an_expected_score_is_one_token_after_its_opening() -> None:
    (_, first, _), _ = count(make_recipe("judging={kind: expected_score, num_draws: 1}"))
    opening = len(Template.load("expected_score").opening.split())
    assert opening > 0
    expected = sum(4 * (rubric("expected_score", p, response="") + opening + 50) for p in Source().training_prompts(1))
    # In the opening "Score: " and the digit are two words of this tokenizer.
    assert without_repeats(first.stages["judgments"]) == Work(12, expected, 12, 12, 1)


def test_a_prefix_cache_computes_the_rubric_once_and_each_prompt_once() -> None:
    (_, first, _), _ = count(make_recipe())
    judgments = first.stages["judgments"]
    shortest, *_ = lengths = [rubric("additive", prompt, response="") for prompt in Source().training_prompts(1)]
    assert [length - shortest for length in lengths] == [0, 10, 20]
    # Left to compute: the shortest once, the 10 and 20 words by which the others are longer, and 12 responses.
    assert judgments.num_prompt_tokens - judgments.num_repeated_tokens == shortest + 30 + 12 * 50
    assert first.stages["responses"].num_repeated_tokens == 0


def test_a_cache_makes_vllm_faster_at_the_fast_end_only() -> None:
    slow = replace(CPU, engine_flops=1e8)
    recipe = make_recipe("engine.kind=vllm", "judging={kind: expected_score}")
    work, _ = count(recipe)
    uncached = [replace(w, stages={name: without_repeats(stage) for name, stage in w.stages.items()}) for w in work]
    cached, plain = (estimate(recipe, w, model=MODEL, machine=slow, history=History())[0][1] for w in (work, uncached))
    assert cached.low < 0.5 * plain.low
    assert cached.high == plain.high


def test_a_verifier_makes_no_request() -> None:
    (_, first, _), _ = count(make_recipe("judging={kind: verifier}"))
    assert "judgments" not in first.stages


def test_comparisons_are_in_both_orders_and_add_a_baseline_in_each_of_three_iterations() -> None:
    (_, first, second, third, fourth), _ = count(make_recipe("iterations.max=4"))
    opening = len(Template.load("pairwise").opening.split())
    one = rubric("pairwise", Source().validation_prompts()[0], response_a="", response_b="") + opening + 2 * 20
    assert without_repeats(first.stages["evaluation_comparisons"]) == Work(80, 80 * one, 80, 80, 1)
    assert without_repeats(second.stages["evaluation_comparisons"]) == Work(160, 160 * one, 160, 160, 1)
    # M_0, the previous one and the best of the others.
    assert without_repeats(third.stages["evaluation_comparisons"]) == Work(240, 240 * one, 240, 240, 1)
    assert fourth.stages["evaluation_comparisons"] == third.stages["evaluation_comparisons"]


def test_the_runs_own_judge_judges_every_response_that_is_compared() -> None:
    iterations, _ = count(make_recipe("iterations.max=4"))
    one = rubric("additive", Source().validation_prompts()[0], response="") + 20
    for iteration, num_responses in zip(iterations[1:], (2, 3, 4, 4), strict=True):
        num = 40 * num_responses
        found = without_repeats(iteration.stages["evaluation_self_judgments"])
        assert found == Work(num, num * one, num * 5 * 30, num * 5, 30)
    silent, _ = count(make_recipe("evaluation.self_judge=false"))
    assert not any("evaluation_self_judgments" in iteration.stages for iteration in silent)


def test_the_judge_judges_both_responses_of_each_gold_pair_in_every_iteration() -> None:
    (_, first, second), _ = count(make_recipe(), Source(num_gold=5))
    prompt = Source(num_gold=1).gold_pairs()[0].prompt
    expected = 10 * (rubric("additive", prompt, response="") + 8)
    for iteration in (first, second):
        assert without_repeats(iteration.stages["judge_gold_judgments"]) == Work(10, expected, 10 * 5 * 30, 50, 30)
    assert first.num_requests - count(make_recipe())[0][1].num_requests == 10


def test_the_second_validation_set_is_counted_in_each_iteration_and_the_test_set_once() -> None:
    recipe = make_recipe("iterations.max=3")
    (given, *iterations), _ = count(recipe, Source(num_second_validation=9, num_test=4))
    responses, compared = "evaluation_second_validation_responses", "evaluation_second_validation_comparisons"
    own = Work(9, 9 * 8, 9 * 20, 9, 20)
    assert not any("second_validation" in stage or "test" in stage for stage in given.stages)
    for iteration, num_rivals in zip(iterations, (1, 2, 2), strict=True):
        found = {stage: work for stage, work in iteration.stages.items() if stage.startswith(responses)}
        names = [responses, f"{responses}_previous", f"{responses}_best"][: 1 + num_rivals]
        assert found == dict.fromkeys(names, own)
        assert iteration.stages[compared].num_requests == 2 * 9 * num_rivals
    assert not any("test" in stage for iteration in iterations[:-1] for stage in iteration.stages)
    test_set = {stage: work.num_requests for stage, work in iterations[-1].stages.items() if "test" in stage}
    assert test_set == {
        "evaluation_test_responses_best": 4, "evaluation_test_responses_initial": 4, "evaluation_test_comparisons": 8
    }  # fmt: skip


def test_optional_stages_cost_nothing_at_the_fast_end() -> None:
    recipe = make_recipe()
    with_all, without = (count(recipe, Source(num_second_validation=n, num_test=n))[0] for n in (40, 0))
    slow = replace(CPU, engine_flops=1e8)
    more, less = (estimate(recipe, w, model=MODEL, machine=slow, history=History())[0] for w in (with_all, without))
    assert more[2].low == pytest.approx(less[2].low) and more[2].high > 1.1 * less[2].high


def test_divergence_is_measured_on_at_most_32_draws_scored_by_two_or_three_models() -> None:
    (_, first, second), _ = count(make_recipe())
    assert first.stages["evaluation_kl_responses"] == Work(32, 32 * 7, 32 * 20, 32, 20)
    scored = Work(32, 32 * 27)
    for iteration, names in ((first, {"policy", "initial"}), (second, {"policy", "previous", "initial"})):
        found = {name.rsplit("_", 1)[1]: work for name, work in iteration.stages.items() if "logprobs" in name}
        assert found == dict.fromkeys(names, scored)
    (_, few, _), _ = count(make_recipe("evaluation.num_prompts=5"), Five())
    assert few.stages["evaluation_kl_responses"].num_requests == 5


class Five(Source):
    def validation_prompts(self) -> Sequence[Prompt]:
        return super().validation_prompts()[:5]


def test_without_verifiable_prompts_there_is_no_such_stage() -> None:
    work, _ = count(make_recipe("evaluation.verifiable=null"), Source(num_verifiable=0))
    assert not any("verifiable" in name for iteration in work for name in iteration.stages)


def test_evaluation_responses_are_as_long_as_sampled_ones_unless_the_recipe_says_otherwise() -> None:
    (first, *_), _ = count(make_recipe("evaluation.max_tokens=null"))
    assert first.stages["evaluation_responses"].num_generated_tokens == 40 * 50


def test_totals_are_the_sums_of_the_stages() -> None:
    work, _ = count(make_recipe())
    # Responses, judgments, 2 comparisons of best and worst a prompt, held-out responses, comparisons, the judge on
    # held-out responses, divergence; from the second iteration on the judge judges the 12 of the first one again.
    assert [iteration.num_requests for iteration in work] == [
        46,
        3 + 12 + 6 + 46 + 80 + 80 + 3 * 32,
        3 + 12 + 6 + 12 + 46 + 160 + 120 + 4 * 32,
    ]
    for iteration in work:
        stages = iteration.stages.values()
        assert iteration.num_tokens == sum(w.num_prompt_tokens + w.num_generated_tokens for w in stages) > 0


def test_training_counts_pairs_steps_and_prompts_once_when_packed() -> None:
    (given, first, _), _ = count(make_recipe())
    assert (given.update.num_pairs, given.update.num_steps, given.update.num_training_tokens) == (0, 0, 0)
    assert (first.update.num_pairs, first.update.num_steps) == (3, 6)  # 3 pairs by two: 2 steps, 3 epochs
    assert first.update.num_training_tokens == 3 * (69 + 2 * 3 * 50)
    assert first.update.longest_pair_tokens == 33 + 2 * 50
    (_, padded, _), _ = count(make_recipe("training.packing=padded"))
    assert padded.update.num_training_tokens == 3 * 2 * (69 + 3 * 50)
    assert padded.update.longest_pair_tokens == 2 * (33 + 50)


def test_with_fewer_pairs_than_prompts_the_longest_are_counted() -> None:
    (_, first, _), _ = count(make_recipe("training.max_pairs=2", "training.num_epochs=1"))
    assert (first.update.num_pairs, first.update.num_steps, first.update.num_training_tokens) == (
        2,
        1,
        33 + 23 + 2 * 2 * 50,
    )


class WithoutTheLongOne(Source):
    def training_prompts(self, iteration: int) -> Sequence[Prompt]:
        return super().training_prompts(iteration)[:2]

    def left_out(self, iteration: int | None) -> Sequence[LeftOut]:
        return [LeftOut("t1-2", "too_long", "prompt t1-2: beyond the context", "shorten it")]


def test_prompts_beyond_the_context_are_reported_and_not_counted_twice() -> None:
    work, warnings = count(make_recipe("engine.context_tokens=80", "prompts.max_dropped_rate=0"), WithoutTheLongOne())
    assert any("prompt t1-2" in warning and "would refuse" in warning for warning in warnings)
    assert any("too_long" in warning for warning in warnings)
    for iteration in work:
        for stage in iteration.stages.values():
            assert stage.num_tokens <= 80 * max(stage.num_requests, stage.num_sequences)


# Sizes


def write_model(folder: Path, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Path:
    from safetensors.numpy import save_file

    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    names = sorted(tensors)
    save_file({name: tensors[name] for name in names[:1]}, folder / "model-1.safetensors")
    save_file({name: tensors[name] for name in names[1:]}, folder / "model-2.safetensors")
    return folder


CONFIG = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 10}


def test_parameters_are_counted_from_all_files_and_an_embedding_beside_a_head_is_only_looked_up(tmp_path: Path) -> None:
    shapes = {"model.embed_tokens.weight": (10, 8), "lm_head.weight": (10, 8), "model.layers.0.mlp.weight": (8, 8)}
    model = read_shape(write_model(tmp_path, CONFIG, shapes))
    assert (model.num_parameters, model.num_matrix_parameters) == (224, 144)
    assert (model.num_kv_heads, model.head_size) == (4, 2)
    # Keys and values, 3 layers, 4 heads of 2, 2 bytes.
    assert model.kv_bytes_per_token("bfloat16") == 2 * 3 * 8 * 2


def test_a_tied_embedding_is_multiplied_with(tmp_path: Path) -> None:
    config = {"text_config": {**CONFIG, "num_key_value_heads": 1, "head_dim": 16}}
    shapes = {"model.embed_tokens.weight": (10, 8), "model.layers.0.mlp.weight": (8, 8)}
    model = read_shape(write_model(tmp_path, config, shapes))
    assert (model.num_parameters, model.num_matrix_parameters) == (144, 144)
    assert model.kv_bytes_per_token("float32") == 2 * 3 * 16 * 4


def test_a_model_that_cannot_be_counted_is_refused(tmp_path: Path) -> None:
    config = {key: value for key, value in CONFIG.items() if key != "num_hidden_layers"}
    with pytest.raises(RecipeError, match="num_hidden_layers"):
        read_shape(write_model(tmp_path, config, {"a": (2, 2), "b": (2, 2)}))


UPDATE = TrainingMemory(
    weights=4_000_000, gradients=4_000_000, states=8_000_000, copies=0, per_token=500.0,
    per_label=12_000.0, per_token_in_layer=100.0,
)  # fmt: skip


def test_memory_of_the_engine_and_the_trainer() -> None:
    recipe = make_recipe("training.micro_batch_size=1", "engine.batch_tokens=1000", "engine.dtype=bfloat16")
    work, _ = count(recipe)
    memory = memory_of(recipe, work, model=MODEL, machine=CPU, training=UPDATE)
    assert memory.engine_weights == 2_000_000
    assert memory.engine_kv_cache == 1000 * 2 * 4 * 2 * 16 * 2
    assert memory.micro_batch_tokens == 34 + 2 * 50  # one pair, with the longest prompt of all iterations
    assert memory.trainer == 16_000_000 + 134 * 12_500
    assert memory.peak == memory.engine + memory.trainer
    two = make_recipe("training.micro_batch_size=1", "launch.processes_per_node=2")
    assert memory_of(two, work, model=MODEL, machine=CPU, training=UPDATE).trainer == 2 * memory.trainer
    unknown = memory_of(recipe, work, model=MODEL, machine=CPU, training=None)
    assert unknown.peak == memory.engine


def test_micro_batches_follow_the_recipe_the_pairs_and_the_memory() -> None:
    def tokens(*changes: str, machine: Machine = CPU, training: TrainingMemory | None = UPDATE) -> int:
        recipe = make_recipe(*changes, "training.batch_size=64")
        work, _ = count(recipe)
        return memory_of(recipe, work, model=MODEL, machine=machine, training=training).micro_batch_tokens

    gpu = replace(CPU, device="cuda", memory_bytes=ASLEEP_BYTES + 100_000_000)
    assert tokens("training.micro_batch_tokens=200") == 200
    assert tokens("training.micro_batch_tokens=1") == 134  # the longest pair is a micro-batch of its own
    assert tokens("training.micro_batch_tokens=null") == 64 * 134
    assert tokens() == 2048  # auto on a CPU
    assert tokens(machine=gpu) == int((0.9 * 100_000_000 - 16_000_000) / 12_500)
    assert tokens(machine=gpu, training=None) == 2048
    assert tokens(machine=replace(gpu, memory_bytes=ASLEEP_BYTES)) == 134


def test_on_a_gpu_engine_and_trainer_take_turns() -> None:
    recipe = make_recipe("engine.kind=vllm", "engine.gpu_memory_utilization=0.5")
    work, _ = count(recipe)
    memory = memory_of(recipe, work, model=MODEL, machine=replace(CPU, device="cuda"), training=UPDATE)
    assert memory.peak == memory.engine == 4 * 2**30


@pytest.mark.parametrize(
    ("keep", "max_iterations", "num_kept", "num_at_peak"),
    [("null", 5, 5, 5), ("1", 5, 2, 3), ("3", 5, 4, 5), ("1", 2, 2, 2), ("9", 2, 2, 2)],
)
def test_disk_follows_the_checkpoints_that_are_kept(
    tmp_path: Path, keep: str, max_iterations: int, num_kept: int, num_at_peak: int
) -> None:
    sizes = f"checkpoints.keep={keep}", f"iterations.max={max_iterations}"
    for dtype, size in (("float32", 4_000_000), ("bfloat16", 6_000_000)):  # with a copy for the engine
        recipe = make_recipe(*sizes, f"engine.dtype={dtype}", folder=tmp_path / "a" / "b")
        work, _ = count(recipe)
        disk = disk_of(recipe, work, model=MODEL)
        assert (disk.checkpoint, disk.num_kept, disk.peak) == (size, num_kept, num_at_peak * size)
    assert disk.free > 0
    assert not (tmp_path / "a").exists()
    often = recipe.model_copy(update={"training": recipe.training.model_copy(update={"save_every_steps": 2})})
    assert disk_of(often, work, model=MODEL).peak == disk.peak + 2 * 12_000_000


# Time


def seconds_of(recipe: Recipe, *, machine: Machine = CPU, history: History | None = None) -> tuple[Seconds, ...]:
    work, _ = count(recipe)
    iterations, start = estimate(recipe, work, model=MODEL, machine=machine, history=history or History())
    return (*iterations, start)


def test_estimates_are_ranges_that_grow_with_the_work_and_shrink_with_the_machine() -> None:
    slow = replace(CPU, engine_flops=1e8, training_flops=1e8, copied_bytes_per_s=1e8)
    for recipe, machine in ((make_recipe(), CPU), (make_recipe(), slow)):
        assert all(
            0 < seconds.low < seconds.high and seconds.real == 0 for seconds in seconds_of(recipe, machine=machine)
        )
    one, more = (
        seconds_of(make_recipe(), machine=slow)[1],
        seconds_of(make_recipe("sampling.num_responses=8"), machine=slow)[1],
    )
    assert more.low > 1.1 * one.low and more.high > 1.1 * one.high
    fast = seconds_of(make_recipe())[1]
    assert fast.low < one.low and fast.high < one.high


def test_training_time_is_its_flops_at_the_assumed_share() -> None:
    """6 FLOPs per weight and token for a step, 2 for each of two passes without gradients."""
    slow = replace(CPU, training_flops=1e8)
    recipe = make_recipe("training.num_epochs=1")
    with_training, without = (
        seconds_of(recipe, machine=slow)[1],
        seconds_of(recipe, machine=replace(CPU, training_flops=1e15))[1],
    )
    tokens = 69 + 2 * 3 * 50
    assert with_training.high - without.high == pytest.approx((6 + 4) * 900_000 * tokens / 1e8 / 0.15, rel=0.05)


def test_finished_stages_keep_their_time_and_give_the_rates_of_later_ones() -> None:
    recipe = make_recipe()
    history = History(
        seconds={
            0: {"evaluation_responses": 100.0, "evaluation": 1.0},
            1: {"responses": 30.0, TRAINING: 60.0, "x": 10.0},
        },
        usage={0: {"evaluation_responses": {"num_requests": 40.0}}, 1: {"responses": {"num_requests": 3.0}}},
        num_pairs={1: 2},
        finished=frozenset({0, 1}),
    )
    given, first, second, start = seconds_of(recipe, history=history)
    assert given == Seconds(101.0, 101.0, 101.0)
    assert first == Seconds(100.0, 100.0, 100.0)
    nothing_known = History(finished=frozenset({0, 1}), seconds={0: {"x": 1.0}, 1: {"x": 1.0}})
    estimated = seconds_of(recipe, history=nothing_known)[2]
    # Responses and the 40 evaluation responses as before; training took 60 s for 2 of the 3 pairs that were planned.
    low, high = (30 + 100 + 60) * REAL_RATE.fast, (30 + 100 + 60 * 3 / 2) * REAL_RATE.slow
    assert low < second.low < low + estimated.low
    assert high < second.high < high + estimated.high
    assert start == Seconds(START_S["transformers"].fast, START_S["transformers"].slow)


def test_a_stage_without_requests_so_far_keeps_its_estimate_at_the_slow_end() -> None:
    recipe = make_recipe()
    slow = replace(CPU, engine_flops=1e7)
    unknown = seconds_of(recipe, machine=slow)
    asked_nothing = History(seconds={1: {"evaluation_comparisons": 0.01}})
    known = seconds_of(recipe, machine=slow, history=asked_nothing)
    assert known[2].high == unknown[2].high
    assert known[2].low < unknown[2].low


def test_a_finished_run_adds_no_time() -> None:
    history = History(seconds={0: {"x": 1.0}, 1: {"x": 2.0}, 2: {"x": 3.0}}, finished=frozenset({0, 1, 2}))
    *iterations, start = seconds_of(make_recipe(), history=history)
    assert sum(iterations, start) == Seconds(6.0, 6.0, 6.0)


# The run folder


def test_a_missing_folder_or_one_of_another_recipe_gives_no_rates(tmp_path: Path) -> None:
    recipe = make_recipe(folder=tmp_path / "run")
    assert read_history(tmp_path / "run", recipe) == History()
    assert not (tmp_path / "run").exists()
    start_run(tmp_path / "run", recipe)
    other = make_recipe("seed=1", folder=tmp_path / "run")
    history = read_history(tmp_path / "run", other)
    assert history.seconds == {} and history.finished == frozenset()
    assert len(history.warnings) == 1 and "seed: 0 -> 1" in history.warnings[0]


def test_a_started_run_gives_its_seconds_and_counters(tmp_path: Path) -> None:
    recipe = make_recipe(folder=tmp_path / "run")
    start_run(tmp_path / "run", recipe)
    longer = make_recipe("iterations.max=7", folder=tmp_path / "run")  # may change on a started run
    history = read_history(tmp_path / "run", longer)
    assert history.warnings == ()
    assert history.finished == {0}
    assert history.usage == {1: {"pairs": {"num_requests": 3}}}
    assert set(history.seconds) == {0, 1}
    assert history.num_pairs == {1: 2}


def start_run(folder: Path, recipe: Recipe) -> None:
    """Iteration 0 is over; of iteration 1 a stage and the training are."""
    counter = {"num_requests": 0.0}
    busy: list[int] = []

    def make(_: int) -> list[PreferencePair]:
        counter["num_requests"] += 3
        busy.extend(range(300_000))  # takes some milliseconds: stages of 0 seconds cost nothing and are left out
        return []

    with Store(folder, name="small") as store:
        store.meter = lambda: dict(counter)
        store.write_text("recipe.yaml", recipe_file.dump(recipe))
        store.read_or_make_json(0, "evaluation", lambda: [0] * 300_000)
        store.stage(1, PAIRS, 1, make)
        store.read_or_make_json(1, "training", lambda: {"num_pairs": 2, "ballast": [0] * 300_000})


# Text


def make_plan(recipe: Recipe, **changes: Any) -> Plan:
    work, _ = count(recipe)
    seconds, start = estimate(recipe, work, model=MODEL, machine=CPU, history=changes.get("history", History()))
    plan = Plan(
        recipe=recipe, dtype=engine_dtype(recipe.engine), model=MODEL, machine=CPU, iterations=work, seconds=seconds,
        start=start, history=History(),
        memory=memory_of(recipe, work, model=MODEL, machine=CPU, training=UPDATE),
        disk=disk_of(recipe, work, model=MODEL),
        warnings=(),
    )  # fmt: skip
    return replace(plan, **changes)


def rows_under(title: str, text: str) -> dict[str, list[int]]:
    """Name of the row to its numbers; cells are two spaces apart, and a dash is nothing."""
    _, *lines = text.split(f"{title}\n")[1].split("\n\n")[0].splitlines()
    cells = [re.split(r"\s{2,}", line) for line in lines]
    return {
        name: [0 if c == "-" else int(c.replace(",", "")) for c in row if re.fullmatch(r"-|[\d,]+", c)]
        for name, *row in cells
    }


def test_enough_prompts_resolve_delta_and_the_second_validation_set_counts_too() -> None:
    enough = " ".join(render(make_plan(make_recipe("evaluation.num_prompts=800", "monitor.delta=0.06"))).split())
    assert (
        "800 validation prompts resolve a gain of about 5 points, "
        "and with the second validation set 1,600 prompts one of 3.4 points" in enough
    )
    assert "an iteration, is 6 points, which is large enough." in enough


def test_columns_of_held_out_sets_are_there_when_the_sets_are() -> None:
    recipe = make_recipe()
    work, _ = count(recipe, Source(num_second_validation=9, num_test=4, num_gold=5))
    plain, full = render(make_plan(recipe)), render(make_plan(recipe, iterations=work))
    heading = full.split("engine requests\n")[1].splitlines()[0].split()
    assert heading[-3:] == ["second_validation", "test", "total"] and "self" in heading
    assert "both responses of each gold pair" in " ".join(full.split())
    assert "it is evaluated only where the validation prompts leave a decision open" in " ".join(full.split())
    assert "second_validation" not in plain.lower() and "test" not in plain.lower() and "gold" not in plain


@pytest.mark.parametrize("max_iterations", [1, 2, 12])
def test_the_tables_add_up_to_what_was_counted(max_iterations: int) -> None:
    plan = make_plan(make_recipe(f"iterations.max={max_iterations}"))
    text = render(plan)
    requests, tokens = rows_under("engine requests", text), rows_under("engine tokens, prompt and generated", text)
    names = ["the initial model", *(f"iteration {t}" for t in range(1, max_iterations + 1))]
    for table, amount in ((requests, "num_requests"), (tokens, "num_tokens")):
        assert list(table) == [*names, "complete run"]
        for name, iteration in zip(names, plan.iterations, strict=True):
            *cells, total = table[name]
            assert sum(cells) == total == getattr(iteration, amount)
        assert table["complete run"] == [sum(column) for column in zip(*(table[name] for name in names), strict=True)]
    training = rows_under("training", text)
    assert training["iteration 1"] == [3, 6, 1107]
    assert training["complete run"][:2] == [3 * max_iterations, 6 * max_iterations]


def test_the_text_states_bounds_assumptions_and_resolution() -> None:
    text = " ".join(render(make_plan(make_recipe())).split())
    for words_ in (
        "upper bounds",
        "an estimate",
        "15% to 70% of the matrix rate",
        "activations and logits of a micro-batch of",
        "100 GFLOP/s in bfloat16",
    ):
        assert words_ in text
    gain = (2.4977 + 0.8416) * math.sqrt(0.6 / 4 / 40)  # z(1 - 0.05 / 8) and z(0.8)
    assert f"40 validation prompts resolve a gain of about {100 * gain:.3g} points:" in text
    assert "an iteration, is 5 points, which needs 670: expect INCONCLUSIVE" in text


def test_two_prompts_resolve_nothing_and_the_text_says_how_many_would() -> None:
    text = " ".join(render(make_plan(make_recipe("evaluation.num_prompts=2"))).split())
    assert "2 validation prompts resolve no gain: expect INCONCLUSIVE." in text
    assert "which needs evaluation.num_prompts of 670." in text


def test_one_line_states_what_share_of_the_tokens_is_evaluation_and_which_keys_lower_it() -> None:
    plan = make_plan(make_recipe("evaluation.num_judge_prompts=0"))
    text = " ".join(render(plan).split())
    (line,) = re.findall(r"measuring (\d+)% of the run's tokens are evaluation\. Less: (.*?)\. ", text)
    measured = sum(
        work.num_tokens for i in plan.iterations for name, work in i.stages.items() if name.startswith("evaluation_")
    )
    assert int(line[0]) == round(100 * measured / sum(i.num_tokens for i in plan.iterations))
    shares = {key: int(share) for key, share in re.findall(r"evaluation\.([\w.: ]+?) \((\d+)%\)", line[1])}
    assert list(shares) == ["self_judge: false", "num_prompts", "verifiable"]
    assert abs(sum(shares.values()) - int(line[0])) <= 2
    assert line[1].endswith("or evaluation.preset: light")
    lighter = " ".join(render(make_plan(make_recipe("evaluation.preset=light"))).split())
    assert "Less: " in lighter and "or evaluation.preset: light" not in lighter


def test_tokens_of_an_endpoint_count_as_evaluation_too() -> None:
    remote = "models.judge={endpoint: 'http://localhost:1/v1', model: m}"
    plan = make_plan(make_recipe(remote, "evaluation.anchor.by=judge"))
    text = " ".join(render(plan).split())
    inside = make_plan(make_recipe())
    (share,), (other,) = (re.findall(r"measuring (\d+)%", found) for found in (text, " ".join(render(inside).split())))
    assert abs(int(share) - int(other)) <= 3


def test_the_sizes_are_listed() -> None:
    text = " ".join(render(make_plan(make_recipe("evaluation.num_test_prompts=7"))).split())
    assert "sizes 2 iterations of 3 prompts; held out: 40 validation, 7 test prompts; pass rate on 6 generated" in text
    assert "pass rate on 9 prompts of own.jsonl" in " ".join(
        render(make_plan(make_recipe("evaluation.verifiable={path: own.jsonl, num_prompts: 9}"))).split()
    )
    assert "already spent" not in text and "So far" not in text and "warning" not in text


SERVER = "models.gpt={endpoint: 'http://localhost:1/v1', model: m, price: {prompt: 2.0, generated: 10.0}, budget: %s}"
ASKED = "judging={kind: additive, by: gpt, num_draws: 5, max_tokens: 30}"
LABELS_ALONE = "evaluation.self_judge=false"


def test_an_endpoint_has_its_own_entry_with_its_maximum_cost() -> None:
    recipe = make_recipe(ASKED, SERVER % 7, LABELS_ALONE)
    prompts = [prompt for t in (1, 2) for prompt in Source().training_prompts(t)]
    once = 4 * sum(rubric("additive", prompt, response="") + 50 for prompt in prompts)
    generated = 24 * 5 * 30
    text = " ".join(render(make_plan(recipe)).split())
    assert (
        f"endpoint gpt: up to 120 requests, {5 * once:,} prompt and {generated:,} generated tokens in the complete "
        f"run, which cost at most {(5 * once * 2 + generated * 10) / 1e6:.2f}; the budget is 7."
    ) in text
    assert f"processes {once:,} prompt tokens ({(once * 2 + generated * 10) / 1e6:.2f} in total)" in text
    assert "the server's tokenizer may give more or fewer tokens" in text
    assert "judgments" not in text.split("engine requests")[1].split("training")[0]
    unpriced = make_recipe(ASKED, LABELS_ALONE, "models.gpt={endpoint: 'http://localhost:1/v1', model: m}")
    assert "no price is given" in " ".join(render(make_plan(unpriced)).split())


def test_a_budget_that_may_be_too_small_gives_a_warning() -> None:
    def warned(budget: float) -> list[str]:
        recipe = make_recipe(ASKED, SERVER % budget, LABELS_ALONE)
        return beyond_budget(recipe, count(recipe)[0])

    recipe = make_recipe(ASKED, SERVER % 1, LABELS_ALONE)
    work = [iteration.outside_engine["judgments"]["gpt"] for iteration in count(recipe)[0][1:]]
    most = sum(w.num_prompt_tokens * 2 + w.num_generated_tokens * 10 for w in work) / 1e6
    assert warned(most * 1.01) == []
    (warning,) = warned(most * 0.99)
    assert "models.gpt.budget" in warning and f"up to {most:.2f}" in warning


def test_a_reward_model_has_its_own_entry() -> None:
    rm = ("judging={kind: reward_model, by: rm}", "models.rm={model: 'random:tiny'}")
    recipe = make_recipe(*rm, LABELS_ALONE)
    text = " ".join(render(make_plan(recipe)).split())
    assert f"rm, a reward model, scores up to 24 responses of {4 * (69 + 72) + 24 * 50:,} tokens" in text


def test_pairs_of_judgments_and_battles_are_listed_only_with_meta_judging() -> None:
    plain = render(make_plan(make_recipe()))
    assert "of judgments" not in plain and "battles" not in plain
    text = render(make_plan(make_recipe("meta_judging={max_share: 0.4, iterations: [1]}")))
    assert rows_under("training", text)["iteration 1"][:2] == [5, 2]
    assert "battles" in text.split("engine requests\n")[1].splitlines()[0]
    assert rows_under("engine requests", text)["iteration 1"][2] == 3 * 5 * 4


def test_the_time_of_an_endpoint_is_unknown_until_it_has_run() -> None:
    recipe = make_recipe(ASKED, SERVER % 7, LABELS_ALONE)
    work, _ = count(recipe)
    nothing = [replace(iteration, outside_engine={}) for iteration in work]
    fresh, without = (estimate(recipe, w, model=MODEL, machine=CPU, history=History())[0] for w in (work, nothing))
    assert fresh == without
    answered = History(seconds={1: {"judgments": 1000.0}}, usage={1: {"judgments": {"num_requests": 30.0}}})
    known = estimate(recipe, work, model=MODEL, machine=CPU, history=answered)[0]
    assert known[2].low == pytest.approx(fresh[2].low + 1000 * REAL_RATE.fast)
    assert known[2].high == pytest.approx(fresh[2].high + 1000 * REAL_RATE.slow * 60 / 30)


def test_calls_of_one_stage_are_timed_one_by_one() -> None:
    """A choice after sampled reasoning is one token, and not as many steps as the reasoning took."""
    recipe = make_recipe("judging={kind: expected_score, num_draws: 5, reasoning: {max_tokens: 300}}")
    work, _ = count(recipe)
    written, read = work[1].stages["judgments"].calls

    def seconds(stage: Work) -> Seconds:
        alone = IterationWork(1, {"judgments": stage})
        return estimate(recipe, [alone], model=MODEL, machine=CPU, history=History())[0][0]

    assert seconds(work[1].stages["judgments"]) == seconds(written) + seconds(read)
    assert seconds(read).high < seconds(written).high / 2


def test_warnings_are_marked_and_lines_are_short() -> None:
    text = render(make_plan(make_recipe(), warnings=("the first " + "long " * 60, "the second")))
    assert re.search(r"^warning: the first", text, re.MULTILINE) and re.search(
        r"^warning: the second", text, re.MULTILINE
    )
    assert max(map(len, text.splitlines())) <= 100


def test_a_started_run_reports_its_time_and_its_share_of_the_bound() -> None:
    recipe = make_recipe()
    work, _ = count(recipe)
    half = {"num_prompt_tokens": work[1].stages["responses"].num_tokens / 4, "num_generated_tokens": 0.0}
    half["num_generated_tokens"] = half["num_prompt_tokens"]
    history = History(seconds={1: {"responses": 30.0}}, usage={1: {"responses": half}})
    text = " ".join(render(make_plan(recipe, history=history)).split())
    assert "30 s of it already spent" in text
    assert "used 50% of the upper bound on tokens" in text
