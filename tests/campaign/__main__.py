"""A campaign of faults against selfreward: random signals, full disks, damaged files, hostile servers, fuzzed inputs.

    make campaign                                   everything; CAMPAIGN='--short' for a form of a few minutes
    make campaign CAMPAIGN='files --seed 7'         one part with its seed
    make campaign CAMPAIGN='files --case "..."'     one case, as a failure prints it

The seed is printed; results are JSON with --json FILE. The exit code is 1 when anything failed.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

from campaign import endpoint, files, forks, fuzz, interruptions, judge, storage
from campaign.results import Results
from campaign.runs import VARIANTS

Part = Callable[[Results, Path, str], None]
PARTS: dict[str, Part] = {
    "interruptions": lambda r, work, case: interruptions.campaign(r, work, num_kills=5 if r.short else 100, case=case),
    "files": lambda r, work, case: files.campaign(r, work, num_cases=4 if r.short else 250, case=case),
    "storage": lambda r, work, case: storage.campaign(r, work, case=case),
    "judge": lambda r, work, case: judge.campaign(r, work, num_kills=5 if r.short else 1000, case=case),
    "endpoint": lambda r, work, case: endpoint.campaign(r, work, num_rounds=3 if r.short else 60, case=case),
    "recipes": lambda r, work, case: fuzz.recipes(r, work, num_cases=300 if r.short else 3000, case=case),
    "judge_texts": lambda r, work, case: fuzz.judge_texts(r, work, num_cases=2000 if r.short else 100_000, case=case),
    "tables": lambda r, work, case: fuzz.tables(r, work, num_cases=100 if r.short else 1000, case=case),
}
_FORKING = {"interruptions", "files", "storage", "judge", "endpoint"}


def main() -> int:
    """Run the named parts, or all; return 1 when anything failed."""
    parser = argparse.ArgumentParser(prog="campaign", description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--seed", type=int, default=None, help="of all draws; printed when it is not given")
    parser.add_argument("--short", action="store_true", help="fewer rounds")
    parser.add_argument("--case", default="", help="one case of a part")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    results = Results(seed, options.short)
    print(f"campaign: seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="selfreward-campaign-") as work:
        os.environ["SELFREWARD_CACHE"] = str(Path(work) / "cache")  # nothing outside is read or written
        if not options.parts or _FORKING & set(options.parts):
            forks.preload(VARIANTS[0].command(Path(work) / "first"), Path(work) / "log")
        for name in options.parts or PARTS:
            started = time.monotonic()
            PARTS[name](results, Path(work) / name, options.case)
            results.seconds[name] = time.monotonic() - started
            print(f"campaign: {name} took {results.seconds[name]:.0f} s", flush=True)
    found = json.dumps(results.as_json(), indent=1)
    print(found)
    if options.json:
        options.json.write_text(found + "\n")
    return int(bool(results.failures))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # without the farewells of libraries that were imported and never used
