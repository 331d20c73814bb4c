"""The loop on fakes of its interfaces: order, durability, limits, counts. No model is involved."""

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward import history, judging, loop, meta_judging, monitoring, pairing, prompts
from selfreward.errors import RecipeError, StoreError
from selfreward.evaluation.tables import GOLD_OUTCOMES, OUTCOMES, SECOND_VALIDATION_OUTCOMES, TEST_OUTCOMES
from selfreward.parts import Models, PairingInputs
from selfreward.records import (
    Battle,
    Checkpoint,
    Decision,
    DroppedPrompt,
    Evaluation,
    IterationSummary,
    Judgment,
    Message,
    PreferencePair,
    Prompt,
    PromptOutcome,
    Response,
    Selection,
)
from selfreward.roles import Roles
from selfreward.running import Runner
from selfreward.steps import Block, Gate, Iteration, Probe, Read, Reading, Stage, Update
from selfreward.store import Store
from selfreward.tables import (
    EVALUATION,
    INITIAL_RESPONSES,
    JUDGE,
    JUDGMENTS,
    PAIRS,
    PREVIOUS_JUDGMENTS,
    PROMPTS,
    RESPONSES,
    TEST,
    TRAINING,
    Table,
)
from selfreward.workload import Requests, ResponseBound, UpdateWork, Workload


class Killed(BaseException):
    """A simulated SIGKILL: nothing after it runs."""


@dataclass
class World:
    """All parts of a run as fakes that record their calls, and that can be killed at the n-th call."""

    folder: Path
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    kill_at: int | None = None
    max_iterations: int = 2
    best: int | None = None
    min_pairs: int = 1
    num_prompts: int = 5
    judge_by: str = "policy"
    reads: tuple[Table[Any], ...] = ()
    meta_iterations: int = 0
    counted: list[tuple[int, int]] = field(default_factory=list)
    judged_at_once: list[int] = field(default_factory=list)
    selected: list[PairingInputs] = field(default_factory=list)
    request: str = "say"
    kill_at_report: int | None = None
    written: list[tuple[int, int]] = field(default_factory=list)
    wants_second_validation: frozenset[int] = frozenset()
    num_test: int = 0
    num_overlaps: int = 0
    interventions: Mapping[int, str] = field(default_factory=dict)
    decided_on: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    by: frozenset[str] = frozenset({"policy"})
    scale = None

    def call(self, *what: Any) -> None:
        if self.kill_at is not None and len(self.calls) == self.kill_at:
            raise Killed
        self.calls.append(what)

    # PromptSource, Engine
    def training_prompts(self, iteration: int) -> list[Prompt]:
        return [Prompt(f"{iteration}-{i}", (Message("user", f"{self.request} {i}"),)) for i in range(self.num_prompts)]

    def num_overlapping(self, prompts: Sequence[Prompt]) -> int:
        self.call("overlap", len(prompts))
        return self.num_overlaps

    def facts(self) -> Mapping[str, Any]:
        return {}

    def usage(self) -> Mapping[str, float]:
        return {"num_requests": float(len(self.calls))}

    def sleep(self) -> None:
        self.call("sleep")

    # The steps of an iteration
    def compose(self, t: int, decisions: Sequence[Decision]) -> Iteration:
        names = [decision.intervention for decision in decisions if decision.intervention]
        text = f"name: {'-'.join(['fake', *names])}\n"
        if t == 0:
            return Iteration(0, (self.probe(EVALUATION, "evaluate", OUTCOMES),), text)
        work = Workload((), 2, 1, t)
        meta: Any = self if t <= self.meta_iterations else None
        selector: Any = self
        optional = self.reads if t > 1 else ()
        candidates = {t: ResponseBound(2, 1) for t in (RESPONSES, INITIAL_RESPONSES) if t in (RESPONSES, *optional)}
        test_set = (self.probe(TEST, "test", TEST_OUTCOMES, when="at_end"),) if self.num_test else ()
        return Iteration(
            t,
            (
                prompts.fresh(self, t, shard_prompts=2),  # type: ignore[arg-type]
                self.sampled(RESPONSES, "policy"),
                self.sampled(INITIAL_RESPONSES, "initial"),
                judging.judgments(self, candidates, work=work),
                judging.previous_judgments(self, work=work),
                *([meta_judging.battles(meta, work=work)] if meta else []),
                pairing.pairs(selector, candidates, optional, more=meta_judging.judgment_pairs(meta) if meta else None),
                pairing.dropped_prompts(selector, candidates, optional),
                self.judge_probe(),
                monitoring.gate(self, judge=JUDGE),
                Update(TRAINING, "policy", (Read(PAIRS, "iteration"),), lambda: self, lambda _: UpdateWork()),
                self.probe(EVALUATION, "evaluate", OUTCOMES),
                self.probe("second_validation", "second_validation", SECOND_VALIDATION_OUTCOMES, when="on_request"),
                *test_set,
            ),
            text,
        )

    def sampled(self, table: Table[Response], role: str) -> Stage[Response]:
        def make(reading: Reading) -> list[Response]:
            asked = list(reading.rows(PROMPTS))
            self.call("sample", reading.iteration, reading.roles[role].iteration, tuple(p.id for p in asked))
            infix = "" if role == "policy" else f"{table.name}/"
            return [
                Response(f"{p.id}/{infix}{n}", p.id, (1,), (2, n), None, f"text {n}", "stop", 0, role)
                for p in asked
                for n in range(2)
            ]

        def count(responses: Iterable[Response]) -> dict[str, int]:
            return {"num_responses": len(list(responses))} if role == "policy" else {}

        return Stage(table, make, reads=(Read(PROMPTS),), only_if_read=role != "policy", tally=count)

    def probe(self, name: str, what: str, table: Table[PromptOutcome], *, when: Any = "in_order") -> Probe:
        """Return a probe with two shards, each one call, followed by outcomes."""

        def shard(reading: Reading) -> list[Response]:
            trained = reading.roles["best" if what == "test" else "trained"]
            assert what == "test" or trained.iteration == reading.iteration
            assert what != "test" or (trained.path / "model.safetensors").exists()
            self.call(what, reading.iteration, reading.shard)
            return []

        def outcomes(reading: Reading) -> list[PromptOutcome]:
            kind: Any = {"evaluate": "validation", "second_validation": "second_validation", "test": "test"}[what]
            return [PromptOutcome("p", kind, "anchor", reading.iteration - 1, 0.5)]

        def measure(reading: Reading) -> Evaluation:
            rate = 0.6 if what == "test" else 0.5
            return Evaluation(reading.iteration, {"test_win_rate_vs_initial" if what == "test" else "pass_rate": rate})

        responses = Stage(Table(f"{what}_responses", Response), shard, num_shards=2)
        stages = (responses, Stage(table, outcomes, num_shards=1))
        return Probe(
            name, stages, (), None if what == "second_validation" else measure, when,
            only_if=lambda reading: what != "test" or reading.roles["best"].id != reading.roles["initial"].id,
        )  # fmt: skip

    def judge_probe(self) -> Probe:
        def measure(reading: Reading) -> Evaluation:
            assert reading.roles["policy"].iteration == reading.iteration - 1
            return Evaluation(reading.iteration, {"judge_reliability": float(len(list(reading.rows(RESPONSES))))})

        gold = Stage(GOLD_OUTCOMES, lambda _: [PromptOutcome("g", "gold", "self", -1, 1.0)], num_shards=1)
        return Probe(JUDGE, (gold,), (Read(RESPONSES, "iteration"),), measure)

    # Judge
    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, models: Models, iteration: int
    ) -> list[Judgment]:
        self.call("judge", iteration, models[self.judge_by].iteration, tuple(p.id for p in prompts))
        self.judged_at_once.append(len(responses))
        assert {r.prompt_id for r in responses} == {p.id for p in prompts}
        scored = [None if r.prompt_id.endswith("-0") else float(r.token_ids[1]) for r in responses]
        return [
            Judgment(f"{r.id}/j", r.prompt_id, r.id, "fake", 0, s, "empty" if s is None else None, "")
            for r, s in zip(responses, scored, strict=True)
        ]

    def max_requests(self, *_: Any) -> list[Requests]:
        return []

    # Selector
    def select(self, judged: PairingInputs) -> Selection:
        self.selected.append(judged)
        scores = {j.response_id: j.score for j in judged.judgments if j.score is not None}
        paired = [p for p in judged.prompts if f"{p.id}/0" in scores]
        pairs = tuple(
            PreferencePair(
                p.id, p.id, "response", f"{p.id}/1", f"{p.id}/0", (1,), (2, 1), (2, 0), "a", "b", 1.0, 0.0, 1.0
            )
            for p in paired
        )
        dropped = tuple(DroppedPrompt(p.id, "too_few_scored") for p in judged.prompts if p not in paired)
        return Selection(pairs, dropped)

    # MetaJudge
    def battles(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[Response],
        judgments: Sequence[Judgment],
        *,
        models: Models,
        iteration: int,
    ) -> list[Battle]:
        self.call("battles", iteration, models["policy"].iteration, tuple(p.id for p in prompts))
        return [Battle(f"{p.id}/b", p.id, f"{p.id}/0", "a", "b", "a", None, "") for p in prompts]

    def pairs(
        self,
        judgments: Sequence[Judgment],
        battles: Sequence[Battle],
        *,
        all_battles: Iterable[Battle],
        num_response_pairs: int,
        num_judgment_pairs: int,
    ) -> tuple[PreferencePair, ...]:
        assert len(list(all_battles)) == 5
        self.counted.append((num_response_pairs, num_judgment_pairs))
        first = battles[0].prompt_id
        return (PreferencePair(f"{first}#j", first, "judgment", "a", "b", (1,), (2, 1), (2, 0), "", "", 1.0, 0.0, 1.0),)

    # Learner
    def learn(self, block: Block) -> Mapping[str, Any]:
        self.call("train", block.iteration, block.roles["policy"].path.name, block.files[PAIRS.name].exists())
        checkpoint = block.work_folder / "checkpoint"
        checkpoint.mkdir(exist_ok=True)
        (checkpoint / "model.safetensors").write_text(f"M_{block.iteration}")
        return {"num_pairs": 4}

    def save(self, folder: Path) -> None:
        assert folder.is_dir()

    def close(self) -> None: ...

    # Monitor
    def may_train(self, counts: Mapping[str, int], judging: Evaluation | None) -> bool:
        assert judging is not None and "judge_reliability" in judging.metrics
        return counts["num_pairs"] >= self.min_pairs

    def decide(self, history: Sequence[IterationSummary], decided: Sequence[Decision], *, elapsed_s: float) -> Decision:
        assert elapsed_s >= 0
        assert [decision.iteration for decision in decided] == [summary.iteration for summary in history[:-1]]
        t = history[-1].iteration
        asked = tuple(outcome.set for outcome in history[-1].outcomes)
        self.decided_on.append((t, asked))
        if not self.may_train(history[-1].counts, history[-1].judging):
            return Decision(t, "STARVED", "", 0, stopped_by="TOO_FEW_PAIRS")
        if t in self.wants_second_validation and "second_validation" not in asked:
            return Decision(t, "INCONCLUSIVE", "", 0, wants_second_validation=True)
        best = t if self.best is None else min(t, self.best)
        if t >= self.max_iterations:
            return Decision(t, "CONTINUE", "", best, stopped_by="MAX_ITERATIONS")
        return Decision(t, "PLATEAU", "", best, intervention=self.interventions.get(t, ""))

    # Reporter
    def write(
        self, history: Sequence[IterationSummary], decisions: Sequence[Decision], initial: Evaluation | None = None
    ) -> None:
        assert initial is not None
        if len(history) == self.kill_at_report:
            raise Killed
        self.written.append((len(history), len(decisions)))

    def parts(self, keep: int | None = None) -> loop.Run:
        given = Checkpoint("M_0", self.folder / "given", 0)
        fake: Any = self
        return loop.Run(
            self.compose, {"policy": given}, engine=fake, monitor=self, reporter=self, keep_checkpoints=keep
        )

    def run(self, keep: int | None = None) -> Decision:
        with Store(self.folder / "run") as store:
            (self.folder / "given").mkdir(exist_ok=True)
            return loop.run(self.parts(keep), store)

    def counts(self, iteration: int) -> Mapping[str, int]:
        found: Mapping[str, int] = Store(self.folder / "run", write=False).read_json(iteration, "counts")
        return found

    def contents(self) -> dict[str, bytes]:
        files = (path for path in (self.folder / "run").rglob("*") if path.is_file())
        return {
            str(p.relative_to(self.folder)): p.read_bytes() for p in files if p.name not in (".lock", "manifest.json")
        }


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_each_policy_samples_judges_and_is_trained_in_turn(world: World) -> None:
    decision = world.run()
    assert (decision.iteration, decision.stopped_by) == (2, "MAX_ITERATIONS")
    blocks = {t: [(f"{t}-0", f"{t}-1"), (f"{t}-2", f"{t}-3"), (f"{t}-4",)] for t in (1, 2)}
    expected: list[tuple[Any, ...]] = [("evaluate", 0, 0), ("evaluate", 0, 1)]
    for t, policy in ((1, "given"), (2, "checkpoint")):
        expected += [("sample", t, t - 1, block) for block in blocks[t]]
        expected += [("judge", t, t - 1, block) for block in blocks[t]]
        expected += [("overlap", 5), ("sleep",), ("train", t, policy, True), ("evaluate", t, 0), ("evaluate", t, 1)]
    assert world.calls == expected
    assert world.written == [(1, 1), (2, 2)]


@dataclass
class StartingWorld(World):
    """Its engine starts at the first call, and keeps what it chose in the first process of the run."""

    chosen: int = 1000
    started_with: int | None = None
    record: Any = None

    def resume_from(self, facts: Mapping[str, Any], record: Any) -> None:
        self.started_with, self.record = facts.get("chosen"), record

    def facts(self) -> Mapping[str, Any]:
        return {"chosen": self.started_with or self.chosen}

    def call(self, *what: Any) -> None:
        if not self.calls:
            self.record(self.facts())
        super().call(*what)


def test_an_engine_goes_on_with_what_it_chose_before_a_kill(tmp_path: Path) -> None:
    killed = StartingWorld(tmp_path, kill_at=1)  # within the first stage, long before the first decision
    with pytest.raises(Killed):
        killed.run()
    resumed = StartingWorld(tmp_path, chosen=990)
    resumed.run()
    assert (killed.started_with, resumed.started_with) == (None, 1000)
    assert Store(tmp_path / "run", write=False).manifest["facts"]["engine"] == {"chosen": 1000}


def test_a_judge_by_best_is_the_checkpoint_that_the_monitor_selected(world: World) -> None:
    world.judge_by, world.best, world.max_iterations = "best", 1, 4
    world.run()
    judges = [call[2] for call in world.calls if call[0] == "judge" and call[3][0].endswith("-0")]
    assert judges == [0, 1, 1, 1]


def test_a_selector_gets_its_tables_and_nothing_is_made_twice(world: World) -> None:
    world.reads = (INITIAL_RESPONSES, PREVIOUS_JUDGMENTS)
    world.run()
    first = [(call[0], call[2]) for call in world.calls if call[:2] in (("sample", 1), ("judge", 1))]
    assert (
        set(first) == {("sample", 0), ("judge", 0)} and len(first) == 6
    )  # M_0 is the policy; there is no previous judge
    second = [(call[0], call[2]) for call in world.calls if call[:2] in (("sample", 2), ("judge", 2))]
    assert second == [("sample", 1)] * 3 + [("sample", 0)] * 3 + [("judge", 1)] * 3 + [("judge", 0)] * 3
    last = world.selected[-1]
    assert {r.id for r in last.initial_responses} == {"2-4/initial_responses/0", "2-4/initial_responses/1"}
    assert {j.response_id for j in last.previous_judgments} == {r.id for r in last.responses}
    assert {j.response_id for j in last.judgments} == {r.id for r in (*last.responses, *last.initial_responses)}
    assert not world.selected[0].initial_responses and not world.selected[0].previous_judgments
    assert world.counts(2)["num_responses"] == 10


def test_judgments_of_early_iterations_become_pairs_too(world: World) -> None:
    world.meta_iterations = 1
    world.run()
    store = Store(world.folder / "run", write=False)
    kinds = [[pair.kind for pair in store.read(t, PAIRS)] for t in (1, 2)]
    assert kinds == [
        ["response", "judgment", "response", "response", "judgment", "response", "judgment"],
        ["response"] * 4,
    ]
    assert world.counts(1) | {"num_pairs": 7, "num_judgment_pairs": 3} == world.counts(1)
    assert [call[:3] for call in world.calls if call[0] == "battles"] == [("battles", 1, 0)] * 3
    assert world.counted == [(1, 0), (3, 1), (4, 2)]  # of this shard and those before it; of those before it


def test_the_judges_evaluation_is_stored_with_the_iteration(world: World) -> None:
    world.run()
    summaries, _, _ = history.read_history(Store(world.folder / "run", write=False))
    assert [summary.judging and summary.judging.metrics for summary in summaries] == [{"judge_reliability": 10.0}] * 2


def test_a_judge_by_initial_is_always_m_0(world: World) -> None:
    world.judge_by = "initial"
    world.run()
    assert {call[2] for call in world.calls if call[0] == "judge"} == {0}


NUM_CALLS = 28


@pytest.mark.parametrize("kill_at", range(NUM_CALLS))
def test_a_run_killed_at_any_call_resumes_without_repeating_work(world: World, kill_at: int) -> None:
    world.wants_second_validation, world.num_test = frozenset({2}), 1
    whole = copy.deepcopy(world)
    whole.folder = world.folder / "whole"
    whole.folder.mkdir()
    whole.run()
    assert len(whole.calls) == NUM_CALLS
    world.kill_at = kill_at
    with pytest.raises(Killed):
        world.run()
    world.kill_at = None
    world.run()
    harmless = (("sleep",),)  # a second call repeats no work
    done = [call for call in world.calls if call not in harmless]
    assert done == [call for call in whole.calls if call not in harmless]
    assert world.contents() == whole.contents()


def test_a_finished_run_only_rewrites_its_reports(world: World) -> None:
    world.run()
    calls = len(world.calls)
    world.run()
    assert len(world.calls) == calls


def test_a_raised_limit_continues_a_finished_run(world: World) -> None:
    world.run()
    world.max_iterations = 3
    assert world.run().iteration == 3
    stored = json.loads((world.folder / "run/iteration-02/decision.json").read_text())
    assert stored["stopped_by"] == ""


def test_a_lowered_limit_ends_a_run_that_already_exceeded_it(world: World) -> None:
    world.max_iterations, world.kill_at_report = 9, 2
    with pytest.raises(Killed):
        world.run()
    world.max_iterations, world.kill_at_report = 1, None
    assert world.run().iteration == 2
    assert not any(call[1:2] == (3,) for call in world.calls)


def test_prompts_that_changed_under_a_started_iteration_are_refused(world: World) -> None:
    world.kill_at = 7  # in the judgments of iteration 1
    with pytest.raises(Killed):
        world.run()
    world.kill_at, world.request = None, "other words"
    with pytest.raises(StoreError, match="prompts that the recipe's source no longer gives"):
        world.run()


def test_counts_add_up(world: World) -> None:
    world.run()
    summaries, decisions, initial = history.read_history(Store(world.folder / "run", write=False))
    counts = summaries[0].counts
    assert counts["num_prompts"] == 5 == counts["num_pairs"] + counts["num_dropped_prompts"]
    assert counts["num_dropped_prompts:too_few_scored"] == 1
    assert (counts["num_judgments"], counts["num_unscored_judgments"], counts["num_unscored_judgments:empty"]) == (
        10,
        2,
        2,
    )
    assert [d.iteration for d in decisions] == [1, 2]
    assert initial is not None
    assert initial.metrics == {"pass_rate": 0.5}


def test_too_few_pairs_stop_before_training(world: World) -> None:
    world.min_pairs = 6
    assert world.run().stopped_by == "TOO_FEW_PAIRS"
    assert not any(call[0] == "train" for call in world.calls)
    assert (world.folder / "run/best").resolve() == (world.folder / "given").resolve()
    summaries, _, _ = history.read_history(Store(world.folder / "run", write=False))
    assert summaries[0].evaluation.not_measured


def test_keep_bounds_the_disk_but_never_removes_the_best(world: World) -> None:
    world.max_iterations, world.best = 4, 1
    world.run(keep=1)
    left = sorted(path.parent.name for path in (world.folder / "run").glob("iteration-*/checkpoint"))
    assert left == ["iteration-01", "iteration-04"]
    assert (world.folder / "run/best/model.safetensors").read_text() == "M_1"
    world.max_iterations = 5
    assert world.run(keep=1).iteration == 5  # a removed checkpoint is not missed


def test_a_resumed_run_retains_its_best_checkpoint(world: World) -> None:
    world.max_iterations, world.best = 5, 2
    world.run(keep=2)
    world.max_iterations = 6
    world.run(keep=2)
    assert (world.folder / "run/best/model.safetensors").read_text() == "M_2"


@given(num_prompts=st.integers(1, 9))
def test_every_prompt_goes_through_exactly_one_shard(
    tmp_path_factory: pytest.TempPathFactory, num_prompts: int
) -> None:
    world = World(tmp_path_factory.mktemp("world"), max_iterations=1, num_prompts=num_prompts, min_pairs=0)
    world.run()
    sampled = [prompt_id for call in world.calls if call[0] == "sample" for prompt_id in call[3]]
    assert sampled == [f"1-{i}" for i in range(num_prompts)]


def test_the_loop_imports_no_heavy_library() -> None:
    import subprocess
    import sys

    code = (
        "import sys, selfreward.cli, selfreward.loop; "
        "print([m for m in ('torch', 'transformers', 'trl', 'vllm', 'datasets', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_the_second_validation_set_is_used_once_when_the_monitor_wants_it(world: World) -> None:
    world.wants_second_validation, world.max_iterations = frozenset({1, 3}), 3
    world.run()
    assert [call[1:] for call in world.calls if call[0] == "second_validation"] == [(1, 0), (1, 1), (3, 0), (3, 1)]
    first, both = ("validation", "gold"), ("validation", "second_validation", "gold")
    assert world.decided_on == [
        (1, first), (1, both), (2, first), (3, first), (3, both),
    ]  # fmt: skip
    summaries, decisions, _ = history.read_history(Store(world.folder / "run", write=False))
    assert [[o.set for o in s.outcomes] for s in summaries] == [
        list(both), list(first), list(both),
    ]  # fmt: skip
    assert not any(decision.wants_second_validation for decision in decisions), "the stored decision is the final one"
    world.run()
    assert sum(call[0] == "second_validation" for call in world.calls) == 4


def test_a_decision_made_again_uses_the_same_outcomes(world: World) -> None:
    world.wants_second_validation = frozenset({2})
    world.run()
    before, world.decided_on = world.decided_on, []
    world.run()  # a limit may have changed, so the last decision is made again
    assert before[-1] == (2, ("validation", "second_validation", "gold")) and world.decided_on == [before[-1]]


def test_the_test_set_is_evaluated_once_per_run(world: World) -> None:
    world.num_test, world.best = 3, 1
    world.run()
    assert [call for call in world.calls if call[0] == "test"] == [("test", 2, 0), ("test", 2, 1)]
    test_set = json.loads((world.folder / "run/iteration-02/test.json").read_text())
    assert test_set["metrics"] == {"test_win_rate_vs_initial": 0.6}
    world.max_iterations, world.best = 3, None
    assert world.run().iteration == 3
    assert [call for call in world.calls if call[0] == "test"] == [("test", 2, 0), ("test", 2, 1)]


@pytest.mark.parametrize(("num_test", "best"), [(0, 1), (3, 0)])
def test_without_test_prompts_or_a_better_checkpoint_nothing_is_tested(world: World, num_test: int, best: int) -> None:
    world.num_test, world.best = num_test, best
    world.run()
    assert not any(call[0] == "test" for call in world.calls)


def test_the_initial_model_is_the_best_until_another_is_shown_to_be_better(world: World) -> None:
    world.best = 0
    world.run()
    link = world.folder / "run/best"
    assert link.readlink() == (world.folder / "given").absolute() and link.is_dir()


def test_an_intervention_only_changes_the_composed_recipe(world: World) -> None:
    world.max_iterations, world.interventions = 3, {1: "more_draws", 2: "pin_judge"}
    world.run()
    texts = [(world.folder / f"run/iteration-0{t}/recipe.yaml").read_text() for t in (1, 2, 3)]
    assert texts == ["name: fake\n", "name: fake-more_draws\n", "name: fake-more_draws-pin_judge\n"]


def test_a_step_can_only_read_declared_tables(world: World) -> None:
    world.run()
    with Store(world.folder / "run") as store:
        roles = Roles.at_start({"policy": Checkpoint("M_0", world.folder, 0)})
        reading = Reading(
            2, roles, (Read(JUDGMENTS), Read(PROMPTS, "iteration"), Read(PAIRS, "so_far")), store, shard=1
        )
        assert [j.prompt_id for j in reading.rows(JUDGMENTS)] == ["2-2", "2-2", "2-3", "2-3"]
        assert len(list(reading.rows(PROMPTS))) == 5 and len(list(reading.rows(PROMPTS, shard=2))) == 1
        assert [pair.prompt_id for pair in reading.rows(PAIRS)] == ["2-1"]
        with pytest.raises(LookupError, match="responses"):
            reading.rows(RESPONSES)
        with pytest.raises(LookupError, match="earlier"):
            reading.rows(JUDGMENTS, iteration=1)
        for undeclared in (
            lambda: reading.rows(JUDGMENTS, shard=0),
            lambda: reading.num_shards(JUDGMENTS),
            lambda: reading.has(RESPONSES, iteration=1),
        ):
            with pytest.raises(LookupError, match="add a Read"):
                undeclared()
        earlier = replace(reading, reads=(Read(JUDGMENTS, "earlier"),))
        assert {j.prompt_id[0] for j in earlier.rows(JUDGMENTS, iteration=1)} == {"1"}


def test_inconsistent_steps_are_refused() -> None:
    made: Any = Stage(RESPONSES, lambda _: [], num_shards=1)
    read: Any = Stage(JUDGMENTS, lambda _: [], reads=(Read(RESPONSES),))
    assert Iteration(1, (made, read)).stages == (made, read)
    with pytest.raises(ValueError, match="judgments reads responses, which no step before it makes"):
        Iteration(1, (read, made))
    with pytest.raises(ValueError, match="responses: two files or folders have this name"):
        Iteration(1, (made, made))
    with pytest.raises(ValueError, match="num_shards is not set"):
        Iteration(1, (replace(made, num_shards=None),))
    update: Any = Update("responses_training", "policy", (), lambda: None, lambda _: UpdateWork())
    for clashing in (
        (update, update),
        (made, replace(update, name="responses")),
        (made, replace(update, role="responses")),
        (replace(update, name="counts"),),
        (update, Probe("responses_training", ())),
    ):
        with pytest.raises(ValueError, match="two files or folders have this name"):
            Iteration(1, clashing)
    with pytest.raises(ValueError, match="initial: the run sets the weights of this role"):
        Iteration(1, (replace(update, role="initial"),))
    with pytest.raises(ValueError, match="complete tables"):
        Iteration(1, (made, replace(update, reads=(Read(RESPONSES),))))
    gate, counted = Gate(lambda counts, measured: True), replace(made, tally=lambda _: {"num_responses": 1})
    assert Iteration(1, (gate, made)).stages == (made,)
    for after in (counted, gate):
        with pytest.raises(ValueError, match="the funnel ends at the gate"):
            Iteration(1, (gate, after))
    optional = replace(made, only_if_read=True)
    assert Iteration(1, (optional, read)).stages == (optional, read)
    reads_if_made: Any = replace(read, reads=(Read(RESPONSES, if_made=True),), num_shards=1)
    assert Iteration(1, (optional, reads_if_made)).stages == (reads_if_made,)


def test_updates_run_in_order_and_a_later_stage_may_query_their_models(world: World) -> None:
    """A second role is trained on the same tables as the policy, and a later stage queries it."""
    table, asked = Table("refined", Response), []
    world.best = 0

    def refine(reading: Reading) -> list[Response]:
        asked.append({role: reading.roles[role].iteration for role in ("policy", "refiner", "trained")})
        return []

    def compose(t: int, decisions: Sequence[Decision]) -> Iteration:
        if t == 0:
            return world.compose(0, ())
        steps = world.compose(t, decisions).steps
        [(index, of_policy)] = [(index, step) for index, step in enumerate(steps) if isinstance(step, Update)]
        own = replace(of_policy, name="refiner_training", role="refiner")
        return Iteration(t, (*steps[:index], own, Stage(table, refine, reads=(Read(PROMPTS),)), *steps[index:]))

    given = Checkpoint("M_0", world.folder / "given", 0)
    with Store(world.folder / "run") as store:
        (world.folder / "given").mkdir()
        parts = replace(world.parts(keep=1), compose=compose, models={"policy": given, "refiner": given})
        loop.run(parts, store)
    first, second = {"policy": 0, "refiner": 1, "trained": 0}, {"policy": 1, "refiner": 2, "trained": 1}
    assert asked == [first] * 3 + [second] * 3
    assert (world.folder / "run/iteration-02/refiner/model.safetensors").read_text() == "M_2"
    assert (world.folder / "run/iteration-02/checkpoint/model.safetensors").read_text() == "M_2"
    left = sorted(path.parent.name for path in (world.folder / "run").glob("iteration-*/refiner"))
    assert left == ["iteration-02"]  # the disk is bounded for every role


def test_policy_is_always_the_model_at_the_start_of_the_iteration() -> None:
    zero, one, two = (Checkpoint(f"m{t}", Path(f"m{t}"), t) for t in range(3))
    start = Roles.at_start({"policy": zero, "gpt": two})
    first = start.advanced(best=zero)
    assert {
        role: first[role].iteration for role in ("policy", "previous", "trained", "initial", "given")
    } == dict.fromkeys(("policy", "previous", "trained", "initial", "given"), 0)
    updated = first.updated("policy", one)
    assert (updated["policy"], updated["previous"], updated["trained"]) == (zero, zero, one)
    second = updated.advanced(best=one)
    assert (second["policy"], second["best"], second["initial"], second["gpt"]) == (one, one, zero, two)
    assert second.at_previous_start["policy"] == zero and not start.at_previous_start


def test_roles_retain_the_weights_at_the_start_of_this_and_the_previous_iteration() -> None:
    """A trained judge judges with its weights at the start of the iteration, regardless of later updates."""
    zero, one, two = (Checkpoint(f"m{t}", Path(f"m{t}"), t) for t in range(3))
    first = Roles.at_start({"policy": zero, "judge": zero}).advanced(best=zero).updated("judge", one)
    assert (first["judge"], first.at_iteration_start["judge"], first.at_previous_start["judge"]) == (one, zero, zero)
    second = first.advanced(best=zero).updated("judge", two)
    assert (second["judge"], second.at_iteration_start["judge"], second.at_previous_start["judge"]) == (two, one, zero)


def test_an_update_of_an_unknown_role_is_refused_before_anything_is_made(world: World) -> None:
    trained = Update("critic_training", "critic", (), lambda: pytest.fail("opened"), lambda _: UpdateWork())
    never: Any = Stage(RESPONSES, lambda _: pytest.fail("made"), num_shards=1)
    roles, engine = Roles.at_start({"policy": Checkpoint("M_0", world.folder, 0)}), world
    with (
        Store(world.folder / "run") as store,
        pytest.raises(RecipeError, match="an update trains 'critic', which is not defined"),
    ):
        Runner(store, engine).run(Iteration(1, (never, trained)), roles)  # type: ignore[arg-type]


def test_an_update_starts_from_the_weights_of_the_previous_update(world: World) -> None:
    """Two updates of one role: the last one's weights are the iteration's, and each has its own folder."""
    starts: list[tuple[str, int, int]] = []

    class Learner:
        def learn(self, block: Block) -> dict[str, Any]:
            self.made = f"{block.start.path.name}+" if block.start.iteration else "+"
            starts.append((block.work_folder.name, block.start.iteration, block.first.iteration))
            return {}

        def save(self, folder: Path) -> None:
            folder.mkdir()
            (folder / "model.safetensors").write_text(self.made)

        def close(self) -> None: ...

    updates = [
        Update(name, role, (), Learner, lambda _: UpdateWork())
        for name, role in (("sft", "policy"), ("judge_training", "judge"), ("training", "policy"))
    ]
    given = Checkpoint("M_0", world.folder, 0)
    roles = Roles.at_start({"policy": given, "judge": given}).advanced(best=given)
    engine: Any = world
    with Store(world.folder / "run") as store:
        after = Runner(store, engine).run(Iteration(1, tuple(updates)), roles)
        again = Runner(store, engine).run(Iteration(1, tuple(updates)), roles)
    assert starts == [(".sft", 0, 0), (".judge_training", 0, 0), (".training", 1, 0)]
    assert [after[role].path.name for role in ("policy", "trained", "judge")] == [
        world.folder.name,
        "checkpoint",
        "judge",
    ]
    assert again == after and (after["trained"].path / "model.safetensors").read_text() == "sft+"


def test_a_stage_that_is_not_due_is_left_out_and_reads_as_empty(world: World) -> None:
    roles = Roles.at_start({"policy": Checkpoint("M_0", world.folder, 0)})
    never: Any = Stage(RESPONSES, lambda _: [], num_shards=1, only_if=lambda _: False)
    nothing: Any = Stage(INITIAL_RESPONSES, lambda _: [], num_shards=0)
    seen: list[int] = []

    def judge(reading: Reading) -> list[Judgment]:
        seen.append(len(list(reading.rows(RESPONSES))))
        return []

    judged: Any = Stage(JUDGMENTS, judge, reads=(Read(RESPONSES, "iteration"),), num_shards=1)
    with Store(world.folder / "run") as store:
        engine: Any = world
        Runner(store, engine).run(Iteration(1, (never, nothing, judged)), roles)
        assert not store.has(1, RESPONSES) and not store.has(1, INITIAL_RESPONSES) and store.has(1, JUDGMENTS)
    assert seen == [0]


def test_overlap_with_held_out_prompts_is_counted_once_and_stored(world: World) -> None:
    world.num_overlaps = 2
    world.run()
    world.run()
    summaries, _, _ = history.read_history(Store(world.folder / "run", write=False))
    assert [s.counts["num_overlapping_prompts"] for s in summaries] == [2, 2]
    assert [call for call in world.calls if call[0] == "overlap"] == [("overlap", 5)] * 2


def test_a_summary_lists_the_keys_that_interventions_changed(world: World) -> None:
    world.run()
    tiny = (Path(__file__).parents[2] / "recipes/tiny.yaml").read_text()
    folder = world.folder / "run"
    (folder / "recipe.yaml").write_text(tiny)
    (folder / "iteration-01/recipe.yaml").write_text(tiny)
    changed = tiny.replace("temperature: 1.0", "temperature: 1.2")
    (folder / "iteration-02/recipe.yaml").write_text(changed)
    summaries, _, _ = history.read_history(Store(folder, write=False))
    assert [s.recipe_changes for s in summaries] == [(), ("sampling.temperature: 1.0 -> 1.2",)]


def test_a_stored_decision_is_read_back_unchanged(world: World) -> None:
    decision = world.run()
    _, decisions, _ = history.read_history(Store(world.folder / "run", write=False))
    assert asdict(decisions[-1]) == asdict(decision)
