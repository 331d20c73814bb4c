"""Does the demo improve? recipes/quickstart.yaml with several seeds, one after the other.

    python benchmarks/demo.py                      five seeds that the choice of its settings never used
    python benchmarks/demo.py --seeds 1 2 3 --json FILE
    python benchmarks/demo.py --quick              one seed

For each seed: pass rates on held-out questions before and after, sampled and greedy, the rise of the sampled one with
its 95 % interval (paired by question), the monitor's decisions, and seconds. `clear` counts the seeds whose interval is
above 0. The settings were searched on seeds 101 to 117, with a look at 0 to 4. Predicted for other seeds: 20 to 25
points, clear with every seed. Measured: 12 to 28, clear with five of five (benchmarks/demo.txt).

An earlier version had questions of which the model knows fewer (capitals of small states, "Answer briefly." in the
system prompt), so that greedy and sampled pass rates were closer: its rise was 12 points, at the edge of its interval.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart.yaml"
SEEDS = (7, 8, 9, 10, 11)


def run(seed: int, folder: Path) -> dict[str, Any]:
    """Run the demo; return what the report measured."""
    started = time.monotonic()
    sets = (f"seed={seed}", f"output_dir={folder}")
    subprocess.run([sys.executable, "-m", "selfreward", "run", str(RECIPE), *sets], check=True, capture_output=True)
    seconds = time.monotonic() - started
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    models = [report["initial"]["metrics"], *(iteration["metrics"] for iteration in report["iterations"])]
    rise = models[-1]["pass_rate_vs_initial"]
    return {
        "seed": seed,
        "pass_rates": [round(m["pass_rate"]["mean"], 3) for m in models],
        "greedy_pass_rates": [round(m["greedy_pass_rate"]["mean"], 3) for m in models],
        "rise": [round(rise[key], 3) for key in ("mean", "low", "high")],
        "decisions": [iteration["decision"]["decision"] for iteration in report["iterations"]],
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds[:1] if options.quick else options.seeds:
            found.append(run(seed, Path(folder) / str(seed)))
            print(json.dumps(found[-1]), flush=True)
    summary = {"clear": sum(each["rise"][1] > 0 for each in found), "seeds": len(found), "runs": found}
    print(f"clear rise with {summary['clear']} of {summary['seeds']} seeds")
    if options.json:
        options.json.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
