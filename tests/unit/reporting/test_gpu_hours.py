"""GPU-hours: which GPUs a run holds, and where the reports say so."""

import json
from pathlib import Path
from typing import Any

import pytest
from cases.report_page import page_of
from cases.reporting import make_run, write

from selfreward import recipe_file
from selfreward.reporting.gpu_hours import gpu_hours_by_stage, num_gpus

ON_GPU = {"device": "NVIDIA H100 80GB HBM3"}


@pytest.mark.parametrize(
    ("engine", "overrides", "number"),
    [
        ({}, (), 0), ({"device": "cpu"}, ("launch.num_processes=8",), 0), (ON_GPU, (), 1),
        (ON_GPU, ("launch.num_processes=8",), 8), (ON_GPU, ("engine.tensor_parallel_size=4",), 4),
        ({**ON_GPU, "replicas": {"num": 6}}, ("engine.tensor_parallel_size=2", "launch.num_processes=8"), 12),
    ],
)  # fmt: skip
def test_a_run_holds_the_gpus_of_its_engines_or_of_its_trainers(
    engine: dict[str, Any], overrides: tuple[str, ...], number: int
) -> None:
    text = "models: {policy: {model: random:tiny}}\nprompts: builtin\nengine: {kind: vllm}\n"
    recipe = recipe_file.parse(text, overrides=list(overrides))
    assert num_gpus({"facts": {"engine": engine}}, recipe) == number


def test_hours_are_of_all_gpus() -> None:
    assert gpu_hours_by_stage({"responses": 1800.0, "training": 90.0}, 8) == {"responses": 4.0, "training": 0.2}
    assert gpu_hours_by_stage({"responses": 1800.0}, 0) == {}


@pytest.mark.parametrize("device", ["cpu", "NVIDIA H100 80GB HBM3"])
def test_reports_have_them_only_of_runs_on_gpus(tmp_path: Path, device: str) -> None:
    run = make_run(tmp_path, num_iterations=2)
    run.store.record_facts(engine={**run.store.manifest["facts"]["engine"], "device": device})
    write(run)
    page, data = page_of(run), json.loads((tmp_path / "report.json").read_text())
    found = data["iterations"][0]["gpu_hours_by_stage"]
    if device == "cpu":
        assert data["num_gpus"] == 0 and found == {} and "GPU-hours" not in page.text["time"]
    else:
        spent = data["iterations"][0]["seconds_by_stage"]
        assert data["num_gpus"] == 1 and found == {name: round(s / 3600, 4) for name, s in spent.items()}
        assert "GPU-hours" in page.text["time"] and "GPU-hours on 1 GPU" in " ".join(page.text.values())
