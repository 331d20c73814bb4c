"""What a person sees while a run works: one line for each finished stage, and a short table at the end."""

import json
from collections.abc import Mapping
from typing import IO, Any

from selfreward.launch.local import RunResult


class Console:
    """Progress as plain lines; while a stage runs, the engine and the trainer show their own bars on a terminal."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._iteration = -1

    def __call__(self, what: str, iteration: int, stage: str, details: Mapping[str, Any]) -> None:
        if what == "started" and iteration != self._iteration:
            self._iteration = iteration
            title = f"iteration {iteration}" if iteration else "the given model"
            self._say(f"── {title} " + "─" * (60 - len(title)))
        if what != "started" and not (what == "finished" and "shard_records" in details):
            self._say(self._line(stage, details))

    def _line(self, stage: str, details: Mapping[str, Any]) -> str:
        seconds, shard = details["seconds"], details.get("shard", 0)
        name = stage.replace("_", " ") + (f", shard {shard}" if shard else "")
        parts = [f"   {name:34}"]
        records = details.get("num_records")
        parts.append(f"{records:6} records" if records is not None else " " * 14)
        parts.append(f"{seconds:8.1f} s")
        tokens = details["usage"].get("num_generated_tokens", 0) + details["usage"].get("num_prompt_tokens", 0)
        if tokens and seconds:
            parts.append(f"{tokens / seconds:9,.0f} tokens/s")
        return "".join(parts)

    def _say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def closing(self, result: RunResult) -> str:
        """The table of iterations, the decision in a sentence, and where to read on."""
        report = json.loads((result.folder / "report.json").read_text(encoding="utf-8"))
        rows = [_HEADER, *(_row(iteration) for iteration in report["iterations"])]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
        table = "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
        note = f"\n{report['note']}\n" if report.get("note") else ""
        return f"\n{table}\n\n{result.decision.sentence}\n{note}\n{(result.folder / 'report.html').resolve()}"


_HEADER = ("iteration", "pairs", "unscored", "win rate vs previous", "pass rate", "tokens", "decision")


def _row(iteration: Mapping[str, Any]) -> tuple[str, ...]:
    counts, metrics = iteration["counts"], iteration["metrics"]
    judged = counts.get("num_judgments", 0)
    unscored = f"{counts['num_unscored_judgments'] / judged:.0%}" if judged else "-"
    return (
        str(iteration["iteration"]),
        str(counts.get("num_pairs", 0)),
        unscored,
        _measured(metrics.get("win_rate_vs_previous")),
        _measured(metrics.get("pass_rate")),
        _measured(metrics.get("response_tokens"), digits=0),
        iteration["decision"]["decision"],
    )


def _measured(metric: Any, digits: int = 2) -> str:
    if metric is None:
        return "-"
    if isinstance(metric, Mapping):
        return f"{metric['mean']:.{digits}f} [{metric['low']:.{digits}f}, {metric['high']:.{digits}f}]"
    return f"{metric:.{digits}f}"
