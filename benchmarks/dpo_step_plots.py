"""Cost of an update against number of pairs, prompt length and K: contenders of `dpo_step`, measured and plotted.

Here TRL always has micro-batches of one pair, as the legend states.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from dpo_step_pairs import Lengths, Sharing, uniform
from dpo_step_race import Race, Settings
from matplotlib import pyplot as plt

PAIRS_PER_STEP = 4
RESPONSE = uniform(100, 100)
NAMES = {
    "trl": "TRL as is, one pair at a time",
    "ours_sampler": "ours, sampler's reference",
    "ours_pass": "ours, with reference pass",
}


@dataclass(frozen=True)
class Axis:
    """An axis of the plot. `at` returns pairs per step, lengths and sharing for one value."""

    label: str
    values: tuple[int, ...]
    quick_values: tuple[int, ...]
    at: Callable[[int], tuple[int, Lengths, Sharing]]


AXES = {
    "pairs": Axis(
        "pairs in an optimizer step (prompt 200, responses 100 tokens)",
        (1, 2, 4),
        (1, 2),
        lambda n: (n, Lengths(uniform(200, 200), RESPONSE), Sharing()),
    ),
    "prompt": Axis(
        "tokens of the prompt (responses 100 tokens)",
        (50, 200, 800),
        (50, 200),
        lambda n: (PAIRS_PER_STEP, Lengths(uniform(n, n), RESPONSE), Sharing()),
    ),
    "K": Axis(
        "K, responses of one prompt, in K / 2 pairs (prompt 400, responses 100 tokens)",
        (2, 4, 8),
        (2, 4),
        lambda k: (PAIRS_PER_STEP, Lengths(uniform(400, 400), RESPONSE), Sharing(responses_per_prompt=k)),
    ),
}


def growth(race: Callable[..., Race], settings: Settings, folder: Path, *, quick: bool) -> dict[str, Any]:
    """Measure seconds per pair at each value of each axis, and plot them in `folder`/dpo_step.svg.

    `race` is `dpo_step_race.race` with its first three arguments bound.
    """
    settings = replace(
        settings, repeats=0, micros=(1,), contenders=tuple(name for name in settings.contenders if name in NAMES)
    )
    found: dict[str, Any] = {}
    for name, axis in AXES.items():
        points = []
        for value in axis.quick_values if quick else axis.values:
            print(f"{name} = {value}", flush=True)
            pairs_per_step, lengths, sharing = axis.at(value)
            one = race(lengths, replace(settings, sharing=sharing), pairs_per_step=pairs_per_step)
            seconds = {key[0]: one.seconds(*key) for key in one.runs}
            points.append({"value": value, "pairs_per_step": pairs_per_step, "seconds_per_pair": seconds})
        found[name] = points
    _plot(found, folder)
    return found


def _plot(found: dict[str, Any], folder: Path) -> None:
    figure, panels = plt.subplots(1, len(AXES), figsize=(5 * len(AXES), 4), constrained_layout=True)
    for panel, (name, points) in zip(panels, found.items(), strict=True):
        for contender in points[0]["seconds_per_pair"]:
            # Seconds per step against its number of pairs; seconds per pair against the other quantities.
            heights = [
                point["seconds_per_pair"][contender] * (point["pairs_per_step"] if name == "pairs" else 1)
                for point in points
            ]
            panel.plot([point["value"] for point in points], heights, marker="o", label=NAMES[contender])
        panel.set_xticks([point["value"] for point in points])
        panel.set_xlabel(AXES[name].label, fontsize=8)
        panel.set_ylabel("seconds per step" if name == "pairs" else "seconds per pair")
        panel.set_ylim(bottom=0)
    panels[0].legend(fontsize=8)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "dpo_step.svg")
    plt.close(figure)
