"""Hashes of every parquet and safetensors file of five small runs, and what changed between two such lists.

    python tests/bytes/record.py record OUT.json [--keep FOLDER]   with the package that PYTHONPATH names
    python tests/bytes/record.py renamed FOLDER OUT.json           kept runs of version 0.1, under the names of 0.2
    python tests/bytes/record.py compare BEFORE.json AFTER.json    exit code 1 when a file differs

A change of shape changes no result: run `record` on the commit before and on the commit after, on one machine.
"""

import argparse
import hashlib
import json
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import chdir
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
RECIPES = {
    "tiny": HERE.parents[1] / "recipes" / "tiny.yaml",
    "variant": HERE / "variant.yaml",
    "meta": HERE / "meta.yaml",
    "learns": HERE / "learns.yaml",
    "lost": HERE / "lost.yaml",
}
JUDGE_TOKENS, META_JUDGE_TOKENS = 48, 49  # as in meta.yaml: the limit of the reply shows which of the two is queried

# Names that differ in version 0.1: tables by the beginning of their names, and values of text columns.
TABLES = {
    "evaluation_reserve_": "evaluation_second_validation_",
    "reserve_outcomes": "second_validation_outcomes",
    "evaluation_seal_": "evaluation_test_",
    "seal_outcomes": "test_outcomes",
}
VALUES = {
    "set": {"monitor": "validation", "reserve": "second_validation", "seal": "test"},
    "unscored": {"cut_off": "truncated", "ran_on": "continued_after_verdict"},
    "reason": {"cut_off_chosen": "truncated_chosen"},
}


def scripted(engine: Any) -> Any:
    """The engine, with readable replies of judge and meta-judge that depend on the request's seed alone."""
    generate = engine.generate

    def reply(request: Any, sample: Any, draw: int) -> Any:
        chance = hashlib.sha256(f"{request.seed + draw}".encode()).digest()[0]
        text = (
            f"Case {chance}.\nScore: {chance % 6}" if request.max_tokens == JUDGE_TOKENS else f"[[{'AB'[chance % 2]}]]"
        )
        token_ids = (*engine.encode_text(text), sample.token_ids[-1])
        return replace(
            sample, text=text, token_ids=token_ids, token_logprobs=(-1.0,) * len(token_ids), finish_reason="stop"
        )

    def generate_scripted(requests: Sequence[Any]) -> list[list[Any]]:
        asked = generate(requests)
        return [
            [reply(request, sample, draw) for draw, sample in enumerate(samples)]
            if request.max_tokens in (JUDGE_TOKENS, META_JUDGE_TOKENS)
            else samples
            for request, samples in zip(requests, asked, strict=True)
        ]

    engine.generate = generate_scripted
    return engine


def forgetful(engine: Any) -> Any:
    """The engine, but with no probability for two choices at a quarter of the positions, selected by prompt."""
    generate = engine.generate

    def lose(request: Any, samples: list[Any]) -> list[Any]:
        chance = hashlib.sha256(str(request.prompt_token_ids).encode()).digest()[0]
        if len(request.choice_token_ids) != 2 or chance >= 64:
            return samples
        return [replace(sample, choice_logprobs=(-math.inf, -math.inf)) for sample in samples]

    engine.generate = lambda requests: [lose(r, s) for r, s in zip(requests, generate(requests), strict=True)]
    return engine


ENGINES: dict[str, Callable[[Any], Any]] = {"meta": scripted, "lost": forgetful}


def write_data(folder: Path) -> list[str]:
    """Prompts with checks that a random model passes now and then, and gold pairs; the overrides that name them.

    Relative to `folder`, because prompts keep the name of their file.
    """
    checks = [{"kind": "regex", "pattern": p} for p in ("[a-m]", "[n-z]", "[A-Z]", "[0-9]")]
    rows = [{"id": f"p{i}", "prompt": f"Write {i * 7919 % 100003}", "checks": checks} for i in range(400)]
    gold = [
        {"id": f"g{i}", "prompt": f"Sing {i * 104729 % 10007}", "chosen": "La 7 z", "rejected": "la", "checks": checks}
        for i in range(6)
    ]
    overrides = []
    for key, name, table in (("prompts.path", "learns", rows), ("evaluation.gold.path", "learns-gold", gold)):
        path = folder / f"{name}.jsonl"
        path.write_text("\n".join(map(json.dumps, table)), encoding="utf-8")
        overrides.append(f"{key}={path.name}")
    return overrides


def _built(build: Callable[..., Any], changed: Callable[[Any], Any], *args: Any, **named: Any) -> Any:
    return changed(build(*args, **named))


def record(folder: Path) -> dict[str, str]:
    """Runs the recipes into `folder`; hashes by `RUN/iteration-NN/...`. One thread: sums depend on their number."""
    import torch

    import selfreward
    from selfreward import engines

    torch.set_num_threads(1)
    build = engines.build
    found: dict[str, str] = {}
    for name, recipe in RECIPES.items():
        engines.build = partial(_built, build, ENGINES.get(name, lambda engine: engine))
        run = folder / name
        folder.mkdir(exist_ok=True)
        own = write_data(folder) if name == "learns" else []
        with chdir(folder):
            result = selfreward.run(recipe, [f"output_dir={run}", *own])
        print(f"{name}: {result.decision.decision} after iteration {result.decision.iteration}", file=sys.stderr)
        found |= {f"{name}/{path}": value for path, value in hashes(run).items()}
    engines.build = build
    return found


def hashes(folder: Path) -> dict[str, str]:
    """Return the hashes of all parquet and safetensors files below a folder, by relative path."""
    paths = sorted((*folder.rglob("*.parquet"), *folder.rglob("*.safetensors")))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def renamed(folder: Path) -> dict[str, str]:
    """Hashes of kept runs of version 0.1 as this version would write them: the same rows under the new names."""
    found = hashes(folder)
    with tempfile.TemporaryDirectory() as temporary:
        for name in [name for name in found if name.endswith(".parquet")]:
            old = pq.read_table(folder / name)
            new = old
            for column in VALUES.keys() & set(old.column_names):
                texts = [VALUES[column].get(text, text) for text in old[column].to_pylist()]
                field = old.schema.field(column)
                new = new.set_column(new.column_names.index(column), field, pa.array(texts, field.type))
            if not new.equals(old):
                path = Path(temporary) / "table.parquet"
                _write_in_row_groups(new, path, pq.ParquetFile(folder / name).metadata)
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return {_new_name(name): value for name, value in found.items()}


def _write_in_row_groups(table: pa.Table, path: Path, like: pq.FileMetaData) -> None:
    """Write a table as the store does, with the row groups of `like`."""
    start = 0
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for number in range(like.num_row_groups):
            num_rows = like.row_group(number).num_rows
            writer.write_table(table.slice(start, num_rows), row_group_size=num_rows)
            start += num_rows


def _new_name(name: str) -> str:
    head, _, table = name.rpartition("/")
    for old, new in TABLES.items():
        if table.startswith(old):
            table = new + table.removeprefix(old)
    return f"{head}/{table}"


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """One line for each file that differs, is missing or is new."""
    changed = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    what = {name: "missing" if name not in after else "new" if name not in before else "differs" for name in changed}
    return [f"{name}: {how}" for name, how in what.items()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("out", type=Path)
    recording.add_argument("--keep", type=Path, help="a folder for the runs themselves")
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    renaming = commands.add_parser("renamed")
    renaming.add_argument("folder", type=Path)
    renaming.add_argument("out", type=Path)
    options = parser.parse_args()
    if options.command == "compare":
        before, after = (json.loads(path.read_text(encoding="utf-8")) for path in (options.before, options.after))
        lines = differences(before, after)
        print("\n".join(lines) or f"{len(after)} files, all the same")
        return int(bool(lines))
    if options.command == "renamed":
        found = renamed(options.folder)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            found = record((options.keep or Path(temporary)).resolve())
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{len(found)} files -> {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
