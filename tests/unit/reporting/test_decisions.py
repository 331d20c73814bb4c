"""The monitor's decision in the reports: every test's outcome in words agrees with the decision."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases.reporting import HOSTILE, bound, interval, make_run, write

from selfreward.monitoring.decide import decide
from selfreward.monitoring.evidence import Evidence, Key, Outcomes
from selfreward.recipe import MonitorSection
from selfreward.records import Evaluation, Interval
from selfreward.reporting.decisions import rows_of
from selfreward.reporting.gains import gains_figure

SETTINGS = MonitorSection()


def outcomes(gain: float, *, num_prompts: int = 1200) -> Outcomes:
    """Wins, ties and losses in fixed numbers, 40 % ties."""
    num_wins, num_ties = round(num_prompts * (0.3 + gain)), round(num_prompts * 0.4)
    values = np.repeat([1.0, 0.5, 0.0], (num_wins, num_ties, num_prompts - num_wins - num_ties))
    return Outcomes(tuple(map(str, range(num_prompts))), values)


def decision_and_outcomes(evidence: Evidence) -> tuple[str, dict[str, str]]:
    decision = decide([evidence], SETTINGS)
    return decision.decision, {test.name: test.outcome for test in rows_of(decision.bounds, SETTINGS)}


@pytest.mark.parametrize(
    ("anchor", "own", "checks", "decision", "expected"),
    [
        (0.15, None, None, "CONTINUE", {"gain_vs_previous": "a gain",
         "gain_vs_best": "better than the best earlier model"}),
        (0.0, None, None, "PLATEAU", {"gain_vs_previous": "below 0.05"}),
        (-0.1, None, None, "HARM", {"gain_vs_previous": "a loss"}),
        (0.0, 0.2, None, "OVEROPT", {"self_gain_vs_previous": "own judge: a gain above 0.05"}),
        (0.0, 0.0, None, "PLATEAU", {"self_gain_vs_previous": "own judge: a gain below 0.05"}),
        (0.04, None, None, "CONTINUE", {"gain_vs_previous": "a gain"}),
        (0.024, None, None, "INCONCLUSIVE", {"gain_vs_previous": "inconclusive: shown neither above 0 nor below 0.05"}),
        (0.0, None, 0.1, "CONTINUE", {"pass_rate_vs_previous": "more prompts pass"}),
        (0.15, None, -0.1, "HARM", {"gain_vs_previous": "a gain", "pass_rate_vs_best": "fewer prompts pass"}),
    ],
)  # fmt: skip
def test_outcomes_agree_with_the_decision(
    anchor: float, own: float | None, checks: float | None, decision: str, expected: Mapping[str, str]
) -> None:
    found: dict[Key, Outcomes] = {("anchor", "validation", 0): outcomes(anchor)}
    if own is not None:
        found["self", "validation", 0] = outcomes(own)
    if checks is not None:
        found["checks", "verifiable", 0] = outcomes(checks)
    name, outcome = decision_and_outcomes(Evidence(1, 0, found))
    assert name == decision
    for test, words in expected.items():
        assert outcome[f"bounds.{test}"] == words


def test_drift_and_starvation_are_reported() -> None:
    good: dict[Key, Outcomes] = {("anchor", "validation", 0): outcomes(0.15)}
    name, outcome = decision_and_outcomes(
        Evidence(1, 0, good, tau=interval(-0.5, 0.1), reliability=interval(0.2, 0.05))
    )
    assert name == "DRIFT"
    assert outcome["bounds.tau"] == "ranks in reverse order" and outcome["bounds.reliability"] == "below the limit"
    name, outcome = decision_and_outcomes(
        Evidence(1, 0, good, pair_yield_rate=interval(0.1, 0.05), reliability=interval(0.4, 0.05))
    )
    assert name == "STARVED"
    assert outcome["bounds.pair_yield_rate"] == "below the limit" and outcome["bounds.reliability"] == "inconclusive"


@pytest.mark.parametrize(
    ("loss", "best", "outcome"), [(0.015, 1, "estimated loss below 0.02"), (0.025, 0, "estimated loss of 0.02 or more")]
)
def test_the_estimated_loss_of_pass_rate_decides_on_the_best(loss: float, best: int, outcome: str) -> None:
    found: dict[Key, Outcomes] = {
        ("anchor", "validation", 0): outcomes(0.15),
        ("checks", "verifiable", 0): outcomes(-loss / 2, num_prompts=400),
    }
    decision = decide([Evidence(1, 0, found)], SETTINGS)
    (row,) = (row for row in rows_of(decision.bounds, SETTINGS) if row.name == "bounds.pass_rate_vs_best")
    assert (decision.best_iteration, row.outcome) == (best, outcome)


def test_a_plateau_against_an_older_best_model_is_reported() -> None:
    first: dict[Key, Outcomes] = {("anchor", "validation", 0): outcomes(0.15)}
    second: dict[Key, Outcomes] = {("anchor", "validation", 1): outcomes(0.024)}
    third: dict[Key, Outcomes] = {
        ("anchor", "validation", 2): outcomes(0.024),
        ("anchor", "validation", 1): outcomes(0.0),
    }
    decision = decide([Evidence(t, t - 1, found) for t, found in enumerate((first, second, third), 1)], SETTINGS)
    found = {row.name: (row.limits, row.outcome) for row in rows_of(decision.bounds, SETTINGS)}
    assert (decision.decision, decision.best_iteration) == ("PLATEAU", 1)
    assert found["bounds.gain_vs_previous"][1].startswith("inconclusive")
    assert found["bounds.gain_vs_best"] == ("0 and +0.05", "below 0.05")


@pytest.mark.parametrize(
    ("rate", "half", "name", "outcome"),
    [
        (0.03, 0.02, "PLATEAU", "less than 0.05 left to gain"),
        (0.09, 0.05, "STARVED", "inconclusive"),
        (0.6, 0.1, "STARVED", "0.05 or more left to gain"),
    ],
)
def test_remaining_gain_when_all_prompts_are_solved(rate: float, half: float, name: str, outcome: str) -> None:
    decision = decide([Evidence(1, 0, trained=False, failing=interval(rate, half))], SETTINGS)
    (row,) = rows_of(decision.bounds, SETTINGS)
    assert (decision.decision, row.limits, row.outcome) == (name, "0.1", outcome)


def test_limits_come_from_the_recipe() -> None:
    settings = MonitorSection(delta=0.02, max_pass_rate_loss=0.1)
    bounds = {"gain_vs_previous": bound(0.03, 0.005), "pass_rate_vs_best": bound(0.0, 0.05)}
    gain, passes = rows_of(bounds, settings)
    assert (gain.limits, gain.outcome) == ("0 and +0.02", "a gain")
    assert (passes.limits, passes.outcome) == ("0 and −0.1", "estimated loss below 0.1")
    assert rows_of(bounds, MonitorSection())[0].outcome == "a gain, but below 0.05"


def test_missing_numbers_are_inconclusive() -> None:
    for broken in ({}, {"mean": None, "stop": [None, None]}, {"stop": "?", "harm": [0.1]}):
        (test,) = rows_of({"gain_vs_previous": broken}, SETTINGS)
        assert (test.mean, test.stop, test.harm) == ("–", "", "") and test.outcome.startswith("inconclusive")
    (unknown,) = rows_of({"something_new": bound(0.1, 0.05)}, SETTINGS)
    assert (unknown.name, unknown.outcome) == ("bounds.something_new", "–")


def pages(folder: Path, **changes: Any) -> tuple[str, str]:
    """Return the page and the last iteration's Markdown of a run of three iterations with a changed last decision."""
    run = make_run(folder, num_iterations=3)
    run.decisions[-1] = replace(run.decisions[-1], **changes)
    write(run)
    html, markdown = (folder / "report.html").read_text(), (folder / "iteration-03" / "report.md").read_text()
    return " ".join(html.split()), " ".join(markdown.split())


def test_alpha_spending_analyses_notes_and_interventions_are_shown(tmp_path: Path) -> None:
    notes = (
        "The alpha-spending budget was planned for 8 iterations and is spent.",
        "There is no second validation set.",
    )
    html, markdown = pages(tmp_path, num_analyses=2, notes=notes, intervention="fresh_prompts")
    for page in (html, markdown):
        assert "3 of 8 interim analyses, 0.0188 of 0.05 spent on false stops" in page
        assert all(note in page for note in notes)
        assert "second analysis" in page
        assert "Tried next" in page and "fresh_prompts" in page
        assert "tried for PLATEAU: it did not help; changed: sampling.temperature: 0.8 -" in page
    log = html.split("<summary>Decision log")[1].split("</table>")[0]
    assert log.count("<tr>") == 1 + 3 and "higher_temperature" in log and "stopped by MAX_ITERATIONS" in log


@pytest.mark.parametrize(("helped", "expected"), [(True, "it helped"), (None, "effect inconclusive")])
def test_the_effect_of_an_intervention_is_shown(tmp_path: Path, helped: bool | None, expected: str) -> None:
    _, markdown = pages(tmp_path, effect={"name": "more_draws", "tried_for": "STARVED", "helped": helped})
    assert f"tried for STARVED: {expected}" in markdown


def test_a_decision_without_tests_has_a_page(tmp_path: Path) -> None:
    html, markdown = pages(tmp_path, decision="INVALID", stopped_by="", bounds={}, alpha_spending={}, notes=())
    assert "Nothing was tested in the last iteration." in html and "Nothing was tested." in markdown
    assert "INVALID" in html and "Alpha-spending budget" not in markdown


def test_test_results_are_shown_with_their_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_iterations=3)
    write(run)
    assert "Final results" not in (tmp_path / "report.html").read_text()
    test_set = Evaluation(
        3, {"win_rate_vs_initial": interval(0.5432, 0.03)}, {"pass_rate": "not measured on the test set"}
    )
    run.history[-1] = replace(run.history[-1], test_set=test_set)
    write(run)
    html = (tmp_path / "report.html").read_text()
    test_metrics = html.split("Final results on the test set</h3>")[1].split("</section>")[0]
    assert html.count("Final results on the test set</h3>") == 1
    assert ">M₂<" in test_metrics and "0.54" in test_metrics and "not measured on the test set" in test_metrics
    data = (tmp_path / "report.json").read_text()
    assert '"checkpoint": 2' in data and "0.5432" in data


def test_data_split_guarantees_are_shown_with_the_sizes_of_the_sets(tmp_path: Path) -> None:
    write(make_run(tmp_path, num_iterations=1))
    html = " ".join((tmp_path / "report.html").read_text().split())
    guarantees = html.split("Data behind the decisions")[1].split("</details>")[0]
    assert "<dt>validation</dt><dd>128 prompts</dd>" in guarantees and "<dt>gold</dt><dd>200 pairs</dd>" in guarantees
    guarantee = "held out and never trained on: 128 validation prompts"
    assert guarantee in guarantees and "<details open><summary>Data behind the decisions" in html
    assert f"- {guarantee}\n" in (tmp_path / "iteration-01" / "report.md").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["data_split_guarantees"] == [guarantee]


def test_hostile_names_of_interventions_are_escaped(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_iterations=3, hostile=HOSTILE)
    write(run)
    html = (tmp_path / "report.html").read_text()
    decision = html.split('<section id="decision">')[1].split("</section>")[0]
    assert "<script" not in decision and "&lt;script&gt;" in decision and "\x1b" not in decision


# Over-optimisation


def checkpoints(*rows: tuple[float, float]) -> list[Evaluation]:
    """Return evaluations of M_1, M_2, ... from (divergence in nats, win rate by the anchor)."""
    return [
        Evaluation(t, {"kl_initial_nats": interval(kl, 0.05), "win_rate_vs_initial": interval(win_rate, 0.03)})
        for t, (kl, win_rate) in enumerate(rows, start=1)
    ]


def on_known_curve(kl: float) -> tuple[float, float]:
    d = math.sqrt(kl)
    return kl, 0.5 + d * (0.2 - 0.15 * math.log(d))


def test_the_curve_is_fitted_from_four_checkpoints_and_called_descriptive() -> None:
    three, four = (gains_figure(checkpoints(*map(on_known_curve, (0.2, 0.9, 2.0, 4.0)[:n]))) for n in (3, 4))
    assert three and four
    assert "descriptive" not in three.note
    assert "descriptive" in four.note and "a = 0.2 and b = 0.15" in four.note
    assert f"d* = {math.exp(0.2 / 0.15 - 1):.2g}" in four.note
    assert four.svg.count("<path") > three.svg.count("<path")


def test_a_maximum_outside_the_measured_range_has_no_number() -> None:
    rising = gains_figure(checkpoints(*((kl, 0.5 + 0.08 * math.sqrt(kl)) for kl in (0.2, 0.9, 2.0, 4.0))))
    assert rising and "d* =" not in rising.note


def test_length_adjusted_win_rates_are_shown_where_all_checkpoints_have_them() -> None:
    raw = checkpoints(*map(on_known_curve, (0.9, 2.0)))
    both = [replace(e, metrics={**e.metrics, "length_adjusted_win_rate_vs_initial": interval(0.52, 0.03)}) for e in raw]
    adjusted = gains_figure(both)
    assert adjusted and adjusted.names[0] == "length_adjusted_win_rate_vs_initial"
    plain = gains_figure(checkpoints((0.9, 0.52), (2.0, 0.52)))
    assert "are length-adjusted" in adjusted.note and plain and adjusted.svg == plain.svg
    own = [replace(e, metrics={**e.metrics, "self_win_rate_vs_initial": interval(0.6, 0.03)}) for e in both]
    for incomparable in (own, [raw[0], both[1]], raw):
        shown = gains_figure(incomparable)
        assert shown and shown.names[0] == "win_rate_vs_initial" and "not length-adjusted" in shown.note


def test_checkpoints_without_gain_or_distance_are_left_out() -> None:
    assert gains_figure(checkpoints()) is None
    assert gains_figure([Evaluation(1, {"win_rate_vs_initial": interval(0.6, 0.05)})]) is None
    invalid = [replace(e, metrics={**e.metrics, "anchor_valid": 0.0}) for e in checkpoints(on_known_curve(1.0))]
    assert gains_figure(invalid) is None
    below = gains_figure(checkpoints((-0.01, 0.52), *map(on_known_curve, (0.9, 2.0, 4.0))))
    assert below and "descriptive" not in below.note  # the first has no distance, so only three points remain
    broken = Evaluation(1, {"kl_initial_nats": float("inf"), "win_rate_vs_initial": Interval(0.6, 0.5, 0.7, 9)})
    assert gains_figure([broken]) is None
