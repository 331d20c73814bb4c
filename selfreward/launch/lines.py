"""The progress of a run in lines: one for each iteration, finished stage and warning; on the console and in its log."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Progress = Callable[[str, int, str, Mapping[str, Any]], None]
"""Called with (what, iteration, stage, details); see `store.run_folder.Listener`. `what` may also be "opened" or
"warning", where the stage is the run folder or the sentence."""


class Lines:
    """Turns the events of one run into lines of at most 80 columns, except for warnings."""

    def __init__(self) -> None:
        self._iteration = -1

    def __call__(self, what: str, iteration: int, stage: str, details: Mapping[str, Any]) -> Iterator[str]:
        if what == "opened":
            yield f"run folder {stage}"
        if what == "warning":
            yield f"warning: {stage}"
        if what == "started" and iteration != self._iteration:
            self._iteration = iteration
            title = f"iteration {iteration}" if iteration else "the initial model"
            yield f"── {title} " + "─" * (60 - len(title))
        # Stages with shards are printed shard by shard.
        if what == "shard" or (what == "finished" and "shard_records" not in details):
            yield _stage_line(stage, details)


def _stage_line(stage: str, details: Mapping[str, Any]) -> str:
    seconds, shard = details["seconds"], details.get("shard", 0)
    name = stage.replace("_", " ") + (f", shard {shard}" if shard else "")
    parts = [f"   {name:34}"]
    records = details.get("num_records")
    parts.append(f"{records:6} records" if records is not None else " " * 14)
    parts.append(f"{seconds:8.1f} s")
    tokens = details["usage"].get("num_generated_tokens", 0) + details["usage"].get("num_prompt_tokens", 0)
    if tokens and seconds:
        parts.append(f"{tokens / seconds:9,.0f} tokens/s")
    return "".join(parts).rstrip()
