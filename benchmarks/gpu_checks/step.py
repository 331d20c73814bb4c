"""What a step of `gpu_check.py` measures, written to a file after every number.

A step is a process: `python benchmarks/gpu_checks/NAME.py --device cuda --out FILE`. FILE is JSON, complete when its
`state` is `done`; a step that was killed leaves the numbers that it had.
"""

import argparse
import json
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Step:
    """Checks are {name, value, limit, ok}, figures {name, value, unit}.

    `quick` asks for tiny sizes; `has_vllm` says whether vLLM may be used.
    """

    def __init__(self, *, device: str, out: Path, quick: bool = False, has_vllm: bool = True) -> None:
        self.device, self.quick, self.has_vllm, self._out = device, quick, has_vllm, out
        self._started = time.monotonic()
        self.result: dict[str, Any] = {"state": "running", "device": device, "quick": quick, "reason": "",
                                       "seconds": 0.0, "checks": [], "figures": []}  # fmt: skip
        out.parent.mkdir(parents=True, exist_ok=True)
        self.write()

    @property
    def on_cuda(self) -> bool:
        return self.device == "cuda"

    @property
    def folder(self) -> Path:
        """A folder for the files that the step makes, beside its result."""
        folder = self._out.with_suffix("")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def check(self, name: str, value: Any, *, limit: str, ok: bool) -> None:
        """Record whether `value` keeps within `limit`, which is text."""
        value = float(f"{value:.4g}") if isinstance(value, float) else value
        self._add("checks", {"name": name, "value": value, "limit": limit, "ok": bool(ok)})

    def at_most(self, name: str, value: float, limit: float) -> None:
        self.check(name, value, limit=f"at most {limit:.4g}", ok=value <= limit)

    def at_least(self, name: str, value: float, limit: float) -> None:
        self.check(name, value, limit=f"at least {limit:.4g}", ok=value >= limit)

    def figure(self, name: str, value: Any, unit: str = "") -> None:
        value = float(f"{value:.4g}") if isinstance(value, float) else value
        self._add("figures", {"name": name, "value": value, "unit": unit})

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Record an exception as a failed check of this name, and go on after the block."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # whatever it is, the other measurements are still wanted
            traceback.print_exc()
            text = " ".join(str(error).split())[:300]
            self.check(name, f"{type(error).__name__}: {text}", limit="no exception", ok=False)

    def skip(self, reason: str) -> None:
        self.result["reason"] = reason
        self.write()

    def write(self) -> None:
        """Write all that is known; a reader finds the old file or the new one."""
        self.result["seconds"] = round(time.monotonic() - self._started, 1)
        partial = self._out.with_suffix(".partial")
        partial.write_text(json.dumps(self.result, indent=1, default=str) + "\n", encoding="utf-8")
        partial.replace(self._out)

    def _add(self, kind: str, entry: dict[str, Any]) -> None:
        self.result[kind].append(entry)
        mark = {True: "ok    ", False: "FAILED", None: "      "}[entry.get("ok")]
        print(mark, entry["name"], entry["value"], entry.get("unit") or entry.get("limit", ""), flush=True)
        self.write()


def main(run: Callable[[Step], None], **flags: list[str]) -> None:
    """Run a step with the arguments of the command line; `flags` are choices of its own, given to `run`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-vllm", action="store_true")
    for name, choices in flags.items():
        parser.add_argument(f"--{name}", choices=choices, default=choices[0])
    given = parser.parse_args()
    step = Step(device=given.device, out=given.out.absolute(), quick=given.quick, has_vllm=not given.no_vllm)
    run(step, **{name: getattr(given, name) for name in flags})
    step.result["state"] = "done"
    step.write()
