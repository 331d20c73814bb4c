"""The table of exit codes in the docs is the one of the program."""

import inspect
import re
from pathlib import Path

from selfreward import errors, signals
from selfreward.commands.closed_pipe import CLOSED_PIPE
from selfreward.monitoring.limits import NEEDS_A_PERSON

DOCS = Path(__file__).parents[2] / "docs/exit_codes.md"


def test_every_exit_code_is_in_the_docs_and_no_other() -> None:
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", DOCS.read_text(), re.MULTILINE)}
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    own = {kind.exit_code for kind in classes} | {NEEDS_A_PERSON, signals.PREEMPTED, signals.INTERRUPTED, CLOSED_PIPE}
    assert documented == own | {0, 1}


def test_codes_of_errors_say_whether_repeating_helps() -> None:
    assert {kind.__name__: kind.exit_code for kind in vars(errors).values() if inspect.isclass(kind)} == {
        "SelfRewardError": 4, "RecipeError": 2, "TemplateError": 2, "EngineError": 4, "BudgetError": 3,
        "TrainingError": 4, "StoreError": 4, "NoRunError": 2, "LockedError": 5, "OtherVersionError": 2,
        "LaunchError": 4, "OutOfTimeError": signals.PREEMPTED, "ChatTemplateError": 2, "InstallationError": 4,
    }  # fmt: skip
