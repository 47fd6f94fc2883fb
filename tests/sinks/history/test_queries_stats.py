"""Statistics and trends equal what plain lists say: counts exactly, percentiles within 5 %."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from histories import batch, opened
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from past import BEGIN, DAY, HOUR, NAMES, Past, durations, percentile, rows, runs, statuses
from test_queries_runs import history

from taskscope.errors import BadArgument
from taskscope.settings import Retention as Rules
from taskscope.settings import Settings
from taskscope.sinks.history.queries import MAX_STEPS, Queries
from taskscope.sinks.history.records import Bucket, Filter, JobStats
from taskscope.sinks.history.retention import Retention

FEW = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
HOURS = 100

moments = st.integers(BEGIN, BEGIN + HOURS * HOUR) | st.integers(0, HOURS).map(
    lambda hour: BEGIN + hour * HOUR
)
windows = st.tuples(moments, moments).map(lambda pair: (min(pair), max(pair)))


def within(told: Sequence[Past], since: int, until: int) -> list[Past]:
    return [run for run in told if since <= run.anchor < until]


def agrees(found: JobStats | Bucket, expected: Sequence[Past]) -> None:
    assert found.statuses == statuses(expected)
    known = durations(expected)
    assert found.mean == (pytest.approx(sum(known) / len(known) / 1e6) if known else None)
    assert found.max == (max(known) / 1e6 if known else None)
    assert found.percentiles == (
        {name: pytest.approx(percentile(known, percent), rel=0.0501) for name, percent in PERCENTILES.items()}
        if known
        else {}
    )


PERCENTILES = {"p50": 50, "p95": 95, "p99.9": 99.9}


@FEW
@given(told=runs(HOURS), asked=st.lists(windows, min_size=10, max_size=10), data=st.data())
def test_statistics_of_any_window_are_those_of_a_plain_list(
    history_url: str, told: list[Past], asked: list[tuple[int, int]], data: st.DataObject
):
    with history(history_url, told) as queries:
        for since, until in asked:
            jobs = data.draw(st.sampled_from(((), NAMES[:2], ("never seen",))))
            schedulers = data.draw(st.sampled_from(((), ("S2",))))
            overall, *each = queries.stats(since, until, tuple(PERCENTILES.values()), jobs, schedulers)

            expected = [
                run
                for run in within(told, since, until)
                if (not jobs or run.job in jobs) and (not schedulers or run.scheduler in schedulers)
            ]
            keys = sorted({(run.scheduler, run.job) for run in expected})
            agrees(overall, expected)
            assert (overall.scheduler, overall.job, overall.runs) == ("", "", len(expected))
            assert [(stats.scheduler, stats.job) for stats in each] == keys
            for stats, key in zip(each, keys, strict=True):
                agrees(stats, of_job := [run for run in expected if (run.scheduler, run.job) == key])
                assert_rates(stats, of_job, until - since)


def assert_rates(stats: JobStats, expected: Sequence[Past], window: int) -> None:
    counts = statuses(expected)
    ended = len(expected) - counts.get("queued", 0) - counts.get("started", 0)
    failed, succeeded = counts.get("failed", 0), counts.get("success", 0)
    assert stats.rate == pytest.approx(ended / (window / 1000))
    assert stats.failure_rate == (pytest.approx(failed / (failed + succeeded)) if failed else 0)


@FEW
@given(
    told=runs(HOURS),
    window=windows,
    step=st.sampled_from((HOUR, 5 * HOUR, DAY, 2 * DAY, 36 * HOUR)) | st.integers(HOUR // 7, 2 * DAY),
)
def test_a_trend_of_any_step_is_that_of_a_plain_list(
    history_url: str, told: list[Past], window: tuple[int, int], step: int
):
    since, until = window
    with history(history_url, told) as queries:
        trend = queries.trend(since, until, step, percentiles=tuple(PERCENTILES.values()))

    begins = [since, *range((since // step + 1) * step, until, step)]
    assert [bucket.at for bucket in trend] == begins
    for bucket, end in zip(trend, [*begins[1:], until], strict=True):
        agrees(bucket, within(told, bucket.at, end))


@FEW
@given(
    told=runs(HOURS), window=windows, limit=st.sampled_from((0.0, 0.04, 0.9, 100.0)), own=st.floats(0, 1e4)
)
def test_slow_runs_are_counted_within_the_sketch_error(
    history_url: str, told: list[Past], window: tuple[int, int], limit: float, own: float
):
    limits = {("s", "nightly"): own}
    with history(history_url, told) as queries:
        found = queries.stats(*window, (), slow=limit, slow_by_job=limits)

    def longer(factor: float) -> int:
        return sum(
            run.duration > limits.get((run.scheduler, run.job), limit) * factor * 1e6
            for run in within(told, *window)
            if run.duration
        )

    assert longer(1.06) <= found[0].slow <= longer(0.94)
    assert found[0].slow == sum(stats.slow for stats in found[1:])


def test_slow_runs_of_incomplete_hours_are_counted_exactly(history_url: str):
    told = [
        Past(
            n, "success", anchor=BEGIN + n, started=BEGIN + n, ended=BEGIN + n + 1000, duration=1_000_000 + n
        )
        for n in range(50)
    ]
    with history(history_url, told) as queries:
        stats = queries.stats(BEGIN, BEGIN + HOUR // 2, (), slow=1.00003)

        assert stats[0].slow == 19
        assert queries.stats(BEGIN, BEGIN + HOUR // 2, (), slow_by_job={("s", "b"): 1.00003})[1].slow == 19
        assert queries.stats(BEGIN, BEGIN + HOUR // 2, (), slow_by_job={("s", "other"): 0.0})[0].slow == 0


def test_a_late_ending_moves_a_run_to_its_new_status(history_url: str):
    started = Past(1, "started", anchor=BEGIN, started=BEGIN)
    ended = started._replace(status="success", ended=BEGIN + 2000, duration=2_000_000)
    with history(history_url, [started]) as queries:
        assert queries.stats(BEGIN, BEGIN + DAY, ())[0].statuses == {"started": 1}
    with opened(history_url) as store:
        store.apply(rows([ended]))
        queries = Queries(history_url, Settings())
        (_, stats) = queries.stats(BEGIN, BEGIN + DAY, (50,))
        queries.close()

    assert (stats.statuses, stats.mean) == ({"success": 1}, 2.0)


@contextmanager
def pruned(url: str, told: list[Past], now: float, rules: dict[str, Any]) -> Iterator[tuple[Queries, int]]:
    """A history after retention under these rules, and how many runs that removed."""
    chosen = Settings(service="tests", retention=Rules(**{"max_age": None, "max_runs": None} | rules))
    with opened(url, chosen, clock=BEGIN / 1000) as store:
        store.apply(batch(run.row for run in told))
    with opened(url, chosen, clock=now) as store:
        removed = Retention(store).prune(now)
        queries = Queries(url, chosen)
        yield queries, removed
        queries.close()


def steady(job: str, every: int, first: int = 0) -> list[Past]:
    """Runs of a second, at one pace for four days."""
    begins = range(BEGIN, BEGIN + 4 * DAY, every)
    return [
        Past(first + n, "success", job=job, anchor=at, started=at, ended=at + 1000, duration=1_000_000)
        for n, at in enumerate(begins)
    ]


def test_runs_that_retention_removed_still_count(history_url: str):
    told = steady("b", HOUR // 4)
    with pruned(history_url, told, (BEGIN + 5 * DAY) / 1000, {"max_age": 2.4 * 86_400}) as (queries, removed):
        left = queries.runs(Filter(), limit=1).total
        overall, of_job = queries.stats(BEGIN, BEGIN + 4 * DAY, (50, 99))
        odd = queries.stats(BEGIN + DAY + 600_000, BEGIN + 4 * DAY - 600_000, ())[0]
        trend = queries.trend(BEGIN, BEGIN + 4 * DAY, 6 * HOUR)

    assert removed > 200
    assert left == len(told) - removed
    assert overall.runs == of_job.runs == len(told)
    assert of_job.percentiles == {"p50": pytest.approx(1, rel=0.05), "p99": pytest.approx(1, rel=0.05)}
    assert [bucket.statuses for bucket in trend] == [{"success": 24}] * 16
    # what is left of the first hour cannot be told from the rest of it, so that it counts whole
    assert odd.runs == len(within(told, BEGIN + DAY, BEGIN + 4 * DAY - 600_000))


def test_a_rule_for_one_job_leaves_the_edges_of_other_jobs_exact(history_url: str):
    told = [*steady("short", HOUR // 4), *steady("long", HOUR // 4, first=10_000)]
    rules = {"max_age_per_job": {"short": 2 * 86_400.0}}
    since, until = BEGIN + DAY + HOUR // 2, BEGIN + 3 * DAY
    with pruned(history_url, told, (BEGIN + 4 * DAY + 2 * HOUR) / 1000, rules) as (queries, removed):
        _, long, short = queries.stats(since, until, ())

    assert removed > 100
    assert long.runs == len([run for run in within(told, since, until) if run.job == "long"])
    assert short.runs == long.runs + 2, "the half hour before counts too"


def test_the_p95_of_a_job_is_of_its_last_30_days(history_url: str):
    now = int(time.time() * 1000)

    def ended(number: int, job: str, ago: int, seconds: int) -> Past:
        at = now - ago
        return Past(
            number,
            "success",
            job=job,
            anchor=at,
            started=at,
            ended=at + seconds * 1000,
            duration=seconds * 10**6,
        )

    told = [ended(n, "b", HOUR, 1 + n) for n in range(100)]
    told += [ended(n, "b", 40 * DAY, 5000) for n in range(100, 200)]
    told += [ended(200, "it's", HOUR, 7), Past(201, "queued", job="größe", anchor=now)]
    with history(history_url, told) as queries:
        assert queries.p95() == {
            ("s", "b"): pytest.approx(95, rel=0.05),
            ("s", "it's"): pytest.approx(7, rel=0.05),
        }
        assert queries.p95() is queries.p95(), "it is worked out once a minute"


@pytest.mark.parametrize("step", [0, -1, HOUR // MAX_STEPS - 1])
def test_a_trend_of_too_many_steps_is_refused(sqlite_url: str, step: int):
    queries = Queries(sqlite_url, Settings())
    with pytest.raises(BadArgument, match="step"):
        queries.trend(BEGIN, BEGIN + HOUR, step)


def test_an_empty_window_has_empty_statistics(history_url: str):
    with history(history_url, [Past(1, "success")]) as queries:
        for since, until in ((BEGIN, BEGIN), (BEGIN + DAY, BEGIN), (-5, 0)):
            (overall,) = queries.stats(since, until, (50,), slow=1.0)
            assert (overall.runs, overall.rate, overall.mean, overall.slow) == (0, 0, None, 0)
