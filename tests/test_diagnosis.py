"""What is said of a queue in which runs wait."""

import pytest

from taskscope.diagnosis import Backlog, judged


@pytest.mark.parametrize(
    ("arrivals", "completions", "said"),
    [
        (2.5, 1.0, "Runs come at 2.5 a second, and are done at 1."),
        (2 / 60, 1 / 60, "Runs come at 2 a minute, and are done at 1."),
        (2 / 3_600, 0.0, "Runs come at 2 an hour, and are done at 0."),
        (3 / 86_400, 0.5 / 86_400, "Runs come at 3 a day, and are done at 0.5."),
    ],
)
def test_two_rates_are_told_in_the_unit_that_suits_the_greater(
    arrivals: float, completions: float, said: str
) -> None:
    queue = Backlog(scheduler="shop", queue="mail", waiting=3, arrivals=arrivals, completions=completions)

    assert judged(queue).explanation == said


@pytest.mark.parametrize(
    ("consumers", "cause"), [(None, "no_worker"), (0, "no_worker"), (2, "unknown")], ids=str
)
def test_without_workers_is_a_queue_that_nobody_is_known_to_consume(
    consumers: int | None, cause: str
) -> None:
    queue = Backlog(scheduler="shop", queue="mail", waiting=3, workers=1, workers_up=0, consumers=consumers)

    assert judged(queue).cause == cause
