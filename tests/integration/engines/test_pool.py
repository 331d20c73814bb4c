"""Several transformers engines in actors of a real Ray: the tests of all engines, the bytes of one, and losses."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cases.engine_tests import CONTEXT_TOKENS, EngineTests, ask, changed_copy, tiny_checkpoint
from cases.replicas import Doubling, descendants, is_alive, wait_until

from selfreward import signals
from selfreward.engines import build
from selfreward.engines.pool.engine import PooledEngine
from selfreward.engines.pool.replicas import Replicas
from selfreward.errors import EngineError, RecipeError
from selfreward.parts import Engine
from selfreward.ray_cluster import ray
from selfreward.recipe import EngineSection
from selfreward.records import Checkpoint
from selfreward.requests import GenerationRequest, ScoreRequest

pytest.importorskip("ray")

ENGINES = {"raylet", "gcs_server", "ray::Replica"}
SECTION = EngineSection(
    kind="transformers", dtype="float32", context_tokens=CONTEXT_TOKENS, batch_tokens=512, replicas=1
)


@pytest.fixture(scope="module")
def first() -> Checkpoint:
    return tiny_checkpoint()


@pytest.fixture(scope="module")
def path() -> Iterator[None]:
    """Let other processes import from the folder of the tests, as this one does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
        yield


@pytest.fixture(scope="module")
def engine(first: Checkpoint, path: None) -> Iterator[PooledEngine]:
    engine = build(SECTION.model_copy(update={"replicas": 2}), first=first)
    assert isinstance(engine, PooledEngine)
    with signals.raised():
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        engine.load(first)
        # Ray's own would end a run without its exit code.
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    yield engine
    processes = [child for child in descendants(os.getpid()) if child.name() in ENGINES]
    assert {child.name() for child in processes} == ENGINES
    engine.close()
    assert wait_until(lambda: not any(map(is_alive, processes)), seconds=30)


class TestEngine(EngineTests):
    tolerance_nats = 1e-4


def requests_of(engine: Engine) -> list[GenerationRequest]:
    texts = ["a", "some more " * 3, "x" * 120, "", "of the same length", "of the same lengtH", "y" * 40, "b"]
    drawn = [ask(engine, text, seed=1000 * i, max_tokens=20 + i) for i, text in enumerate(texts)]
    return [*drawn, ask(engine, "greedy", temperature=0.0, choice_token_ids=(65, 66))]


def test_two_replicas_give_the_bytes_of_one_engine(engine: PooledEngine, first: Checkpoint) -> None:
    alone = build(SECTION, first=first)
    assert not isinstance(alone, PooledEngine)
    requests = requests_of(engine)
    scored = [ScoreRequest((1, 2, 3), tuple(range(4, 4 + 20 * i))) for i in range(12)]
    blocks = alone.generation_blocks(requests)  # type: ignore[attr-defined]
    assert len(blocks) > 4 and len(alone.score_blocks(scored)) > 2  # type: ignore[attr-defined]
    assert any(len(set(block.indices)) > 1 for block in blocks), "several prompts are padded together"
    assert sum(len(block.indices) for block in blocks) > len(requests), "the draws of a prompt are in several blocks"
    before = engine.usage()
    assert engine.generate(requests) == alone.generate(requests)
    assert engine.score(scored) == alone.score(scored)
    grown = {key: value - before[key] for key, value in engine.usage().items()}
    assert grown == alone.usage()
    assert len(set(engine.facts()["replicas"]["places"])) == 2


def test_a_killed_replica_is_replaced_and_has_the_weights_in_use(
    engine: PooledEngine, first: Checkpoint, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    second = changed_copy(first, tmp_path / "second", scale=0.01)
    alone = build(SECTION, first=first)
    alone.load(second)
    engine.load(second)
    replicas = engine._replicas
    assert replicas is not None
    requests = requests_of(engine)
    num_lost = len(replicas.lost)
    killed: list[int] = []

    def kill(_: int) -> None:
        busy = [slot for slot in replicas.ready if slot.blocks]
        if busy and not killed:
            killed.append(pid_of(busy[0].place))
            os.kill(killed[0], signal.SIGKILL)

    blocks = engine._engine.generation_blocks(requests)
    found = replicas.map(
        "generate", [block.requests for block in blocks], several=False, on_done=kill
    )  # while both compute
    assert found == [alone.generate(block.requests) for block in blocks]
    assert capfd.readouterr().out == "", "Ray's messages are no output of a command"
    assert len(replicas.lost) - num_lost == 1 and str(killed[0]) in replicas.lost[-1]
    engine.load(second)  # waits for the replacement
    facts = engine.facts()["replicas"]
    assert facts["num"] == 2 and facts["lost"] == replicas.lost
    assert {slot.facts["last_weight_sync"]["checkpoint_id"] for slot in replicas.ready} == {second.id}
    assert engine.generate(requests) == alone.generate(requests)
    engine.load(first)


def pid_of(place: str | None) -> int:
    return int(str(place).rpartition(" ")[2])


def test_errors_of_a_replica_are_raised_as_they_are(engine: PooledEngine) -> None:
    with pytest.raises(RecipeError, match="cannot enforce a JSON schema") as error:
        engine.generate([ask(engine, f"{i}", json_schema={"type": "object"}) for i in range(9)])
    assert type(error.value) is RecipeError
    assert engine.generate([ask(engine, "hello")]), "what the other replicas still computed is not mistaken for this"


# Losses, with actors that need no model.


@pytest.fixture
def doubling(engine: PooledEngine) -> Iterator[Any]:
    """A function that makes such replicas in the Ray that the engine has started."""
    made: list[Replicas] = []
    actor = ray().remote(Doubling).options(num_cpus=0)

    def replicas(*, wanted: int = 2, minimum: int = 1) -> Replicas:
        made.append(Replicas(actor.remote, capacity=lambda: 9, wanted=wanted, minimum=minimum))
        made[-1].load("the checkpoint", kept={})  # type: ignore[arg-type]
        return made[-1]

    yield replicas
    for each in made:
        each.close()


@pytest.mark.parametrize("several", [False, True])
def test_a_block_that_ended_a_replica_is_computed_again(doubling: Any, tmp_path: Path, several: bool) -> None:
    replicas, done = doubling(), []
    blocks: list[list[Any]] = [[i, i + 1] for i in range(0, 40, 2)]
    blocks[7].append(tmp_path / "trap")
    found = replicas.map("double", blocks, several=several, on_done=done.append)
    assert [number for block in found for number, _ in block] == list(range(0, 80, 2)), "nothing lost, nothing twice"
    assert {checkpoint for block in found for _, checkpoint in block} == {"the checkpoint"}
    assert sum(done) == 20 and len(replicas.lost) == 1
    assert (max(done) == 5) == several, "a quarter of twenty at first for each of two, then fewer"


@pytest.mark.parametrize("several", [False, True])
def test_a_block_that_ends_two_replicas_ends_the_run(doubling: Any, several: bool) -> None:
    replicas = doubling(wanted=3)
    blocks: list[list[Any]] = [[i] for i in range(9)]
    blocks[4].append(Path("/nowhere/trap"))
    with pytest.raises(EngineError, match=r"block 5 of 9 has ended 2 replicas \(replica \d on host, process \d+"):
        replicas.map("double", blocks, several=several, on_done=str)
    assert len(replicas.lost) == 2


def test_fewer_than_the_minimum_end_the_run(doubling: Any) -> None:
    replicas = doubling(wanted=2, minimum=2)
    pids = []
    with pytest.raises(EngineError) as error:
        for _ in range(9):
            pids.append(replicas.ready[0].facts["pid"])
            os.kill(pids[-1], signal.SIGKILL)
            replicas.load("the checkpoint", kept={})  # restores the number
    assert [str(pid) in lost for pid, lost in zip(pids, replicas.lost, strict=True)] == [True] * 3
    assert f"1 replicas can run after {', '.join(replicas.lost)} were lost" in str(error.value)
    assert error.value.exit_code == 4


class Unstartable(Doubling):
    def __init__(self) -> None:
        raise ModuleNotFoundError("No module named 'selfreward'")


def test_a_replica_that_cannot_start_says_why(engine: PooledEngine) -> None:
    actor = ray().remote(Unstartable).options(num_cpus=0)
    replicas = Replicas(actor.remote, capacity=lambda: 9, wanted=1, minimum=1)
    with pytest.raises(EngineError, match=r"cannot start \(ModuleNotFoundError: No module named 'selfreward'\)"):
        replicas.load("the checkpoint", kept={})  # type: ignore[arg-type]


def test_an_error_leaves_nothing_for_the_next_call(doubling: Any) -> None:
    replicas = doubling()
    with pytest.raises(ValueError, match="three is refused"):
        replicas.map("failing", [[i, 3] for i in range(6)], several=False, on_done=str)
    assert replicas.map("failing", [[i] for i in (1, 2)], several=False, on_done=str) == [[1], [2]]
    assert set(replicas.each("asleep")) == {slot.facts["pid"] for slot in replicas.ready}


def test_a_replica_whose_first_load_failed_is_used_after_the_next_one(engine: PooledEngine, doubling: Any) -> None:
    replicas = doubling(wanted=1)
    os.kill(replicas.ready[0].facts["pid"], signal.SIGKILL)
    with pytest.raises(EngineError, match="cannot be loaded"):
        replicas.load("refused", kept={})
    assert replicas.ready == []
    replicas.load("the checkpoint", kept={})
    assert replicas.map("double", [[1]], several=False, on_done=str) == [[(2, "the checkpoint")]]
