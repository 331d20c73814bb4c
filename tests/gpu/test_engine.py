"""The engine on a GPU, on both of vLLM's model runners."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONTRACT = Path(__file__).with_name("engine_contract.py")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("runner", ["V1", "V2"])
def test_the_contract_of_all_engines(runner: str) -> None:
    pytest.importorskip("vllm")
    environment = os.environ | {"VLLM_USE_V2_MODEL_RUNNER": str(int(runner == "V2"))}
    command = [sys.executable, "-m", "pytest", "-q", str(CONTRACT)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout
