"""`selfreward judge`: run a recipe's judge on any file of responses, and measure its quality on them."""

import json
from collections.abc import Sequence
from pathlib import Path

from selfreward.commands.judge_input import read_rows
from selfreward.commands.judge_result import JudgeResult
from selfreward.commands.judge_rows import judged_rows
from selfreward.commands.outputs import check_output, inputs_of, is_stream, write_output
from selfreward.model_files.cache import cache_root
from selfreward.prompts.files import open_rows
from selfreward.recipe import Recipe
from selfreward.reporting.text import visible


def judge_file(recipe: Recipe, file: Path, out: Path, *, inputs: Sequence[Path] = ()) -> JudgeResult:
    """Judge every row of `file` and write `out`, one line per row. Raises a SelfRewardError.

    `inputs` are more files that `out` must not overwrite, beside `file` and those that the recipe names.
    """
    check_output(out, option="--out", inputs=[file, *inputs, *inputs_of(recipe)])
    # Without a known suffix, as a pipe has none, the file is read as JSON.
    rows = read_rows(open_rows(str(file), other=".json"), name=str(file))
    place = judge_folder() if is_stream(out) else out.parent
    with judged_rows(recipe, rows, place=place, name=out.name) as result:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in result.rows).encode()
        write_output(out, lambda stream: stream.write(lines))
    return result


def with_output(result: JudgeResult, out: Path) -> str:
    """Return the summary of the result, and the complete path of the output as its last line."""
    return f"\n{result}\n\nWritten to\n{visible(str(out))}"


def judge_folder() -> Path:
    """Return the folder for the work of judges whose output is no file."""
    return cache_root() / "judge"
