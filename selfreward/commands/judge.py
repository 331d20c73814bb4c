"""`selfreward judge`: run a recipe's judge on any file of responses, and measure its quality on them.

Rows with the same prompt are judged as responses to that prompt, so that the reliability r can be measured. Results are
stored shard by shard next to the output; the same command resumes after a kill, and pays for no request twice.
"""

import hashlib
import json
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfreward import recipe_file
from selfreward.commands.outputs import check_output, inputs_of, is_stream, write_output
from selfreward.dtypes import with_dtype
from selfreward.errors import RecipeError
from selfreward.judging import judge_problems
from selfreward.launch.inputs import identity_of, principles_of
from selfreward.model_files.cache import cache_root
from selfreward.problems import warnings_of
from selfreward.prompts.collecting import SHOWN_ROWS, listed
from selfreward.prompts.files import Row, open_rows
from selfreward.prompts.rows import read_checks
from selfreward.prompts.shapes import read_conversation, response_text, with_known_names
from selfreward.prompts.unusable import UnusableRow, described, require_text
from selfreward.recipe import Columns, Recipe
from selfreward.records import Evaluation, Judgment, Prompt, Response
from selfreward.roles import Roles
from selfreward.statistics.judge_metrics import measure_judge
from selfreward.store import Store
from selfreward.tables import JUDGMENTS
from selfreward.tools import Inference, inference_of


@dataclass(frozen=True)
class InputRow:
    """One row of the file: its id as responses, and the ids of its responses."""

    id: str | int
    response_ids: tuple[str, ...]
    has_list: bool


@dataclass(frozen=True)
class InputRows:
    """A file of responses; prompts are distinguished by content, not by row."""

    rows: list[InputRow]
    prompts: dict[str, Prompt]
    texts: dict[str, tuple[str, str]]  # response id -> prompt id, text


@dataclass(frozen=True)
class JudgeResult:
    """`evaluation` contains the statistics of the judge (docs/metrics.md); `unscored` counts reasons."""

    out: Path
    num_responses: int
    num_judgments: int
    unscored: Mapping[str, int]
    evaluation: Evaluation
    warnings: tuple[str, ...] = ()
    cost: float | None = None  # of this command, in the currency of the endpoints' prices


def judge_file(recipe: Recipe, file: Path, out: Path, *, inputs: Sequence[Path] = ()) -> JudgeResult:
    """Judge every row of `file` and write `out`, one line per row. Raises a SelfRewardError.

    `inputs` are more files that `out` must not overwrite, beside `file` and those that the recipe names.
    """
    check_output(out, option="--out", inputs=[file, *inputs, *inputs_of(recipe)])
    recipe = with_dtype(recipe)
    # Without a known suffix, as a pipe has none, the file is read as JSON.
    rows = read_rows(open_rows(str(file), other=".json"), name=str(file))
    place = cache_root() / "judge" if is_stream(out) else out.parent
    # Replies are stored permanently: after a change of draws or budget, only new requests are paid for.
    inference = inference_of(recipe, cache_folder=place / f".{out.name}.replies")
    work = place / f".{out.name}.{_fingerprint(recipe, inference, rows)[:12]}"
    with Store(work, name=out.name) as store:
        warnings = (*store.warnings, *warnings_of(judge_problems(recipe.judging, list(rows.prompts.values()))))
        store.meter = inference.usage
        try:
            lengths = _judge(recipe, rows, store, inference)
        finally:
            inference.engine.close()
        scale = inference.judge(recipe).scale
        evaluation, unscored, num_judgments = _measured(store, lengths, scale, recipe.seed)
        lines = "".join(_lines(rows, store)).encode()
        write_output(out, lambda stream: stream.write(lines))
    _remove(work)
    return JudgeResult(
        out,
        len(rows.texts),
        num_judgments,
        unscored,
        evaluation,
        (*warnings, *inference.notes()),
        inference.usage().get("cost"),
    )


def _remove(work: Path) -> None:
    """Remove a work folder; renamed first, as after a kill in between the half of it would be no run folder."""
    removed = work.with_name(f"{work.name}.removed")
    shutil.rmtree(removed, ignore_errors=True)
    with suppress(OSError):
        work.rename(removed)
        shutil.rmtree(removed)


def read_rows(rows: Iterable[Row], *, name: str) -> InputRows:
    """Read the rows of a file of responses. Raises RecipeError with all rows that cannot be used.

    A row has a prompt in any of the known shapes (docs/data.md), and `response`, a list `responses`, or the response
    that follows the prompt in its shape; optionally `id`, `reference`, `checks`.
    """
    inputs = InputRows([], {}, {})
    seen: set[str] = set()
    prompt_ids: dict[str, str] = {}
    defects: list[str] = []
    num_defects = 0
    for row in rows:
        try:
            row_id, prompt, texts, has_list = _read_row(row)
            if str(row_id) in seen:
                found = f"the id {str(row_id)!r:.60} occurs twice"
                raise UnusableRow("bad_id", found, "ids must be unique; rename one")
        except UnusableRow as error:
            num_defects += 1
            defects += [f"{row.where}: {error}"] if num_defects <= SHOWN_ROWS else []
            continue
        seen.add(str(row_id))
        prompt_id = prompt_ids.setdefault(repr(replace(prompt, id="")), f"p{len(prompt_ids)}")
        inputs.prompts.setdefault(prompt_id, replace(prompt, id=prompt_id))
        ids = tuple(f"{prompt_id}/{len(inputs.rows)}.{index}" for index in range(len(texts)))
        inputs.texts.update((i, (prompt_id, text)) for i, text in zip(ids, texts, strict=True))
        inputs.rows.append(InputRow(row_id, ids, has_list))
    if defects:
        raise RecipeError(
            f"{name}: {num_defects:,} rows cannot be judged; each needs a prompt and a response; correct or remove "
            f"them\n{listed(defects, num_defects)}"
        )
    if not inputs.rows:
        raise RecipeError(f"{name}: no rows; each row has a prompt and a response; check the file")
    return inputs


def _read_row(row: Row) -> tuple[str | int, Prompt, list[str], bool]:
    """Return id, prompt, responses and whether they were a list. Raises UnusableRow."""
    values = with_known_names(row.columns)  # exported tables write missing values as null
    row_id = values.get("id", _default_id(row))
    if not isinstance(row_id, int | str) or isinstance(row_id, bool):
        raise UnusableRow("bad_id", f"the id is {row_id!r:.60}", "ids are text or whole numbers; rename it")
    if isinstance(row_id, str):
        require_text(row_id, "the id")
    conversation = read_conversation(values, Columns())
    responses = _responses(values, conversation.response)
    reference = require_text(values.get("reference", ""), "reference")
    prompt = Prompt("row", conversation.messages, read_checks(values.get("checks")), "file", reference)
    return row_id, prompt, responses, "responses" in values


def _default_id(row: Row) -> str | int:
    """Return the number of the line or row; in a folder also the file's name."""
    found = re.fullmatch(r"(?:line|row)-(\d+)", row.id)
    return int(found[1]) if found else row.id


def _responses(values: Mapping[str, Any], following: str) -> list[str]:
    """Return the responses of a row; `following` is the one that follows the prompt in the row's shape."""
    if "response" in values and "responses" in values:
        raise UnusableRow("bad_pair", "it has `response` and `responses`", "a row has one of the two; remove the other")
    if "responses" in values:
        found = values["responses"]
        if not isinstance(found, list):
            raise UnusableRow("bad_pair", f"`responses` is {described(found)}", "it must be a list of texts")
        return [require_text(text, "the response") for text in found]
    if "response" in values:
        return [require_text(response_text(values["response"], "response") or values["response"], "the response")]
    if not following and values.get("output") != "":  # an empty response is one; a missing response is none
        raise UnusableRow(
            "bad_pair",
            "no response",
            "a row has a prompt and either `response`, `responses`, `output` or a last turn of the assistant",
        )
    return [following]


def _judge(recipe: Recipe, inputs: InputRows, store: Store, inference: Inference) -> dict[str, int]:
    """Judge all shards; return the length of each response in tokens, by id."""
    models, engine, judge = Roles.at_start(inference.models), inference.engine, inference.judge(recipe)
    by_prompt: defaultdict[str, list[str]] = defaultdict(list)
    for response_id, (prompt_id, _) in inputs.texts.items():
        by_prompt[prompt_id].append(response_id)
    prompts = list(inputs.prompts.values())
    size = recipe.iterations.shard_prompts
    blocks = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    lengths: dict[str, int] = {}

    def responses(block: Sequence[Prompt]) -> list[Response]:
        made = []
        for prompt in block:
            prompt_token_ids = engine.encode(prompt.messages)
            for response_id in by_prompt[prompt.id]:
                text = inputs.texts[response_id][1]
                token_ids = engine.encode_text(text)
                lengths[response_id] = len(token_ids)
                made.append(
                    Response(response_id, prompt.id, prompt_token_ids, token_ids, None, text, "stop", 0, "file")
                )
        return made

    def judged(shard: int) -> list[Judgment]:
        return judge.judge(blocks[shard], responses(blocks[shard]), models=models, iteration=1)

    store.stage(1, JUDGMENTS, len(blocks), judged)
    for response_id, (_, text) in inputs.texts.items():
        if response_id not in lengths:  # judged before a kill
            lengths[response_id] = len(engine.encode_text(text))
    return lengths


def _measured(
    store: Store, lengths: Mapping[str, int], scale: tuple[float, float] | None, seed: int
) -> tuple[Evaluation, dict[str, int], int]:
    metrics, not_measured = measure_judge(store.read(1, JUDGMENTS), response_lengths=lengths, scale=scale, seed=seed)
    own = [j.unscored for j in store.read(1, JUDGMENTS) if not j.part]
    unscored = Counter(reason for reason in own if reason is not None)
    return Evaluation(1, metrics, not_measured), dict(unscored.most_common()), len(own)


def _lines(inputs: InputRows, store: Store) -> Iterator[str]:
    of_response: defaultdict[str, list[Judgment]] = defaultdict(list)
    for judgment in store.read(1, JUDGMENTS):
        of_response[judgment.response_id].append(judgment)
    names = {
        response_id: f"{row.id}/{index}" if row.has_list else row.id
        for row in inputs.rows
        for index, response_id in enumerate(row.response_ids)
    }
    for row in inputs.rows:
        shown = [
            (judgment, _as_json(judgment, index if row.has_list else None, names))
            for index, response_id in enumerate(row.response_ids)
            for judgment in of_response[response_id]
        ]
        parts = [entry for judgment, entry in shown if judgment.part]
        line: dict[str, Any] = {"id": row.id, "judgments": [entry for judgment, entry in shown if not judgment.part]}
        yield json.dumps(line | ({"parts": parts} if parts else {}), ensure_ascii=False) + "\n"


def _as_json(judgment: Judgment, index: int | None, names: Mapping[str, str | int]) -> dict[str, Any]:
    """Return the public JSON format: `response` is the index in `responses`, `part` the criterion or member.

    `other` is the id of the row of the compared response, with "/INDEX" in a row with `responses`.
    """
    entry: dict[str, Any] = {"score": judgment.score, "reason": judgment.unscored, "text": judgment.text}
    entry["draw"] = judgment.draw
    if judgment.other_id:
        entry |= {"other": names[judgment.other_id], "shown_first": judgment.shown_first == judgment.response_id}
    if index is not None:
        entry["response"] = index
    return entry | ({"part": judgment.part} if judgment.part else {})


def _fingerprint(recipe: Recipe, inference: Inference, rows: InputRows) -> str:
    """Return a hash of everything that judgments depend on, without the keys that may change on resume."""
    keys = recipe_file.fixed_keys(recipe)
    files = (identity_of(recipe.local_models, inference.models), sorted(principles_of(recipe).values()))
    return hashlib.sha256(f"{keys!r}\x1f{files!r}\x1f{rows!r}".encode("utf-8", "replace")).hexdigest()
