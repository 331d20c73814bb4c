"""Tests that docs/metrics.md explains every number that a report can show."""

import json
import re
from pathlib import Path

from cases.reporting import make_run, write

from selfreward.engines.requests import Usage
from selfreward.evaluation.judge_agreement import AGREEMENT, TAU
from selfreward.evaluation.metrics import BaselineComparison, HeldOutResponses, measure
from selfreward.evaluation.preference import Outcome
from selfreward.records import Comparison, Message, Prompt, Response
from selfreward.reporting import page
from selfreward.reporting.glossary import groups, numbers
from selfreward.reporting.templating import render
from selfreward.statistics.judge_metrics import measure_judge

METRICS_MD = Path(__file__).parents[3] / "docs" / "metrics.md"


def documented() -> set[str]:
    return set(re.findall(r"^### `([^`]+)`$", METRICS_MD.read_text(encoding="utf-8"), re.MULTILINE))


def measured_names() -> set[str]:
    """Return the names of all metrics, measured or not, of a small evaluation."""

    def response(n: int, text: str) -> Response:
        return Response(f"r{n}{text}", f"p{n}", (1,), tuple(range(9)), None, text, "stop", 0, "c")

    prompts = [Prompt(f"p{n}", (Message("user", "?"),), ({"kind": "exact", "expected": "a"},)) for n in range(9)]
    own = HeldOutResponses([response(n, "a") for n in range(9)], [response(n, "a") for n in range(9)])
    other = HeldOutResponses([response(n, "b") for n in range(9)], [response(n, "b") for n in range(9)])
    outcomes = [Outcome(f"p{n}", n / 9, True, was_compared=True) for n in range(9)]
    baselines = [BaselineComparison(name, other, outcomes, [-1.0] * 9, [-2.0] * 9) for name in ("previous", "initial")]
    comparisons = [Comparison(f"c{n}", f"p{n}", "a", "b", "a", "anchor", n / 9, None) for n in range(9)]
    rest = {"comparisons": comparisons, "verifiable_prompts": prompts, "max_tokens": 16, "seed": 0}
    found = measure(1, own=own, initial=other, baselines=baselines, **rest)
    assert "win_rate_vs_initial" in found.metrics
    judge_metrics, judge_not_measured = measure_judge([], response_lengths={}, scale=None, seed=0)
    judge_names = {*judge_metrics, *judge_not_measured, TAU, AGREEMENT}
    assert len(judge_names) == 12
    return set(found.metrics) | set(found.not_measured) - {"anchor", "all"} | judge_names


def test_every_number_is_in_the_docs(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_iterations=2, rich=True)
    write(run)
    shown = set(page.TRAINING_SCALARS) | set(page.PAIR_NUMBERS) | set(Usage().snapshot()) | measured_names()
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        name = row["metric"].partition(":")[0]
        if row["section"] == "cost":
            name = name.rpartition(".")[2]
        is_ambiguous = name == "seconds" or (row["section"] == "training" and name == "num_pairs")
        shown.add(f"training.{name}" if is_ambiguous else name)
    for summary in run.history:
        shown |= set(summary.training.get("steps", [{}])[0]) - {"step"}
    html = (tmp_path / "report.html").read_text()
    assert shown - documented() == set()
    assert "Not explained in docs/metrics.md" not in html


def test_every_number_on_the_page_links_to_its_meaning(tmp_path: Path) -> None:
    write(make_run(tmp_path, num_iterations=1))
    html = (tmp_path / "report.html").read_text()
    ids = set(re.findall(r'id="([^"]+)"', html))
    links = set(re.findall(r'href="#([^"]+)"', html))
    assert {number.anchor for number in numbers().values()} <= ids
    assert {link for link in links if not re.match(r"f[0-9a-f]{8}-", link)} <= ids
    assert len([link for link in links if link.startswith("number-")]) > 30


def test_the_docs_are_generated_from_the_glossary() -> None:
    assert METRICS_MD.read_text(encoding="utf-8") == render("metrics.md.j2", groups=groups()), (
        "docs/metrics.md is not up to date: python -m selfreward.reporting.metrics_page > docs/metrics.md"
    )


def test_every_entry_is_complete_and_names_are_unique() -> None:
    names = [number.name for group in groups() for number in group.numbers]
    assert len(names) == len(set(names)) == len({number.anchor for number in numbers().values()})
    for number in numbers().values():
        for text in (number.label, number.unit, number.meaning, number.healthy, number.otherwise):
            assert text.strip(), number.name
        assert number.meaning.endswith(".") and number.healthy.endswith(".") and number.otherwise.endswith("."), number
    assert documented() == set(names)
