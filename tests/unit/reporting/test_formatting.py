"""Numbers as reports and `status` write them."""

import pytest

from selfreward.reporting.formatting import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0.4 s"), (59, "59 s"), (60, "1 min 00 s"), (125, "2 min 05 s"), (3600, "1 h 00 min"),
     (12_000, "3 h 20 min"), (86_400 * 2 + 3_600, "49 h 00 min")],
)  # fmt: skip
def test_a_duration_is_written_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
