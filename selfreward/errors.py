"""The error tree. Every message reads: where: what was found; what is allowed; what to do.

A model's bad text is never an exception: it is data (an unscored judgment with a reason).
"""

from typing import ClassVar


class SelfRewardError(Exception):
    """Any error that a user can act on; `exit_code` is what `selfreward run` ends with."""

    exit_code: ClassVar[int] = 4


class RecipeError(SelfRewardError, ValueError):
    """The recipe or the data it names is wrong."""

    exit_code: ClassVar[int] = 2


class TemplateError(SelfRewardError, ValueError):
    """A prompt template cannot be rendered as asked."""

    exit_code: ClassVar[int] = 2


class EngineError(SelfRewardError, RuntimeError):
    """The inference engine failed, or its weights are not those of the checkpoint."""


class BudgetError(EngineError):
    """An endpoint's `budget` would not have been enough for the next request, which was not sent."""

    exit_code: ClassVar[int] = 3


class TrainingError(SelfRewardError, RuntimeError):
    """The update could not be made, for example because a loss is not finite."""


class StoreError(SelfRewardError, OSError):
    """The run folder cannot be read, written or trusted."""


class LaunchError(SelfRewardError, RuntimeError):
    """A process that belongs to the run could not be started or ended badly."""
