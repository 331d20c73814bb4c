"""A run folder in Python: its checkpoints, decisions, metrics and records, read when they are asked for."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfreward import history, tables
from selfreward.commands.export import Kind, preference_table
from selfreward.launch.local import status_of
from selfreward.records import Decision, IterationSummary
from selfreward.reporting.metric_rows import MetricRow, metric_rows
from selfreward.store import Store
from selfreward.store.names import folder_of

if TYPE_CHECKING:
    import datasets
    import pandas as pd

_CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class Run:
    """A run, finished or not. Everything is read from the folder at each access, so a run in progress can be watched.

    Raises StoreError when a file is missing or was changed. `datasets.Dataset`s of records have an `iteration` column
    before the columns of the parquet files; texts, token ids and scores are as stored.
    """

    folder: Path

    @property
    def decision(self) -> Decision | None:
        """The monitor's last decision; None before the end of iteration 1."""
        return next(reversed(self.decisions), None)

    @property
    def decisions(self) -> list[Decision]:
        """The monitor's decision on each finished iteration, from iteration 1."""
        return history.read_history(self._store())[1]

    @property
    def history(self) -> list[IterationSummary]:
        """Counts, metrics, outcomes and costs of each finished iteration, from iteration 1."""
        return history.read_history(self._store())[0]

    @property
    def status(self) -> dict[str, Any]:
        """What `selfreward status RUN --json` prints; docs/commands.md explains the keys."""
        return status_of(self.folder)

    @property
    def recipe(self) -> dict[str, Any]:
        """The complete recipe with which the run began, or was resumed."""
        return history.stored_recipe(self.folder).model_dump(mode="json")

    @property
    def checkpoint(self) -> Path | None:
        """The folder of the model that was shown to be the best, which may be M_0; None before the end of
        iteration 1. `transformers` and vLLM load it."""
        link = self.folder / "best"
        return link.resolve() if link.exists() else None

    @property
    def checkpoints(self) -> dict[int, Path]:
        """The folder of each M_t, t from 1, that is still on disk (`checkpoints.keep`)."""
        return {t: self.folder / folder_of(t) / _CHECKPOINT for t in self._store().folders(_CHECKPOINT)}

    @property
    def report(self) -> Path | None:
        """report.html; None before the end of iteration 1."""
        path = self.folder / "report.html"
        return path if path.exists() else None

    @property
    def metrics(self) -> "pd.DataFrame":
        """All numbers, a row for each iteration (0: M_0) and metric: `iteration`, `section`, `metric`, `mean`, `low`,
        `high`, `level`, `num_units`, `method`, `valid`, `reason`.

        A number that is invalid or could not be measured is null, `valid` is False, and `reason` says why.
        docs/metrics.md explains the metrics.
        """
        from selfreward.api.frames import metrics_frame

        return metrics_frame(self._rows())

    @property
    def summary(self) -> "pd.DataFrame":
        """The headline numbers, a row for each iteration from M_0, with the decision. Invalid numbers are null."""
        from selfreward.api.frames import summary_frame

        return summary_frame(self._rows(), self.decisions)

    @property
    def prompts(self) -> "datasets.Dataset":
        """The prompts of all iterations."""
        return self.records(tables.PROMPTS.name)

    @property
    def responses(self) -> "datasets.Dataset":
        """The policy's responses of all iterations."""
        return self.records(tables.RESPONSES.name)

    @property
    def judgments(self) -> "datasets.Dataset":
        """The judge's judgments of all iterations. `score` is null where `unscored` gives the reason."""
        return self.records(tables.JUDGMENTS.name)

    @property
    def pairs(self) -> "datasets.Dataset":
        """The preference pairs of all iterations, with their token ids, scores and margins."""
        return self.records(tables.PAIRS.name)

    @property
    def outcomes(self) -> "datasets.Dataset":
        """The outcomes on all held-out prompts; `set` says of which set. An unscored `outcome` is null."""
        from selfreward.api.tables import OUTCOMES, as_dataset

        return as_dataset(self._store(), OUTCOMES)

    def records(self, table: str, iteration: int | None = None) -> "datasets.Dataset":
        """Return the rows of iteration-NN/TABLE.parquet of one iteration or of all, also those of a stage that is not
        finished. Raises RecipeError for an unknown table or iteration."""
        from selfreward.api.tables import as_dataset, table_named

        return as_dataset(self._store(), [table_named(table)], iteration)

    def preference_dataset(self, iteration: int | None = None, *, kind: Kind = "response") -> "datasets.Dataset":
        """Return the pairs as conversations, as TRL's `DPOTrainer(train_dataset=...)` takes them: docs/export.md.

        Raises RecipeError when there are none.
        """
        import datasets

        return datasets.Dataset(preference_table(self.folder, iteration=iteration, kind=kind)[0])

    def _store(self) -> Store:
        return Store(self.folder, write=False)

    def _rows(self) -> list[MetricRow]:
        summaries, _, initial = history.read_history(self._store())
        return list(metric_rows(summaries, initial))


def load_run(folder: str | os.PathLike[str]) -> Run:
    """See `selfreward.load_run`."""
    run = Run(Path(folder).expanduser().absolute())
    run._store()  # raises when it is no run folder
    return run
