"""What the monitor would have said of published runs: tables and plots of docs/ceiling.md.

    python benchmarks/ceiling_of_papers.py [--quick] [--json FILE]

Papers print win rates, not outcomes by prompt. Head-to-heads with wins, ties and losses become as many outcomes, and
`selfreward.monitoring.decide` decides on these as on those of a run. Win rates against a fixed opponent imply gains
only by a model, and there are no outcomes behind them; they get bounds by the delta method, and a decision from these
bounds in the same order. Nothing is drawn at random, and it takes seconds, with and without `--quick`. The tables
between the marks in docs/ceiling.md, and docs/ceiling_*.svg, are written anew.
"""

import argparse
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from selfreward.monitoring.decide import decide_all
from selfreward.monitoring.evidence import Evidence, Outcomes
from selfreward.recipe import MonitorSection
from selfreward.records import DecisionName
from selfreward.reporting import drawing
from selfreward.statistics.resolution import smallest_resolvable_gain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1] / "docs"
DELTAS = (0.05, 0.03)
ALPACA_EVAL, ARENA_HARD = 805, 500  # prompts
CORRELATION = 0.5  # assumed, between two win rates on the same prompts against the same opponent; no paper prints it
CORRELATIONS = (0.0, CORRELATION, 0.8)
Triple = tuple[float, float, float]
MARKS = {"PLATEAU": 4, "HARM": 5, "CONTINUE": 1, "INCONCLUSIVE": 2, "OVEROPT": 3}


@dataclass(frozen=True)
class Published:
    """Win rates of M_0, M_1, ... against one fixed opponent, in percent, as printed; `num_prompts` of the benchmark."""

    name: str
    paper: str
    benchmark: str
    win_rates: tuple[float, ...]
    num_prompts: int
    first: int = 0  # the number by which the paper calls the first of them


@dataclass(frozen=True)
class HeadToHead:
    """Wins, ties and losses of each iteration against the one before, in percent, as printed."""

    name: str
    paper: str
    benchmark: str
    results: tuple[Triple, ...]
    num_prompts: int
    first: int = 0


SRLM, META, SPPO, SYNPO, SCIR = "2401.10020", "2407.19594", "2405.00675", "2410.06961", "2502.08922"
LC = "AlpacaEval 2, length-controlled"
DIRECT = HeadToHead(
    "Self-Rewarding, 70B", SRLM, "head-to-head by GPT-4", ((55.5, 32.8, 11.7), (47.7, 39.8, 12.5)), 256, first=1
)
RUNS = (
    Published("Self-Rewarding, 70B", SRLM, "AlpacaEval 2", (9.94, 15.38, 20.44), ALPACA_EVAL, first=1),
    Published("Meta-Rewarding, 8B", META, LC, (25.47, 27.85, 32.66, 35.45, 39.44), ALPACA_EVAL),
    Published("Meta-Rewarding, 8B", META, "Arena-Hard", (25.1, 27.4, 27.6, 29.1), ARENA_HARD, first=1),
    Published("Self-Rewarding + length control, 8B", META, LC, (25.47, 26.93, 30.38, 34.87, 35.49), ALPACA_EVAL),
    Published("SPPO, Llama-3-8B", SPPO, LC, (22.9, 31.7, 35.2, 38.8), ALPACA_EVAL),
    Published("SPPO, Mistral-7B", SPPO, LC, (17.1, 24.8, 26.9, 28.5), ALPACA_EVAL),
    Published("SynPO, Mistral-7B", SYNPO, LC, (6.6, 13.3, 25.7, 31.7, 34.0), ALPACA_EVAL),
    Published("SynPO, Mistral-7B", SYNPO, "Arena-Hard", (2.0, 9.8, 20.8, 24.1, 22.8), ARENA_HARD),
    Published("SynPO, Llama-3-8B", SYNPO, LC, (5.4, 10.6, 23.4, 28.6, 32.1), ALPACA_EVAL),
    Published("SynPO, Llama-3-8B", SYNPO, "Arena-Hard", (2.7, 11.6, 24.6, 32.5, 31.4), ARENA_HARD),
    Published("Self-Rewarding in SynPO, Mistral-7B", SYNPO, LC, (6.6, 19.5, 22.4, 24.6, 26.1), ALPACA_EVAL),
    Published("Self-Rewarding in SynPO, Mistral-7B", SYNPO, "Arena-Hard", (2.0, 11.9, 19.2, 20.8, 21.1), ARENA_HARD),
    Published("Self-Rewarding in SCIR, Mistral-7B", SCIR, LC, (12.6, 11.4, 10.7), ALPACA_EVAL, first=1),
)


@dataclass(frozen=True)
class Reading:
    """Of one iteration, counted as the paper does: the gain, in [-0.5, 0.5], with the bounds that decide on a stop."""

    iteration: int
    decision: DecisionName
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Said:
    """What is said of a run at one delta; `correlation` where the gains are implied."""

    run: Published | HeadToHead
    correlation: float | None
    delta: float
    readings: list[Reading]


def ask(run: Published | HeadToHead, *, delta: float, correlation: float = CORRELATION) -> Said:
    settings = MonitorSection(delta=delta)
    if isinstance(run, HeadToHead):
        return Said(run, None, delta, read_results(run, settings))
    return Said(run, correlation, delta, read_table(run, settings, correlation))


def read_results(run: HeadToHead, settings: MonitorSection) -> list[Reading]:
    """By the monitor itself. Only consecutive checkpoints met, so there is an older best only where it is M_{t-1}."""
    records = []
    for t, (wins, ties, _) in enumerate(run.results, start=1):
        n = run.num_prompts
        num_wins, num_ties = round(n * wins / 100), round(n * ties / 100)
        values = np.repeat([1.0, 0.5, 0.0], (num_wins, num_ties, n - num_wins - num_ties))
        records.append(
            Evidence(t, t - 1, {("anchor", "validation", t - 1): Outcomes(tuple(map(str, range(n))), values)})
        )
    found = []
    for decision in decide_all(records, settings):
        bound = decision.bounds["gain_vs_previous"]
        found.append(Reading(decision.iteration + run.first, decision.decision, bound["mean"], *bound["stop"]))
    return found


def read_table(run: Published, settings: MonitorSection, correlation: float) -> list[Reading]:
    """In the order of `monitoring/decide.py`, by what a table allows: gains over M_{t-1} and over the best shown."""
    found = []
    best = 0
    for t in range(1, len(run.win_rates)):
        gain, low, high = implied(run, t, t - 1, settings, correlation)
        _, low_over_best, high_over_best = implied(run, t, best, settings, correlation)
        name: DecisionName = "INCONCLUSIVE"
        if high < 0:
            name = "HARM"
        elif min(high, high_over_best) < settings.delta:
            name = "PLATEAU"
        elif low > 0:
            name = "CONTINUE"
        if name != "HARM" and low_over_best > 0:
            best = t
        found.append(Reading(t + run.first, name, gain, low, high))
    return found


def implied(run: Published, t: int, k: int, settings: MonitorSection, correlation: float) -> Triple:
    """Gain of M_t over M_k with its bounds, when Bradley and Terry's model holds of both and the opponent.

    Delta method: gain = sigmoid(logit p - logit q) - 0.5, and the logit of a share p of n prompts has the variance
    1 / (n p (1 - p)); `correlation` is that of the two shares. HARM has the level of a stop, as by default.
    """
    p, q = run.win_rates[t] / 100, run.win_rates[k] / 100
    rate = 1 / (1 + q / (1 - q) * (1 - p) / p)
    a, b = (1 / math.sqrt(run.num_prompts * x * (1 - x)) for x in (p, q))
    sd = rate * (1 - rate) * math.sqrt(a * a + b * b - 2 * correlation * a * b)
    margin = NormalDist().inv_cdf(1 - settings.alpha_stop / settings.horizon) * sd
    return rate - 0.5, rate - 0.5 - margin, rate - 0.5 + margin


def table(asked: Sequence[tuple[Said, Said]]) -> str:
    """A row for each run: gain with bounds by iteration, and what is said at both deltas."""
    lines = [
        "| run, printed in | measured by | prompts | gains | gain of each iteration (bounds) | δ = 0.05 | δ = 0.03 |",
        "|---|---|---|---|---|---|---|",
    ]
    for wide, narrow in asked:
        run = wide.run
        gains = "<br>".join(f"M{r.iteration}: {_points(r.mean)} {_between(r)}" for r in wide.readings)
        said = ("<br>".join(r.decision for r in one.readings) for one in (wide, narrow))
        kind = "direct" if isinstance(run, HeadToHead) else "implied"
        cells = [f"{run.name}, {run.paper}", run.benchmark, str(run.num_prompts), kind, gains, *said]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _points(gain: float) -> str:
    return f"{100 * gain:+.1f}".replace("-", "−")


def _between(reading: Reading) -> str:
    return f"({_points(reading.low)} to {_points(reading.high)})"


def correlation_matters(runs: Sequence[Published]) -> str:
    """Which decisions change with the correlation that is assumed, with the bounds of each."""
    titles = " | ".join("unpaired (0)" if c == 0 else f"correlation {c:g}" for c in CORRELATIONS)
    lines = [f"| run, measured by | M | gain | {titles} |", f"|---|---|---|{'---|' * len(CORRELATIONS)}"]
    for run in runs:
        by_correlation = [ask(run, delta=DELTAS[0], correlation=c) for c in CORRELATIONS]
        for readings in zip(*(said.readings for said in by_correlation), strict=True):
            if len({r.decision for r in readings}) > 1:
                cells = " | ".join(f"{r.decision} {_between(r)}" for r in readings)
                first = readings[0]
                lines.append(f"| {run.name}, {run.benchmark} | M{first.iteration} | {_points(first.mean)} | {cells} |")
    return "\n".join(lines)


STYLE = """<style>
svg { --ink: #1d2023; --muted: #666b70; --rule: #e4e2dc; --paper: #fbfaf8; --series-1: #14706f; --series-2: #b59a2c;
  --series-3: #a8507d; --series-4: #c8693a; --series-5: #9a2a2a; background: var(--paper); }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e7e6e2; --muted: #9ba0a5; --rule: #30343a; --paper: #15171a; --series-1: #4fb3ac; --series-2: #d6bd58;
    --series-3: #d480ab; --series-4: #e58a5b; --series-5: #f07070; }
}
text { font-family: sans-serif; }
</style>"""


def write_svg(path: Path, svg: str) -> None:
    """A figure of the page as a file of its own."""
    opening, body = str(svg).split(">", 1)  # plain text: markup would escape what is added
    width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', opening)[0])
    size = f'xmlns="http://www.w3.org/2000/svg" width="{width * 1.39:.0f}" height="{height * 1.39:.0f}"'
    path.write_text(f"{opening.replace('<svg', f'<svg {size}', 1)}>{STYLE}{body}\n", encoding="utf-8")


def plot_gains(asked: Sequence[tuple[Said, Said]], path: Path) -> None:
    """A panel for each run; the colour of a point is what is said at delta 0.05."""
    num_columns = 3
    num_rows = math.ceil(len(asked) / num_columns)

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(num_rows, num_columns, sharey=True, squeeze=False).ravel()
        for axes, (said, _) in zip(panels, asked, strict=False):
            _panel(axes, said)
        for axes in panels[len(asked) :]:
            axes.axis("off")
        _key(panels[len(asked)] if len(panels) > len(asked) else panels[-1])

    alt = "Gain of each iteration over the one before, with the bounds that a stop is decided by, for published runs"
    write_svg(path, drawing.drawn(draw, alt=alt, width=9.6, height=2.15 * num_rows))


def _panel(axes: "Axes", said: Said) -> None:
    drawing.line_at(axes, 0.0, dashed=False)
    drawing.line_at(axes, said.delta)
    for reading in said.readings:
        colour = drawing.series(MARKS[reading.decision])
        axes.vlines([reading.iteration], [reading.low], [reading.high], color=colour, linewidth=1.8)
        axes.plot([reading.iteration], [reading.mean], color=colour, marker="o", markersize=5, markeredgewidth=0)
    axes.set_title(f"{said.run.name}\n{said.run.benchmark}")
    ticks = [reading.iteration for reading in said.readings]
    axes.set_xticks(ticks, [f"M{t}" for t in ticks])
    axes.set_xlim(ticks[0] - 0.6, max(ticks[-1], ticks[0] + 2) + 0.6)
    axes.set_ylim(-0.12, 0.46)
    axes.set_yticks([0, 0.1, 0.2, 0.3, 0.4])


def _key(axes: "Axes") -> None:
    for name in ("CONTINUE", "INCONCLUSIVE", "PLATEAU"):
        axes.plot([], [], color=drawing.series(MARKS[name]), marker="o", markersize=5, linewidth=1.8, label=name)
    axes.plot([], [], color=drawing.MUTED, linewidth=1, linestyle=(0, (3, 3)), label="δ = 0.05")
    axes.legend(loc="center left", frameon=False, labelcolor=drawing.INK)


def plot_resolution(asked: Sequence[tuple[Said, Said]], path: Path) -> None:
    """What a number of prompts can tell from no gain, and the gains that were to be told."""

    def plot(axes: "Axes") -> None:
        sizes = np.geomspace(100, 6400, 60)
        for index, ties in ((1, 0.0), (4, 0.4)):
            gains = [smallest_resolvable_gain(int(n), alpha=0.05, horizon=8, tie_rate=ties) for n in sizes]
            axes.plot(sizes, gains, color=drawing.series(index), linewidth=1.6, label=f"direct, {ties:.0%} ties")
        # Two equal win rates of 30 %: each logit has variance 1 / (0.21 n), and the slope of the gain is 1 / 4.
        z = NormalDist().inv_cdf(1 - 0.05 / 8) + NormalDist().inv_cdf(0.8)
        gains = list(z / 4 * np.sqrt(2 * (1 - CORRELATION) / (0.21 * sizes)))
        axes.plot(sizes, gains, color=drawing.series(2), linewidth=1.6, label="implied by win rates near 30 %")
        for said, _ in asked:
            last = said.readings[-1].mean
            if last > 0:
                axes.plot([said.run.num_prompts], [last], color=drawing.INK, marker="_", markersize=9, linestyle="")
        axes.set_xscale("log")
        axes.set_xticks([100, 200, 400, 800, 1600, 3200, 6400], ["100", "200", "400", "800", "1,600", "3,200", "6,400"])
        axes.minorticks_off()
        axes.set_xlabel("prompts")
        axes.set_ylim(0, 0.2)
        for delta in DELTAS:
            drawing.line_at(axes, delta)
        drawing.legend(axes)

    alt = "The smallest gain that one look tells from none with 80 % power, by the number of prompts"
    write_svg(path, drawing.plotted(plot, alt=alt, width=6.4, height=3.0))


def plot_second_benchmark(asked: Sequence[tuple[Said, Said]], path: Path) -> None:
    """The same checkpoints on two benchmarks."""

    def draw(figure: "Figure") -> None:
        pairs = [("SynPO, Mistral-7B", SYNPO), ("SynPO, Llama-3-8B", SYNPO), ("Meta-Rewarding, 8B", META)]
        panels = figure.subplots(1, len(pairs), sharey=True)
        for axes, (name, paper) in zip(panels, pairs, strict=True):
            drawing.line_at(axes, 0.0, dashed=False)
            drawing.line_at(axes, 0.05)
            both = [said for said, _ in asked if (said.run.name, said.run.paper) == (name, paper)]
            for index, shift, said in zip((1, 4), (-0.08, 0.08), both, strict=True):
                readings = said.readings
                x, means = [r.iteration + shift for r in readings], [r.mean for r in readings]
                axes.vlines(
                    x, [r.low for r in readings], [r.high for r in readings], color=drawing.series(index), linewidth=1.8
                )
                label = "AlpacaEval 2 LC" if said.run.benchmark == LC else said.run.benchmark
                axes.plot(x, means, color=drawing.series(index), marker="o", markersize=4.6, linewidth=1.1, label=label)
            axes.set_title(name, y=1.12)
            axes.set_xticks([1, 2, 3, 4], ["M1", "M2", "M3", "M4"])
            axes.set_ylim(-0.12, 0.46)
        drawing.legend(panels[-1])

    alt = "Gain of each iteration on two benchmarks: the second one stops rising earlier"
    write_svg(path, drawing.drawn(draw, alt=alt, width=9.6, height=2.7))


def insert(text: str, mark: str, content: str) -> str:
    """The document with everything between two marks replaced."""
    start, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    before, rest = text.split(start)
    _, after = rest.split(end)
    return f"{before}{start}\n\n{content}\n\n{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the same: it takes seconds")
    parser.add_argument("--json", type=Path, help="write every decision with its bounds there")
    arguments = parser.parse_args()

    asked = [(ask(run, delta=DELTAS[0]), ask(run, delta=DELTAS[1])) for run in (DIRECT, *RUNS)]
    page = DOCS / "ceiling.md"
    text = insert(page.read_text(encoding="utf-8"), "what the monitor says", table(asked))
    text = insert(text, "correlation", correlation_matters(RUNS))
    page.write_text(text, encoding="utf-8")
    plot_gains(asked, DOCS / "ceiling_gains.svg")
    plot_second_benchmark(asked, DOCS / "ceiling_benchmarks.svg")
    plot_resolution(asked, DOCS / "ceiling_prompts.svg")
    print(table(asked), correlation_matters(RUNS), sep="\n\n")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(said) for both in asked for said in both], indent=1))


if __name__ == "__main__":
    main()
