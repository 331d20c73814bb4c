"""The judge's numbers in the reports; other kinds of judgments and pairs are kept apart from the usual ones."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases.report_page import Page, page_of, strict
from cases.reporting import HALF_SURROGATE, HOSTILE, RECIPE, MadeRun, make_run, write
from pydantic import TypeAdapter

from selfreward import recipe_file
from selfreward.recipe import JudgingSection
from selfreward.records import (
    Evaluation,
    Interval,
    IterationSummary,
    Judgment,
    Message,
    PreferencePair,
    Prompt,
    Response,
)
from selfreward.reporting import build, funnel, timing
from selfreward.reporting.formatting import amount
from selfreward.reporting.judge_remarks import judge_remarks
from selfreward.reporting.record_summary import summarise_records
from selfreward.store import Store
from selfreward.tables import INITIAL_RESPONSES, JUDGMENTS, PAIRS, PROMPTS, RESPONSES

JUDGING: TypeAdapter[Any] = TypeAdapter(JudgingSection)
DRAWS_TWICE = {"kind": "additive", "num_draws": 2}

BASE_RECIPE = recipe_file.parse(RECIPE)


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    run = make_run(tmp_path_factory.mktemp("runs") / "rich", num_iterations=3, rich=True)
    write(run)
    return run


def remarks_on(*found: dict[str, Interval | float], judging: dict[str, Any] = DRAWS_TWICE, **reasons: str) -> list[str]:
    """Return the remarks on iterations 1, 2, ... with these metrics of the judge."""
    history = [
        IterationSummary(t, {}, {}, Evaluation(t, {}), {}, judging=Evaluation(t, metrics, reasons))
        for t, metrics in enumerate(found, start=1)
    ]
    return judge_remarks(history, judging=JUDGING.validate_python(judging))


def between(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, 24)


def test_noise_is_reported_only_when_the_whole_interval_of_r_is_low() -> None:
    (remark,) = remarks_on({"judge_reliability": between(0.1, 0.39)})
    assert remark.startswith("Iteration 1: pairs are mostly noise") and "0.24 (0.10 to 0.39)" in remark
    assert (
        remarks_on({"judge_reliability": between(0.1, 0.41)})
        == remarks_on({"judge_reliability": between(0.5, 0.9)})
        == []
    )
    (remark,) = remarks_on(*[{"judge_reliability": between(low, low + 0.1)} for low in (0.1, 0.6, 0.2)])
    assert remark.startswith("Iterations 1 and 3: ") and "is 0.15 to 0.25" in remark


def test_length_bias_is_reported_only_when_the_whole_interval_is_large() -> None:
    (longer,) = remarks_on({"judge_length_correlation": between(0.52, 0.8)})
    (shorter,) = remarks_on({"judge_length_correlation": between(-0.8, -0.52)})
    assert longer.startswith("Iteration 1: longer") and shorter.startswith("Iteration 1: shorter")
    assert remarks_on({"judge_length_correlation": between(0.4, 0.9)}) == []
    assert remarks_on({"judge_length_correlation": Interval(math.nan, math.nan, math.nan, 3)}) == []


@pytest.mark.parametrize(
    ("judging", "has_remark"),
    [
        ({"kind": "additive", "num_draws": 1}, True),
        ({"kind": "additive", "num_draws": 3}, False),  # another reason: too few draws had a score
        ({"kind": "verifier"}, False),  # deterministic
        ({"kind": "pairwise", "num_draws": 1}, False),  # measured over the two orders
        ({"kind": "ensemble", "members": [{"kind": "verifier"}, {"kind": "expected_score", "num_draws": 1}]}, True),
        ({"kind": "ensemble", "members": [{"kind": "verifier"}, {"kind": "reward_model", "by": "r"}]}, False),
    ],
)
def test_a_single_draw_is_reported_where_more_would_help(judging: dict[str, Any], has_remark: bool) -> None:
    once = remarks_on({}, judging=judging, judge_reliability="nothing was scored twice")
    assert [remark.startswith("Iteration 1: each response was judged once") for remark in once] == [True] * has_remark
    measured = {"judge_reliability": between(0.5, 0.6)}
    assert remarks_on(measured, judging=judging) == []


def test_the_judges_measurements_are_in_all_reports(rich: MadeRun) -> None:
    page = page_of(rich).text["judge"]
    assert "0.54" in page and "0.42 to 0.64" in page
    assert "Kendall's tau, previous judge (iteration 1): there was no judge before this one" in page
    assert "Position bias towards the second (iterations 1 to 3): the judge scores one response at a time" in page
    entries = strict(rich.store.folder / "report.json")["iterations"]
    for entry, summary in zip(entries, rich.history, strict=True):
        assert summary.judging is not None
        assert (
            entry["judging"]["metrics"]["judge_reliability"]["low"] == summary.judging.metrics["judge_reliability"].low
        )  # type: ignore[union-attr]
        assert entry["judging"]["not_measured"] == summary.judging.not_measured
        invalid = {"win_rate_vs_initial", "win_rate_vs_previous"} & entry["invalid"].keys()
        assert bool(invalid) == (entry["metrics"]["anchor_valid"] == 0)
    rows = [json.loads(line) for line in (rich.store.folder / "metrics.jsonl").read_text().splitlines()]
    for entry in entries:
        judging = [row for row in rows if (row["iteration"], row["section"]) == (entry["iteration"], "judging")]
        assert {row["metric"]: row["reason"] for row in judging if not row["valid"]} == entry["judging"]["not_measured"]
        lows = {row["metric"]: row["low"] for row in judging if row["low"] is not None}
        measured = entry["judging"]["metrics"]
        assert lows == {name: value["low"] for name, value in measured.items() if isinstance(value, dict)}
    markdown = (rich.store.folder / "iteration-03" / "report.md").read_text(encoding="utf-8")
    assert "Judge reliability (ICC), r             0.38 [0.26 to 0.48]" in markdown
    assert "Kendall's tau, previous judge          0.24" in markdown
    assert "- Not measured: Agreement of members or criteria. the judge is one" in markdown


def test_the_reference_value_of_r_is_marked(rich: MadeRun) -> None:
    marks = [a["x1"] for t, a in page_of(rich).elements if t == "line" and a.get("class") == "neutral"]
    assert marks.count("40.0") == 3


def test_a_remark_about_the_judge_is_on_both_pages(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_iterations=2)
    assert run.history[0].judging is not None
    noise = replace(run.history[0].judging, metrics={"judge_reliability": between(0.0, 0.2)})
    run.history[0] = replace(run.history[0], judging=noise)
    write(run)
    first, second = ((tmp_path / f"iteration-0{t}" / "report.md").read_text() for t in (1, 2))
    assert "Iteration 1: pairs are mostly noise" in page_of(run).text["judge"]
    assert "Iteration 1: pairs are mostly noise" in first and "mostly noise" not in second


def test_an_iteration_whose_judge_was_not_measured_has_a_page(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_iterations=2)
    run.history[0] = replace(run.history[0], judging=None)
    write(run)
    assert strict(tmp_path / "report.json")["iterations"][0]["judging"] is None
    assert "The judge was not measured." in (tmp_path / "iteration-01" / "report.md").read_text()
    assert "Judge reliability (ICC), r" in (tmp_path / "iteration-02" / "report.md").read_text()
    run.history[1] = replace(run.history[1], judging=None)
    write(run)
    assert "The judge was not measured." in page_of(run).text["judge"]


def test_pairs_of_judgments_are_counted_separately_and_the_counts_add_up(rich: MadeRun) -> None:
    read = summarise_records(rich.store, 1)
    counts = rich.history[0].counts
    assert read.num_judgment_pairs == counts["num_judgment_pairs"] == 2
    assert read.num_pairs == counts["num_pairs"]
    # The judgments have 800 tokens and more, and their Elo lies 400 apart.
    assert max(*read.chosen_tokens, *read.rejected_tokens) < 200
    assert 0 < read.margin_sum / read.num_response_pairs <= 5
    counted = funnel.funnel_of(rich.history[0])
    assert counted.problems == ()
    cells = {line.label: line.cells[0] for line in funnel.table([counted])}
    assert cells["of judgments"] == "2" and int(cells["of responses"]) == counts["num_pairs"] - 2
    assert "num_judgment_pairs" not in cells


def test_pairs_of_judgments_do_not_hide_missing_pairs_of_responses(rich: MadeRun) -> None:
    counts = {"num_prompts": 3, "num_dropped_prompts": 0, "num_pairs": 4, "num_judgment_pairs": 1}
    assert funnel.funnel_of(replace(rich.history[0], counts=counts)).problems == ()
    counts["num_judgment_pairs"] = 2
    (problem,) = funnel.funnel_of(replace(rich.history[0], counts=counts)).problems
    assert "2 pairs of responses" in problem


def test_a_page_without_pairs_of_judgments_does_not_mention_them(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_iterations=1)
    assert run.history[0].counts["num_judgment_pairs"] == 0
    write(run)
    assert "of judgments" not in page_of(run).text["funnel"] + page_of(run).text["samples"]


def test_criteria_scores_are_not_counted_as_scores_of_the_judge(rich: MadeRun) -> None:
    read = summarise_records(rich.store, 1)
    assert max(read.scores) <= 5  # a criterion has 100 more
    counts = rich.history[0].counts
    assert sum(read.scores.values()) == counts["num_judgments"] - counts["num_unscored_judgments"]
    sides = [side for sample in read.samples if sample.kind == "response" for side in (sample.chosen, sample.rejected)]
    for side in sides:
        assert [draw.part for draw in side.draws] == ["", "", "", "clear", "right", "clear"]
        assert (side.num_own, side.num_left_out) == (3, 3)
    page = page_of(rich).text["samples"]
    assert "additive · clear · score 10" in page and "3 more judgments are not shown." in page


def test_a_pair_of_judgments_is_shown_with_its_response(rich: MadeRun) -> None:
    (sample,) = (sample for sample in summarise_records(rich.store, 2).samples if sample.kind == "judgment")
    stored = {judgment.id: judgment for judgment in rich.store.read(2, JUDGMENTS)}
    (pair,) = (pair for pair in rich.store.read(2, PAIRS) if pair.id == sample.id)
    texts = {response.id: response.text for response in rich.store.read(2, RESPONSES)}
    assert sample.judged is not None and sample.judged.text == texts[stored[pair.chosen_id].response_id]
    assert (sample.chosen.given_score, sample.rejected.given_score) == (
        stored[pair.chosen_id].score,
        stored[pair.rejected_id].score,
    )
    page = page_of(rich).text["samples"]
    assert page.count("Pair of judgments") == 3 and "margin 400 Elo" in page and "Elo 212 · 900 tokens" in page
    markdown = (rich.store.folder / "iteration-02" / "report.md").read_text(encoding="utf-8")
    assert "### Pair of judgments: Elo 212 against −188" in markdown and "Judged response:" in markdown


def test_pairwise_judgments_and_responses_of_the_initial_model_are_labelled(tmp_path: Path) -> None:
    """Ids show what is compared; scores of M_0's responses are excluded from the policy's scores."""

    def judgment(mine: str, other: str, first: str, score: float) -> Judgment:
        return Judgment(
            f"{mine}~{other}~{first}",
            "p",
            mine,
            "pairwise",
            0,
            score,
            None,
            "A: 0.8",
            other_id=other,
            shown_first=first,
        )

    judgments = [
        judgment("mine", "first", "mine", 0.83),
        judgment("first", "mine", "mine", 0.17),
        Judgment("lonely/alone", "p", "lonely", "", 0, None, "no_opponent", ""),
    ]
    pair = PreferencePair(
        "pair", "p", "response", "mine", "first", (1,), (1,), (1,), "a", "b", 0.83, 0.17, 0.66, 0.5, 0.83
    )
    with Store(tmp_path, name="compared") as store:
        store.stage(1, PROMPTS, 1, lambda _: [Prompt("p", (Message("user", "?"),))])
        given = Response("first", "p", (1,), (1,), None, "b", "stop", 0, "m0")
        store.stage(1, INITIAL_RESPONSES, 1, lambda _: [given])
        store.stage(1, JUDGMENTS, 1, lambda _: judgments)
        store.stage(1, PAIRS, 1, lambda _: [pair])
        assert summarise_records(store, 1).scores == {0.83: 1}
        build(store, recipe=BASE_RECIPE).write(
            [IterationSummary(1, {"num_pairs": 1, "num_prompts": 1}, {}, Evaluation(1, {}), {})], []
        )
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text["samples"]
    assert "pairwise · preferred with probability 0.83 over first, shown first" in page
    assert "pairwise · preferred with probability 0.17 over mine, shown second" in page
    assert "Rejected (a response of M₀)" in page and "Chosen (a" not in page
    assert "weight 0.5 · label 0.83" in page


def test_unbounded_scores_have_a_histogram(tmp_path: Path) -> None:
    scores = [-412.6, -300.2, -0.001, 0.0, 12.5, 733.9]
    judgments = [Judgment(f"j{n}", "p", f"r{n}", "intrinsic", 0, score, None, "") for n, score in enumerate(scores)]
    with Store(tmp_path, name="intrinsic") as store:
        store.stage(1, JUDGMENTS, 1, lambda _: judgments)
        build(store, recipe=BASE_RECIPE).write([IterationSummary(1, {}, {}, Evaluation(1, {}), {})], [])
        assert summarise_records(store, 1).scores == {-413.0: 1, -300.0: 1, 0.0: 2, 12.5: 1, 734.0: 1}
    assert "6 scores" in Page((tmp_path / "report.html").read_text(encoding="utf-8")).text["scores"]


def test_the_judges_numbers_are_formatted_by_unit() -> None:
    assert amount("judge_length_correlation", -0.318) == "−0.32"
    assert amount("judge_preference_fairness", 0.12) == "+0.120"
    assert amount("judge_tau_previous", 0.05) == "0.05"
    assert [amount("score", value) for value in (-0.001, -0.01, -3.0, 0.0)] == ["0", "−0.01", "−3", "0"]


def test_measuring_the_judge_is_one_group_of_stages_without_judgments(rich: MadeRun) -> None:
    rows = {row.label: row for row in timing.costs(rich.history) if row.depth == 0}
    assert rows["measuring the judge"].seconds == pytest.approx(3 * (11.2 + 4.1 + 0.6))
    assert rows["judgments"].seconds == pytest.approx(3 * 96.4 + 2 * (1 + 2 + 3))
    assert list(rows).index("judgments") < list(rows).index("measuring the judge") < list(rows).index("training")


def test_hostile_text_about_the_judge_is_only_text(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_iterations=1, hostile=HOSTILE, rich=True)
    foul = Evaluation(1, {HOSTILE: between(0, 1)}, {HOSTILE + "!": HOSTILE + HALF_SURROGATE})
    run.history[0] = replace(run.history[0], judging=foul)
    write(run)
    page = page_of(run)
    assert not {"script", "iframe", "img"} & {tag for tag, _ in page.elements}
    assert page.text["judge"].count("document.title='owned'") >= 2
    assert page.text["samples"].count("Pair of judgments") == 1
    assert strict(tmp_path / "report.json")["iterations"][0]["judging"]["metrics"][HOSTILE]["mean"] == 0.5
