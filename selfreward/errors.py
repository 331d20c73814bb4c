"""The error classes. Every message has the form: where: what was found; what is allowed; what to do.

A model's malformed text is never an exception: it is data (an unscored judgment with a reason).
"""

from typing import ClassVar


class SelfRewardError(Exception):
    """Any error that a user can act on; `exit_code` is the exit code of `selfreward run`."""

    exit_code: ClassVar[int] = 4


class RecipeError(SelfRewardError, ValueError):
    """The recipe or its data are wrong."""

    exit_code: ClassVar[int] = 2


class ChatTemplateError(RecipeError):
    """A model's chat template refuses a conversation."""


class TemplateError(SelfRewardError, ValueError):
    """A prompt template cannot be rendered with the given fields."""

    exit_code: ClassVar[int] = 2


class InstallationError(SelfRewardError, ImportError):
    """The installed packages do not fit together."""


class EngineError(SelfRewardError, RuntimeError):
    """The inference engine failed, or its weights differ from the checkpoint's."""


class BudgetError(EngineError):
    """The next request would exceed an endpoint's `budget` and was not sent."""

    exit_code: ClassVar[int] = 3


class TrainingError(SelfRewardError, RuntimeError):
    """Training failed, for example because a loss is not finite."""


class StoreError(SelfRewardError, OSError):
    """The run folder cannot be read, written or trusted."""


class NoRunError(StoreError):
    """The path is not a run folder."""

    exit_code: ClassVar[int] = 2


class LockedError(StoreError):
    """Another process works on the run folder; repeating the command is useless until it ends."""

    exit_code: ClassVar[int] = 5


class OtherVersionError(StoreError):
    """The run folder was made by another version; repeating the command does not help."""

    exit_code: ClassVar[int] = 2


class LaunchError(SelfRewardError, RuntimeError):
    """A process of the run could not be started or failed."""


class OutOfTimeError(LaunchError):
    """The next shard would not end before the time limit of the job and was not begun; the same command resumes."""

    exit_code: ClassVar[int] = 75  # as after a signal
