"""Estimates with confidence intervals: pure functions on numpy, used by several packages; the unit is the prompt."""


class NotEnoughDataError(ValueError):
    """The values do not suffice for an estimate. An evaluation reports it as a reason, not as a failure."""
