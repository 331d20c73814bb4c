"""Fuzzing in the process: recipes, texts of judges, tables. Errors are explained, numbers lie in their range.

A case is drawn from its number alone, so that `--case 17` repeats it.
"""

import json
import math
import random
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaign.limits import TooSlow, limit
from campaign.results import Results, shown

_LIMIT_S = 5.0
_RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
_SCALARS = (
    "5e-7", "-1", "0", "1e400", "9" * 5000, "null", "true", "on", "no", "''", "'x'", "[]", "{}", "[1, {a: 2}]",
    "nan", ".inf", "-.inf", "&a [*a]", "*b", "!!python/object:os.system x", "!!binary aGk=", "0x1F", "2026-01-01",
    "~", "[" * 400, "{a: " * 200, "\u202e", "'\\ud800'", "\x00", "package:x/y", "random:tiny", "/dev/null", "../..",
    "verifier", "{kind: ensemble, members: []}", "{kind: additive, num_draws: 10000000000}", "- a\n- b", "? a\n: b",
)  # fmt: skip
_CHARACTERS = (*"{}[]:,#&*!|>'\"%@`\t ", "\x00", "é", "\ud800")
_WORDS = (
    "Score", "score", ":", "：", " ", "\n", "4", "5", "３", "4.5", "-1", "1e9", "/5", "/ 10", "out of", "**", "__",
    "`", "```", "```json\n", '{"score": ', "}", "[[A]]", "[[B]]", "A", "B", "Response", "better", "The",
    "the better response is", "<score>", "</score>", "\\boxed{", "<think>", "</think>", "分", "评分", "。", "von",
    "Final", "Total", "points", "If", "Improved response:", "not", "\u200b", "\ufeff", "\u202e", "\x00", "\ud800",
    "é", "🙂", "#", "-", "|", "(", ")", "would", "tie", "neither", "x" * 300, "9" * 400, "\t", "\r\n", "\x1b[2J",
    "NaN", "inf", "null", "½", "④", "IV", "four", "%",
)  # fmt: skip
_CELLS = (
    "1", "0", "0.5", "", "NA", "nan", "null", "None", "2", "-0.1", "1e400", "inf", "x", "p1", "9" * 400, "'", '"',
    '"a\n"', "\x00", "é", "\ufeff", "1,", "true", " 1 ", "0x1", "１", "1_0", "\u202e",
)  # fmt: skip
_COLUMNS = (
    "iteration", "prompt_id", "anchor_outcome", "self_outcome", "verifiable_outcome", "length_delta_tokens", "set",
    "other", "Iteration", "", "anchor_outcome",
)  # fmt: skip


def recipes(results: Results, work: Path, *, num_cases: int, case: str = "") -> None:
    """Change recipes by line, by character and by key: a Recipe, or a RecipeError with a place."""
    from selfreward import recipe_file
    from selfreward.errors import RecipeError

    path = _folder(work) / "recipe.yaml"

    def one(chance: random.Random) -> str:
        path.write_text(_changed_recipe(chance), encoding="utf-8", errors="surrogatepass")
        overrides = [f"{_key(chance)}={chance.choice(_SCALARS)}" for _ in range(chance.randrange(3))]
        try:
            recipe_file.load(path, overrides)
        except RecipeError as error:
            return (
                "" if str(error).strip() and len(str(error)) < 20_000 else f"a message of {len(str(error))} characters"
            )
        return ""

    _run(results, "recipes", one, num_cases, case)


def judge_texts(results: Results, work: Path, *, num_cases: int, case: str = "") -> None:
    """Read texts made of fragments with every reader: a score in its range, or a reason."""
    from selfreward.readers import read_choice, read_json_score, read_score

    def one(chance: random.Random) -> str:
        text = "".join(chance.choice(_WORDS) + chance.choice(("", " ", "\n")) for _ in range(chance.randrange(40)))
        finish = chance.choice(("stop", "length"))
        for found, low, high in (
            (read_score(text, finish_reason=finish), 0, 5),
            (read_json_score(text, finish_reason=finish, low=0.0, high=5.0), 0, 5),
            (read_choice(text, finish_reason=finish, what="response"), 0, 1),
        ):
            if (found.score is None) == (found.unscored is None):
                return f"{found} of {text!r}"
            if found.score is not None and not (math.isfinite(found.score) and low <= found.score <= high):
                return f"{found} of {text!r}"
        return ""

    _run(results, "judge_texts", one, num_cases, case)


def tables(results: Results, work: Path, *, num_cases: int, case: str = "") -> None:
    """Decide on random CSV tables: decisions as strict JSON, or a RecipeError that names the file."""
    from selfreward.commands import monitor
    from selfreward.errors import RecipeError

    path = _folder(work) / "outcomes.csv"

    def one(chance: random.Random) -> str:
        path.write_bytes(_table(chance))
        try:
            json.loads(monitor.as_json(monitor.monitor_table(path)), parse_constant=_refuse)
        except RecipeError as error:
            return "" if path.name in str(error) and len(str(error)) < 5000 else f"the message is {str(error)!r:.300}"
        return ""

    _run(results, "tables", one, num_cases, case)


def _run(results: Results, part: str, one: Callable[[random.Random], str], num_cases: int, case: str) -> None:
    for number in shown([int(case)] if case else range(num_cases), part):
        found = ""
        try:
            with limit(_LIMIT_S):
                found = one(random.Random(f"{results.seed}/{part}/{number}"))
        except TooSlow:
            found = f"longer than {_LIMIT_S:.0f} s"
        except Exception as error:  # noqa: BLE001 - any other exception is what a fuzzer looks for
            results.counts["tracebacks"] += 1
            last = traceback.extract_tb(error.__traceback__)[-1]
            found = f"{type(error).__name__}: {error!s:.300} ({Path(last.filename).name}:{last.lineno})"
        if found:
            results.fail(part, found, case=str(number))
        results.counts[part] += 1


def _folder(work: Path) -> Path:
    work.mkdir(parents=True, exist_ok=True)
    return work


def _changed_recipe(chance: random.Random) -> str:
    lines = chance.choice(_RECIPES).read_text(encoding="utf-8").split("\n")
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(lines))
        match chance.randrange(6):
            case 0:
                del lines[at : at + chance.randrange(1, 4)]
                lines = lines or [""]
            case 1:
                lines.insert(at, lines[chance.randrange(len(lines))])
            case 2:
                lines[at] = f"{lines[at].partition(':')[0]}: {chance.choice(_SCALARS)}"
            case 3:
                cut = chance.randrange(len(lines[at]) + 1)
                lines[at] = (
                    lines[at][:cut] + chance.choice((*"{}[]:,#&*!|>'\"%@`\t ", "\x00", "é", "\ud800")) + lines[at][cut:]
                )
            case 4:
                lines[at] = " " * chance.randrange(9) + lines[at]
            case 5:
                lines[at] = lines[at].replace(
                    "{", f"{{{_key(chance).rpartition('.')[2]}: {chance.choice(_SCALARS)}, ", 1
                )
    return "\n".join(lines)


def _key(chance: random.Random) -> str:
    return chance.choice((
        "name", "seed", "output_dir", "models.policy.model", "models.gpt", "engine.kind", "engine.context_tokens",
        "iterations.max", "prompts", "prompts.path", "sampling.num_responses", "judging", "judging.kind",
        "judging.num_draws", "pairing", "training.learning_rate", "training.losses", "evaluation.anchor",
        "evaluation.num_prompts", "monitor.interventions", "monitor.delta", "launch.processes_per_node", "nothing", "",
        "training..x", "judging.members.0.kind",
    ))  # fmt: skip


def _table(chance: random.Random) -> bytes:
    columns = [*_COLUMNS[:3], *chance.sample(_COLUMNS, chance.randrange(4))]
    chance.shuffle(columns)
    good = chance.random() < 0.5
    rows = [
        [
            _good_cell(column, number, chance) if good else chance.choice(_CELLS) for column in columns
        ]
        for number in range(chance.randrange(30))
    ]  # fmt: skip
    text = "\n".join(chance.choice((",", ",", ",", ";", "\t")).join(row) for row in [columns, *rows])
    content = text.encode("utf-8", "surrogatepass")
    return content[: chance.randrange(len(content) + 1)] if chance.random() < 0.1 else content


def _good_cell(column: str, number: int, chance: random.Random) -> str:
    match column:
        case "iteration":
            return str(number // 8 + 1)
        case "prompt_id":
            return f"p{number % 8}"
    return chance.choice(_CELLS[:4] if column == "anchor_outcome" else _CELLS)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
