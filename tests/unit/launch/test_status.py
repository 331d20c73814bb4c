"""Totals and the time left, from a run folder alone."""

import json
import shutil
from pathlib import Path

from selfreward import recipe_file
from selfreward.launch.status import rendered, status_of
from selfreward.store import Store
from selfreward.tables import COUNTS, DECISION


def made_run(folder: Path, seconds: list[float], *, finished: int, most: int = 4) -> None:
    """Write a run with `finished` iterations; entry t of `seconds` is the working time of iteration t, from 0."""
    with Store(folder, name="run") as store:
        text = "models: {policy: {model: random:tiny}}\nprompts: builtin\n"
        recipe = recipe_file.parse(text, overrides=[f"iterations.max={most}"])
        store.write_text("recipe.yaml", recipe_file.dump(recipe))
        for t in range(len(seconds)):
            store.read_or_make_json(t, COUNTS, lambda: {"num_pairs": 10})
            if 1 <= t <= finished:
                made = {"decision": "CONTINUE", "best_iteration": t - 1}
                store.read_or_make_json(t, DECISION, lambda made=made: made)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name, entry in manifest["files"].items():
        entry["seconds"] = seconds[int(name[10:12])] if COUNTS in name else 0.0
        entry["usage"] = {"num_generated_tokens": 100}
    path.write_text(json.dumps(manifest))


def test_the_time_left_follows_from_finished_iterations(tmp_path: Path) -> None:
    made_run(tmp_path, [5.0, 100.0, 140.0, 50.0], finished=2)
    status = status_of(tmp_path)
    assert status["seconds_left"] == 2 * 120 - 50, "two iterations are left, and 50 s of one are done"
    assert (status["num_iterations"], status["max_iterations"], status["seconds"]) == (2, 4, 295.0)
    assert (status["num_pairs"], status["num_generated_tokens"]) == (20, 600)
    assert (status["state"], status["decision"], status["best_iteration"]) == ("interrupted", "CONTINUE", 1)
    lines = dict(line.split(maxsplit=1) for line in rendered(status).splitlines())
    assert lines["left"] == "at most about 3 min 10 s" and lines["time"] == "4 min 55 s"


def test_an_iteration_that_takes_longer_than_others_leaves_the_others(tmp_path: Path) -> None:
    made_run(tmp_path, [0.0, 100.0, 500.0], finished=1)
    assert status_of(tmp_path)["seconds_left"] == 2 * 100


def test_nothing_is_known_before_the_first_iteration_ends(tmp_path: Path) -> None:
    made_run(tmp_path, [5.0, 30.0], finished=0)
    status = status_of(tmp_path)
    assert status["seconds_left"] is None and status["decision"] is None and status["best"] is None
    assert "0 of 4 finished" in rendered(status)


def test_a_run_without_its_recipe_has_a_status(tmp_path: Path) -> None:
    made_run(tmp_path, [5.0, 30.0], finished=1)
    (tmp_path / "recipe.yaml").unlink()
    status = status_of(tmp_path)
    assert (status["max_iterations"], status["seconds_left"]) == (None, None)
    assert "1 of ? finished" in rendered(status)


def test_models_that_are_gone_are_named_with_how_to_get_them_back(tmp_path: Path) -> None:
    made_run(tmp_path, [5.0, 30.0], finished=1)
    checkpoint, initial = tmp_path / "iteration-01" / "checkpoint", tmp_path / "initial"
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["iteration-01/checkpoint"] = {"sha256": "0", "seconds": 0.0, "usage": {}}
    path.write_text(json.dumps(manifest))
    checkpoint.mkdir()
    initial.mkdir()
    (tmp_path / "best").symlink_to(initial)
    status = status_of(tmp_path)
    assert status["missing"] == [] and status["advice"] is None and "missing" not in rendered(status)
    initial.rmdir()
    status = status_of(tmp_path)
    assert status["missing"] == [str(initial)] and status["advice"] == "the command of the run makes it again"
    assert f"{status['best']}, which is gone" in rendered(status) and str(initial) in rendered(status)
    checkpoint.rmdir()
    status = status_of(tmp_path)
    assert status["missing"] == [str(checkpoint), str(initial)]
    assert "remove iteration-01 and all later ones" in rendered(status)
    manifest["files"]["iteration-01/checkpoint"]["removed"] = True
    path.write_text(json.dumps(manifest))
    assert status_of(tmp_path)["missing"] == [str(initial)], "checkpoints.keep removed the other one"
    (tmp_path / "best").unlink()
    assert status_of(tmp_path)["missing"] == [str(tmp_path / "best")]


def test_an_iteration_that_was_removed_to_be_made_again_does_not_count(tmp_path: Path) -> None:
    made_run(tmp_path, [5.0, 30.0, 30.0], finished=2)
    shutil.rmtree(tmp_path / "iteration-02")
    before = (tmp_path / "manifest.json").read_bytes()
    assert status_of(tmp_path)["num_iterations"] == 1
    assert (tmp_path / "manifest.json").read_bytes() == before, "reading writes nothing"
