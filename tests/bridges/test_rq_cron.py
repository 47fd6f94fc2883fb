"""The promises of a real `rq cron`, kept and broken."""

import time
from datetime import UTC, datetime

import redis
from rq_watching import Watching, program, queue

from services.process import until
from taskscope.bridges._rq_cron import Crons
from taskscope.events import Jobs


def test_the_jobs_of_a_real_cron_scheduler_say_when_they_are_due(redis_url: str):
    client, watching = redis.Redis.from_url(redis_url), Watching(redis_url)
    with program(redis_url, "cron", "rq_schedule.py"):
        until(lambda: queue(redis_url).count == 1, what="the interval job, which is due at once")
        watching.until(lambda: {job.interval for job in watching.reading(Jobs).jobs} == {86_400.0, 3600.0})
        jobs = {job.name: job for job in watching.reading(Jobs).jobs}
    nightly, hourly = jobs["rq_jobs.work"], jobs["rq_jobs.fail"]
    assert datetime.fromtimestamp(nightly.next_run).strftime("%H:%M:%S") == "03:30:00"
    assert 0 < nightly.next_run - time.time() <= 86_400
    assert 3500 < hourly.next_run - time.time() <= 3600
    assert {job.queue for job in jobs.values()} == {"default"}
    assert (nightly.triggers[0].schedule, nightly.triggers[0].state) == ("cron 30 3 * * *", "WAITING")

    for key in client.scan_iter("rq:cron_scheduler:*"):
        client.delete(key)  # as two minutes after its death
    watching.poll()

    gone = {job.name: job for job in watching.reading(Jobs).jobs}
    assert {job.triggers[0].state for job in gone.values()} == {"ERROR"}
    assert gone["rq_jobs.work"].next_run == nightly.next_run


def test_promises_that_nobody_keeps_are_forgotten_a_day_later():
    crons, job = Crons(), '[{"func_name": "a.b", "queue_name": "q", "interval": 60}]'
    crons.read({"one": (job, "2026")}, 1000.0)
    assert [one.next_run for one in crons.jobs()] == [1000.0]

    crons.read({}, 1000.0 + 86_000)
    assert len(list(crons.jobs())) == 1
    crons.read({}, 1000.0 + 87_000)
    assert not list(crons.jobs())


def test_what_is_no_list_of_jobs_is_passed_over():
    crons = Crons()
    crons.read(
        {str(n): (text, "") for n, text in enumerate(["{", "1", "[1]", '[{"func_name": 1}]', "[]"])}, 0.0
    )
    assert not list(crons.jobs())
    crons.read({"x": ('[{"func_name": "a.b", "cron": "61 * * * *"}]', "")}, 1.0)
    assert [one.interval for one in crons.jobs()] == [None]


def test_of_two_cron_schedulers_with_the_same_job_the_one_born_last_counts():
    crons = Crons()
    job = '[{{"func_name": "a.b", "interval": 60, "next_enqueue_time": "{}"}}]'
    old, new = job.format("2026-01-01T00:00:00.000000Z"), job.format("2026-01-02T00:00:00.000000Z")
    crons.read({"a": (new, "2026-01-02"), "b": (old, "2026-01-01")}, 5.0)
    assert [datetime.fromtimestamp(one.next_run, UTC).day for one in crons.jobs()] == [2]
