"""Calls in threads give what a loop gives."""

import pytest

from selfreward.in_threads import map_in_threads


def test_results_are_in_order() -> None:
    assert map_in_threads(pow, range(500), [2] * 500) == [n**2 for n in range(500)]
    assert map_in_threads(len, []) == []


def test_the_first_exception_is_raised() -> None:
    def refuse(number: int) -> int:
        if number % 100 == 99:
            raise ValueError(number)
        return number

    with pytest.raises(ValueError, match="99"):
        map_in_threads(refuse, range(500))
