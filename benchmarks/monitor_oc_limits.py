"""Tables of `monitor_oc.py` with a violated assumption of the rule: prompts, noise, lengths, judges."""

from dataclasses import replace

from monitor_oc_readings import (
    AT_ONCE,
    FALSE_STOP,
    HARM,
    OVEROPT,
    WITHIN_TWO,
    Line,
    Table,
    at_plateau,
    decided,
    healthy,
    plateau,
    worst,
)
from monitor_oc_scenarios import rising, through


def prompts() -> Table:
    lines = []
    for share, icc, stop, caught in (
        (0.15, 0.12, ".122", ".74"),
        (0.3, 0.24, ".207", ".61"),
        (0.5, 0.41, ".323", ".48"),
    ):
        clustered = replace(worst, name=f"documents, ICC {icc}", document_size=4, document_share=share)
        averaged = replace(clustered, name=f"documents, ICC {icc}, averaged first", by_document=True)
        lines.append(Line(clustered.name, clustered, (stop, "", "", "")))
        lines.append(Line(averaged.name, averaged, (".049", caught, "", ""), weight=1.5))
    reused = replace(worst, name="responses make .9 of the noise", checkpoint_share=0.9)
    few = replace(worst, name="5 % of the wins unscored", lost_wins=0.05)
    many = replace(worst, name="20 % of the wins unscored", lost_wins=0.2)
    allowed = replace(worst, name="4 % of the wins unscored", lost_wins=0.04)
    losses = replace(worst, name="5 % of the losses unscored", lost_losses=0.05)
    lines += [
        Line(reused.name, reused, (".049", ".87", ".012", "")),
        Line(allowed.name, allowed, ("", "", "", "")),
        Line(few.name, few, ("", "", "", "")),
        Line(many.name, many, ("0", "", "", "1.00")),
        Line(losses.name, losses, ("", "", "", "")),
    ]
    return Table(
        "Correlated prompts, missing outcomes",
        "800 prompts. False stops where every iteration gains delta; the next two columns with the gains .22 .18 "
        ".06 0. Documents of four prompts share a part of the outcome (its correlation: ICC); the remedy is to give "
        "the document as `prompt_id`, so that its rows are averaged. `responses make .9 of the noise`: the same "
        "prompts each time, so that comparisons with a common checkpoint are dependent. INVALID starts at 2 % "
        "unscored.",
        (
            replace(FALSE_STOP, name="false stop"),
            replace(AT_ONCE, name="plateau at once", variant=at_plateau),
            replace(HARM, name="plateau: HARM", variant=at_plateau),
            decided("INVALID"),
        ),
        tuple(lines),
    )


def noise() -> Table:
    longer = replace(worst, length_effect=0.3, longer=through(0.5))
    scenarios = (
        (replace(worst, name="ties fall from 60 % to 10 %", tie_rates=rising(0.6, 0.1)), ".049", ""),
        (replace(worst, name="random verdicts, 0 to 30 %", random_verdicts=rising(0.0, 0.3)), ".241", ""),
        (replace(longer, name="same lengths, adjusted", longer=through(0.0)), ".049", ".88"),
        (replace(longer, name="longer by .5 sd, adjusted"), ".048", ".80"),
        (replace(longer, name="longer by .5 sd, raw", length_adjusted=False), "0", ".01"),
        (replace(longer, name="longer by 1 sd, adjusted", longer=through(1.0)), ".087", ""),
        (replace(longer, name="shorter by .5 sd, adjusted", longer=through(-0.5)), ".048", ""),
        (replace(longer, name="shorter by .5 sd, raw", longer=through(-0.5), length_adjusted=False), "1.00", ""),
    )
    return Table(
        "Growing noise, drifting lengths",
        "800 prompts. False stops where every iteration gains delta at equal length; the other columns with the "
        "gains .22 .18 .06 0. One standard deviation of length adds 0.3 to the deviate that is thresholded into win, "
        "tie and loss, so half of one is a raw gain of .05; the adjustment is linear and these outcomes are not, so "
        "it is off by up to .005. A random verdict ignores the responses.",
        (
            replace(FALSE_STOP, name="false stop"),
            replace(AT_ONCE, name="plateau at once", variant=at_plateau),
            replace(WITHIN_TWO, name="within two", variant=at_plateau),
        ),
        tuple(Line(s.name, s, (stop, at_once, "")) for s, stop, at_once in scenarios),
    )


def judges() -> Table:
    agrees = replace(worst, name="gain = delta, self-judge agrees", self_gains=through(0.05))
    keen = replace(worst, name="gain = delta, self-judge +.05", self_gains=through(0.10))
    honest = replace(plateau, name="plateau, self-judge +.05", self_gains=through(0.27, 0.23, 0.11, 0.05))
    lines = [
        Line(agrees.name, agrees, (".000", ".049", "", "")),
        Line(keen.name, keen, (".043", ".049", "", "")),
        Line(honest.name, honest, (".006", "", "", "")),
    ]
    power = {
        (0.1, 0.0): ".000", (0.1, 0.03): ".002", (0.1, 0.06): ".12", (0.1, 0.09): ".66",
        (0.2, 0.0): ".000", (0.2, 0.03): ".002", (0.2, 0.06): ".05", (0.2, 0.09): ".33",
    }  # fmt: skip
    for (discordance, drop), found in power.items():
        name = f"gold {f'-{drop:g} from 4' if drop else 'constant'}, {discordance:.0%} differ"
        gold = through(0.8, 0.8, 0.8, 0.8 - drop)
        scenario = replace(healthy, name=name, gold=gold, gold_discordance=discordance, self_gains=None)
        lines.append(Line(name, scenario, ("", "", found, "" if drop else ".000")))
    return Table(
        "The run's own judge",
        "800 prompts. On 400 gold pairs the judge has 80 % accuracy; two equally accurate versions differ on 10 or "
        "20 % of the pairs. A drop of at most 3 pp is allowed.",
        (OVEROPT, FALSE_STOP, decided("DRIFT", first=4, last=4, where="in 4"), decided("DRIFT")),
        tuple(lines),
    )
