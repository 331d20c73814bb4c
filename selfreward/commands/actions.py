"""What each command does; it returns the exit code. Heavy dependencies are imported where they are used."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from selfreward.commands.group import Tasks
    from selfreward.launch.group import Member
    from selfreward.recipe import Recipe


def init_command(options: argparse.Namespace) -> int:
    from selfreward.commands.init import init, listed, next_commands

    if options.list:
        print(listed())
        return 0
    recipe = init(options.name, force=options.force)
    print(f"wrote {recipe}")
    first = "" if options.name else "set models and prompts in it; "
    print(f"{first}next: {'; '.join(next_commands(recipe, options.name))}")
    return 0


def _recipe(options: argparse.Namespace) -> "Recipe":
    """Return the recipe of a command, with its overrides and the checkpoint of --from."""
    from selfreward import recipe_file

    return recipe_file.load(options.recipe, _overrides(options))


def _overrides(options: argparse.Namespace) -> list[str]:
    from selfreward.launch.started_from import overrides_from

    return [*options.overrides, *overrides_from(options.start)]


def run_command(options: argparse.Namespace) -> int:
    from selfreward.commands.console import Console
    from selfreward.commands.places import continuing_command
    from selfreward.launch import local, run_log

    recipe = _recipe(options)
    console = Console(sys.stderr)
    result = local.run(recipe, progress=console)
    if result.was_finished:
        print(f"{result.folder}: already finished; nothing was computed", file=sys.stderr)
    command = continuing_command(options.recipe, options.overrides, start=options.start)
    closing = console.closing(result, command)
    print(closing)
    if not result.was_finished:
        run_log.append(result.folder, closing)
    return result.decision.exit_code


def submit_command(options: argparse.Namespace) -> int:
    if options.seeds is not None:
        from selfreward.commands.group import of_seeds, seeds_in

        return _submit_group(options, of_seeds(options.recipe, _overrides(options), seeds_in(options.seeds)))
    from selfreward.commands.submit import checked_script, submit
    from selfreward.launch.finished import finished_run

    recipe = _recipe(options)
    if not options.dry_run and (finished := finished_run(recipe)):
        print(f"{finished.folder}: already finished; nothing was submitted", file=sys.stderr)
        return finished.decision.exit_code
    script, warnings = checked_script(recipe)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if options.dry_run:
        print(script, end="")
        return 0
    submitted = submit(recipe, script)
    print(f"job     {submitted.job_id}\nscript  {submitted.places.script}\nlog     {submitted.log}")
    return 0


def _submit_group(options: argparse.Namespace, group: "Tasks") -> int:
    from selfreward.commands.ablate import checked
    from selfreward.commands.submit import group_scripts, submit_group, unfinished

    tasks = unfinished(group)
    if not tasks:
        print(f"{group.folder}: all runs have finished; nothing was submitted", file=sys.stderr)
        return _print_table(group.folder, [task.member for task in group.tasks])
    for warning in checked([*tasks.values()]):
        print(f"warning: {warning}", file=sys.stderr)
    if options.dry_run:
        print("\n".join(group_scripts(group)), end="")
        return 0
    submitted = submit_group(group)
    print(f"array   {submitted.array}, {len(tasks)} runs")
    for index, task in tasks.items():
        print(f"run     {submitted.array}_{index} {task.member.folder}")
    print(f"table   {submitted.table_job}, after them: {submitted.places.folder / 'table.md'}")
    return 0


def ablate_command(options: argparse.Namespace) -> int:
    from selfreward.commands.ablate import checked, run_all
    from selfreward.commands.group import of_ablation

    group = of_ablation(options.recipe, _overrides(options), options.vary, options.seeds)
    if options.submit or options.dry_run:
        return _submit_group(options, group)
    for warning in checked(group.tasks):
        print(f"warning: {warning}", file=sys.stderr)
    code = run_all(options.recipe, group)
    _print_table(group.folder)
    return code


def table_command(options: argparse.Namespace) -> int:
    code = _print_table(options.folder)
    if options.resubmit:
        from selfreward.commands.table import table_resubmitted
        from selfreward.launch.group import read_group

        if job := table_resubmitted(options.folder, read_group(options.folder)):
            print(f"runs go on as other jobs; job {job} writes the table again after them")
    return code


def _print_table(folder: Path, members: "Sequence[Member] | None" = None) -> int:
    """Write and print the table of a group; also of runs that were not submitted as one."""
    from selfreward.launch.group import read_group, write_group
    from selfreward.launch.group_table import write_table

    found = read_group(folder) if members is None else write_group(folder, members)
    _, text = write_table(folder, found)
    print(text, end="")
    return 0


def cancel_command(options: argparse.Namespace) -> int:
    from selfreward.launch.slurm.jobs import cancel_jobs
    from selfreward.store import Store

    folder = Store(options.run, write=False).folder
    cancelled = cancel_jobs(folder)
    print(f"cancelled {', '.join(cancelled)}" if cancelled else f"{folder}: no job is queued or running")
    return 0


def logs_command(options: argparse.Namespace) -> int:
    from selfreward.commands.logs import followed, log_of

    if not options.follow:
        print(log_of(options.run), end="")
        return 0
    for text in followed(options.run):
        print(text, end="", flush=True)
    return 0


def plan_command(options: argparse.Namespace) -> int:
    from selfreward.plan import plan, render

    found = plan(_recipe(options), gpu=options.gpu, num_gpus=options.gpus, num_nodes=options.nodes)
    print(render(found, price=options.price))
    return 0


def validate_command(options: argparse.Namespace) -> int:
    from selfreward.commands.data_summary import data_summary
    from selfreward.launch.local import check
    from selfreward.plan import measuring
    from selfreward.settled import settled

    recipe = settled(_recipe(options))
    tools, warnings = check(recipe)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(data_summary(recipe, tools))
    print(measuring.sizes(recipe))
    print(measuring.resolution(recipe))
    print(f"{options.recipe}: valid")
    return 0


def fetch_command(options: argparse.Namespace) -> int:
    from selfreward.commands.fetch import fetch

    fetched = fetch(_recipe(options), options.recipe, _overrides(options))
    for warning in fetched.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print("\n".join(fetched.lines))
    return 0


def judge_command(options: argparse.Namespace) -> int:
    from selfreward.commands.judge import judge_file, with_output

    recipe = _recipe(options)
    judged = judge_file(recipe, options.file, options.out, inputs=[options.recipe])
    for warning in judged.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(with_output(judged, options.out))
    return 0


def status_command(options: argparse.Namespace) -> int:
    from selfreward.launch.status import rendered, status_of

    status = status_of(options.run)
    print(json.dumps(status) if options.json else rendered(status))
    return 0


def monitor_command(options: argparse.Namespace) -> int:
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


def report_command(options: argparse.Namespace) -> int:
    from selfreward.launch.local import rewrite_reports

    print(rewrite_reports(options.run))
    return 0


def export_command(options: argparse.Namespace) -> int:
    from selfreward.commands.export import export_pairs

    exported = export_pairs(options.run, options.pairs, iteration=options.iteration, kind=options.kind)
    for note in exported.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{exported.num_pairs} pairs -> {options.pairs}")
    return 0


def schema_command(_: argparse.Namespace) -> int:
    from selfreward.recipe import Recipe

    print(json.dumps(Recipe.model_json_schema(), indent=1))
    return 0
