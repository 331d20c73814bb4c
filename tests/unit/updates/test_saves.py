"""How often an update is saved: every so many steps, and so seldom that saving takes little of the time."""

from selfreward.updates.saves import Pace


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def saved_steps(*, every: int, step: float, save: float, num_steps: int) -> list[int]:
    clock, saved = Clock(), []
    pace = Pace(every, now=clock)
    for number in range(1, num_steps + 1):
        clock.seconds += step
        if pace.is_due():
            with pace.saving():
                clock.seconds += save
            saved.append(number)
    return saved


def test_quick_saves_are_made_every_so_many_steps() -> None:
    assert saved_steps(every=2, step=0.01, save=0.9, num_steps=7) == [2, 4, 6]
    assert saved_steps(every=50, step=10.0, save=20.0, num_steps=120) == [50, 100]


def test_slow_saves_take_a_twentieth_of_the_time() -> None:
    """A save of 30 s after 50 steps of 2 s would take 23 % of the time."""
    saved = saved_steps(every=50, step=2.0, save=30.0, num_steps=1000)
    assert saved == [50, 350, 650, 950]
