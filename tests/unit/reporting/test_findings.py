"""The finding that the responses did not change: first in every report."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from cases.report_page import page_of
from cases.reporting import make_run, write

from selfreward.commands.console import Console
from selfreward.launch.local import RunResult
from selfreward.records import Evaluation, Interval, IterationSummary
from selfreward.reporting.findings import findings, unchanged_responses

INITIAL, PREVIOUS = "same_response_rate_vs_initial", "same_response_rate_vs_previous"
ALL = Interval(1.0, 0.29, 1.0, 3)


def summary(iteration: int, **metrics: Interval | float) -> IterationSummary:
    return IterationSummary(iteration, {}, {}, Evaluation(iteration, metrics), {})


def test_the_finding_names_the_models_the_prompts_and_what_to_raise() -> None:
    [found] = findings([summary(1, **{INITIAL: Interval(0.5, 0.1, 0.9, 3)}), summary(2, **{INITIAL: ALL})])
    assert found == (
        "M_2 gives the same responses as M_0 on all 3 held-out prompts: the update is too small for the learning rate "
        "or the engine's dtype. Raise training.learning_rate, or set engine.dtype to float32 if it is not."
    )


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ({INITIAL: (1.0, 1)}, "as M_0 on the only held-out prompt"),
        ({INITIAL: (0.9, 10), PREVIOUS: (1.0, 10)}, "as the previous model on all 10 held-out prompts"),
        ({PREVIOUS: (1.0, 4), "kl_previous_nats": (0.757, 4)}, "although the update moved it (0.76 nats). Read the"),
        ({INITIAL: (1.0, 4), "kl_initial_nats": (0.01, 4), "kl_previous_nats": (0.8, 4)}, "the update is too small"),
        ({INITIAL: (0.999, 1000), PREVIOUS: (0.999, 1000)}, None),
        ({}, None),
    ],
)
def test_only_equal_responses_to_all_prompts_are_a_finding(rates: dict[str, tuple[float, int]], said: str) -> None:
    found = unchanged_responses(3, rates)
    assert found is None if said is None else found is not None and said in found


def test_an_untrained_iteration_has_no_finding() -> None:
    assert findings([IterationSummary(1, {}, {}, Evaluation(1, {}, {"all": "nothing was trained"}), {})]) == []


def test_the_finding_is_first_on_both_pages_and_in_the_console(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_iterations=2)
    last = run.history[-1]
    metrics = {**last.evaluation.metrics, INITIAL: ALL}
    run.history[-1] = replace(last, evaluation=replace(last.evaluation, metrics=metrics))
    write(run)
    header = page_of(run).text["header"]
    assert header.index("M₂ gives the same responses as M₀") < header.index("Model to use now")
    first, second = ((tmp_path / f"iteration-0{t}" / "report.md").read_text(encoding="utf-8") for t in (1, 2))
    assert second.split("\n\n")[1].startswith("M_2 gives the same responses as M_0 on all 3 held-out prompts")
    assert "gives the same responses" not in first
    console = Console(io.StringIO()).closing(RunResult(run.store.folder, run.decisions[-1]))
    assert console.split("\n\n")[0].strip().startswith("M_2 gives the same responses as M_0")
