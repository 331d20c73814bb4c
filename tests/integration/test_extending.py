"""The last block of docs/extending.md: a judge and a selector of one's own in a whole run."""

import json
import re
import shutil
from pathlib import Path

import pytest

from selfreward.store import Store
from selfreward.tables import JUDGMENTS, PAIRS

ROOT = Path(__file__).parents[2]


def test_a_run_with_parts_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "recipes").mkdir()
    shutil.copy(ROOT / "recipes" / "tiny.yaml", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(code), "extending.md", "exec"), {"__name__": "extending"})  # our own document
    assert capsys.readouterr().out.strip()
    store = Store(tmp_path / "runs" / "brevity", write=False)
    judgments = list(store.read(1, JUDGMENTS))
    assert {judgment.judge for judgment in judgments} == {"brevity"}
    num_words = {judgment.response_id: int(judgment.text.split()[0]) for judgment in judgments}
    pairs = list(store.read(1, PAIRS))
    assert pairs
    assert all(num_words[pair.chosen_id] < num_words[pair.rejected_id] for pair in pairs)
    assert json.loads((store.folder / "report.json").read_text(encoding="utf-8"))["iterations"]
