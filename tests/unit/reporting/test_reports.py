"""Reports of hand-made runs: they show what was recorded, and no text of a model can change that."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cases.report_page import Page, page_of, strict
from cases.reporting import HALF_SURROGATE, HOSTILE, RECIPE, MadeRun, interval, make_run, without, write

from selfreward import recipe_file
from selfreward.records import Evaluation, IterationSummary, Judgment, Message, PreferencePair, Prompt
from selfreward.reporting import build, figures, funnel, timing
from selfreward.reporting.record_summary import quantile, rounded_score, summarise_records
from selfreward.store import Store
from selfreward.tables import JUDGMENTS, PAIRS, PROMPTS

BASE_RECIPE = recipe_file.parse(RECIPE)


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    run = make_run(tmp_path_factory.mktemp("runs") / "eight", num_iterations=8)
    write(run, banner="A small model that judges itself is noise.")
    return run


def test_the_page_has_its_sections_in_order(eight: MadeRun) -> None:
    page = page_of(eight)
    assert list(page.text) == [
        "header", "decision", "iterations", "curves", "judge", "scores", "funnel", "training", "time", "samples",
        "provenance", "numbers",
    ]  # fmt: skip
    assert "M₈ gains less over M₇ than the 5 pp" in page.text["header"]
    assert "stopped by MAX_ITERATIONS" in page.text["header"]
    assert "A small model that judges itself is noise." in page.text["header"]
    assert "0.62" in page.text["iterations"] and "0.58 to 0.66" in page.text["iterations"]
    assert "same bytes" in page.text["provenance"] and "2.13.0" in page.text["provenance"]
    # Gains by iteration and by distance, four curves, two of the judge, eight histograms, lengths, loss and margin,
    # time; rates have small pictures too.
    plots = [attributes for tag, attributes in page.elements if tag == "svg" and attributes.get("role") == "img"]
    assert len(plots) == 2 + 4 + 2 + 8 + 1 + 2 + 1


def test_the_page_is_self_contained(eight: MadeRun) -> None:
    page = page_of(eight)
    policy = next(a["content"] for t, a in page.elements if t == "meta" and a.get("http-equiv"))
    assert policy and policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert page.count("script") == 0
    for _, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action", "data"):
                assert value and (value.startswith("#") or value == "data:,")
    html = (eight.store.folder / "report.html").read_text(encoding="utf-8")
    assert "@import" not in html and not re.search(r"url\((?!#f)", html)


def test_ids_are_unique_and_colours_follow_the_theme(eight: MadeRun) -> None:
    page = page_of(eight)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    inside = [a.get("style") or "" for t, a in page.elements if t in ("path", "text", "use", "rect")]
    assert any("var(--series-1)" in style for style in inside)
    assert not [style for style in inside if re.search(r"#[0-9a-f]{6}", style)]


def test_the_same_run_gives_the_same_bytes(eight: MadeRun) -> None:
    before = {p: p.read_bytes() for p in eight.store.folder.rglob("report.*")}
    assert len(before) == 8 + 2
    write(eight, banner="A small model that judges itself is noise.")
    assert {p: p.read_bytes() for p in before} == before


def test_report_json_has_the_agreed_shape(eight: MadeRun) -> None:
    data = strict(eight.store.folder / "report.json")
    assert (data["schema"], data["run"]) == (1, "made")
    assert [entry["iteration"] for entry in data["iterations"]] == list(range(1, 9))
    for entry, summary in zip(data["iterations"], eight.history, strict=True):
        assert {"iteration", "counts", "metrics", "decision", "seconds_by_stage"} <= set(entry)
        assert entry["counts"] == summary.counts and entry["seconds_by_stage"] == summary.seconds_by_stage
        assert set(entry["metrics"]["pass_rate"]) == {"mean", "low", "high", "level", "num_units", "method"}
        assert entry["metrics"]["truncation_rate"] == 0.12
    last = data["iterations"][-1]["decision"]
    assert set(last) == {
        "decision", "reason", "stopped_by", "bounds", "alpha_spending", "num_analyses", "best_iteration", "numbers",
        "failed_checks", "intervention", "effect", "notes", "exit_code",
    }  # fmt: skip
    assert (last["decision"], last["stopped_by"], last["best_iteration"]) == ("PLATEAU", "MAX_ITERATIONS", 2)
    assert last["bounds"] == eight.decisions[-1].bounds and last["alpha_spending"] == eight.decisions[-1].alpha_spending
    assert data["iterations"][2]["decision"]["effect"]["helped"] is False
    rows = [json.loads(line) for line in (eight.store.folder / "metrics.jsonl").read_text().splitlines()]
    (row,) = (row for row in rows if (row["iteration"], row["metric"]) == (8, "pass_rate"))
    assert {name: row[name] for name in entry["metrics"]["pass_rate"]} == entry["metrics"]["pass_rate"]


def test_numbers_that_are_not_finite_are_null_in_json_and_absent_on_the_page(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_iterations=1)
    broken = Evaluation(1, {"pass_rate": interval(float("nan"), 0.1), "truncation_rate": float("inf")})
    run.history[0] = replace(run.history[0], evaluation=broken, training={"loss_last": float("nan"), "steps": []})
    write(run)
    metrics = strict(tmp_path / "report.json")["iterations"][0]["metrics"]
    assert metrics["pass_rate"]["mean"] is None and metrics["truncation_rate"] is None
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for name in ("pass_rate", "truncation_rate", "loss_last"):
        (row,) = (row for row in rows if row["metric"] == name and row["iteration"] == 1)
        assert (row["mean"], row["valid"], row["reason"]) == (None, False, "the number is not finite")
    assert not re.search(r"\bnan\b|\binf\b", "".join(page_of(run).text.values()).lower())


def test_a_run_without_a_finished_iteration_has_a_page(tmp_path: Path) -> None:
    with Store(tmp_path / "run", name="new") as store:
        build(store, recipe=BASE_RECIPE).write([], [], None)
        assert "No iteration is finished yet" in Page((store.folder / "report.html").read_text()).text["header"]
        assert strict(store.folder / "report.json")["iterations"] == []


def test_without_training_the_reason_is_shown_instead_of_the_numbers(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_iterations=1, num_prompts=2)
    run.history[0] = without(run.history[0], reason="nothing was trained in this iteration")
    write(run)
    page = page_of(run)
    assert "nothing was trained in this iteration" in page.text["iterations"]
    assert "Nothing was trained." in page.text["training"]
    assert "there is no valid measurement: Win rate; Distance" in page.text["curves"]
    assert "nothing was trained in this iteration" in (tmp_path / "iteration-01" / "report.md").read_text()


def test_an_iteration_without_pairs_and_scores(tmp_path: Path) -> None:
    with Store(tmp_path / "run", name="empty") as store:
        store.stage(1, PROMPTS, 1, lambda _: [Prompt("p", (Message("user", "?"),))])
        store.stage(1, JUDGMENTS, 1, lambda _: [Judgment("j", "p", "r", "additive", 0, None, "empty", "")])
        store.stage(1, PAIRS, 1, lambda _: [])
        counts = {"num_prompts": 1, "num_judgments": 1, "num_unscored_judgments": 1, "num_unscored_judgments:empty": 1,
                  "num_pairs": 0, "num_dropped_prompts": 1, "num_dropped_prompts:too_few_scored": 1}  # fmt: skip
        build(store, recipe=BASE_RECIPE).write([IterationSummary(1, counts, {}, Evaluation(1, {}), {})], [])
        page = Page((store.folder / "report.html").read_text())
        assert "No judgment has a score." in page.text["scores"]
        assert "There are no pairs." in page.text["samples"]
        assert "do not add up" not in page.text["funnel"]
        assert "This iteration gave no pairs." in (store.folder / "iteration-01" / "report.md").read_text()


def test_win_rates_of_an_invalid_anchor_are_marked_invalid(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_iterations=1)
    metrics = {**run.history[0].evaluation.metrics, "anchor_valid": 0.0}
    metrics["length_adjusted_win_rate_vs_initial"] = interval(0.61, 0.04)
    run.history[0] = replace(
        run.history[0], evaluation=Evaluation(1, metrics, {"anchor": "INVALID: it follows the position"})
    )
    write(run)
    page = page_of(run)
    assert "win rates (M₁): INVALID: it follows the position" in page.text["iterations"]
    assert [a for t, a in page.elements if t == "td" and a.get("class") == "absent invalid"]
    labels = [a.get("aria-label") or "" for _, a in page.elements]
    assert not [label for label in labels if label.startswith("Win rate")]
    markdown = (tmp_path / "iteration-01" / "report.md").read_text()
    assert (
        "0.55 [0.50 to 0.60]  INVALID" not in markdown
    )  # the own judge's win rate, which does not depend on the anchor
    assert "0.61 [0.57 to 0.65]  INVALID" in markdown
    assert "0.55 [0.51 to 0.58]  INVALID" in (tmp_path / "iteration-01" / "report.md").read_text()


def test_counts_that_do_not_add_up_are_reported(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_iterations=1)
    assert funnel.funnel_of(run.history[0]).problems == ()
    counts = dict(run.history[0].counts)
    counts["num_dropped_prompts"] += 1
    run.history[0] = replace(run.history[0], counts=counts)
    write(run)
    assert "do not add up" in page_of(run).text["funnel"]
    assert "The counts do not add up" in (tmp_path / "iteration-01" / "report.md").read_text()


def test_every_prompt_is_in_one_segment_of_the_bar(eight: MadeRun) -> None:
    for _, num_prompts, segments in funnel.bars([funnel.funnel_of(summary) for summary in eight.history]):
        assert sum(part.count for part in segments) == num_prompts
        assert sum(part.share for part in segments) == pytest.approx(1)


def test_rare_reasons_are_summed_in_one_row(eight: MadeRun) -> None:
    counts = {"num_prompts": 100, "num_pairs": 45, "num_dropped_prompts": 55}
    counts |= {f"num_dropped_prompts:reason {n}": n for n in range(1, 11)}
    counted = funnel.funnel_of(replace(eight.history[0], counts=counts))
    lines = funnel.table([counted])
    named = [int(line.cells[0]) for line in lines if line.label.startswith(("reason", "other"))]
    assert counted.problems == () and len(named) == 8 and sum(named) == 55


def test_a_reason_is_shown_in_words(eight: MadeRun) -> None:
    counts = {"num_judgments": 2, "num_unscored_judgments": 2, "num_unscored_judgments:empty_response": 2}
    lines = funnel.table([funnel.funnel_of(replace(eight.history[0], counts=counts))])
    assert "empty response" in [line.label for line in lines]


def test_time_is_counted_once(eight: MadeRun) -> None:
    rows = timing.costs(eight.history)
    spent = sum(sum(summary.seconds_by_stage.values()) for summary in eight.history)
    assert sum(row.seconds for row in rows if row.depth == 0) == pytest.approx(spent)
    assert sum(row.share for row in rows if row.depth == 0) == pytest.approx(1)
    for summary, bar in zip(eight.history, timing.bars(eight.history, rows), strict=True):
        assert sum(bar.values()) == pytest.approx(sum(summary.seconds_by_stage.values()))
        assert set(bar) <= set(timing.colours(rows))
    judgments = next(row for row in rows if row.stage == "judgments")
    assert judgments.per_second("num_generated_tokens") == pytest.approx(8 * 21044 / judgments.seconds)


def test_sampled_pairs_do_not_depend_on_their_order(tmp_path: Path) -> None:
    def pair(n: int) -> PreferencePair:
        return PreferencePair(
            f"pair{n}", f"p{n}", "response", "c", "r", (1,), (1,) * n, (1,), f"chosen {n}", "no", 2, 1, 1
        )

    pairs = [pair(n) for n in range(1, 101)]
    found = []
    for name, ordered in (("a", pairs), ("b", pairs[::-1])):
        with Store(tmp_path / name, name=name) as store:
            store.stage(1, PAIRS, 4, lambda k, ordered=ordered: ordered[25 * k : 25 * k + 25])
            found.append(summarise_records(store, 1))
    assert found[0] == found[1]
    drawn = [sample.id for sample in found[0].samples]
    assert len(set(drawn)) == 4 and drawn != [f"pair{n}" for n in range(1, 5)]
    assert (found[0].num_pairs, found[0].num_chosen_longer) == (100, 99)
    assert quantile(found[0].chosen_tokens, 0.5) == 50


def test_histograms_use_whole_numbers_or_bins() -> None:
    whole = figures.score_axis([{0.0: 1, 5.0: 3}, {2.0: 1}])
    assert whole.bars({0.0: 1, 5.0: 3}) == {0.0: 0.25, 5.0: 0.75}
    binned = figures.score_axis([{0.0: 1, 0.33: 1, 1.0: 2}])
    bars = binned.bars({0.0: 1, 0.33: 1, 1.0: 2})
    assert sum(bars.values()) == pytest.approx(1) and bars[max(bars)] == 0.5
    assert all(binned.low <= position <= binned.high for position in bars)


def test_unbounded_scores_are_rounded_to_few_values() -> None:
    assert [rounded_score(score) for score in (3.0, 0.333, -0.004, 87.0, -412.6)] == [3.0, 0.33, 0.0, 87.0, -413.0]
    assert str(rounded_score(-0.004)) == "0.0"
    assert len({rounded_score(-1000.0 + n / 50) for n in range(100_000)}) < 5_000


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    run = make_run(tmp_path_factory.mktemp("runs") / "hostile", num_iterations=1, hostile=HOSTILE)
    decision = replace(run.decisions[0], reason=HOSTILE + HALF_SURROGATE, failed_checks=(HOSTILE,))
    counts = {**run.history[0].counts, "num_dropped_prompts:" + HOSTILE: 0, HALF_SURROGATE: 1}
    evaluation = Evaluation(1, {HOSTILE: 1.0}, {HOSTILE: HOSTILE + HALF_SURROGATE})
    history = [replace(run.history[0], counts=counts, evaluation=evaluation, seconds_by_stage={HOSTILE: 1.0})]
    run = replace(run, history=history, decisions=[decision])
    write(run, banner=HOSTILE + HALF_SURROGATE)
    return run


def written(folder: Path) -> Iterator[Path]:
    yield from (path for path in folder.rglob("*") if path.name in ("report.html", "report.md"))


def test_hostile_text_is_escaped_on_the_page(eight: MadeRun, hostile: MadeRun) -> None:
    page, plain = page_of(hostile), page_of(eight)
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in plain.elements} | {"i"}
    for tag in ("html", "head", "body", "title", "style", "h1", "main", "section"):
        assert page.count(tag) == plain.count(tag)
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "<script>document.title='owned'</script>" in page.text["samples"]
    assert "{{ 7*7 }}" in page.text["samples"]
    assert "<script>document.title='owned'</script>" in page.text["header"]


def test_no_file_contains_a_control_character(hostile: MadeRun) -> None:
    for path in written(hostile.store.folder):
        text = path.read_text(encoding="utf-8")
        assert not re.search(
            "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\ufeff\U000e0041\u2028]", text
        )
        assert "ESC" in text and "U+202E" in text
    strict(hostile.store.folder / "report.json")


def test_hostile_text_stays_in_its_block_of_the_markdown(hostile: MadeRun) -> None:
    text = (hostile.store.folder / "iteration-01" / "report.md").read_text(encoding="utf-8")
    outside, fence = [], ""
    for line in text.split("\n"):
        run = re.match("`{3,}", line)
        if fence:
            fence = "" if re.fullmatch(f"`{{{len(fence)},}} *", line) else fence
        elif run:
            fence = run[0]
        elif not line.startswith("    "):
            outside.append(line)
    assert fence == ""
    headings = [line for line in outside if line.startswith("#")]
    assert [h for h in headings if not h.startswith("### Pair")] == [
        "# Iteration 1 of made", "## The monitor's decision", "## From prompts to pairs", "## Measurements",
        "## Judge quality", "## Pairs and training", "## Time", "## Sample pairs",
    ]  # fmt: skip
    spans_removed = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", "\n".join(outside))
    assert not re.search(r"(?<!\\)<\w", spans_removed)


def test_long_texts_are_clipped_with_a_note(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_iterations=12, num_prompts=6, hostile=("\x1b<&\"'" * 20_000) + "THE VERY END")
    long_sentence = [replace(decision, reason="so " * 5000) for decision in run.decisions]
    write(replace(run, decisions=long_sentence))
    assert (tmp_path / "report.html").stat().st_size < 3_000_000
    html = (tmp_path / "report.html").read_text()
    assert "THE VERY END" not in html
    left_out = re.search(r"… ([\d,]+) more characters are not shown", html)
    assert left_out and 95_000 < int(left_out[1].replace(",", "")) < 100_007


def test_importing_the_package_is_cheap() -> None:
    code = (
        "import sys, selfreward.reporting; heavy = {'torch', 'matplotlib', 'jinja2', 'pyarrow', 'transformers'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
