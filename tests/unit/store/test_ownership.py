"""A run touches only its own files: not those of other programs, not through links, none that was there before."""

import os
from pathlib import Path

import pytest

from selfreward.errors import NoRunError, RecipeError, StoreError
from selfreward.records import Message, Prompt
from selfreward.store import Store
from selfreward.store.ownership import run_folder_of
from selfreward.tables import PROMPTS

FOREIGN = (
    ".x.partial", ".decision.json.12345.partial", "...", ".partial", "..partial", "..1.selfreward-partial",
    ".1.selfreward-partial", ". .partial", ".x.selfreward-partial", "a.1.selfreward-partial", "notes.parquet", "....",
)  # fmt: skip


def make(store: Store) -> None:
    store.stage(1, PROMPTS, 2, lambda shard: [Prompt(f"p{shard}", (Message("user", "say"),))])
    store.read_or_make_json(1, "decision", lambda: 1)
    store.set_link("best", "iteration-01")


def test_foreign_files_survive_at_every_depth(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Store(run) as store:
        make(store)
    folders = [run, run / "iteration-01", run / "iteration-01/prompts", run / "iteration-01/mine", run / "mine/deep"]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FOREIGN:
            (folder / name).write_text("mine")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".x.1.selfreward-partial").write_text("mine")
    (run / "iteration-02").symlink_to(outside)
    with Store(run) as store:
        make(store)
    assert all((folder / name).read_text() == "mine" for folder in folders for name in FOREIGN)
    assert (outside / ".x.1.selfreward-partial").read_text() == "mine"


def test_no_file_is_written_through_a_link(tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    outside.mkdir()
    precious = outside / "precious"
    precious.write_text("mine")
    with Store(run) as store:
        for name in ("report.json", f".report.json.{os.getpid()}.selfreward-partial"):
            (run / name).symlink_to(precious)
        store.write_text("report.json", "{}")
        assert (run / "report.json").read_text() == "{}" and not (run / "report.json").is_symlink()
        (run / "iteration-01").symlink_to(outside)
        for write in (
            make,
            lambda store: store.write_text("iteration-01/recipe.yaml", ""),
            lambda store: store.work_folder(1, "training"),
            lambda store: store.commit_checkpoint(1, "checkpoint", run / "made"),
        ):
            with pytest.raises(StoreError, match=r"iteration-01: .*remove the link"):
                write(store)
    assert [path.name for path in outside.iterdir()] == ["precious"] and precious.read_text() == "mine"


@pytest.mark.parametrize("name", ["recipe.yaml", "report.html", "metrics.jsonl", "best", "iteration-01"])
def test_a_new_run_refuses_a_folder_with_files_that_it_would_overwrite(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RecipeError, match=f"contains {name}, which a new run would overwrite"):
        Store(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "notes.txt"])
    (tmp_path / name).unlink()
    Store(tmp_path).close()


def test_files_of_a_run_are_known_from_outside(tmp_path: Path) -> None:
    with Store(tmp_path / "run") as store:
        make(store)
    link = tmp_path / "link"
    link.symlink_to(store.folder / "iteration-01/decision.json")
    own = ["manifest.json", ".lock", "iteration-01/prompts.parquet", "best/decision.json", "report.html"]
    assert {run_folder_of(path) for path in [link, *(store.folder / name for name in own)]} == {store.folder}
    assert run_folder_of(store.folder / "pairs.jsonl") is None and run_folder_of(tmp_path / "pairs.jsonl") is None


def test_a_folder_of_runs_is_answered_with_the_runs(tmp_path: Path) -> None:
    for name in ("b", "a"):
        Store(tmp_path / name).close()
    with pytest.raises(NoRunError, match=rf"name one of the runs in it: {tmp_path}/a, {tmp_path}/b$"):
        Store(tmp_path, write=False)
