"""The loop on fakes of its own interfaces: order, durability, limits, counts. No model is involved."""

import copy
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward import history, loop
from selfreward.errors import StoreError
from selfreward.parts import Judged, Models, Parts, TrainingJob
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
    Response,
    Selection,
)
from selfreward.store import Store


class Killed(BaseException):
    """What a SIGKILL is to the loop: nothing after it runs."""


@dataclass
class World:
    """All parts of a run as fakes that write down what they were asked, and can be killed at the n-th call."""

    folder: Path
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    kill_at: int | None = None
    max_iterations: int = 2
    best: int | None = None
    min_pairs: int = 1
    num_prompts: int = 5
    judge_by: str = "policy"
    needs: frozenset[str] = frozenset()
    meta_iterations: int = 0
    counted: list[tuple[int, int]] = field(default_factory=list)
    judged_at_once: list[int] = field(default_factory=list)
    selected: list[Judged] = field(default_factory=list)
    wording: str = "say"
    kill_at_report: int | None = None
    written: list[tuple[int, int]] = field(default_factory=list)

    def call(self, *what: Any) -> None:
        if self.kill_at is not None and len(self.calls) == self.kill_at:
            raise Killed
        self.calls.append(what)

    # PromptSource, Engine
    def training_prompts(self, iteration: int) -> list[Prompt]:
        return [Prompt(f"{iteration}-{i}", (Message("user", f"{self.wording} {i}"),)) for i in range(self.num_prompts)]

    def facts(self) -> Mapping[str, Any]:
        return {}

    def usage(self) -> Mapping[str, float]:
        return {"num_requests": float(len(self.calls))}

    def sleep(self) -> None:
        self.call("sleep")

    # Sampler
    def sample(
        self, prompts: Sequence[Prompt], *, model: Checkpoint, iteration: int, stage: str = "responses"
    ) -> list[Response]:
        self.call("sample", iteration, model.iteration, tuple(p.id for p in prompts))
        infix = "" if stage == "responses" else f"{stage}/"
        return [
            Response(f"{p.id}/{infix}{n}", p.id, (1,), (2, n), None, f"text {n}", "stop", 0, model.id)
            for p in prompts
            for n in range(2)
        ]

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

    # PairSelector
    def select(self, judged: Judged) -> Selection:
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
    def may_judge(self, iteration: int) -> bool:
        return iteration <= self.meta_iterations

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

    # Trainer
    def train(self, job: TrainingJob) -> Mapping[str, Any]:
        self.call("train", job.iteration, job.policy.name, job.pairs_file.exists())
        checkpoint = job.work_folder / "checkpoint"
        checkpoint.mkdir(exist_ok=True)
        (checkpoint / "model.safetensors").write_text(f"M_{job.iteration}")
        return {"num_pairs": 4}

    # Evaluator
    def evaluate(self, stages: Store, iteration: int, *, models: Models, previous: Checkpoint | None) -> Evaluation:
        assert iteration == models["policy"].iteration
        make = lambda: self.call("evaluate", iteration) or []  # type: ignore[func-returns-value]  # noqa: E731
        stages.once(iteration, "evaluation_responses", Response, 0, make)
        return Evaluation(iteration, {"pass_rate": 0.5})

    def evaluate_judge(self, stages: Store, iteration: int, *, judged: Iterable[Judged], models: Models) -> Evaluation:
        assert models["policy"].iteration == iteration - 1
        return Evaluation(iteration, {"judge_reliability": float(sum(len(shard.responses) for shard in judged))})

    # Monitor
    def may_train(self, counts: Mapping[str, int]) -> bool:
        return counts["num_pairs"] >= self.min_pairs

    def decide(self, history: Sequence[IterationSummary], *, elapsed_s: float) -> Decision:
        assert elapsed_s >= 0
        t = history[-1].iteration
        if not self.may_train(history[-1].counts):
            return Decision(t, "stop", "TOO_FEW_PAIRS", "", {}, 0)
        stop = t >= self.max_iterations
        reason = "MAX_ITERATIONS" if stop else "CONTINUE"
        return Decision(t, "stop" if stop else "continue", reason, "", {}, self.best or t)

    # Reporter
    def write(
        self, history: Sequence[IterationSummary], decisions: Sequence[Decision], initial: Evaluation | None = None
    ) -> None:
        assert initial is not None
        if len(history) == self.kill_at_report:
            raise Killed
        self.written.append((len(history), len(decisions)))

    def parts(self, keep: int | None = None) -> Parts:
        given = Checkpoint("M_0", self.folder / "given", 0)
        return Parts(
            prompts=self, engine=self, sampler=self, judge=self, selector=self, trainer=self, evaluator=self,
            meta_judge=self if self.meta_iterations else None, monitor=self, reporter=self,
            initial=given, models={"policy": given, "initial": given}, seed=0, shard_prompts=2,
            keep_checkpoints=keep, recipe_text="name: fake\n",
        )  # type: ignore[arg-type]  # fmt: skip

    def run(self, keep: int | None = None) -> Decision:
        with Store(self.folder / "run") as store:
            return loop.run(self.parts(keep), store)

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
    assert (decision.iteration, decision.reason) == (2, "MAX_ITERATIONS")
    blocks = {t: [(f"{t}-0", f"{t}-1"), (f"{t}-2", f"{t}-3"), (f"{t}-4",)] for t in (1, 2)}
    expected: list[tuple[Any, ...]] = [("evaluate", 0)]
    for t, policy in ((1, "given"), (2, "checkpoint")):
        expected += [("sample", t, t - 1, block) for block in blocks[t]]
        expected += [("judge", t, t - 1, block) for block in blocks[t]]
        expected += [("sleep",), ("train", t, policy, True), ("evaluate", t)]
    assert world.calls == expected
    assert world.written == [(1, 1), (2, 2)]


def test_a_judge_by_best_is_the_checkpoint_that_the_monitor_named(world: World) -> None:
    world.judge_by, world.best, world.max_iterations = "best", 1, 4
    world.run()
    judges = [call[2] for call in world.calls if call[0] == "judge" and call[3][0].endswith("-0")]
    assert judges == [0, 1, 1, 1]


def test_a_selector_gets_what_it_needs_and_nothing_twice(world: World) -> None:
    world.needs = frozenset({"initial_responses", "previous_judgments"})
    world.run()
    first = [(call[0], call[2]) for call in world.calls if call[:2] in (("sample", 1), ("judge", 1))]
    assert set(first) == {("sample", 0), ("judge", 0)} and len(first) == 6  # M_0 is the policy; nothing came before
    second = [(call[0], call[2]) for call in world.calls if call[:2] in (("sample", 2), ("judge", 2))]
    assert second == [("sample", 1)] * 3 + [("sample", 0)] * 3 + [("judge", 1)] * 3 + [("judge", 0)] * 3
    last = world.selected[-1]
    assert {r.id for r in last.initial_responses} == {"2-4/initial_responses/0", "2-4/initial_responses/1"}
    assert {j.response_id for j in last.previous_judgments} == {r.id for r in last.responses}
    assert {j.response_id for j in last.judgments} == {r.id for r in (*last.responses, *last.initial_responses)}
    assert not world.selected[0].initial_responses and not world.selected[0].previous_judgments
    store = Store(world.folder / "run", write=False)
    assert history.count(store, 2)["num_responses"] == 10


def test_judgments_of_early_iterations_become_pairs_too(world: World) -> None:
    world.meta_iterations = 1
    world.run()
    store = Store(world.folder / "run", write=False)
    kinds = [[pair.kind for pair in store.read(t, "pairs", PreferencePair)] for t in (1, 2)]
    assert kinds == [
        ["response", "judgment", "response", "response", "judgment", "response", "judgment"],
        ["response"] * 4,
    ]
    assert history.count(store, 1) | {"num_pairs": 7, "num_judgment_pairs": 3} == history.count(store, 1)
    assert [call[:3] for call in world.calls if call[0] == "battles"] == [("battles", 1, 0)] * 3
    assert world.counted == [(1, 0), (3, 1), (4, 2)]  # of this shard and those before it; of those before it


def test_how_far_the_judge_is_to_be_trusted_is_kept_with_the_iteration(world: World) -> None:
    world.run()
    summaries, _, _ = history.read_history(Store(world.folder / "run", write=False))
    assert [summary.judging and summary.judging.metrics for summary in summaries] == [{"judge_reliability": 10.0}] * 2


def test_a_judge_by_initial_is_always_m_0(world: World) -> None:
    world.judge_by = "initial"
    world.run()
    assert {call[2] for call in world.calls if call[0] == "judge"} == {0}


@pytest.mark.parametrize("kill_at", range(19))
def test_killed_at_any_call_and_started_again_it_does_nothing_twice(world: World, kill_at: int) -> None:
    whole = copy.deepcopy(world)
    whole.folder = world.folder / "whole"
    whole.run()
    assert len(whole.calls) == 19
    world.kill_at = kill_at
    with pytest.raises(Killed):
        world.run()
    world.kill_at = None
    world.run()
    done = [call for call in world.calls if call != ("sleep",)]  # sleeping again is harmless
    assert done == [call for call in whole.calls if call != ("sleep",)]
    assert world.contents() == whole.contents()


def test_a_finished_run_does_nothing_but_report_again(world: World) -> None:
    world.run()
    calls = len(world.calls)
    world.run()
    assert len(world.calls) == calls


def test_a_raised_limit_continues_a_finished_run(world: World) -> None:
    world.run()
    world.max_iterations = 3
    assert world.run().iteration == 3
    stored = json.loads((world.folder / "run/iteration-02/decision.json").read_text())
    assert stored["decision"] == "continue"


def test_a_lowered_limit_ends_a_run_that_already_went_further(world: World) -> None:
    world.max_iterations, world.kill_at_report = 9, 2
    with pytest.raises(Killed):
        world.run()
    world.max_iterations, world.kill_at_report = 1, None
    assert world.run().iteration == 2
    assert not any(call[1:2] == (3,) for call in world.calls)


def test_prompts_that_changed_under_a_started_iteration_are_refused(world: World) -> None:
    world.kill_at = 6  # in the judgments of iteration 1
    with pytest.raises(Killed):
        world.run()
    world.kill_at, world.wording = None, "other words"
    with pytest.raises(StoreError, match="other prompts than the recipe's source gives now"):
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
    assert world.run().reason == "TOO_FEW_PAIRS"
    assert not any(call[0] == "train" for call in world.calls)
    assert not (world.folder / "run/best").exists()
    summaries, _, _ = history.read_history(Store(world.folder / "run", write=False))
    assert summaries[0].evaluation.not_measured


def test_keep_bounds_the_disk_but_never_takes_the_best(world: World) -> None:
    world.max_iterations, world.best = 4, 1
    world.run(keep=1)
    left = sorted(path.parent.name for path in (world.folder / "run").glob("iteration-*/checkpoint"))
    assert left == ["iteration-01", "iteration-04"]
    assert (world.folder / "run/best/model.safetensors").read_text() == "M_1"
    world.max_iterations = 5
    assert world.run(keep=1).iteration == 5  # a removed checkpoint is not missed


@given(num_prompts=st.integers(1, 9))
def test_every_prompt_goes_through_exactly_one_shard(
    tmp_path_factory: pytest.TempPathFactory, num_prompts: int
) -> None:
    world = World(tmp_path_factory.mktemp("world"), max_iterations=1, num_prompts=num_prompts, min_pairs=0)
    world.run()
    sampled = [prompt_id for call in world.calls if call[0] == "sample" for prompt_id in call[3]]
    assert sampled == [f"1-{i}" for i in range(num_prompts)]


def test_the_loop_needs_no_heavy_library() -> None:
    import subprocess
    import sys

    code = (
        "import sys, selfreward.cli, selfreward.loop; "
        "print([m for m in ('torch', 'transformers', 'trl', 'vllm', 'datasets', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_records_of_a_decision_survive_the_folder(world: World) -> None:
    decision = world.run()
    _, decisions, _ = history.read_history(Store(world.folder / "run", write=False))
    assert dataclasses.asdict(decisions[-1]) == dataclasses.asdict(decision)
