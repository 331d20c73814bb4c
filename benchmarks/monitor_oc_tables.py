"""The tables of `monitor_oc.py`: which scenarios, what is read off them, and what was predicted.

Predictions come from an earlier simulation of such a rule with a normal model, else from normal theory for independent
looks (`monitor_oc_rules.predicted`), never from the shipped rule.
"""

from dataclasses import replace

import monitor_oc_limits as limits
from monitor_oc_readings import (
    AT_ONCE,
    FALSE_STOP,
    GAIN_LEFT,
    HARM,
    LOST,
    MOVES,
    MOVES_AT_ONCE,
    OVEROPT,
    PLATEAU_GAINS,
    RIGHT_BEST,
    WASTED,
    WHILE_GAINING,
    WITHIN_TWO,
    Column,
    Line,
    Requirement,
    Table,
    at_worst,
    decided,
    goodhart,
    healthy,
    plateau,
    with_second_validation,
    worst,
    worst_with_second_validation,
)
from monitor_oc_rules import RULES, Run, predicted
from monitor_oc_scenarios import HORIZON, Scenario, through

from selfreward.statistics.intervals import LARGE_SAMPLE

REQUIRED = {
    "false_stop_rate": Requirement(worst.name, FALSE_STOP.name, 0.05, at_most=True),
    "plateau_at_once": Requirement(plateau.name, AT_ONCE.name, 0.85),
    "plateau_within_two": Requirement(plateau.name, WITHIN_TWO.name, 0.98),
    "overopt_named": Requirement(goodhart.name, OVEROPT.name, 0.9),
}


def tables() -> tuple[Table, ...]:
    """The first holds the figures of REQUIRED."""
    return (
        required(),
        sizes(),
        rules_in_use(),
        limits.prompts(),
        limits.noise(),
        limits.judges(),
        harm(),
        best(),
        bounds(),
    )


def required() -> Table:
    honest = replace(plateau, name="the same, self-judge agrees", self_gains=PLATEAU_GAINS)
    return Table(
        "What the rule has to reach",
        "800 monitor prompts, 40 % ties, delta 0.05, eight iterations; 541 verifiable prompts whose pass rate does "
        "not change. `at once`: stopped in the first iteration that gains nothing, `within two`: in that or the "
        "next; both of all runs, also of those that stopped too early (`stop while gaining`).",
        (FALSE_STOP, OVEROPT, HARM, AT_ONCE, WITHIN_TWO, WHILE_GAINING),
        (
            Line(worst.name, worst, (".048", "0", ".016", "", "", ""), weight=20),
            Line(healthy.name, healthy, (".000", ".000", ".002", "", "", ".002"), weight=2),
            Line(plateau.name, plateau, (".99", "0", "", ".88", ".99", ""), weight=100),
            Line(honest.name, honest, (".99", ".000", "", ".86", "", ""), weight=2),
            Line(goodhart.name, goodhart, ("", ".96", ".04", ".86", "", ""), weight=10),
            Line(
                "the same with a second validation set of 800",
                with_second_validation(goodhart),
                ("", "", "", "", "", ""),
                weight=2,
            ),
        ),
    )


def sizes() -> Table:
    def all_eight(scenario: Scenario) -> str:
        return predicted(scenario, first=1, last=HORIZON)

    def in_four(scenario: Scenario) -> str:
        return predicted(scenario, first=4, last=4)

    def by_five(scenario: Scenario) -> str:
        return predicted(scenario, first=4, last=5)

    columns = (
        replace(FALSE_STOP, name="false stop", variant=at_worst, predict=all_eight),
        replace(AT_ONCE, predict=in_four),
        replace(WITHIN_TWO, predict=by_five),
        replace(FALSE_STOP, name="second set: false stop", variant=worst_with_second_validation, predict=all_eight),
        replace(AT_ONCE, name="second set: at once", variant=with_second_validation, predict=in_four),
        replace(WITHIN_TWO, name="second set: within two", variant=with_second_validation, predict=by_five),
    )
    cells = [(delta, n, ties) for delta in (0.05, 0.03) for n in (256, 400, 800, 1600) for ties in (0.2, 0.4, 0.6)]
    names = [f"delta {delta:g}, n {n:4d}, ties {ties:.0%}" for delta, n, ties in cells]
    return Table(
        "By delta, prompts and ties",
        "False stops where every iteration gains delta; gains .22 .18 .06 0 at the plateau. On the right with a "
        "second validation set of as many prompts, evaluated when the first analysis leaves the decision open.",
        columns,
        tuple(
            Line(name, Scenario(name, PLATEAU_GAINS, n=n, tie_rates=through(ties), delta=delta), weight=0.8)
            for name, (delta, n, ties) in zip(names, cells, strict=True)
        ),
    )


def rules_in_use() -> Table:
    small = replace(worst, name="gain = delta, n 256", n=256)
    late = Scenario("plateau after 6", through(*[0.10] * 6, 0.0))
    worse = Scenario("worse after 3", through(0.20, 0.15, 0.05, -0.03, -0.05))
    of_mean = {
        worst.name: (".002", "", "", "", ""),
        small.name: (".155", "", "", "", ""),
        plateau.name: ("", ".51", ".76", "", ""),
    }
    return Table(
        "Beside three rules in use",
        "On the same outcomes: three iterations always; the first mean outcome of 0.5 or less; the first score on a "
        "benchmark that is no higher than the best before. To see a plateau takes an iteration: 1 wasted is the "
        "least for a rule that looks. A fixed number is right where the plateau happens to be there.",
        (WHILE_GAINING, AT_ONCE, WITHIN_TWO, LOST, WASTED),
        tuple(
            Line(f"{s.name}: {rule}", s, of_mean.get(s.name, ()) if rule == "mean" else (), weight=2, rule=rule)
            for s in (worst, small, plateau, late, worse)
            for rule in RULES
        ),
    )


def harm() -> Table:
    up = (0.2, 0.15, 0.1)
    scenarios = [
        (Scenario(f"{loss:+g} from 4, n {n}", through(*up, loss), n=n), predicted)
        for n, predictions in ((256, (".19", ".91")), (400, (".36", ".99")), (800, (".77", "1.00")))
        for loss, predicted in zip((-0.05, -0.1), predictions, strict=True)
    ]
    scenarios += [
        (Scenario("pass rate -0.05 from 4", through(*up, 0.0), pass_gains=through(0.0, 0.0, 0.0, -0.05)), ".66"),
        (Scenario("-0.05 from 4, pass rate +0.03", through(*up, -0.05), pass_gains=through(0.03)), ".77"),
        (Scenario("-0.05 from 4, none verifiable", through(*up, -0.05), num_verifiable=0), ".77"),
    ]
    return Table(
        "Harm, and the checkpoint to go back to",
        "Gains .20 .15 .10, then a loss; 40 % ties. Where HARM is not seen, PLATEAU mostly is. `gain not in best` "
        "is the sum of the gains that the best checkpoint of the last decision lacks.",
        (decided("HARM", first=4, last=4, where="in 4"), decided("HARM"), FALSE_STOP, RIGHT_BEST, GAIN_LEFT),
        tuple(Line(s.name, s, (found, "", "", "", "")) for s, found in scenarios),
    )


def best() -> Table:
    nothing = Scenario("nothing gained", through(0.0), stops=False)
    bare = replace(nothing, name="the same, none verifiable", num_verifiable=0)
    lines = [
        Line(nothing.name, nothing, (".006", ".045", ".025")),
        Line(bare.name, bare, (".006", ".049", ".012")),
        Line("the same, responses .9 of the noise", replace(bare, checkpoint_share=0.9), (".006", "", "")),
        Line("the same, with verifiable prompts", replace(nothing, checkpoint_share=0.9), (".006", "", ".025")),
        Line("the same, n 256", replace(bare, name="n 256", n=256), (".006", ".049", ".012")),
    ]
    rises = (
        (0, 0.0, "1.00"), (128, 0.0, ".74"), (128, 0.05, ".99"),
        (541, -0.05, ".02"), (541, 0.0, ".91"), (541, 0.05, "1.00"),
    )  # fmt: skip
    for num, rise, moves in rises:
        name = f"gain .22, pass rate {rise:+g} ({num} prompts)" if num else "gain .22, none verifiable"
        scenario = Scenario(name, through(0.22), pass_gains=through(rise), num_verifiable=num, stops=False)
        # The intervals of 128 pass rates are bootstrapped.
        lines.append(Line(name, scenario, (moves, "", ""), weight=0.1 if num == 128 else 1))
    return Table(
        "When the best checkpoint moves",
        "800 prompts; decisions are only reported, so that all eight iterations are seen. Where nothing is gained, "
        "every move is false, and so is every HARM.",
        (MOVES_AT_ONCE, MOVES, decided("HARM")),
        tuple(lines),
    )


def misses(name: str, *, bound: int, above: bool, nominal: float) -> Column:
    """How often a bound of the gain is above, or below, the truth; over all iterations of a run that came to it."""

    def of(scenario: Scenario, rule: str, run: Run) -> float | None:
        looks = [
            (seen.gain[bound], gain)
            for seen, gain in zip(run.seen, scenario.gains, strict=False)
            if seen.gain is not None and (seen.num_analyses == 2) == scenario.second_validation
        ]
        return sum(limit > gain if above else limit < gain for limit, gain in looks) / len(looks) if looks else None

    return Column(name, of, predict=lambda scenario: f"{nominal:.4f}".removeprefix("0"))


def bounds() -> Table:
    cells = [(n, gain) for n in (128, 256, 800) for gain in (0.05, 0.22)]
    names = [f"n {n}, gain {gain:g}" for n, gain in cells]
    worlds = [
        Scenario(name, through(gain), n=n, num_verifiable=0, stops=False)
        for name, (n, gain) in zip(names, cells, strict=True)
    ]
    return Table(
        "Misses of the gain's one-sided bounds",
        "At the levels of a look, over the eight iterations of each run, 40 % ties; nominal rates in square brackets.",
        (
            misses("stop: lower too high", bound=1, above=True, nominal=0.05 / 8),
            misses("stop: upper too low", bound=2, above=False, nominal=0.05 / 8),
            misses("harm: lower too high", bound=3, above=True, nominal=0.05 / 32),
            misses("harm: upper too low", bound=4, above=False, nominal=0.05 / 32),
        ),
        tuple(Line(s.name, s, weight=8 if s.n < LARGE_SAMPLE else 2) for s in worlds),
    )
