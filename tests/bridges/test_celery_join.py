"""Facts out of events that are joined by the task's id: in any order, told twice, or missing."""

import tracemalloc
from collections import Counter
from typing import Any

import msgspec
import pytest
from celery_told import NOW, SOME_TRACEBACK, event, joined, received, rows, sent, statuses
from hypothesis import given, settings
from hypothesis import strategies as st

from taskscope.bridges._celery_events import CeleryEvent
from taskscope.bridges._celery_join import Join
from taskscope.facts import Bit


def started(at: float, **fields: Any) -> CeleryEvent:
    return event("task-started", at, **fields)


def succeeded(at: float, runtime: float | None = 0.5, **fields: Any) -> CeleryEvent:
    return event("task-succeeded", at, runtime=runtime, result="None", **fields)


def failed(at: float, exception: str = "ValueError('boom')", traceback: str = SOME_TRACEBACK) -> CeleryEvent:
    return event("task-failed", at, exception=exception, traceback=traceback)


def retried(at: float, **fields: Any) -> CeleryEvent:
    return event("task-retried", at, exception="KeyError('k')", traceback=SOME_TRACEBACK, **fields)


def test_a_run_that_ends_within_a_batch_is_one_fact_that_says_all() -> None:
    (fact,) = joined([sent(0), received(1), started(2), succeeded(2.6)])

    assert (fact.status, fact.native, fact.attempt, fact.job) == ("success", "u", 0, "shop.work")
    assert (fact.queue, fact.worker, fact.anchor) == ("mail", "w1@shop", None)
    assert (fact.enqueued, fact.started, fact.duration) == (NOW, NOW + 2, 0.5)


def test_what_is_in_progress_is_told_batch_by_batch() -> None:
    facts = joined([sent(0)], [received(1)], [started(2)], [succeeded(2.6)])

    assert [fact.status for fact in facts] == ["queued", "started", "success"]
    assert {fact.job for fact in facts} == {"shop.work"}


def test_without_an_event_of_the_publisher_the_wait_is_that_in_the_worker() -> None:
    (fact,) = joined([received(1), started(2), succeeded(2.6)])

    assert fact.enqueued == NOW + 1


def test_a_retry_that_is_received_before_the_attempt_before_it_ends_is_another_run() -> None:
    facts = joined(
        [sent(0), received(0.1), started(0.2)],
        [sent(0.3, 1), received(0.4, 1), retried(0.5)],
        [started(0.6), succeeded(0.9)],
    )

    assert {key: row.status for key, row in rows(facts).items()} == {("u", 0): "retried", ("u", 1): "success"}
    assert rows(facts)["u", 0].exception == "KeyError"


def test_a_start_that_is_told_twice_is_not_that_of_the_next_attempt() -> None:
    facts = joined([received(0), started(0.2), received(0.4, 1), retried(0.5)], [started(0.2)])

    assert {key: row.status for key, row in rows(facts).items()} == {("u", 0): "retried", ("u", 1): "queued"}


def test_of_a_repetition_it_is_the_attempt_before_that_was_tried_again() -> None:
    facts = joined([received(0.4, 1)], [retried(0.5)])

    assert {key: row.status for key, row in rows(facts).items()} == {("u", 0): "retried", ("u", 1): "queued"}


def test_a_start_that_comes_after_the_end_completes_the_run() -> None:
    row = rows(joined([received(1), succeeded(3)], [started(2)]))["u", 0]

    assert (row.status, row.started) == ("success", round((NOW + 2) * 1000))


def test_only_the_attempt_that_waits_for_its_time_has_that_time() -> None:
    facts = joined(
        [received(0), started(0.1), received(0.2, 1, eta="2023-11-14T22:15:00+00:00"), retried(0.3)]
    )

    assert rows(facts)["u", 0].due == 0
    assert rows(facts)["u", 1].due == (NOW + 100) * 1000


@pytest.mark.parametrize(
    ("end", "status", "reason"),
    [
        (event("task-revoked", 3, expired=True, terminated=False, signum=None), "skipped", "expired"),
        (event("task-revoked", 3, expired=False, terminated=True, signum=15), "skipped", "cancelled"),
        (event("task-cancelled", 3), "retried", "interrupted"),
        (event("task-rejected", 3, requeue=False), "skipped", "rejected"),
        (event("task-rejected", 3, requeue=True), "retried", "requeued"),
        (failed(3), "failed", "error"),
        (
            failed(3, "SoftTimeLimitExceeded()", "  f\nbilliard.exceptions.SoftTimeLimitExceeded: x"),
            "failed",
            "timeout",
        ),
    ],
)
def test_every_other_end_has_its_status_and_reason(end: CeleryEvent, status: str, reason: str) -> None:
    fact = joined([sent(0), end])[-1]

    assert (fact.status, fact.reason, fact.job) == (status, reason, "shop.work")


def test_a_task_that_no_worker_knows_fails_under_its_name_at_once() -> None:
    (fact,) = joined([event("task-failed", 1, exception="NotRegistered('shop.nope')")], waits=0)

    assert (fact.job, fact.status, fact.reason) == ("shop.nope", "failed", "unknown_task")
    assert fact.error is not None
    assert fact.error.kind == "celery.exceptions.NotRegistered"


def test_a_hard_limit_that_is_told_twice_is_one_failure() -> None:
    limit = "  f\nbilliard.exceptions.TimeLimitExceeded: TimeLimitExceeded(1,)"
    ends = [failed(2, "ExceptionWithTraceback()", limit), failed(2.1, "ExceptionWithTraceback()", limit)]
    facts = joined([received(0), started(1)], ends[:1], ends[1:])

    assert [(fact.status, fact.reason) for fact in facts] == [("started", ""), ("failed", "timeout")]


def test_the_first_of_two_endings_counts_unless_it_succeeded_after_all() -> None:
    revoked = event("task-revoked", 2, terminated=True, expired=False)

    assert statuses(joined([received(0), started(1), revoked, failed(2.1)])) == {"skipped": 1}
    assert statuses(joined([received(0), started(1), failed(2), succeeded(3)])) == {"success": 1}


def test_a_run_that_is_delivered_again_is_open_again() -> None:
    lost = failed(2, "ExceptionWithTraceback()", "billiard.exceptions.WorkerLostError: exitcode 9")
    facts = joined(
        [received(0), started(1), lost], [received(3, hostname="w2@shop"), started(4, hostname="w2@shop")]
    )

    assert [fact.status for fact in facts] == ["failed", "started"]
    assert facts[-1].worker == "w2@shop"


def test_an_end_without_a_beginning_waits_for_it_and_then_is_told_without() -> None:
    end = succeeded(3)

    assert joined([end], waits=1.0) == []
    (fact,) = joined([end], waits=3.0)
    assert (fact.status, fact.attempt, fact.job, fact.started) == ("success", 0, "", None)


def test_a_beginning_that_comes_after_the_end_completes_the_run() -> None:
    row = rows(joined([succeeded(3)], [started(2)], [received(1, 0)]))["u", 0]

    assert (row.status, row.job, row.started) == ("success", "shop.work", round((NOW + 2) * 1000))


def test_the_name_of_a_run_that_was_told_without_is_told_when_it_comes() -> None:
    join = Join("s", 10, lambda worker: "")
    join.take(succeeded(3), NOW)
    join.told(NOW)
    nameless = join.told(NOW + 5)
    join.take(received(1), NOW + 6)
    named = join.told(NOW + 6)

    assert [fact.job for fact in nameless + named] == ["", "shop.work"]


def test_the_queue_is_told_by_elimination_where_no_event_tells() -> None:
    join = Join("s", 10, {"w1@shop": "mail"}.__getitem__)
    join.take(received(1), NOW)

    assert [fact.queue for fact in join.told(NOW)] == ["mail"]


def test_parents_and_expiry_are_details() -> None:
    (fact,) = joined([sent(0, root_id="r", parent_id="p", expires="2023-11-14T22:15:00+00:00")])

    assert fact.details == {"parent": "p", "root": "r", "expires": "2023-11-14T22:15:00+00:00"}
    assert joined([sent(0, root_id="u")])[0].details is None


def test_a_failure_takes_as_long_as_its_worker_says_it_did() -> None:
    (fact,) = joined([received(0), started(1), failed(2.5)])

    assert fact.duration == 1.5


def test_events_of_other_kinds_are_none_of_its_business() -> None:
    assert joined([event("task-imported"), event("task-received", uuid=""), event("worker-online")]) == []


def test_more_tasks_than_the_limit_are_forgotten_oldest_first_and_counted() -> None:
    join = Join("s", 10, lambda worker: "")
    for number in range(25):
        join.take(received(0, uuid=f"u{number}"), NOW)
    join.told(NOW)

    assert (len(join), join.forgotten) == (10, 15)
    join.take(event("task-succeeded", 1, uuid="u24", runtime=0.1), NOW)
    assert join.told(NOW)[0].job == "shop.work"


def test_memory_does_not_grow_with_the_tasks_ever_seen() -> None:
    join = Join("s", 10, lambda worker: "")
    for number in range(45_000):
        join.take(msgspec.structs.replace(_END, uuid=f"v{number}"), NOW + number)
        if number % 100 == 0:
            join.told(NOW + number)

    assert len(join._over) + len(join._over_before) <= 2 * 20_100
    assert len(join) + len(join._unnumbered) <= 200


def test_memory_does_not_hold_what_tasks_failed_with() -> None:
    join, stack = Join("s", 10, lambda worker: ""), SOME_TRACEBACK * 80
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(3_000):
            for one in (
                received(0, uuid=f"u{number}"),
                retried(1, uuid=f"u{number}"),
                received(2, 1, uuid=f"u{number}"),
            ):
                join.take(one, NOW)
            end = {"exception": "ValueError('boom')", "traceback": f"{number}{stack}"}
            join.take(event("task-failed", 3, uuid=f"u{number}", **end), NOW)
            assert len(join.told(NOW)) == 2
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    assert len(stack) > 8_000
    assert kept / 3_000 < 2_000


def test_an_end_that_is_told_again_does_not_take_away_what_the_run_failed_with() -> None:
    told = joined([received(0), started(1), failed(2)], [failed(2)], [received(0)], [sent(0)])
    row = rows(told)["u", 0]

    assert (row.exception, row.enqueued) == ("ValueError", NOW * 1000)
    assert row.detail is not None
    assert row.detail.stack == SOME_TRACEBACK


@pytest.mark.parametrize(
    ("exception", "last", "end"),
    [
        ("Reject('no',)", "celery.exceptions.Reject: no", ("skipped", "rejected")),
        ("Reject('no',)", "shop.errors.Reject: no", ("failed", "error")),
        ("Reject('no',)", "", ("skipped", "rejected")),
        ("TimeoutError('late')", "TimeoutError: late", ("failed", "timeout")),
        ("TimeoutError('late')", "shop.TimeoutError: late", ("failed", "error")),
        ("TimeLimitExceeded(1,)", "billiard.exceptions.TimeLimitExceeded: (1,)", ("failed", "timeout")),
    ],
)
def test_an_exception_means_something_by_its_module_where_a_traceback_says_it(
    exception: str, last: str, end: tuple[str, str]
) -> None:
    traceback = (
        f'Traceback (most recent call last):\n  File "shop.py", line 3, in work\n{last}\n' if last else ""
    )
    (fact,) = joined([received(0), started(1), failed(2, exception, traceback)])

    assert (fact.status, fact.reason) == end


@pytest.mark.parametrize("end", [event("task-cancelled", 3), event("task-rejected", 3, requeue=True)])
def test_a_message_that_was_given_back_is_the_same_run_when_it_is_delivered_again(end: CeleryEvent) -> None:
    facts = joined([received(0, 1), started(1), end], [end], [received(4, 1), started(5), succeeded(6)])

    assert {key: row.status for key, row in rows(facts).items()} == {("u", 1): "success"}
    assert [fact.status for fact in facts] == ["retried", "success"]


def test_memory_does_not_grow_with_the_attempts_of_a_task() -> None:
    join, facts = Join("s", 10, lambda worker: ""), []
    for number in range(200):
        for one in (received(number, number), started(number + 0.2), retried(number + 0.5)):
            join.take(one, NOW + number)
        facts += join.told(NOW + number)
    (task,) = join._open.values()

    assert len(task.attempts) <= 20
    assert statuses(facts) == {"retried": 200}
    assert [attempt for _, attempt in rows(facts)] == list(range(200))


def test_a_run_that_is_lost_ends_so_until_its_end_is_heard_after_all() -> None:
    join = Join("s", 10, lambda worker: "")
    facts = []
    for one in (received(0), started(1)):
        join.take(one, NOW)
    facts += join.told(NOW)
    join.lose(join.started(), NOW + 50)
    facts += join.told(NOW)
    assert list(join.started()) == []
    assert rows(facts)["u", 0].status == "unknown"
    join.take(succeeded(60), NOW)
    row = rows(facts + join.told(NOW))["u", 0]

    assert row.status == "success"
    assert row.facts & Bit.LOST


def test_what_a_worker_has_is_known_without_its_events_but_never_instead_of_them() -> None:
    join = Join("s", 10, lambda worker: "")
    join.recall("u", "shop.work", "mail", "w1@shop", NOW - 5, NOW)
    join.recall("v", "shop.rest", "mail", "w1@shop", 0.0, NOW)
    join.take(succeeded(1), NOW)
    join.take(started(1, uuid="v"), NOW)
    facts = join.told(NOW) + join.told(NOW + 3)
    join.recall("u", "shop.other", "mail", "w1@shop", NOW - 5, NOW)

    assert {(fact.native, fact.job, fact.queue, fact.status) for fact in facts} == {
        ("u", "shop.work", "mail", "success"),
        ("v", "shop.rest", "mail", "started"),
    }
    assert join.told(NOW + 3) == []


def history(uuid: str, ends: list[str]) -> list[CeleryEvent]:
    """All events of a task whose attempts end like this, in the order in which they happen."""
    told, at = [], 0.0
    for number, end in enumerate(ends):
        told += [sent(at, number, uuid=uuid), received(at + 1, number, uuid=uuid)]
        told += [previous] if number and (previous := _ended("task-retried", at + 2, uuid)) else []
        told.append(started(at + 3, uuid=uuid))
        if end != "task-retried":
            told.append(_ended(end, at + 4, uuid))
        at += 5  # the next attempt is sent and received before this one is known to be tried again
    return told


def _ended(kind: str, at: float, uuid: str) -> CeleryEvent:
    how: dict[str, Any] = {
        "task-succeeded": {"runtime": 1.0},
        "task-failed": {"exception": "ValueError('boom')", "traceback": SOME_TRACEBACK},
        "task-retried": {"exception": "KeyError('k')", "traceback": SOME_TRACEBACK},
        "task-revoked": {"terminated": True, "expired": False},
    }
    return event(kind, at, uuid, **how[kind])


ENDS = {
    "task-succeeded": "success",
    "task-failed": "failed",
    "task-retried": "retried",
    "task-revoked": "skipped",
}
_END = _ended("task-succeeded", 1, "")
TASKS = st.lists(
    st.builds(
        lambda retries, end: ["task-retried"] * retries + [end],
        st.integers(0, 3),
        st.sampled_from(["task-succeeded", "task-failed", "task-revoked"]),
    ),
    min_size=1,
    max_size=4,
)


def expected(tasks: list[list[str]]) -> dict[tuple[str, int], str]:
    return {(f"u{n}", attempt): ENDS[end] for n, ends in enumerate(tasks) for attempt, end in enumerate(ends)}


def shuffled(data: Any, told: list[CeleryEvent], distance: int) -> list[CeleryEvent]:
    """The same, each event at most about `distance` places from where it belongs."""
    noise = data.draw(st.lists(st.floats(0, distance), min_size=len(told), max_size=len(told)))
    return [
        one
        for _, one in sorted(zip(noise, told, strict=True), key=lambda pair: pair[0] + told.index(pair[1]))
    ]


def batches(data: Any, told: list[CeleryEvent]) -> list[list[CeleryEvent]]:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(told)), max_size=5)))
    return [told[start:end] for start, end in zip([0, *cuts], [*cuts, len(told)], strict=True)]


@settings(deadline=None)  # machines may be busy
@given(TASKS, st.data())
def test_events_that_overtake_each_other_or_come_twice_make_the_same_runs(
    tasks: list[list[str]], data: Any
) -> None:
    told = [one for n, ends in enumerate(tasks) for one in history(f"u{n}", ends)]
    disorderly = shuffled(data, told, distance=2)
    for again in data.draw(st.lists(st.sampled_from(told), max_size=5)):
        disorderly.insert(data.draw(st.integers(disorderly.index(again), len(disorderly))), again)

    runs = rows(joined(*batches(data, disorderly)))

    assert {key: row.status for key, row in runs.items()} == expected(tasks)
    assert {row.job for row in runs.values()} == {"shop.work"}
    ran = {key for key, row in runs.items() if row.started}
    assert ran == expected(tasks).keys()


@settings(deadline=None)  # machines may be busy
@given(TASKS, st.data())
def test_every_end_counts_once_whatever_else_is_missing(tasks: list[list[str]], data: Any) -> None:
    told = [one for n, ends in enumerate(tasks) for one in history(f"u{n}", ends)]
    missing = data.draw(st.sets(st.integers(0, len(told) - 1)))
    heard = [one for place, one in enumerate(told) if place not in missing or one.type in ENDS]

    runs = rows(joined(*batches(data, heard)))

    counted = Counter(row.status for row in runs.values() if row.rank > 1)
    assert counted == Counter(expected(tasks).values())
