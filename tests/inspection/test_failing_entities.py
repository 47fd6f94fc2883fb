"""Shops that a job fails for, while it may do well for others."""

import pytest
from inspecting import HOUR, T0

from taskscope.identity import text
from taskscope.settings import Inspection
from taskscope.sinks.history.records import Filter


def test_a_shop_that_a_job_fails_for_is_reported_until_a_full_window_after_its_next_success(past):
    past.runs(entity="shop-7")
    past.wait()
    past.fails(entity="shop-7")
    past.runs(entity="shop-8")
    past.fails()  # about nothing
    past.wait()
    past.fails(entity="shop-7")
    past.wait()
    past.inspect()

    found = _found(past)["shop-7"]
    assert (found.kind, found.level, found.state, found.object) == (
        "failing_entity",
        "critical",
        "open",
        "shop-7",
    )
    assert found.title == "shop-7 of job job fails"
    assert found.overview == "Its last 2 runs failed, since 2025-11-21 19:00 UTC. The latest: ValueError: no."
    assert found.started == int((T0 + HOUR) * 1000), "the first failure after its last success"
    assert found.attributes["entity"] == "shop-7"
    (last,) = past.queries.runs(_of("shop-7"), limit=1).runs
    (error,) = past.queries.errors_of(last.id)
    assert found.details["run"] == text(last.id)
    assert found.details["error"] == f"/api/error/{error.error.hex()}"
    assert found.details["failures"] == 2
    assert dict(found.distribution)[found.started] == 1.0

    past.runs(entity="shop-7")
    past.wait()
    past.inspect()
    assert _entities(past) == {"shop-7": "recovered"}


def test_a_shop_that_a_job_does_not_run_for_any_more_goes_on_failing(file):
    past = file()
    past.fails(entity="shop-7")
    for _ in range(100):
        past.wait()
        past.runs(entity="shop-8")
    past.inspect()
    assert _entities(past) == {}, "what failed days ago was another inspection's to see"

    past.fails(entity="shop-7")
    past.wait()
    past.inspect()
    assert _found(past)["shop-7"].started == int(T0 * 1000), "days ago, and it did not succeed since"
    past.wait(24 * 40)
    past.inspect()
    assert _entities(past) == {"shop-7": "open"}


def test_what_a_job_fails_for_is_told_apart_by_job(file):
    past = file()
    past.fails(entity="shop-7", job="sync")
    past.runs(entity="shop-7", job="mail")
    past.wait()
    past.inspect()

    assert _entities(past, job="sync") == {"shop-7": "open"}
    assert _entities(past, job="mail") == {}


@pytest.mark.parametrize(
    ("status", "fails"),
    [("unknown", True), ("skipped", False), ("retried", False), ("queued", False), ("started", False)],
)
def test_what_counts_is_the_last_run_that_ended(file, status, fails):
    past = file()
    past.runs(entity="shop-7")
    past.wait(0.5)
    past.store.apply([past.fact(status, entity="shop-7")])
    past.wait(0.5)
    past.inspect()

    assert _entities(past) == ({"shop-7": "open"} if fails else {})


def test_a_long_run_that_began_before_the_window_and_failed_in_it_is_seen(file):
    past = file()
    past.wait(5)
    past.inspect()
    past.fails(entity="shop-7", anchor=T0 + HOUR)
    past.wait()
    past.inspect()

    assert _entities(past) == {"shop-7": "open"}


def test_of_a_job_that_fails_for_everybody_twenty_are_reported_and_how_many_there_are(file):
    past = file()
    for hours in range(3):
        for number in range(30):
            past.fails(entity=f"shop-{number + hours}")
        past.fails(entity="shop-1", job="other")
        past.wait()
        past.inspect()

    found = _entities(past, job="job")
    assert len(found) == 20, "those that are open stay, or they would seem to have recovered"
    assert set(found.values()) == {"open"}
    assert _entities(past, job="other") == {"shop-1": "open"}
    one, *_ = _found(past, job="job").values()
    assert one.overview.endswith("Of 32 that this job fails for, 20 are reported.")


def test_only_what_the_inspection_is_meant_for_is_reported(file):
    rules = {"shop": Inspection(jobs=("sync",), looks=("failing_entities",))}
    past = file(**rules)
    past.fails(entity="shop-7", job="sync")
    past.fails(entity="shop-7", job="mail")
    past.wait()
    past.inspect()

    assert [(one.job, one.object) for one in past.findings()] == [("sync", "shop-7")]


def _of(entity):
    return Filter(entity=(entity,))


def _found(past, **which):
    return {one.object: one for one in past.findings(**which) if one.kind == "failing_entity"}


def _entities(past, **which):
    """What is, or was, found to fail."""
    return {entity: one.state for entity, one in _found(past, **which).items()}
