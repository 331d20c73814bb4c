"""`selfreward fetch`: what was fetched is enough for a process that may not ask the hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    prompts = "".join(json.dumps({"prompt": f"Name {n} rivers of Europe."}) + "\n" for n in range(40))
    (tmp_path / "prompts.jsonl").write_text(prompts)
    path = tmp_path / "demo.yaml"
    path.write_text(
        "models: {policy: {model: random:tiny}}\nprompts: prompts.jsonl\nengine: {kind: transformers, dtype: float32}\n"
        "sampling: {max_tokens: 16}\njudging: {kind: expected_score, by: policy}\n"
        "evaluation: {num_prompts: 4, num_second_validation_prompts: 4, num_test_prompts: 4}\n"
        "monitor: {mode: report_only}\n"
    )
    return path


def selfreward(folder: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"SELFREWARD_CACHE": str(folder / "a cache"), "HF_HOME": str(folder / "hf")} | variables
    command = [sys.executable, "-m", "selfreward", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=folder)


def test_models_are_converted_and_the_variables_printed_lead_to_them(recipe: Path, tmp_path: Path) -> None:
    done = selfreward(tmp_path, "fetch", "demo.yaml")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("models.policy: random:tiny -> ")]
    folder = Path(line.partition(" -> ")[2].rpartition(" (")[0])
    assert folder.parent == tmp_path / "a cache" and (folder / "model.safetensors").is_file()
    assert f"prompts: {tmp_path / 'prompts.jsonl'}" in done.stdout
    exports = "\n".join(line for line in done.stdout.splitlines() if line.startswith("export "))
    shown = subprocess.run(
        ["bash", "-c", f'{exports}\necho "$HF_HOME|$SELFREWARD_CACHE|$HF_HUB_OFFLINE|$HF_DATASETS_OFFLINE"'],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.strip() == f"{tmp_path / 'hf'}|{tmp_path / 'a cache'}|1|1"
    before = (folder / "model.safetensors").stat().st_mtime_ns
    local = selfreward(tmp_path, "fetch", "demo.yaml", f"models.policy.model={json.dumps(str(folder))}")
    assert local.returncode == 0 and f"-> {folder} (" in local.stdout
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_what_cannot_be_had_is_an_error(recipe: Path, tmp_path: Path) -> None:
    missing = selfreward(tmp_path, "fetch", "demo.yaml", "prompts=./absent.jsonl")
    assert missing.returncode == 2 and "absent.jsonl" in missing.stderr
    # A hub that nobody answers for.
    hub = selfreward(tmp_path, "fetch", "demo.yaml", "models.policy.model=some/model", HF_ENDPOINT="http://127.0.0.1:9")
    assert hub.returncode == 2 and "some/model" in hub.stderr and "export" not in hub.stdout
