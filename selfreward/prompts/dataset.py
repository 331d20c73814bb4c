"""Prompts from the `datasets` library: a hub name, or a local source for `load_dataset` (a folder of data files).

Users cannot correct a public dataset, so rows that are not valid prompts (empty, not ending with a user turn, invalid
Unicode, duplicate prompts) are skipped and counted. A wrong name, split, column or type is an error.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from selfreward.errors import RecipeError, SelfRewardError
from selfreward.prompts.json_nesting import require_shallow_json
from selfreward.prompts.normalise import conversation_key
from selfreward.prompts.rows import Defect, read_row
from selfreward.records import Prompt

SKIPPED = ("empty_prompt", "turns_out_of_order", "last_turn_not_user", "invalid_unicode")


def read_dataset(
    name: str, *, config: str | None = None, split: str = "train", column: str = "prompt", revision: str | None = None
) -> tuple[list[Prompt], dict[str, int]]:
    """Return the prompts, with ids row-N by their row in the split (from 1), and the skipped rows counted by reason.

    Raises RecipeError when the dataset contains no usable prompts, SelfRewardError when it cannot be reached.
    """
    where = f"dataset {name!r}"
    rows = _load(name, config=config, split=split, revision=revision, where=where)
    if column not in rows.column_names:
        raise RecipeError(
            f"{where}: no column {column!r} in the split {split!r}; its columns are {', '.join(rows.column_names)}; "
            "name one of them with the key `column`"
        )
    # Only the needed columns are decoded: others may be images or sound.
    rows = rows.select_columns([key for key in rows.column_names if key in (column, "checks")])
    prompts: list[Prompt] = []
    skipped: Counter[str] = Counter()
    seen: set[bytes] = set()
    for number, row in enumerate(rows, start=1):
        location = f"{where}, row {number}"
        prompt = read_row(row, column=column, default_id=f"row-{number}", source=f"dataset:{name}", where=location)
        if isinstance(prompt, Defect):
            if prompt.kind not in SKIPPED:
                raise RecipeError(f"{location}: {prompt.found}; {prompt.advice}")
            skipped[prompt.kind] += 1
            continue
        if (key := conversation_key(prompt)) in seen:
            skipped["same_prompt"] += 1
            continue
        seen.add(key)
        prompts.append(prompt)
    if not prompts:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in skipped.items()) or "it has no rows"
        raise RecipeError(
            f"{where}: no usable prompt in the split {split!r} ({reasons}); a row needs text or messages that end with "
            "a user turn; choose another split or `column`"
        )
    return prompts, dict(skipped)


def _load(name: str, *, config: str | None, split: str, revision: str | None, where: str) -> Any:
    import datasets

    require_shallow_json(Path(name), where=where)
    requested = f"split {split!r}, config {config!r}, revision {revision!r}"
    try:
        # Remote code is never run: the library no longer supports it, and no flag enables it.
        return datasets.load_dataset(name, config, split=split, revision=revision)
    except ConnectionError as error:
        raise SelfRewardError(
            f"{where}: cannot be reached ({error}); a hub name needs a network or a filled cache; "
            "run the same command again later, or give a local folder"
        ) from error
    # Whatever the library raises on any files: a script, an empty file (StopIteration), a broken archive.
    except Exception as error:
        cause = " ".join(str(error).split())[:500] or type(error).__name__
        raise RecipeError(
            f"{where}: cannot be loaded with {requested} ({cause}); `name`, `config`, `split` and `revision` are "
            "arguments of `datasets.load_dataset`; correct the one that the message names"
        ) from error
