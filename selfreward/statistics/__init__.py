"""Estimates with error bars. numpy only, pure functions, used by several packages; the unit is the prompt."""


class NotEnoughDataError(ValueError):
    """A number that these values cannot give. For an evaluation it is a reason, not a failure."""
