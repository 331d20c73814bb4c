"""The run folder: finished work is stored, unfinished work is made again, changed files are refused."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward.errors import NoRunError, RecipeError, StoreError
from selfreward.evaluation.tables import OUTCOMES
from selfreward.records import Judgment, Message, PreferencePair, Prompt, PromptOutcome, Response
from selfreward.store import Store
from selfreward.store.lock import is_held
from selfreward.store.manifest import SCHEMA
from selfreward.store.tables import from_table, schema_of, to_table
from selfreward.tables import JUDGMENTS, PROMPTS, Table

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)  # lone surrogates are not valid UTF-8


def prompt(number: int) -> Prompt:
    return Prompt(f"p{number}", (Message("user", f"say {number}"),), ({"kind": "exact", "expected": str(number)},))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "run", name="test") as opened:
        yield opened


@given(TEXT, st.lists(st.integers(0, 2**31)), st.lists(st.floats(allow_nan=False)), st.none() | st.floats(0, 5))
def test_records_survive_parquet(text: str, ids: list[int], logprobs: list[float], score: float | None) -> None:
    response = Response("r", "p", tuple(ids), tuple(ids), tuple(logprobs) or None, text, "stop", 2**61, "c")
    judgment = Judgment("j", "p", "r", "additive", 0, score, None if score is not None else "empty", text)
    asked = Prompt("p", (Message("system", text), Message("user", text)), ({"kind": text, "n": 1},), text)
    for record in (response, judgment, asked):
        kind = type(record)
        assert list(from_table(kind, to_table(kind, [record]))) == [record]


@pytest.mark.parametrize("is_merged", [False, True])
def test_records_are_read_without_their_tokens(store: Store, is_merged: bool) -> None:
    """A row without log-probabilities, and one with an invalid one, lie beside complete rows."""
    shards = [
        [Judgment("a", "p", "r", "j", 0, 4.0, None, "good", (1, 2), (3,), (-0.5,), seed=7)],
        [
            Judgment("b", "p", "r", "j", 1, None, "empty", ""),
            Judgment("c", "p", "r", "j", 2, 1.0, None, "bad", (1,), (2, 3), (-0.5, -1.5)),
        ],
    ]
    for number, shard in enumerate(shards):
        store.make_shard(1, JUDGMENTS, number, partial(list, shard))
    if is_merged:
        store.stage(1, JUDGMENTS, 2, lambda shard: shards[shard])
    complete = [judgment for shard in shards for judgment in shard]
    assert list(store.read(1, JUDGMENTS)) == complete
    without = [replace(each, prompt_token_ids=(), token_ids=(), token_logprobs=()) for each in complete]
    assert list(store.read(1, JUDGMENTS, tokens=False)) == without
    assert list(store.read(1, JUDGMENTS, 1, tokens=False)) == without[1:]


def test_every_column_of_a_pair_has_a_name_and_a_type() -> None:
    assert schema_of(PreferencePair).field("chosen_token_ids").type.value_type == "int64"


def test_a_finished_shard_is_not_made_again(store: Store) -> None:
    made: list[int] = []

    def make(shard: int) -> list[Prompt]:
        made.append(shard)
        return [prompt(shard)] * shard  # shard 0 is empty

    for _ in range(2):
        store.stage(1, PROMPTS, 3, make)
    assert made == [0, 1, 2]
    assert [len(list(store.read(1, PROMPTS, shard))) for shard in range(3)] == [0, 1, 2]
    assert list(store.read(1, PROMPTS)) == [prompt(1), prompt(2), prompt(2)]


def test_an_interrupted_stage_resumes_at_the_missing_shard(store: Store) -> None:
    def dies(shard: int) -> list[Prompt]:
        if shard == 2:
            raise KeyboardInterrupt
        return [prompt(shard)]

    with pytest.raises(KeyboardInterrupt):
        store.stage(1, PROMPTS, 4, dies)
    store.close()
    first = store.folder / "iteration-01/prompts/00000.parquet"
    inode = first.stat().st_ino
    assert sorted(path.name for path in first.parent.iterdir()) == ["00000.parquet", "00001.parquet"]
    made: list[int] = []
    with Store(store.folder) as again:
        assert first.stat().st_ino == inode
        again.stage(1, PROMPTS, 4, lambda shard: made.append(shard) or [prompt(shard)])  # type: ignore[func-returns-value]
        assert made == [2, 3]
        assert [p.id for p in again.read(1, PROMPTS)] == ["p0", "p1", "p2", "p3"]


def test_shards_are_left_alone_where_their_merged_table_is_missing(store: Store) -> None:
    store.stage(1, PROMPTS, 2, lambda shard: [prompt(shard)])
    store.close()
    merged = store.folder / "iteration-01/prompts.parquet"
    shard = merged.with_suffix("") / "00000.parquet"
    shard.parent.mkdir()
    shard.write_bytes(merged.read_bytes())
    merged.rename(store.folder / "elsewhere")
    Store(store.folder).close()
    assert shard.is_file(), "the only copy was removed"
    (store.folder / "elsewhere").rename(merged)
    Store(store.folder).close()
    assert not shard.parent.exists()


def test_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        with Store(tmp_path / name) as store:
            store.stage(1, PROMPTS, 2, lambda shard: [prompt(shard)])
            contents.append((store.folder / "iteration-01/prompts.parquet").read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize("change", ["flip", "cut", "remove"])
def test_a_changed_file_is_refused_by_name(store: Store, change: str) -> None:
    store.stage(1, PROMPTS, 1, lambda shard: [prompt(shard)])
    store.close()
    path = store.folder / "iteration-01/prompts.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    {"flip": lambda: path.write_bytes(content), "cut": lambda: os.truncate(path, 9), "remove": path.unlink}[change]()
    with Store(store.folder) as again, pytest.raises(StoreError, match=r"prompts\.parquet.*restore it, or remove"):
        list(again.read(1, PROMPTS))


def test_a_removed_iteration_is_made_again_but_a_gap_is_refused(store: Store) -> None:
    for iteration in (1, 2):
        store.stage(iteration, PROMPTS, 1, lambda _: [prompt(0)])
    store.close()
    shutil.rmtree(store.folder / "iteration-01")
    with pytest.raises(StoreError, match=r"iteration-01 is missing; .* remove iteration-01 and every later folder"):
        Store(store.folder)
    shutil.rmtree(store.folder / "iteration-02")
    with Store(store.folder) as again:
        assert not again.has(1, PROMPTS)


def test_without_the_policys_checkpoint_an_earlier_iteration_must_be_removed(store: Store) -> None:
    for iteration in (1, 2, 3):
        made = store.work_folder(iteration, "training") / "checkpoint"
        made.mkdir()
        (made / "model.safetensors").write_text(f"M_{iteration}")
        store.stage(iteration, PROMPTS, 1, lambda _: [prompt(0)])
        store.commit_checkpoint(iteration, "checkpoint", made)
    assert store.folders("checkpoint") == [1, 2, 3]
    store.remove_folder(2, "checkpoint")
    assert store.folders("checkpoint") == [1, 3]
    store.close()
    path = store.folder / "iteration-03/prompts.parquet"
    path.write_bytes(path.read_bytes() + b"x")
    with Store(store.folder) as again, pytest.raises(StoreError, match="remove the folder iteration-02 and all later"):
        list(again.read(3, PROMPTS))
    shutil.rmtree(store.folder / "iteration-03")
    with pytest.raises(StoreError, match="remove iteration-02 and every later folder"):
        Store(store.folder)
    shutil.rmtree(store.folder / "iteration-02")
    with Store(store.folder) as again:
        assert not again.has(2, PROMPTS)
        assert again.has(1, PROMPTS)


@pytest.mark.parametrize("named", [False, True])
def test_a_kill_between_a_files_record_and_its_name_loses_nothing(store: Store, named: bool) -> None:
    """A recorded temporary file is renamed on resume, also over an older file; an unrecorded one is deleted."""
    store.read_or_make_json(1, "decision", lambda: 1)
    old = (store.folder / "iteration-01/decision.json").read_bytes()
    store.read_or_make_json(1, "decision", lambda: 2, remake_if=lambda _: True)
    store.close()
    path = store.folder / "iteration-01/decision.json"
    path.rename(path.with_name(".decision.json.12345.selfreward-partial"))  # as if killed before the rename
    (path.parent / ".decision.json.99.selfreward-partial").write_bytes(b"{")  # and once during the write
    if named:
        path.write_bytes(old)
    with Store(store.folder) as again:
        assert again.read_or_make_json(1, "decision", lambda: 3) == 2
        assert [file.name for file in path.parent.iterdir()] == ["decision.json"]


def test_iterations_without_a_manifest_are_refused(store: Store) -> None:
    store.stage(1, PROMPTS, 1, lambda _: [prompt(0)])
    store.close()
    (store.folder / "manifest.json").unlink()
    with pytest.raises(RecipeError, match=r"no manifest\.json, so not a run folder, but it contains iteration-01"):
        Store(store.folder)


def test_values_are_strict_json_and_made_once(store: Store) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.read_or_make_json(1, "evaluation", lambda: {"x": float("nan")})
    assert store.read_or_make_json(1, "evaluation", lambda: {"x": 1}) == {"x": 1}
    assert store.read_or_make_json(1, "evaluation", lambda: {"x": 2}) == {"x": 1}
    assert store.read_or_make_json(1, "evaluation", lambda: {"x": 3}, remake_if=lambda v: v["x"] == 1) == {"x": 3}


def test_a_model_folder_is_committed_after_a_kill_at_any_moment(store: Store) -> None:
    made = store.work_folder(1, "training") / "checkpoint"
    made.mkdir()
    (made / "model.safetensors").write_bytes(b"weights")
    (made / "chat_template.jinja").write_text("{{ x }}")
    path, weights_hash = store.commit_checkpoint(1, "checkpoint", made)
    assert (path / "model.safetensors").read_bytes() == b"weights"
    assert not made.parent.exists()
    manifest = json.loads((store.folder / "manifest.json").read_text())
    del manifest["files"]["iteration-01/checkpoint"]  # as if killed between the rename and the record
    store.close()
    (store.folder / "manifest.json").write_text(json.dumps(manifest))
    with Store(store.folder) as again:
        assert again.commit_checkpoint(1, "checkpoint", made) == (path, weights_hash)
    template = path / "chat_template.jinja"
    for content in ("{{ y }}", None):
        template.unlink() if content is None else template.write_text(content)
        with Store(store.folder) as again, pytest.raises(StoreError, match=r"checkpoint/chat_template\.jinja: found "):
            again.commit_checkpoint(1, "checkpoint", made)
    template.write_text("{{ x }}")
    (path / "model.safetensors").write_bytes(b"other")
    with Store(store.folder) as again, pytest.raises(StoreError, match="changed after it was written"):
        again.commit_checkpoint(1, "checkpoint", made)


def test_a_link_points_inside_the_run_or_to_a_model_elsewhere(store: Store, tmp_path: Path) -> None:
    for place in (tmp_path / "given", store.folder / "iteration-01"):
        place.mkdir()
        (place / "model.safetensors").write_text(place.name)
    store.set_link("best", str((tmp_path / "given").absolute()))
    assert (store.folder / "best/model.safetensors").read_text() == "given"
    store.set_link("best", "iteration-01")
    assert (store.folder / "best/model.safetensors").read_text() == "iteration-01"
    assert (tmp_path / "given/model.safetensors").read_text() == "given"


def test_outcomes_survive_parquet(store: Store) -> None:
    kept = [
        PromptOutcome("p1", "validation", "anchor", 0, 0.75, -3.0),
        PromptOutcome("p2", "gold", "self", -1, None, None),
    ]
    store.stage(1, OUTCOMES, 1, lambda _: kept)
    assert list(store.read(1, OUTCOMES)) == kept


def test_the_cost_of_a_shard_is_recorded_once_even_when_stages_nest(store: Store) -> None:
    tokens = {"num_generated_tokens": 0.0}
    store.meter = lambda: tokens

    def spend(amount: float) -> list[Prompt]:
        tokens["num_generated_tokens"] += amount
        return [prompt(0)]

    def decide() -> dict[str, int]:
        store.stage(1, Table("second_look", Prompt, group="evaluation"), 1, lambda _: spend(5))
        spend(2)
        return {}

    store.read_or_make_json(1, "decision", decide)
    assert store.usage_by_stage(1) == {
        "second_look": {"num_generated_tokens": 5},
        "decision": {"num_generated_tokens": 2},
    }
    assert store.groups(1) == {"second_look": "evaluation"}


def test_a_second_process_is_refused_and_a_dead_one_releases_the_lock(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from selfreward.store import Store; store = Store(Path(sys.argv[1])); "
    )
    folder = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", code + "print('held', flush=True); sys.stdin.read()", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        assert is_held(folder)
        with pytest.raises(StoreError, match=f'in use by .*"pid": {owner.pid}'):
            Store(folder)
        owner.kill()
    assert not is_held(folder)
    Store(folder).close()


def test_a_folder_that_is_not_writable_is_reported_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"for a run it is in output_dir.*choose a path whose parents are folders"):
        Store(tmp_path / "file" / "run")


def test_a_run_of_an_earlier_version_is_refused_or_read_where_nothing_changed(store: Store) -> None:
    store.record_event("started")
    store.close()
    path = store.folder / "manifest.json"
    path.write_text(path.read_text().replace(f'"schema": {SCHEMA}', '"schema": 1'))
    for write in (False, True):
        with pytest.raises(StoreError, match=r"a run of selfreward 0\.1, .*use selfreward 0\.1 for everything else"):
            Store(store.folder, write=write)
    assert Store(store.folder, write=False, earlier=True).manifest["schema"] == 1
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 99'))
    for earlier in (False, True):
        with pytest.raises(StoreError, match=f"schema 99; this version reads schema {SCHEMA}"):
            Store(store.folder, write=False, earlier=earlier)


def test_a_broken_manifest_is_an_error_not_a_fresh_start(store: Store) -> None:
    store.record_event("started")
    store.close()
    (store.folder / "manifest.json").write_text('{"schema": 1, ')
    with pytest.raises(StoreError, match="not a manifest"):
        Store(store.folder)


@pytest.mark.parametrize(
    "damage",
    [
        {"schema": float("inf")}, {"schema": "2"}, {"schema": None}, {"facts": {"versions": []}},
        {"facts": {"warnings": None}}, {"events": [{}]}, {"files": {"iteration-01/prompts.parquet": {}}},
        {"files": {f"iteration-{'9' * 5000}/decision.json": {"sha256": "", "seconds": 1, "usage": {}}}},
        {"files": {"iteration-01/decision.json": {"sha256": "", "seconds": 1, "usage": {"num_tokens": []}}}},
        {"files": {"iteration-01/pairs.parquet": {"sha256": "", "seconds": 1, "usage": {}}}},
        {"files": {"iteration-01/a.json": {"sha256": "", "seconds": 1, "usage": {}, "shard_records": 5}}},
    ],
)  # fmt: skip
def test_a_manifest_of_other_types_is_damaged(store: Store, damage: dict[str, object]) -> None:
    store.record_event("started")
    store.close()
    path = store.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(StoreError, match="not a manifest of a run") as raised:
        Store(store.folder, write=False)
    assert raised.value.exit_code == 4


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "huge"])
def test_a_manifest_that_is_no_regular_file_is_not_read(store: Store, kind: str) -> None:
    store.record_event("started")
    store.close()
    path = store.folder / "manifest.json"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(10**12)  # sparse
    with pytest.raises(StoreError, match="not a manifest of a run"):
        Store(store.folder, write=False)


def test_a_path_that_cannot_be_a_folder_is_no_run() -> None:
    for write in (False, True):
        with pytest.raises(NoRunError, match=r"File name too long; .*correct the path"):
            Store(Path("x" * 5000), write=write)
