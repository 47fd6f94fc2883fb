"""Workers by what they say of themselves: there, gone in order, silent, and replaced."""

from typing import Any

import pytest
from celery_told import NOW, event

from taskscope.bridges._celery_workers import Workers


@pytest.fixture
def workers() -> Workers:
    return Workers("s", silence=30, memory=900)


def beat(
    workers: Workers, at: float, name: str = "w1@shop", kind: str = "worker-heartbeat", **fields: Any
) -> bool:
    """It says that it lives; our clock and its own say the same."""
    return workers.take(event(kind, at, hostname=name, **{"active": 1, "processed": 5, **fields}), NOW + at)


def up(workers: Workers, at: float) -> dict[str, bool]:
    return {reading.worker: reading.up for reading in workers.readings(NOW + at)}


def test_workers_of_one_host_are_told_apart(workers: Workers) -> None:
    assert beat(workers, 0, "w1@shop")
    assert beat(workers, 0, "w2@shop", active=4)
    assert not beat(workers, 2, "w1@shop", active=2)
    beat(workers, 3, "w2@shop", "worker-offline")

    assert up(workers, 4) == {"w1@shop": True, "w2@shop": False}
    assert [reading.active for reading in workers.readings(NOW + 4)] == [2, None]


def test_one_that_goes_in_order_is_down_for_a_minute_and_then_none(workers: Workers) -> None:
    beat(workers, 0)
    beat(workers, 1, kind="worker-offline")

    (reading,) = workers.readings(NOW + 50)
    assert (reading.up, reading.at) == (False, NOW + 1)
    assert workers.readings(NOW + 70) == []


def test_one_that_falls_silent_is_down_until_it_is_forgotten(workers: Workers) -> None:
    beat(workers, 0)

    assert up(workers, 29) == {"w1@shop": True}
    assert up(workers, 31) == {"w1@shop": False}
    assert workers.readings(NOW + 800)[0].at == NOW + 800
    beat(workers, 900, name="w2@shop")
    assert up(workers, 901) == {"w2@shop": True}


def test_while_nobody_is_there_those_that_were_are_not_forgotten(workers: Workers) -> None:
    """Else the alert that nobody works would end while nobody does."""
    beat(workers, 0)

    assert up(workers, 9_000) == {"w1@shop": False}


def test_silence_begins_anew_when_we_hear_again(workers: Workers) -> None:
    beat(workers, 0)
    workers.resume(NOW + 100)

    assert up(workers, 110) == {"w1@shop": True}
    assert not workers.is_gone("w1@shop", NOW, NOW + 110)
    assert up(workers, 131) == {"w1@shop": False}


def test_runs_of_one_that_is_gone_are_lost_but_not_before_its_last_words_could_come(workers: Workers) -> None:
    beat(workers, 0)
    assert not workers.is_gone("w1@shop", NOW, NOW + 20)
    assert workers.is_gone("w1@shop", NOW, NOW + 31)
    beat(workers, 40, kind="worker-offline")
    assert not workers.is_gone("w1@shop", NOW, NOW + 44)
    assert workers.is_gone("w1@shop", NOW, NOW + 46)
    assert not workers.is_gone("nobody", NOW, NOW + 46)


@pytest.mark.parametrize("change", [{"pid": 2, "processed": 9}, {"processed": 0}])
def test_runs_of_the_process_before_are_lost_when_another_has_its_name(
    workers: Workers, change: dict[str, int]
) -> None:
    beat(workers, 0)
    beat(workers, 5, kind="worker-online", **change)

    assert workers.is_gone("w1@shop", NOW + 4, NOW + 6)
    assert not workers.is_gone("w1@shop", NOW + 5.5, NOW + 6)
    assert up(workers, 6) == {"w1@shop": True}


def test_one_that_reconnects_is_the_same(workers: Workers) -> None:
    beat(workers, 0)
    beat(workers, 5, kind="worker-online")

    assert not workers.is_gone("w1@shop", NOW + 4, NOW + 6)


def test_new_ones_are_to_be_asked_once(workers: Workers) -> None:
    beat(workers, 0)
    assert workers.arrived == {"w1@shop"}
    workers.arrived = set()
    beat(workers, 1)
    assert workers.arrived == set()
    beat(workers, 2, kind="worker-online", pid=2)
    assert workers.arrived == {"w1@shop"}


def test_one_that_executes_without_telling_is_named(workers: Workers) -> None:
    beat(workers, 0, processed=5)
    beat(workers, 0, "w2@shop", processed=5)
    assert workers.silent_about_tasks() == []
    beat(workers, 2, processed=6)
    beat(workers, 2, "w2@shop", processed=6)
    workers.told_by({"w2@shop"})

    assert workers.silent_about_tasks() == ["w1@shop"]


def test_consumers_and_the_only_queue_come_from_those_that_are_up(workers: Workers) -> None:
    for name, queues in (("w1@shop", ("a",)), ("w2@shop", ("a", "b")), ("w3@shop", ("a",))):
        beat(workers, 0, name)
        workers.learn(name, queues=queues)
    beat(workers, 1, "w3@shop", "worker-offline")
    workers.learn("nobody", queues=("a",))

    assert (workers.consumers("a", NOW + 2), workers.consumers("b", NOW + 2)) == (2, 1)
    assert [workers.only_queue(f"w{n}@shop") for n in (1, 2, 9)] == ["a", "", ""]


def test_events_of_other_kinds_say_nothing(workers: Workers) -> None:
    assert not beat(workers, 0, kind="worker-painted")
    assert len(workers) == 0


def test_a_farewell_of_one_that_nobody_knew_says_nothing(workers: Workers) -> None:
    assert not beat(workers, 0, kind="worker-offline")
    assert len(workers) == 0
