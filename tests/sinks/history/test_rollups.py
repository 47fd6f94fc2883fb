import hypothesis.strategies as st
import msgspec
from histories import NOW, batch, done, row, select
from hypothesis import given

from taskscope.facts import Bit
from taskscope.sinks.history import rollups
from taskscope.sinks.history.rollups import Rollup
from taskscope.sinks.history.sql import SqlStore

DURATIONS = st.lists(st.integers(0, 2**62), min_size=1, max_size=50)
HOUR = int(NOW) // 3600


def of(durations: list[int]) -> Rollup:
    rollup = Rollup()
    for duration in durations:
        rollup.observe(duration)
    return rollup


@given(DURATIONS, st.floats(0.1, 99.9))
def test_a_percentile_is_within_five_percent_of_the_run_at_its_rank(durations: list[int], percent: float):
    found = of(durations).percentile(percent)

    rank = max(1, -int(-len(durations) * percent // 100))
    exact = sorted(durations)[rank - 1]
    assert found is not None
    assert abs(found - exact) <= 0.05 * exact + 1e-6


@given(DURATIONS, DURATIONS)
def test_adding_two_is_the_same_as_observing_all(one: list[int], other: list[int]):
    added = of(one)

    added.add(of(other))

    assert added == of(one + other)


def test_without_durations_there_is_no_percentile():
    assert Rollup().percentile(95) is None


def test_packing_keeps_everything():
    rollup = of([0, 5, 1_000_000])
    rollup.ranks[6] = -2

    assert rollups.decode(msgspec.msgpack.encode(rollup)) == rollup
    assert rollup.statuses == {}


def test_the_rank_of_facts_is_that_of_their_greatest_status():
    assert rollups.rank_of(Bit.QUEUED | Bit.STARTED | Bit.FAILED | Bit.LOST | Bit.NAMED) == 5


def read(url: str) -> dict[tuple[int, int, str], Rollup]:
    found = select(url, "SELECT hours, at, job.name, rollup FROM rollup JOIN job ON job.id = rollup.job")
    return {(hours, at, job): rollups.decode(bytes(packed)) for hours, at, job, packed in found}


def test_every_run_is_in_its_hour_and_its_day_under_its_present_status(store: SqlStore, history_url: str):
    store.apply(
        batch([row(1, "started"), row(2, "started"), done(3, anchor=NOW + 3600), done(4, job="other")])
    )
    store.apply([row(1, "unknown")])
    store.apply([done(1, duration=2)])

    found = read(history_url)

    assert found[1, HOUR, "job"].statuses == {"started": 1, "success": 1}
    assert found[1, HOUR + 1, "job"].statuses == {"success": 1}
    assert found[1, HOUR, "other"].statuses == {"success": 1}
    day = found[24, HOUR // 24 * 24, "job"]
    assert day.statuses == {"started": 1, "success": 2}
    assert (day.durations, day.sum, day.max) == (2, 3_000_000, 2_000_000)


def test_a_run_told_twice_is_in_its_rollup_once(store: SqlStore, history_url: str):
    store.apply([done(1)])
    store.apply([done(1)])

    found = read(history_url)[1, HOUR, "job"]
    assert (found.statuses, found.durations, found.sum) == ({"success": 1}, 1, 1_000_000)
