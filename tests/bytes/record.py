"""Hashes of every parquet and safetensors file of five small runs, and what changed between two such lists.

    python tests/bytes/record.py record OUT.json [--keep FOLDER]   with the package that PYTHONPATH names
    python tests/bytes/record.py compare BEFORE.json AFTER.json    exit code 1 when a file differs that should not
    python tests/bytes/record.py scores BEFORE AFTER               two kept folders: each judgment that differs

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

import pyarrow.parquet as pq

HERE = Path(__file__).parent
RECIPES = {
    "tiny": HERE.parents[1] / "recipes" / "tiny.yaml",
    "variant": HERE / "variant.yaml",
    "meta": HERE / "meta.yaml",
    "learns": HERE / "learns.yaml",
    "lost": HERE / "lost.yaml",
}
JUDGE_TOKENS, META_JUDGE_TOKENS = 48, 49  # as in meta.yaml: who is asked shows in the limit of the reply

# The files of the run `lost` that differ from those of a commit without the balanced mean; `scores` lists how.
BALANCED_MEAN = {
    f"lost/iteration-01/{name}": why
    for name, why in {
        "judgments.parquet": "both orders of a comparison count alike, however many draws of each could be read",
        "pairs.parquet": "made of these scores",
        "checkpoint/model.safetensors": "trained on these pairs",
        "evaluation_responses.parquet": "of this checkpoint",
        "evaluation_verifiable_responses.parquet": "of this checkpoint",
        "evaluation_kl_responses.parquet": "of this checkpoint",
        "evaluation_logprobs_policy.parquet": "of this checkpoint",
        "evaluation_logprobs_initial.parquet": "of its responses",
    }.items()
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
    """The engine, with two choices in a quarter of the places, by their prompt, to which it gives no probability."""
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
        for path in sorted((*run.rglob("*.parquet"), *run.rglob("*.safetensors"))):
            found[f"{name}/{path.relative_to(run)}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    engines.build = build
    return found


def differences(before: dict[str, str], after: dict[str, str], meant_to: dict[str, str]) -> list[str]:
    """One line for each file that differs, is missing or is new; `meant_to` says of some why they should."""
    lines = []
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            what = "missing" if name not in after else "new" if name not in before else "differs"
            meant = meant_to.get(name)
            lines.append(f"{name}: {what}" + (f" (meant: {meant})" if meant else ""))
    return lines


def scores(before: Path, after: Path) -> list[str]:
    """One line for each judgment with another score, and how many draws of each order of its comparisons have one."""
    lines = []
    for path in sorted(after.rglob("judgments.parquet")):
        name = str(path.relative_to(after))
        old = {row["id"]: row for row in pq.read_table(before / name).to_pylist()}
        new = pq.read_table(path).to_pylist()
        for row in new:
            if row != old[row["id"]]:
                about = [r for r in new if r["response_id"] == row["response_id"] and r["other_id"]]
                orders = {(r["other_id"], r["shown_first"]): 0 for r in about}
                for r in about:
                    orders[r["other_id"], r["shown_first"]] += r["score"] is not None
                had, has = (_said(row) for row in (old[row["id"]], row))
                lines.append(f"{name} {row['id']}: {had} -> {has}; draws by order {[*orders.values()]}")
    return lines


def _said(judgment: dict[str, Any]) -> str:
    return judgment["unscored"] if judgment["score"] is None else f"{judgment['score']:.4f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("out", type=Path)
    recording.add_argument("--keep", type=Path, help="a folder for the runs themselves")
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument(
        "--since-unbalanced-mean", action="store_true", help="BEFORE is of a commit without the balanced mean"
    )
    listing = commands.add_parser("scores")
    listing.add_argument("before", type=Path)
    listing.add_argument("after", type=Path)
    options = parser.parse_args()
    if options.command == "scores":
        print("\n".join(scores(options.before, options.after)))
        return 0
    if options.command == "record":
        with tempfile.TemporaryDirectory() as temporary:
            found = record((options.keep or Path(temporary)).resolve())
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{len(found)} files -> {options.out}")
        return 0
    before, after = (json.loads(path.read_text(encoding="utf-8")) for path in (options.before, options.after))
    lines = differences(before, after, BALANCED_MEAN if options.since_unbalanced_mean else {})
    print("\n".join(lines) or f"{len(after)} files, all the same")
    return int(any("(meant:" not in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
