"""What `selfreward judge` writes and `selfreward.judge` returns: the judgments of each row, and the judge's quality."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfreward.commands.judge_input import InputRows
from selfreward.records import Evaluation, Judgment
from selfreward.reporting.metric_rows import evaluation_rows

if TYPE_CHECKING:
    import datasets
    import pandas as pd

_FLAT = {
    "response": "int64", "draw": "int64", "score": "float64", "reason": "string", "text": "string", "part": "string",
    "other": "string", "shown_first": "bool",
}  # fmt: skip
_MEASURED = ("metric", "mean", "low", "high", "level", "num_units", "valid", "reason")


@dataclass(frozen=True)
class JudgeResult:
    """The judgments of a file or of some rows.

    `rows` has, for each input row in its order, `id` and `judgments`: a list of `score` (None when it is unscored, and
    then `reason` says why), `reason`, `text` and `draw`; in a row with `responses` also `response`, the index of the
    response; for a judge that compares also `other` and `shown_first`. `parts` has the scores of criteria or members,
    where there are any. `unscored` counts reasons, and `evaluation` has the statistics of the judge (docs/metrics.md).
    `cost` is that of the new replies of endpoints, in the currency of their prices; None without prices. `dtype` is
    that in which the engine's models judged, and why; None where none of them judged.
    """

    rows: tuple[Mapping[str, Any], ...]
    num_responses: int
    num_judgments: int
    unscored: Mapping[str, int]
    evaluation: Evaluation
    warnings: tuple[str, ...] = ()
    cost: float | None = None
    dtype: str | None = None

    @property
    def judgments(self) -> "datasets.Dataset":
        """All judgments, one row each, with the `id` of their row as text; a score that is missing is null."""
        import datasets

        columns = {"id": datasets.Value("string")} | {name: datasets.Value(kind) for name, kind in _FLAT.items()}
        return datasets.Dataset.from_list(list(self._flat()), features=datasets.Features(columns))

    @property
    def metrics(self) -> "pd.DataFrame":
        """The judge's quality, one row for each number; a number that was not measured is null, with its reason."""
        import pandas as pd

        rows = [vars(row) for row in evaluation_rows(self.evaluation, "judging")]
        return pd.DataFrame(rows, columns=list(_MEASURED)).astype({"num_units": "Int64"})

    def __str__(self) -> str:
        from selfreward.commands.judge_summary import summary

        return summary(
            num_responses=self.num_responses, num_judgments=self.num_judgments, unscored=self.unscored,
            evaluation=self.evaluation, cost=self.cost, dtype=self.dtype,
        )  # fmt: skip

    def _flat(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            for entry in (*row["judgments"], *row.get("parts", ())):
                values = dict.fromkeys(_FLAT) | entry
                other = None if values["other"] is None else str(values["other"])
                yield {"id": str(row["id"]), **values, "other": other}


def rows_of(inputs: InputRows, judgments: Iterable[Judgment]) -> Iterator[dict[str, Any]]:
    """Yield the public form of the judgments of each row."""
    of_response: defaultdict[str, list[Judgment]] = defaultdict(list)
    for judgment in judgments:
        of_response[judgment.response_id].append(judgment)
    names = {
        response_id: f"{row.id}/{index}" if row.has_list else row.id
        for row in inputs.rows
        for index, response_id in enumerate(row.response_ids)
    }
    for row in inputs.rows:
        shown = [
            (judgment, _public(judgment, index if row.has_list else None, names))
            for index, response_id in enumerate(row.response_ids)
            for judgment in of_response[response_id]
        ]
        parts = [entry for judgment, entry in shown if judgment.part]
        line: dict[str, Any] = {"id": row.id, "judgments": [entry for judgment, entry in shown if not judgment.part]}
        yield line | ({"parts": parts} if parts else {})


def _public(judgment: Judgment, index: int | None, names: Mapping[str, str | int]) -> dict[str, Any]:
    """Return one judgment: `response` is the index in `responses`, `part` the criterion or member.

    `other` is the id of the row of the compared response, with "/INDEX" in a row with `responses`.
    """
    entry: dict[str, Any] = {"score": judgment.score, "reason": judgment.unscored, "text": judgment.text}
    entry["draw"] = judgment.draw
    if judgment.other_id:
        entry |= {"other": names[judgment.other_id], "shown_first": judgment.shown_first == judgment.response_id}
    if index is not None:
        entry["response"] = index
    return entry | ({"part": judgment.part} if judgment.part else {})
