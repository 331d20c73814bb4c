"""A recipe of three keys on nine prompts with checks: it is validated, planned and run, and keeps its sizes."""

import json
from pathlib import Path

import pytest

from selfreward import cli, recipe_file

RECIPE = """\
output_dir: {folder}/run
models: {{policy: {{model: "random:tiny"}}}}
prompts: {{kind: file, path: {folder}/own.jsonl}}
"""
# Not about sizes: an engine that is installed everywhere, and short responses, so that it takes seconds.
FAST = (
    "engine={kind: transformers, context_tokens: 2048}", "sampling.max_tokens=8", "evaluation.temperature=1.0",
    "pairing={kind: best_vs_worst, allow_truncated_chosen: true}",
)  # fmt: skip


def write(folder: Path, count: int) -> None:
    checks = [{"kind": "regex", "pattern": "."}]
    rows = [{"prompt": f"What is {i} plus {i}?", "checks": checks} for i in range(count)]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def command(folder: Path, name: str, *overrides: str) -> int:
    sets = [f"--set={override}" for override in (*FAST, *overrides)]
    return cli.main([name, str(folder / "mine.yaml"), *sets])


def test_nine_prompts_are_run_and_the_sizes_stay_when_the_file_grows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE.format(folder=tmp_path))
    write(tmp_path, 9)
    for name in ("validate", "plan"):
        assert command(tmp_path, name) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "1 iteration of 6 prompts; held out: 3 validation prompts" in said
        assert "resolve no gain: expect INCONCLUSIVE" in said
    assert command(tmp_path, "run") == 0
    capsys.readouterr()
    stored = recipe_file.load(tmp_path / "run" / "recipe.yaml")
    assert (stored.name, stored.evaluation.preset, stored.evaluation.verifiable) == ("run", "light", "validation")
    sizes = (stored.evaluation.num_prompts, stored.iterations.max, stored.iterations.num_prompts_per_iteration)
    assert sizes == (3, 1, 6)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    (first,) = report["iterations"]
    assert first["counts"]["num_prompts"] == 6 and first["counts"]["num_pairs"] >= stored.monitor.min_pairs == 2
    for name in ("pass_rate", "greedy_pass_rate"):
        assert first["metrics"][name]["num_units"] == 3 and report["initial"]["metrics"][name]["num_units"] == 3
    write(tmp_path, 90)
    assert command(tmp_path, "validate") == 0
    assert "1 iteration of 6 prompts; held out: 3 validation" in " ".join(capsys.readouterr().out.split())
    assert command(tmp_path, "run") == 2  # not because of the sizes
    refusal = capsys.readouterr().err
    assert "prompts" in refusal and "num_prompts" not in refusal
