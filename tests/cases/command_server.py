"""The process behind `command_line`: for each request it forks, and the fork is the command."""

import importlib
import json
import os
import sys

MODULES = (
    "selfreward.cli",
    "selfreward.launch.local",
    "selfreward.commands.judge",
    "selfreward.commands.monitor",
    "selfreward.commands.export",
    "selfreward.plan.text",
    "selfreward.engines.transformers",
    "selfreward.updates.trainer",
    "selfreward.reporting",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.modeling_auto",
    "matplotlib.figure",
)


def run(request: dict) -> int:
    """Run a command in a fork; return its exit code."""
    sys.stdout.flush()
    if (pid := os.fork()) == 0:
        _be_the_command(request)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _be_the_command(request: dict) -> None:
    os.setsid()
    for stream, path in ((1, request["out"]), (2, request["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[1:] = request["arguments"]
    code = 1
    try:
        from selfreward.__main__ import main

        code = main()
    except SystemExit as error:  # of argparse
        code = error.code if isinstance(error.code, int) else 2
    except BaseException:  # noqa: BLE001 - shown as the interpreter would
        sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def main() -> None:
    for name in MODULES:
        importlib.import_module(name)
    replies = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        print(run(json.loads(line)), file=replies, flush=True)


if __name__ == "__main__":
    main()
