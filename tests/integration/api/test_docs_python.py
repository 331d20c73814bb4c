"""The examples of docs/python.md, run one after another in an empty folder, with fewer prompts than on the page
and an engine that starts in no time."""

from pathlib import Path

import pytest
from cases.python_page import run_examples

SMALLER = {
    '"kind": "vllm"': '"kind": "transformers"',
    ', "max_num_seqs": 256, "kv_cache_gib": 0.5}': "}",
    '"num_prompts_per_iteration": 28': '"num_prompts_per_iteration": 3',
    '"num_prompts": 100': '"num_prompts": 3',
    '"num_responses": 5': '"num_responses": 3',
    '"min_pairs": 4': '"min_pairs": 1',
}


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    run_examples(SMALLER)
    assert (tmp_path / "runs" / "facts" / "report.html").is_file()
    assert "Judge quality" in capsys.readouterr().out
