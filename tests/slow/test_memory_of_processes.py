"""The predicted memory of an update against the resident memory of a process, where no count of tensors sees all.

Kernels and custom operators make tensors of their own: the optimizers' steps, products with weights in 4 bits.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from selfreward.installation import version_of

WORKER = Path(__file__).parents[1] / "cases" / "memory_worker.py"
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # of glibc
BFLOAT16 = {"weights_dtype": "bfloat16"}
CASES: dict[str, tuple[dict[str, Any], str | None, int]] = {
    "float32": ({}, None, 16_000),
    "8 bits": ({"optimizer": "adamw_8bit"}, None, 16_000),
    "8 bits, large embeddings": ({"optimizer": "adamw_8bit"}, None, 60_000),
    "bfloat16": (BFLOAT16, None, 16_000),
    "bfloat16, 8 bits": (BFLOAT16 | {"optimizer": "adamw_8bit"}, None, 16_000),
    "bfloat16, Adafactor": (BFLOAT16 | {"optimizer": "adafactor", "stochastic_rounding": False}, None, 60_000),
    "padded": ({"packing": "padded"}, None, 40_000),
    "adapters on bfloat16": ({}, "bfloat16", 16_000),
    "adapters on 4 bits": ({}, "nf4", 16_000),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.skipif(not version_of("bitsandbytes") or not version_of("torchao"), reason="needs the extra optimizers")
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts the peak of a process")
def test_the_predicted_memory_is_that_of_a_process(case: str, tmp_path: Path) -> None:
    training, lora, vocabulary = CASES[case]
    asked = {"training": training, "lora": lora, "vocabulary": vocabulary, "folder": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(WORKER), json.dumps(asked)],
        env={**os.environ, **GIVES_BACK}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    low = 0.8 if lora == "nf4" else 0.9  # bitsandbytes' products take memory of their own
    assert low < found["predicted"] / found["measured"] < 1.1, found
