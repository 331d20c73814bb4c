"""The arguments of the command line. A bare `seed=3` is `--set seed=3`."""

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from selfreward import __version__
from selfreward.commands import actions

Action = Callable[[argparse.Namespace], int]
_OVERRIDE = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*=.*", re.DOTALL)
_WITH_OVERRIDES = ("run", "submit", "ablate", "fetch", "plan", "validate", "judge", "monitor")
_WITH_VALUE = ("--seeds", "--vary", "--set", "--out", "--csv", "--from", "--gpu", "--gpus", "--nodes", "--price")


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of a command, with its function as `command` and its overrides as `overrides`.

    Exits with 2 and the usage when they cannot be parsed.
    """
    options = parser().parse_args([*_with_set(arguments)])
    if hasattr(options, "overrides"):
        options.overrides = [*options.overrides, *options.bare]
    return options


def _with_set(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the arguments with --set before each bare KEY=VALUE, wherever it stands."""
    previous = ""
    for argument in arguments:
        if arguments[0] in _WITH_OVERRIDES and previous not in (*_WITH_VALUE, "--") and _OVERRIDE.fullmatch(argument):
            yield "--set"
        yield argument
        previous = "--" if previous == "--" else argument


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(prog="selfreward", description="Trains a language model on its own judgment.")
    top.add_argument("--version", action="version", version=f"selfreward {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, action: Action, help_text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_text, description=help_text)
        sub.set_defaults(command=action)
        return sub

    _add_init(add("init", actions.init_command, "write a recipe to start from"))
    for name, action, help_text in (
        ("run", actions.run_command, "run a recipe, or resume it where it stopped"),
        ("submit", actions.submit_command, "submit a recipe as a Slurm batch job, which runs or resumes it"),
        ("ablate", actions.ablate_command, "run a recipe with each combination of values and seeds, and tabulate them"),
        ("plan", actions.plan_command, "estimate the cost of a run: requests, tokens, steps, memory, time"),
        ("validate", actions.validate_command, "check a recipe and its prompts without running it"),
        ("fetch", actions.fetch_command, "download and convert what a recipe needs, for nodes without internet"),
        ("judge", actions.judge_command, "judge a file of responses, and measure the quality of the judge on it"),
    ):
        _add_recipe(sub := add(name, action, help_text))
        if name == "judge":
            _add_judged_file(sub)
        if name == "plan":
            _add_planned_machine(sub)
        if name == "ablate":
            _add_ablation(sub)
        if name == "submit":
            sub.add_argument("--seeds", help="a run for each of these seeds, as one array: 0-4 or 0,3,7")
        if name in ("submit", "ablate"):
            sub.add_argument("--dry-run", action="store_true", help="print the batch script, write and submit nothing")
        _add_overrides(sub, "the recipe", "judging.num_draws=5")
        sub.add_argument(
            "--from", metavar="RUN[@T]", dest="start",
            help="use the checkpoint of iteration T of another run as the policy; without @T, its best",
        )  # fmt: skip
    _add_status(add("status", actions.status_command, "print the status of a run"))
    _add_table(add("table", actions.table_command, "write and print the table of a group of runs"))
    _add_run_folder(add("cancel", actions.cancel_command, "cancel the Slurm jobs of a run"))
    _add_logs(add("logs", actions.logs_command, "print the log of the newest attempt of a run"))
    _add_monitor(
        add(
            "monitor",
            actions.monitor_command,
            "repeat the monitor's decisions on a run, or decide on a table of outcomes of any trainer",
        )
    )
    _add_run_folder(add("report", actions.report_command, "rewrite the reports of a run"))
    _add_export(add("export", actions.export_command, "export the preference pairs of a run for other trainers"))
    add("schema", actions.schema_command, "print the JSON schema of recipes, for editors")
    return top


def _add_init(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "name", nargs="?", help="one of --list, written to NAME.yaml; without it, recipe.yaml for own data"
    )
    sub.add_argument("--list", action="store_true", help="print the names of all recipes, with what each is for")
    sub.add_argument("--force", action="store_true", help="overwrite a recipe that exists")


def _add_recipe(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("recipe", type=Path, help="the recipe, a YAML file")


def _add_planned_machine(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--gpu", metavar="NAME", help="plan for this GPU, for example H100 or 8xA100-40")
    sub.add_argument("--gpus", type=int, metavar="N", help="plan for N such GPUs, all of which train and generate")
    sub.add_argument("--nodes", type=int, metavar="M", help="on M nodes")
    sub.add_argument("--price", type=float, metavar="P", help="of a GPU for an hour, in any currency")


def _add_judged_file(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("file", type=Path, help="rows of a prompt and a response, in any format (docs/data.md)")
    sub.add_argument(
        "--out", type=Path, required=True, metavar="OUT.jsonl", help="output file, one line of judgments per row"
    )


def _add_overrides(sub: argparse.ArgumentParser, what: str, example: str) -> None:
    # With a default, argparse does not list it among the required arguments.
    sub.add_argument(
        "bare", nargs="*", default=[], metavar="KEY=VALUE", help=f"override keys of {what}, for example {example}"
    )
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="the same; may be repeated"
    )


def _add_ablation(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--vary", action="append", required=True, metavar="KEY=A,B,C", help="a key and its values; may be repeated"
    )
    sub.add_argument("--seeds", type=int, default=1, metavar="N", help="the seeds 0 to N-1; 1 by default")
    sub.add_argument(
        "--submit", action="store_true", help="submit the runs as one Slurm array, instead of running them"
    )


def _add_table(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("folder", type=Path, help="the folder of the group, which has runs.json")
    sub.add_argument("--resubmit", action="store_true", help="in a job: wait for runs that other jobs continue")


def _add_run_folder(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("run", type=Path, help="the run folder")


def _add_status(sub: argparse.ArgumentParser) -> None:
    _add_run_folder(sub)
    sub.add_argument("--json", action="store_true", help="print JSON")


def _add_logs(sub: argparse.ArgumentParser) -> None:
    _add_run_folder(sub)
    sub.add_argument("--follow", action="store_true", help="print what is added, across requeues, until the run ends")


def _add_monitor(sub: argparse.ArgumentParser) -> None:
    source = sub.add_mutually_exclusive_group(required=True)
    source.add_argument("run", type=Path, nargs="?", help="the run folder")
    source.add_argument(
        "--csv", type=Path, metavar="FILE", help="a .csv or .parquet table; docs/monitor.md lists its columns"
    )
    _add_overrides(sub, "the recipe's section monitor", "delta=0.03")
    sub.add_argument(
        "--json", nargs="?", const="-", metavar="OUT", help="write JSON to this file, or print it without OUT or with -"
    )


def _add_export(sub: argparse.ArgumentParser) -> None:
    _add_run_folder(sub)
    sub.add_argument("--pairs", type=Path, required=True, metavar="FILE", help="the output file, .jsonl or .parquet")
    sub.add_argument("--iteration", type=int, default=None, help="export only this iteration")
    sub.add_argument(
        "--kind", choices=("response", "judgment", "all"), default="response",
        help="pairs of responses (the default), pairs of judgments of meta_judging, or both",
    )  # fmt: skip
