"""What a campaign found, as counts and as failures with the command that repeats each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm


def shown(cases: Sequence[Any], what: str) -> "tqdm[Any]":
    """Return the cases with a progress bar, on a terminal."""
    return tqdm(cases, desc=what, disable=None, leave=False)


@dataclass
class Results:
    """`counts` add up over parts; a failure names its part, what was found, and how to repeat it."""

    seed: int
    short: bool
    counts: Counter[str] = field(default_factory=Counter)
    kills_by_stage: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def fail(self, part: str, found: str, *, case: str) -> None:
        repeat = f"make campaign CAMPAIGN='{part} --seed {self.seed}{' --short' if self.short else ''} --case {case}'"
        self.failures.append({"part": part, "case": case, "found": found, "repeat": repeat})
        print(f"FAILED {part} {case}: {found}\n  repeat: {repeat}", flush=True)

    def as_json(self) -> dict[str, Any]:
        names = ("files_compared", "differences", "remade", "tracebacks")
        return {
            "seed": self.seed,
            "short": self.short,
            "kills_by_stage": dict(self.kills_by_stage.most_common()),
            **{name: self.counts[name] for name in names},
            "counts": {name: count for name, count in sorted(self.counts.items()) if name not in names},
            "skipped": self.skipped,
            "failures": self.failures,
            "seconds": {part: round(seconds, 1) for part, seconds in self.seconds.items()},
        }
