"""docs/extending.md on the real code: its diff on a copy of the package, and its last block, a complete run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from selfreward.store import Store
from selfreward.tables import JUDGMENTS, PAIRS

ROOT = Path(__file__).parents[2]
EXTENDING = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the package and add the judge of the page."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "selfreward", folder / "selfreward", ignore=shutil.ignore_patterns("__pycache__"))
    (diff,) = re.findall(r"^```diff\n(.*?)^```$", EXTENDING, re.DOTALL | re.MULTILINE)
    applied = subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=folder, capture_output=True, check=False)
    assert applied.returncode == 0, applied.stderr
    assert diff.count("diff --git") == 3  # a file, an entry of the schema, a case
    return folder


def selfreward(folder: Path, *arguments: str) -> str:
    """Run a command of the copy."""
    judge = ("--set", "judging={kind: brevity, max_words: 2}", "--set", "iterations.max=1")
    done = subprocess.run(
        [sys.executable, "-m", "selfreward", *arguments, *judge, "--set", f"output_dir={folder / 'run'}"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_judge_of_the_page_is_planned_runs_and_judges_a_file(extended: Path) -> None:
    tiny = str(ROOT / "recipes" / "tiny.yaml")
    planned = selfreward(extended, "plan", tiny)
    assert "judgments" not in planned.split("engine tokens")[0]  # it asks no model, and says so itself
    selfreward(extended, "run", tiny)
    store = Store(extended / "run", write=False)
    judgments = list(store.read(1, JUDGMENTS))
    assert judgments and {judgment.judge for judgment in judgments} == {"brevity"}
    num_words = {judgment.response_id: int(judgment.text.split()[0]) for judgment in judgments}
    pairs = list(store.read(1, PAIRS))
    assert pairs and all(num_words[pair.chosen_id] < num_words[pair.rejected_id] for pair in pairs)
    rows = [{"id": "a", "prompt": "Say it.", "response": "one two three four"}]
    (extended / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    selfreward(extended, "judge", tiny, str(extended / "rows.jsonl"), "--out", str(extended / "out.jsonl"))
    (judged,) = map(json.loads, (extended / "out.jsonl").read_text().splitlines())
    assert judged["judgments"][0]["score"] == 0.5


def test_a_run_with_a_custom_selector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = re.findall(r"^```python\n(.*?)^```$", EXTENDING, re.DOTALL | re.MULTILINE)
    (tmp_path / "recipes").mkdir()
    shutil.copy(ROOT / "recipes" / "tiny.yaml", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(code), "extending.md", "exec"), {"__name__": "extending"})  # our own document
    assert capsys.readouterr().out.strip()
    store = Store(tmp_path / "runs" / "hard_pairs", write=False)
    scores: dict[str, dict[str, list[float]]] = {}
    for judgment in store.read(1, JUDGMENTS):
        if judgment.score is not None:
            scores.setdefault(judgment.prompt_id, {}).setdefault(judgment.response_id, []).append(judgment.score)
    pairs = list(store.read(1, PAIRS))
    assert pairs
    for pair in pairs:  # the lowest, and the nearest above it
        means = sorted(sum(draws) / len(draws) for draws in scores[pair.prompt_id].values())
        assert (pair.rejected_score, pair.chosen_score) == pytest.approx(tuple(means[:2]))
    assert json.loads((store.folder / "report.json").read_text(encoding="utf-8"))["iterations"]
