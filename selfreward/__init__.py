"""Trains a language model on its own judgments. `selfreward.run("recipe.yaml")` does the same as `selfreward run`.

docs/python.md shows the functions at work.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets

    from selfreward.api.run_folder import Run
    from selfreward.commands.judge_result import JudgeResult
    from selfreward.launch.local import Progress
    from selfreward.monitoring.ceiling import CeilingMonitor
    from selfreward.recipe import Recipe

__version__ = "0.2.0"
__all__ = ["CeilingMonitor", "judge", "load_run", "run"]

# transformers imports torchao where it is installed, which then warns of kernels that are never used here.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def run(
    recipe: "str | os.PathLike[str] | Mapping[str, Any] | Recipe",
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    progress: "bool | Progress" = True,
) -> "Run":
    """Run a recipe, or resume it where it stopped: the call is repeatable, and repeats no finished work.

    `recipe` is the path of a YAML file, or a dict with the same keys, whose paths are relative to the working
    directory. `overrides` replace keys: `{"judging.num_draws": 5}`, or `["judging.num_draws=5"]` as for `--set`.
    `progress` prints a line on stderr for each finished stage; it may be a function, called with (what, iteration,
    stage, details).

    Returns the run: its `checkpoint`, `report`, `metrics`, `history`, `decision` and records. Raises a
    SelfRewardError whose message states what to do. In a script, call it under `if __name__ == "__main__":`, because
    engine and trainer may start processes that import the script; in a notebook nothing is needed.
    """
    _sleep_while_waiting()
    from selfreward import api

    return api.run(recipe, overrides, progress=progress)


def load_run(folder: str | os.PathLike[str]) -> "Run":
    """Return the run in this folder, finished or not, as `run` does. Raises StoreError when it is no run folder."""
    from selfreward import api

    return api.load_run(folder)


def judge(
    recipe: "str | os.PathLike[str] | Mapping[str, Any] | Recipe",
    rows: "str | os.PathLike[str] | datasets.Dataset | Iterable[Mapping[str, Any]]",
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    model: str | None = None,
) -> "JudgeResult":
    """Judge responses with a recipe's judge, and measure the quality of the judge on them.

    `recipe` is as for `run`; in a dict `output_dir` and `prompts` may be missing. With `model`, the policy that judges,
    it may be only the section `judging`, as in `judge({"kind": "likelihood"}, rows, model="random:tiny")`. `rows` have
    a prompt and `response` or a list `responses`, in any of the shapes of docs/data.md; a row without `id` has its
    number, from 1. Rows with the same prompt are judged as responses to one prompt, which is what the reliability r is
    measured on.

    Returns the judgments of each row, in the order of the rows, `unscored` with a reason where no score could be read.
    A call that was interrupted continues when it is repeated. Raises a SelfRewardError, for unusable rows a RecipeError
    that lists them. Warnings are Python warnings.
    """
    _sleep_while_waiting()
    from selfreward import api

    return api.judge(recipe, rows, overrides, model=model)


def _sleep_while_waiting() -> None:
    """Let OpenMP's threads wait asleep, as `cli.main` does; it has no effect once torch is imported."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def __getattr__(name: str) -> object:
    """Import `selfreward.CeilingMonitor` at its first use."""
    if name == "CeilingMonitor":
        from selfreward.monitoring.ceiling import CeilingMonitor

        return CeilingMonitor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
