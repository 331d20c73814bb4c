"""Export of preference pairs for other trainers, as conversational rows for TRL, axolotl and LLaMA-Factory."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from selfreward.commands.judge_questions import JudgeQuestions
from selfreward.commands.outputs import check_output, write_output
from selfreward.errors import RecipeError
from selfreward.model_files.template_turns import template_turns
from selfreward.records import Message, PreferencePair
from selfreward.store import Store
from selfreward.tables import PAIRS, PROMPTS, TRAINING

Kind = Literal["response", "judgment", "all"]
# A judge's score and an Elo rating are different quantities, so they have columns of their own.
_SCORES = {"response": ("score_chosen", "score_rejected"), "judgment": ("elo_chosen", "elo_rejected")}
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
_CALL = pa.struct(
    [
        ("id", pa.string()),
        ("type", pa.string()),
        ("function", pa.struct([("name", pa.string()), ("arguments", pa.string())])),
    ]
)
_TURN_WITH_TOOLS = pa.struct(
    [*_MESSAGE, ("tool_calls", pa.list_(_CALL)), ("name", pa.string()), ("tool_call_id", pa.string())]
)


@dataclass(frozen=True)
class Exported:
    """`notes` are sentences on pairs that were left out, and on those that trained no model."""

    num_pairs: int
    notes: tuple[str, ...] = ()


def export_pairs(run: Path, file: Path, *, iteration: int | None = None, kind: Kind = "response") -> Exported:
    """Write the table of `preference_table` to a .jsonl or .parquet file; RecipeError for another suffix."""
    if file.suffix not in (".jsonl", ".parquet"):
        raise RecipeError(f"--pairs {file}: suffix {file.suffix!r}; allowed are .jsonl and .parquet; rename the file")
    check_output(file, option="--pairs")
    table, notes = preference_table(run, iteration=iteration, kind=kind)
    _write(table, file)
    return Exported(table.num_rows, notes)


def preference_table(
    run: Path, *, iteration: int | None = None, kind: Kind = "response"
) -> tuple[pa.Table, tuple[str, ...]]:
    """Return the pairs of a run (or of one iteration) of this kind, and the notes of `Exported`.

    A row contains `kind`, `prompt`, `chosen` and `rejected` as lists of messages (TRL, axolotl), `chosen_message` and
    `rejected_message` as single messages (LLaMA-Factory), the two scores (for judgments: Elo) and the iteration; where
    tools occur also `tools`, as JSON text. The prompt of a pair of judgments is the judge's question; a pair whose
    question is unknown is left out.

    Raises RecipeError for an iteration without pairs, StoreError when `run` is not a run folder. Also reads run folders
    of version 0.1.
    """
    store = Store(run, write=False, earlier=True)
    kinds = ("response", "judgment") if kind == "all" else (kind,)
    left_out = Counter[str]()
    found = [i for i in _with_pairs(store) if any(pair.kind in kinds for pair in store.read(i, PAIRS))]
    rows = [row for i in found if iteration in (None, i) for row in _rows(store, i, kinds, left_out)]
    notes = tuple(
        f"pairs of judgments that are left out: {count}, because {reason}" for reason, count in left_out.items()
    ) + _untrained(store, sorted({row["iteration"] for row in rows}))
    if not rows:
        raise RecipeError(_no_pairs(run, store, iteration, kind, found, notes))
    with_tools = any(set(turn) != {"role", "content"} for row in rows for turn in row["prompt"])
    return pa.Table.from_pylist(rows, schema=_schema(kinds, with_tools or any(row["tools"] for row in rows))), notes


def _untrained(store: Store, iterations: Sequence[int]) -> tuple[str, ...]:
    """Return a sentence on iterations whose pairs trained no model, such as one that ended STARVED."""
    found = [str(i) for i in iterations if not store.read_json(i, TRAINING)]
    which = f"iteration{'s' if len(found) > 1 else ''} {', '.join(found)}"
    return (
        (f"the pairs of {which} have trained no model: the update was skipped, or is still to come",) if found else ()
    )


def _no_pairs(
    run: Path, store: Store, iteration: int | None, kind: Kind, found: Sequence[int], notes: Sequence[str]
) -> str:
    """Return why nothing can be exported, and what can."""
    wanted = "the run" if iteration is None else f"iteration {iteration}"
    what = "pairs" if kind == "all" else f"{kind} pairs"
    others = Counter(pair.kind for i in _with_pairs(store) for pair in store.read(i, PAIRS))
    if found:
        there, advice = f"iterations with {what} are {', '.join(map(str, found))}", "export one of these"
    elif others:
        (other, number), *_ = others.most_common()
        there, advice = f"it has {number:,} {other} pairs", f"use --kind {other}"
    else:
        there, advice = "no iteration has made pairs yet", "continue the run, and read its report"
    return f"{run}: {wanted} has no {what}{''.join(f' ({note})' for note in notes)}; {there}; {advice}"


def _with_pairs(store: Store) -> list[int]:
    found: list[int] = []
    while store.has(len(found) + 1, PAIRS):
        found.append(len(found) + 1)
    return found


def _rows(store: Store, iteration: int, kinds: Sequence[str], left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    prompts = {prompt.id: prompt for prompt in store.read(iteration, PROMPTS)}
    questions = JudgeQuestions(store, iteration)
    for pair in store.read(iteration, PAIRS):
        if pair.kind not in kinds:
            continue
        messages = prompts[pair.prompt_id].messages if pair.kind == "response" else questions.about(pair.chosen_id)
        if isinstance(messages, str):
            left_out[messages] += 1
        else:
            yield _row(pair, messages, iteration, kinds)


def _row(pair: PreferencePair, prompt: Sequence[Message], iteration: int, kinds: Sequence[str]) -> dict[str, Any]:
    chosen = {"role": "assistant", "content": pair.chosen_text}
    rejected = {"role": "assistant", "content": pair.rejected_text}
    scores = dict.fromkeys(name for kind in kinds for name in _SCORES[kind])
    turns, tools = template_turns(prompt, arguments_as_text=True)
    scores |= dict(zip(_SCORES[pair.kind], (pair.chosen_score, pair.rejected_score), strict=True))
    return {
        "kind": pair.kind,
        "prompt": turns,
        "tools": json.dumps(tools, ensure_ascii=False) if tools else None,
        "chosen": [chosen],
        "rejected": [rejected],
        "chosen_message": chosen,
        "rejected_message": rejected,
        **scores,
        "iteration": iteration,
    }


def _schema(kinds: Sequence[str], with_tools: bool) -> pa.Schema:
    return pa.schema(
        [
            ("kind", pa.string()),
            ("prompt", pa.list_(_TURN_WITH_TOOLS if with_tools else _MESSAGE)),
            *([("tools", pa.string())] if with_tools else []),
            *((name, pa.list_(_MESSAGE)) for name in ("chosen", "rejected")),
            *((name, _MESSAGE) for name in ("chosen_message", "rejected_message")),
            *((name, pa.float64()) for kind in kinds for name in _SCORES[kind]),
            ("iteration", pa.int64()),
        ]
    )


def _write(table: pa.Table, file: Path) -> None:
    def write(stream: IO[bytes]) -> None:
        if file.suffix == ".parquet":
            pq.write_table(table, stream)
        else:
            stream.writelines(f"{json.dumps(row, ensure_ascii=False)}\n".encode() for row in table.to_pylist())

    write_output(file, write)
