"""The command line: parse, call, exit code. Each command imports its heavy dependencies itself."""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from selfreward import __version__, signals
from selfreward.commands.closed_pipe import quiet_on_closed_pipe
from selfreward.errors import SelfRewardError


@quiet_on_closed_pipe
def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code (docs/exit_codes.md)."""
    options = _parser().parse_args(arguments)
    # Read when torch is imported: OpenMP threads that wait asleep. Threads that spin are no faster on quiet cores, and
    # far slower where other programs use the cores too (benchmarks/threads.txt).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    with signals.raised():
        try:
            code = int(options.command(options))
            signals.check()  # a signal whose exception a library swallowed
            return code
        except BaseException as error:
            if (ending := _ending(error)) is None:
                raise
            code, message = ending
    print(f"selfreward: {message}", file=sys.stderr)
    return code


def _ending(error: BaseException) -> tuple[int, str] | None:
    """Return the exit code and the message of an error; None when it is a bug of ours."""
    if received := signals.received():  # whatever the error is, the signal caused it
        return signals.code_of(received), (
            f"stopped by {received.name}; all finished work is stored; the same command resumes"
        )
    if isinstance(error, SelfRewardError):
        return error.exit_code, str(error)
    if isinstance(error, MemoryError):
        return 4, (
            "out of memory on this machine; a smaller engine.max_num_seqs or training.micro_batch_tokens needs "
            "less; set it and run the same command again"
        )
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="selfreward", description="Trains a language model on its own judgment.")
    parser.add_argument("--version", action="version", version=f"selfreward {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: object, help_text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_text, description=help_text)
        sub.set_defaults(command=command)
        return sub

    def add_recipe_command(name: str, command: object, help_text: str) -> argparse.ArgumentParser:
        sub = add(name, command, help_text)
        sub.add_argument("recipe", type=Path, help="the recipe, a YAML file")
        sub.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
            help="override a key of the recipe, for example judging.num_draws=5; may be repeated",
        )  # fmt: skip
        return sub

    add_recipe_command("run", _run, "run a recipe, or resume it where it stopped")
    sub = add_recipe_command("plan", _plan, "estimate the cost of a run: requests, tokens, steps, memory, time")
    sub.add_argument(
        "--gpu", metavar="NAME", help="plan for this GPU instead of this machine, for example H100 or 8xA100-40"
    )
    add_recipe_command("validate", _validate, "check a recipe and its prompts without running it")
    sub = add_recipe_command("judge", _judge, "judge a file of responses, and measure the quality of the judge on it")
    sub.add_argument("file", type=Path, help="rows of a prompt and a response, in any format (docs/data.md)")
    sub.add_argument(
        "--out", type=Path, required=True, metavar="OUT.jsonl", help="output file, one line of judgments per row"
    )
    sub = add("status", _status, "print the status of a run")
    sub.add_argument("run", type=Path, help="the run folder")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub = add(
        "monitor", _monitor, "repeat the monitor's decisions on a run, or decide on a table of outcomes of any trainer"
    )
    source = sub.add_mutually_exclusive_group(required=True)
    source.add_argument("run", type=Path, nargs="?", help="the run folder")
    source.add_argument(
        "--csv", type=Path, metavar="FILE", help="a .csv or .parquet table; docs/monitor.md lists its columns"
    )
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="override a key of the recipe's section monitor, for example delta=0.03; may be repeated",
    )  # fmt: skip
    sub.add_argument(
        "--json", nargs="?", const="-", metavar="OUT", help="write JSON to this file, or print it without OUT or with -"
    )
    sub = add("report", _report, "rewrite the reports of a run")
    sub.add_argument("run", type=Path, help="the run folder")
    sub = add("export", _export, "export the preference pairs of a run for other trainers")
    sub.add_argument("run", type=Path, help="the run folder")
    sub.add_argument("--pairs", type=Path, required=True, metavar="FILE", help="the output file, .jsonl or .parquet")
    sub.add_argument("--iteration", type=int, default=None, help="export only this iteration")
    sub.add_argument(
        "--kind", choices=("response", "judgment", "all"), default="response",
        help="pairs of responses (the default), pairs of judgments of meta_judging, or both",
    )  # fmt: skip
    add("schema", _schema, "print the JSON schema of recipes, for editors")
    return parser


def _run(options: argparse.Namespace) -> int:
    from selfreward import recipe_file
    from selfreward.commands.console import Console
    from selfreward.launch import local

    recipe = recipe_file.load(options.recipe, options.overrides)
    console = Console(sys.stderr)
    result = local.run(recipe, progress=console)
    print(console.closing(result))
    return result.decision.exit_code


def _plan(options: argparse.Namespace) -> int:
    from selfreward import recipe_file
    from selfreward.plan import plan, render

    print(render(plan(recipe_file.load(options.recipe, options.overrides), gpu=options.gpu)))
    return 0


def _validate(options: argparse.Namespace) -> int:
    from selfreward import recipe_file
    from selfreward.commands.data_summary import data_summary
    from selfreward.launch.local import check
    from selfreward.plan import measuring
    from selfreward.settled import settled

    recipe = settled(recipe_file.load(options.recipe, options.overrides))
    tools, warnings = check(recipe)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(data_summary(recipe, tools))
    print(measuring.sizes(recipe))
    print(measuring.resolution(recipe))
    print(f"{options.recipe}: valid")
    return 0


def _judge(options: argparse.Namespace) -> int:
    from selfreward import recipe_file
    from selfreward.commands.judge import judge_file, with_output

    recipe = recipe_file.load(options.recipe, options.overrides)
    judged = judge_file(recipe, options.file, options.out, inputs=[options.recipe])
    for warning in judged.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(with_output(judged, options.out))
    return 0


def _status(options: argparse.Namespace) -> int:
    from selfreward.launch.local import status_of

    status = status_of(options.run)
    if options.json:
        print(json.dumps(status))
    else:
        print("\n".join(f"{key:10} {value if value is not None else '-'}" for key, value in status.items()))
    return 0


def _monitor(options: argparse.Namespace) -> int:
    from selfreward.commands import monitor
    from selfreward.commands.outputs import check_output, write_output

    if options.json not in (None, "-"):
        check_output(Path(options.json), option="--json", inputs=[options.csv] if options.csv else [])
    if options.csv:
        monitored = monitor.monitor_table(options.csv, options.overrides)
    else:
        monitored = monitor.monitor_run(options.run, options.overrides)
    for note in monitored.notes:
        print(f"note: {note}", file=sys.stderr)
    if options.json == "-":
        print(monitor.as_json(monitored), end="")
        return 0
    if options.json:
        content = monitor.as_json(monitored).encode()
        write_output(Path(options.json), lambda stream: stream.write(content))
    print(monitor.render(monitored))
    return 0


def _report(options: argparse.Namespace) -> int:
    from selfreward.launch.local import rewrite_reports

    print(rewrite_reports(options.run))
    return 0


def _export(options: argparse.Namespace) -> int:
    from selfreward.commands.export import export_pairs

    exported = export_pairs(options.run, options.pairs, iteration=options.iteration, kind=options.kind)
    for note in exported.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{exported.num_pairs} pairs -> {options.pairs}")
    return 0


def _schema(_: argparse.Namespace) -> int:
    from selfreward.recipe import Recipe

    print(json.dumps(Recipe.model_json_schema(), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
