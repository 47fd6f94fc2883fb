"""Error groups in the history: exact whatever is told twice, late, in another order, by another replica."""

import json
from itertools import count
from typing import Any

import hypothesis.strategies as st
import pytest
from histories import NOW, batch, opened, row, select
from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace

from taskscope.events import Captured, Error
from taskscope.facts import Row
from taskscope.settings import ErrorRule, Errors, Retention, Settings
from taskscope.sinks.history import error_queries
from taskscope.sinks.history.error_records import ErrorFilter
from taskscope.sinks.history.memory import MemoryStore
from taskscope.sinks.history.retention import Retention as Sweeper
from taskscope.sinks.history.sql import SqlStore

EXAMPLES = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
EXAMPLE = count()
HOUR = 3_600.0


def stack(place: str) -> str:
    return f'Traceback (most recent call last):\n  File "/app/jobs.py", line 3, in {place}\nE: x\n'


def failed(number: int, place: str = "f", *, at: float = NOW, status: str = "failed", **known: Any) -> Row:
    """A run that failed at this place."""
    told = {"error": Error(kind="E", message=f"m{number}", stack=stack(place), version="1")} | known
    return row(number, status, at=at, **told)


def caught(number: int, key: str, place: str = "f", *, at: float = NOW, **known: Any) -> Row:
    """A run that reported what happened at this place."""
    error = Error(kind="E", message=f"c{key}", stack=stack(place), data={"key": key})
    return row(number, "started", at=at, captured=Captured(key=key, at=at, error=error), **known)


def groups(url: str, scheduler: str = "s") -> dict[tuple[str, str], tuple[Any, ...]]:
    """All that is kept of the groups, by job and place."""
    found = select(
        url,
        "SELECT job.name, place, failures, captured, first_seen, last_seen, kind, message, latest_run, instances,"
        " versions, state, regressed, stack, data, (SELECT sum(r.failures) FROM error_rollup r WHERE r.error ="
        " fingerprint), (SELECT sum(r.captured) FROM error_rollup r WHERE r.error = fingerprint), (SELECT count(*)"
        " FROM occurrence WHERE occurrence.error = fingerprint) FROM error_group JOIN job ON job.id = job"
        f" LEFT JOIN error_text ON error_text.error = fingerprint WHERE scheduler = '{scheduler}'",
    )
    return {(job, place): tuple(rest) for job, place, *rest in found}


def counts(url: str) -> dict[str, tuple[int, int]]:
    """Failed runs and reported exceptions by place."""
    return {place: found[:2] for (_, place), found in groups(url).items()}


def errors_of(store: SqlStore | MemoryStore, scheduler: str = "s") -> dict[str, dict[str, int]]:
    """What is counted of each job."""
    return {job: found.errors for (of, job), found in store.totals().items() if of == scheduler}


def test_a_failed_and_a_retried_run_are_occurrences_of_one_group(store: SqlStore, history_url: str):
    store.apply(batch([failed(1, at=NOW), failed(2, status="retried", at=NOW + 5), row(3, "success")]))

    (found,) = groups(history_url).values()
    assert found[:5] == (2, 0, int(NOW * 1000), int(NOW * 1000) + 5_000, "E")
    assert found[5] == "m2"
    assert found[-3:] == (2, 0, 2)
    assert errors_of(store) == {"job": {"new": 1}}


def test_texts_are_of_the_latest_occurrence_whatever_is_told_last(store: SqlStore, history_url: str):
    for number in (2, 3, 1):
        store.apply([failed(number, at=NOW + number)])

    (found,) = groups(history_url).values()
    assert found[2:4] == (int(NOW * 1000) + 1_000, int(NOW * 1000) + 3_000)
    assert (found[5], bytes(found[6])) == ("m3", row(3, "failed").id)


def test_what_a_run_reports_is_counted_once_and_is_no_failure(store: SqlStore, history_url: str):
    for _ in range(2):
        store.apply(batch([caught(1, "a"), caught(1, "b"), row(1, "success")]))

    assert counts(history_url) == {"jobs:f": (0, 2)}
    assert errors_of(store) == {"job": {"new": 1, "captured": 2}}
    assert select(history_url, "SELECT started, rank FROM run") == [(0, 6)]
    texts = select(history_url, "SELECT message, data FROM detail ORDER BY message")
    assert texts == [("ca", '{"key":"a"}'), ("cb", '{"key":"b"}')]


def test_a_run_without_an_exception_is_known_by_its_reason(store: SqlStore, history_url: str):
    store.apply(
        batch([row(1, "failed", reason="worker_lost"), row(2, "failed", reason="timeout"), row(3, "failed")])
    )

    kinds = select(history_url, "SELECT kind FROM error_group ORDER BY kind")
    assert kinds == [("failed",), ("timeout",), ("worker_lost",)]


def test_a_run_is_grouped_when_its_name_is_known(store: SqlStore, history_url: str):
    store.apply([failed(1, job="")])
    before = groups(history_url)
    store.apply([row(1, "started", job="named")])

    assert before == {}
    assert list(groups(history_url)) == [("named", "jobs:f")]
    assert errors_of(store) == {"named": {"new": 1}}


def test_an_occurrence_moves_when_more_is_known_of_it(store: SqlStore, history_url: str):
    store.apply([row(1, "failed", reason="error")])
    store.apply([failed(1, "g", reason="error")])
    store.apply([row(2, "failed", reason="error")])
    store.apply([failed(2, "g", reason="error")])

    assert counts(history_url) == {"jobs:g": (2, 0)}
    assert select(history_url, "SELECT sum(failures), count(*) FROM error_rollup") == [(2, 1)]


def test_a_lost_and_a_skipped_run_have_no_error(store: SqlStore, history_url: str):
    store.apply(batch([row(1, "unknown"), row(2, "skipped", reason="misfire")]))

    assert groups(history_url) == {}


@st.composite
def one_of(draw: st.DrawFn, scheduler: str) -> Row:
    """What is told of three runs of two jobs; nobody says two different things of one."""
    number = draw(st.integers(0, 2))
    known = {"scheduler": scheduler, "job": draw(st.sampled_from(["", f"job{number % 2}"]))}
    what = draw(st.sampled_from(["failed", "retried", "started", "caught"]))
    if what == "caught":
        key = draw(st.sampled_from("ab"))
        return caught(number, key, draw(st.sampled_from("fg")) if number else "f", at=NOW + number, **known)
    if what == "started":
        return row(number, "started", at=NOW, **known)
    instance = {"instance": f"host{number}"} if draw(st.booleans()) else {}
    return failed(number, "fg"[number % 2], at=NOW + 10 * number, status=what, **known, **instance)


@EXAMPLES
@given(data=st.data())
def test_order_repetition_and_batching_do_not_matter(history_url: str, data: st.DataObject):
    scheduler = f"s{next(EXAMPLE)}"
    told = data.draw(st.lists(one_of(scheduler), min_size=1, max_size=10))
    told = [
        *{(r.id, r.facts, r.job, r.instance, _keys(r)): r for r in told if not _keys(r)}.values(),
        *{(r.id, _keys(r)): replace(r, job=f"job{number(r) % 2}") for r in told if _keys(r)}.values(),
    ]
    twice = data.draw(st.permutations([*told, *data.draw(st.lists(st.sampled_from(told), max_size=5))]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(twice)), max_size=4)))
    batches = [twice[start:end] for start, end in zip([0, *cuts], [*cuts, len(twice)], strict=True)]
    other = f"{scheduler}-at-once"

    with opened(history_url) as store:
        for rows in batches:
            store.apply(batch(rows))
        store.apply(batch(renamed(one, other) for one in told))

        assert plain(groups(history_url, scheduler)) == plain(groups(history_url, other))
        assert captured(errors_of(store, scheduler)) == captured(errors_of(store, other))


def _keys(one: Row) -> tuple[str, ...]:
    return tuple(c.key for c in one.detail.captured) if one.detail else ()


def number(one: Row) -> int:
    return next(n for n in range(3) for s in [one.scheduler] if row(n, "started", scheduler=s).id == one.id)


def renamed(one: Row, scheduler: str) -> Row:
    return replace(one, scheduler=scheduler, id=row(number(one), "started", scheduler=scheduler).id)


def plain(found: dict[Any, tuple[Any, ...]]) -> dict[Any, tuple[Any, ...]]:
    """Without the run of the latest occurrence, whose id holds the scheduler; nor which of two at once is later."""
    return {key: (*known[:5], *known[7:-5], *known[-3:]) for key, known in found.items()}


def captured(found: dict[str, dict[str, int]]) -> dict[str, Any]:
    return {job: counted.get("captured") for job, counted in found.items() if job}


def test_two_replicas_count_one_error_once(postgres_url: str):
    with opened(postgres_url) as one, opened(postgres_url) as other:
        for number in range(20):
            one.apply([failed(number)])
            other.apply(batch([failed(number), failed(number + 100, "g"), caught(number, "a")]))
            one.apply([caught(number, "a")])
        new = [errors_of(store)["job"].get("new", 0) for store in (one, other)]
        captures = [errors_of(store)["job"].get("captured", 0) for store in (one, other)]

    assert counts(postgres_url) == {"jobs:f": (20, 20), "jobs:g": (20, 0)}
    assert (sum(new), sum(captures)) == (2, 20)


def test_what_is_counted_outlives_a_restart(history_url: str):
    with opened(history_url) as store:
        store.apply(batch([failed(1), caught(1, "a")]))
    with opened(history_url) as store:
        assert errors_of(store) == {"job": {"new": 1, "captured": 1}}
        store.apply(batch([failed(1), failed(2), caught(1, "a")]))
        assert errors_of(store) == {"job": {"new": 1, "captured": 1}}

    assert counts(history_url) == {"jobs:f": (2, 1)}


def test_a_batch_that_is_rolled_back_leaves_no_trace_of_its_errors(store: SqlStore, history_url: str):
    store.apply([failed(1)])
    before = groups(history_url)
    with pytest.raises(RuntimeError):
        store.apply(batch([failed(2), failed(3, "g")]), label=_break)

    assert groups(history_url) == before
    store.apply(batch([failed(2), failed(3, "g")]))
    assert counts(history_url) == {"jobs:f": (2, 0), "jobs:g": (1, 0)}


def _break(key: object) -> Any:
    raise RuntimeError


def limited(most: int, **rest: Any) -> Settings:
    return Settings(service="tests", retention=Retention(max_errors=most, **rest))


def test_beyond_the_bound_new_errors_of_a_job_are_counted_together(history_url: str):
    with opened(history_url, limited(3)) as store:
        store.apply(batch(failed(n, f"f{n}") for n in range(3)))
        applied = store.apply(batch([failed(10, "f0"), failed(11, "new1"), failed(12, "new2")]))
        assert applied.limited == {"s": 2}
        found = counts(history_url)
        assert found["jobs:f0"] == (2, 0)
        assert found[""] == (2, 0)
        assert len(found) == 4

        Sweeper(store).prune(NOW)
        assert store.apply([failed(13, "new3", at=NOW + 9)]).limited == {}

    assert counts(history_url)["jobs:new3"] == (1, 0)
    assert len(counts(history_url)) <= 4


def test_a_group_outlives_its_runs_and_goes_when_it_was_not_seen_for_long(history_url: str):
    rules = Settings(
        service="tests", retention=Retention(max_age=10 * HOUR, errors=100 * HOUR), dedup_window=1.0
    )
    with opened(history_url, rules, clock=NOW - 50 * HOUR) as store:
        store.apply(batch([failed(1, at=NOW - 50 * HOUR, anchor=NOW - 50 * HOUR)]))
        store.apply(batch([caught(1, "a", at=NOW - 50 * HOUR, anchor=NOW - 50 * HOUR)]))
        Sweeper(store).prune(NOW)
        kept = groups(history_url)
        left = [
            select(history_url, f"SELECT count(*) FROM {t}")[0][0] for t in ("run", "occurrence", "detail")
        ]
        Sweeper(store).prune(NOW + 51 * HOUR)

    assert left == [0, 0, 0]
    assert [found[:2] for found in kept.values()] == [(1, 1)]
    for table in ("error_group", "error_text", "error_rollup"):
        assert select(history_url, f"SELECT count(*) FROM {table}") == [(0,)]


def test_rules_of_the_settings_hold(history_url: str):
    rules = (ErrorRule(place="*:f", ignore=True), ErrorRule(place="*:[gh]", name="both"))
    with opened(history_url, Settings(service="tests", errors=Errors(rules=rules))) as store:
        store.apply(batch([failed(1, "f"), failed(2, "g"), failed(3, "h"), failed(4, "i")]))

    named = select(history_url, "SELECT name, failures FROM error_group ORDER BY name")
    assert named == [("", 1), ("both", 2)]


def test_states_are_counted(store: SqlStore):
    store.apply(batch([failed(1), failed(2, "g"), failed(3, "h"), failed(4, scheduler="t")]))
    with store.transaction() as connection:
        found = error_queries.page(connection, ErrorFilter(scheduler=("s",)), 2, 0, None, "last_seen", True)
    store.act(found.groups[0].fingerprint, "resolve", int(NOW * 1000) + 1)
    store.act(found.groups[1].fingerprint, "ignore", int(NOW * 1000) + 1)

    assert store.error_groups() == {
        ("s", "open"): 1,
        ("s", "resolved"): 1,
        ("s", "ignored"): 1,
        ("t", "open"): 1,
    }
    assert store.act(b"12345678", "resolve", 1) is None


@pytest.mark.parametrize("sort", ["last_seen", "first_seen", "count"])
@pytest.mark.parametrize("descending", [True, False])
def test_pages_hold_every_group_once_in_order(store: SqlStore, sort: Any, descending: bool):
    store.apply(batch(failed(n, f"f{n % 7}", at=NOW + n % 3) for n in range(25)))
    seen, after = [], None
    with store.transaction() as connection:
        while True:
            page = error_queries.page(connection, ErrorFilter(), 2, 0, after, sort, descending)
            seen += page.groups
            if (after := page.after) is None:
                break

    keys = [({"count": g.failures}.get(sort) or getattr(g, sort), g.fingerprint) for g in seen]
    assert len(seen) == page.total == 7
    assert keys == sorted(keys, reverse=descending)


def test_the_latest_instances_and_versions_are_kept(store: SqlStore, history_url: str):
    for number in range(30):
        error = Error(kind="E", stack=stack("f"), version=f"v{number}")
        store.apply([row(number, "failed", at=NOW + number, instance=f"i{number}", error=error)])

    (found,) = groups(history_url).values()
    instances, versions = json.loads(found[7]), json.loads(found[8])
    assert list(instances) == [f"i{n}" for n in range(29, 9, -1)]
    assert list(versions) == [f"v{n}" for n in range(29, 9, -1)]


def test_without_a_history_errors_are_counted_too():
    store = MemoryStore(Settings())
    for _ in range(2):
        store.apply(batch([failed(1), failed(2, "g"), caught(3, "a"), caught(3, "b", "h")]))

    assert errors_of(store) == {"job": {"new": 3, "captured": 2}}


def test_a_run_is_found_by_any_of_its_errors(store: SqlStore, history_url: str):
    store.apply(batch([failed(1, "f"), caught(1, "a", "g"), caught(2, "b", "g"), row(3, "success")]))

    found = select(
        history_url,
        "SELECT place, count(DISTINCT run) FROM occurrence JOIN error_group ON fingerprint = error"
        " GROUP BY place ORDER BY place",
    )
    assert found == [("jobs:f", 1), ("jobs:g", 2)]
