"""Writes the reports: report.md of each iteration, report.html, report.json and metrics.jsonl of the run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from selfreward.recipe import Recipe
from selfreward.records import Decision, Evaluation, IterationSummary
from selfreward.reporting import funnel, timing
from selfreward.reporting.decisions import data_split_guarantees, decision_details
from selfreward.reporting.findings import findings
from selfreward.reporting.formatting import centre
from selfreward.reporting.gpu_hours import gpu_hours_by_stage
from selfreward.reporting.judge_card import judge_section
from selfreward.reporting.measurements import as_json, is_invalid, measured_names, not_measured, validity_reason
from selfreward.reporting.metric_rows import metric_rows
from selfreward.reporting.page import PAIR_NUMBERS, TRAINING_SCALARS, ReportData, page, pair_cells, training_key
from selfreward.reporting.record_summary import RecordSummary, summarise_records
from selfreward.reporting.remarks import remarks
from selfreward.reporting.samples import SamplePair
from selfreward.reporting.templating import render, strict_json, strict_json_line

if TYPE_CHECKING:
    from selfreward.store import Store

SCHEMA = 1
_NUM_SAMPLES_IN_MARKDOWN = 2


class RunReporter:
    """The writer of one run folder's reports. `banner` is printed at the top of every page."""

    def __init__(self, store: "Store", *, recipe: Recipe, banner: str | None = None) -> None:
        self._store = store
        self._recipe = recipe
        self._banner = banner
        # A finished iteration never changes, so its records are read only once.
        self._record_summaries: dict[int, RecordSummary] = {}

    def _banner_with_notes(self) -> str | None:
        """Return the banner with what became known about endpoints while the run worked."""
        notes = self._store.manifest["facts"].get("endpoint_notes", ())
        return " ".join(filter(None, (self._banner, *(f"Warning: {note}." for note in notes)))) or None

    def write(
        self, history: Sequence[IterationSummary], decisions: Sequence[Decision], initial: Evaluation | None = None
    ) -> None:
        """Update every report. `initial` is the evaluation of M_0. Raises StoreError."""
        for summary in history:
            if summary.iteration not in self._record_summaries:
                self._record_summaries[summary.iteration] = summarise_records(self._store, summary.iteration)
        run = ReportData(
            manifest=self._store.manifest,
            banner=self._banner_with_notes(),
            initial=initial,
            initial_cost=self._initial_cost(),
            history=history,
            decisions={decision.iteration: decision for decision in decisions},
            record_summaries={summary.iteration: self._record_summaries[summary.iteration] for summary in history},
            recipe=self._recipe,
            recipe_text=self._recipe_text(),
            test_set=_test_results(history, decisions),
        )
        for summary in history:
            self._store.write_text(f"iteration-{summary.iteration:02d}/report.md", iteration_page(run, summary))
        self._store.write_text("report.json", strict_json(as_data(run)))
        rows = metric_rows(history, initial)
        self._store.write_text("metrics.jsonl", "".join(strict_json_line(asdict(row)) for row in rows))
        self._store.write_text("report.html", page(run))

    def _initial_cost(self) -> IterationSummary | None:
        """Return time and usage of the evaluation of M_0 before iteration 1, as a summary."""
        seconds = self._store.seconds_by_stage(0)
        usage = self._store.usage_by_stage(0)
        return IterationSummary(0, {}, {}, Evaluation(0, {}), seconds, usage) if seconds else None

    def _recipe_text(self) -> str:
        path = self._store.folder / "recipe.yaml"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _test_results(history: Sequence[IterationSummary], decisions: Sequence[Decision]) -> tuple[Evaluation, int] | None:
    """Return the newest test results: a run resumed after its last iteration is evaluated again at its end."""
    for summary, decision in reversed([*zip(history, decisions, strict=False)]):
        if summary.test_set:
            return summary.test_set, decision.best_iteration
    return None


def iteration_page(run: ReportData, summary: IterationSummary) -> str:
    """Return report.md: the results of one iteration, short enough for a terminal."""
    counted = funnel.funnel_of(summary)
    evaluation = summary.evaluation
    read = run.record_summaries[summary.iteration]
    decision = run.decisions.get(summary.iteration)
    return render(
        "report.md.j2",
        run_name=run.manifest.get("name", ""),
        banner=run.banner,
        findings=findings([summary]),
        summary=summary,
        decision=decision,
        monitor=decision_details(decision, summary, run.recipe.monitor) if decision else None,
        data_split_guarantees=data_split_guarantees(run.manifest)["data_split_guarantees"],
        funnel=counted,
        lines=funnel.table([counted]),
        metrics=[
            (name, evaluation.metrics[name], is_invalid(evaluation, name)) for name in measured_names([evaluation])
        ],
        not_measured=not_measured([evaluation]),
        judge=judge_section([summary], judging=run.recipe.judging),
        pair_numbers=list(zip(PAIR_NUMBERS, pair_cells(read), strict=True)),
        training=[
            (name, summary.training[training_key(name)])
            for name in TRAINING_SCALARS
            if training_key(name) in summary.training
        ],
        remarks=remarks([summary], training=run.recipe.training),
        stages=timing.costs([summary]),
        samples=_shown_in_markdown(read.samples),
        num_pairs=read.num_pairs,
    )


def _shown_in_markdown(samples: Sequence[SamplePair]) -> list[SamplePair]:
    """Return some pairs of responses, and the pair of judgments if there is one."""
    of_responses = [sample for sample in samples if sample.kind == "response"]
    return [*of_responses[:_NUM_SAMPLES_IN_MARKDOWN], *(sample for sample in samples if sample.kind == "judgment")]


def as_data(run: ReportData) -> dict[str, Any]:
    """Return report.json; numbers that are not finite are null."""
    return {
        "schema": SCHEMA,
        "run": str(run.manifest.get("name", "")),
        "note": run.banner,
        "num_gpus": run.num_gpus,
        "engine_dtype": run.manifest.get("facts", {}).get("engine_dtype"),
        "data_split_guarantees": data_split_guarantees(run.manifest)["data_split_guarantees"],
        "initial": _evaluation(run.initial) if run.initial else None,
        "test": {**_evaluation(run.test_set[0]), "checkpoint": run.test_set[1]} if run.test_set else None,
        "iterations": [
            {
                "iteration": summary.iteration,
                "counts": dict(summary.counts),
                **_evaluation(summary.evaluation),
                "judging": _evaluation(summary.judging) if summary.judging else None,
                "decision": _decision(run.decisions.get(summary.iteration)),
                "seconds_by_stage": {stage: centre(s) for stage, s in summary.seconds_by_stage.items()},
                "gpu_hours_by_stage": gpu_hours_by_stage(summary.seconds_by_stage, run.num_gpus),
            }
            for summary in run.history
        ],
    }


def _finite(value: Any) -> Any:
    """Return the value with null for every number that is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return centre(value) if isinstance(value, float) else value


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    reasons: Mapping[str, str] = evaluation.not_measured
    invalid = {name: validity_reason(evaluation) for name in evaluation.metrics if is_invalid(evaluation, name)}
    return {"metrics": as_json(evaluation.metrics), "invalid": invalid, "not_measured": dict(reasons)}


def _decision(decision: Decision | None) -> dict[str, Any] | None:
    if decision is None:
        return None
    names = (
        "decision", "reason", "stopped_by", "bounds", "alpha_spending", "num_analyses", "best_iteration", "numbers",
        "failed_checks", "intervention", "effect", "notes", "exit_code",
    )  # fmt: skip
    return {name: _finite(getattr(decision, name)) for name in names}
