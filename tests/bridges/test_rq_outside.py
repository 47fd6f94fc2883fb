"""An RQ that is watched from outside, by what it keeps in Redis: every ending of real workers, and nothing changed."""

import os
import pickle
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import redis
import rq_jobs
from rq import Retry
from rq.command import send_stop_job_command
from rq.registry import StartedJobRegistry
from rq_watching import Watching, queue, short, worker

from services.process import until
from services.redis import Redis
from taskscope import BadArgument, Exporter
from taskscope.bridges import made
from taskscope.events import Jobs, QueueState, SchedulerState, WorkerState
from taskscope.settings import Source
from taskscope.sinks.history.records import Filter


def everything(url: str) -> dict[bytes, tuple[bytes, int]]:
    """All keys, what they hold, and when they expire."""
    client = redis.Redis.from_url(url)
    return {key: (client.dump(key), client.pexpiretime(key)) for key in client.scan_iter()}


def test_every_attempt_of_a_real_worker_is_one_run_and_ends_as_it_did(
    redis_url: str, ledger: Any, tmp_path: Path
):
    jobs, watching = queue(redis_url), Watching(redis_url)
    watching.poll()
    paths = {name: str(tmp_path / name) for name in ("twice", "again", "gate")}
    with worker(redis_url):
        jobs.enqueue(rq_jobs.work, ledger.path, 0.1)
        jobs.enqueue(rq_jobs.fail, ledger.path)
        jobs.enqueue(rq_jobs.too_long, ledger.path, job_timeout=1)
        jobs.enqueue(rq_jobs.exit_at_once, ledger.path)
        jobs.enqueue(rq_jobs.kill_itself, ledger.path)
        jobs.enqueue(rq_jobs.work, ledger.path, 0.3, result_ttl=0)
        jobs.enqueue(rq_jobs.fail_twice, paths["twice"], retry=Retry(max=3))
        jobs.enqueue(rq_jobs.asks_for_another, paths["again"])
        stopped = jobs.enqueue(rq_jobs.until_gate, ledger.path, paths["gate"])
        watching.until(lambda: stopped.get_status() == "started" and ledger.lines("begin", "until_gate"))
        send_stop_job_command(jobs.connection, stopped.id)
        watching.ended(12)

    assert Counter(map(short, watching.ends)) == {
        ("work", "success", ""): 2,
        ("fail", "failed", "error"): 1,
        ("too_long", "failed", "timeout"): 1,
        ("exit_at_once", "failed", "worker_lost"): 1,
        ("kill_itself", "failed", "killed"): 1,
        ("until_gate", "failed", "cancelled"): 1,
        ("fail_twice", "retried", "error"): 2,
        ("fail_twice", "success", ""): 1,
        ("asks_for_another", "retried", ""): 1,
        ("asks_for_another", "success", ""): 1,
    }
    begun = len(ledger.lines("begin")) + sum(
        Path(paths[name]).read_text().count('"begin"') for name in ("twice", "again")
    )
    assert len(watching.seen.runs()) == begun == 12
    kinds = {fact.job.rpartition(".")[2]: fact.error for fact in watching.ends if fact.error}
    assert (kinds["fail"].kind, kinds["fail"].message) == ("ValueError", "cannot go on:\n  a second line")
    assert "KeyError: 'missing'" in kinds["fail"].stack
    assert kinds["too_long"].kind == "rq.timeouts.JobTimeoutException"
    for facts in watching.seen.runs().values():
        assert len({(fact.anchor, fact.job, fact.worker, fact.queue) for fact in facts}) == 1
        assert [fact.status for fact in facts][:-1] in ([], ["started"])
    (slow,) = [
        fact
        for fact in watching.ends
        if fact.job == "rq_jobs.work" and fact.details["job_id"] and fact.duration < 0.3
    ]
    begin, end = ledger.lines("begin", "work")[0]["at"], ledger.lines("end", "work")[0]["at"]
    assert slow.enqueued <= slow.started <= begin <= end <= slow.started + slow.duration + 0.001


@pytest.fixture
def varied(redis_url: str, tmp_path: Path) -> str:
    """A Redis in which something of everything is kept, and nobody works any more."""
    jobs = queue(redis_url)
    path = str(tmp_path / "varied")
    with worker(redis_url, "default", "other"):
        first = jobs.enqueue(rq_jobs.work, path)
        jobs.enqueue(rq_jobs.fail, path)
        jobs.enqueue(rq_jobs.fail_twice, path + "-twice", 0.0, retry=Retry(max=3, interval=3600))
        until(lambda: jobs.failed_job_registry.count == 1 and jobs.scheduled_job_registry.count == 1)
    jobs.enqueue(rq_jobs.work, path, depends_on=jobs.enqueue(rq_jobs.work, path))
    queue(redis_url, "other").enqueue(rq_jobs.work, path)
    client = jobs.connection
    client.zadd("rq:wip:default", {f"{first.id}:{'e' * 32}": 1})  # what nobody has cleaned up yet
    client.sadd("rq:workers", "rq:worker:dead")
    client.zadd("rq:cron_schedulers", {"dead": 1})
    client.set("rq:suspended", 1, ex=1000)
    return redis_url


def test_reading_changes_no_key_and_no_time_to_live(varied: str):
    before = everything(varied)
    watching = Watching(varied)

    for _ in range(3):
        watching.poll()

    assert everything(varied) == before
    assert len(before) > 15
    assert len(watching.ends) == 2


def test_queues_workers_and_the_scheduler_are_read_as_rq_itself_counts_them(varied: str):
    watching, jobs = Watching(varied), queue(varied)
    watching.poll()

    state = watching.reading(QueueState, queue="default")
    assert (state.ready, state.scheduled, state.deferred, state.failed) == (
        jobs.count,
        jobs.scheduled_job_registry.get_job_count(cleanup=False),
        jobs.deferred_job_registry.get_job_count(cleanup=False),
        jobs.failed_job_registry.get_job_count(cleanup=False),
    )
    assert (state.ready, state.scheduled, state.deferred, state.failed) == (1, 1, 1, 1)
    assert state.oldest == jobs.jobs[0].enqueued_at.timestamp()
    assert watching.reading(SchedulerState).running is False
    assert watching.reading(WorkerState).up is False


def test_a_worker_shows_what_it_does(redis_url: str, ledger: Any, tmp_path: Path):
    watching, gate = Watching(redis_url), tmp_path / "gate"
    with worker(redis_url):
        queue(redis_url).enqueue(rq_jobs.until_gate, ledger.path, str(gate))
        watching.until(lambda: len(watching.seen.facts) == 1)
        state, waits = watching.reading(WorkerState), watching.reading(QueueState)
        assert (state.up, state.active, waits.in_flight, waits.consumers) == (True, 1, 1, 1)
        gate.touch()
        watching.ended(1)
        watching.until(lambda: watching.reading(WorkerState).active == 0)


def test_a_worker_that_died_stays_down_when_others_have_cleaned_up_and_one_that_took_its_leave_is_gone(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    def states() -> dict[str, bool]:
        return {one.worker: one.up for one in watching.poll() if isinstance(one, WorkerState)}

    client, watching, now = redis.Redis.from_url(redis_url), Watching(redis_url), [time.time()]
    monkeypatch.setattr(time, "time", lambda: now[0])
    for name in ("dies", "leaves"):
        client.sadd("rq:workers", f"rq:worker:{name}")
        client.hset(f"rq:worker:{name}", mapping={"state": "idle", "queues": "default"})
    assert states() == {"dies": True, "leaves": True}

    client.srem("rq:workers", "rq:worker:leaves")  # its hash stays for a minute
    client.delete("rq:worker:dies")  # it expired
    assert states() == {"dies": False, "leaves": False}, (
        "else it would seem to be there as long as readings hold"
    )
    assert states() == {"dies": False}
    client.srem("rq:workers", "rq:worker:dies")
    now[0] += 800
    assert states() == {"dies": False}
    now[0] += 200
    assert states() == {"dies": False}, "while nobody is there, that goes on being said"
    client.sadd("rq:workers", "rq:worker:other")
    client.hset("rq:worker:other", mapping={"state": "idle", "queues": "default"})
    assert states() == {"other": True}
    client.srem("rq:workers", "rq:worker:other")
    assert states() == {"other": False}
    assert states() == {}

    client.sadd("rq:workers", "rq:worker:dies")
    assert states() == {"dies": False}
    client.hset("rq:worker:dies", mapping={"state": "idle", "queues": "default"})
    assert states() == {"dies": True}
    client.srem("rq:workers", "rq:worker:dies")
    assert states() == {"dies": False}
    assert states() == {}


def test_the_questions_of_one_look_do_not_grow_with_workers_and_queues(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    client, sent = redis.Redis.from_url(redis_url), []
    for number in range(200):
        client.sadd("rq:workers", f"rq:worker:{number}")
        client.hset(f"rq:worker:{number}", mapping={"state": "idle", "queues": f"q{number % 20}"})
        client.sadd("rq:queues", f"rq:queue:q{number % 20}")
    watching = Watching(redis_url)
    watching.poll()
    original = redis.connection.AbstractConnection.send_packed_command
    monkeypatch.setattr(
        redis.connection.AbstractConnection,
        "send_packed_command",
        lambda self, *args, **kwargs: (sent.append(1), original(self, *args, **kwargs))[1],
    )

    watching.poll()

    assert len(sent) == 2
    assert sum(isinstance(reading, WorkerState) for reading in watching.readings) == 200


def test_hostile_pickles_are_never_loaded(redis_url: str, tmp_path: Path, ledger: Any):
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(trap),)

    jobs = queue(redis_url)
    with worker(redis_url):
        done = jobs.enqueue(rq_jobs.work, ledger.path)
        until(lambda: done.get_status() == "finished")
    hostile = pickle.dumps(Trap())
    waiting = jobs.enqueue(rq_jobs.work, ledger.path)
    for job in (done, waiting):
        jobs.connection.hset(f"rq:job:{job.id}", mapping={"data": hostile, "meta": hostile})
    jobs.connection.xadd(f"rq:results:{done.id}", {"type": 1, "return_value": hostile, "exc_string": hostile})
    watching = Watching(redis_url)

    watching.poll()

    assert len(watching.ends) == 2
    assert not trap.exists()
    with pytest.raises(FileExistsError):
        pickle.loads(hostile), pickle.loads(hostile)


def test_a_collector_that_was_away_counts_each_run_once_and_misses_none(
    redis_url: str, ledger: Any, tmp_path: Path
):
    jobs, source = queue(redis_url), Source(system="rq", target=redis_url)
    settings = {"history": f"sqlite:///{tmp_path}/runs.db", "port": None, "poll_interval": 0.1}

    def statuses(exporter: Exporter) -> Counter[str]:
        return Counter(run.status for run in exporter.queries.runs(Filter(), limit=100).runs)

    with worker(redis_url):
        for seconds in (0.0, 0.2):
            jobs.enqueue(rq_jobs.work, ledger.path, seconds)
        with Exporter(source, names=["rq"], **settings) as exporter:
            until(lambda: statuses(exporter)["success"] == 2)
        for _ in range(3):
            jobs.enqueue(rq_jobs.work, ledger.path)
        jobs.enqueue(rq_jobs.fail, ledger.path)
        until(lambda: len(ledger.lines("end")) == 6 and jobs.failed_job_registry.count == 1)
        with Exporter(source, names=["rq"], **settings) as exporter:
            until(lambda: statuses(exporter) == {"success": 5, "failed": 1})
            exporter.refresh()
            totals = exporter.store.totals()[("rq", "rq_jobs.work")]
    assert len(ledger.lines("begin")) == 6
    assert totals.statuses["success"] == 5


@pytest.mark.slow
def test_ten_thousand_finished_jobs_are_told_in_one_look_and_not_again(redis_url: str):
    client = redis.Redis.from_url(redis_url)
    now = client.time()[0]
    client.sadd("rq:queues", "rq:queue:default")
    pipe = client.pipeline(transaction=False)
    for number in range(10_000):
        ended = now - number % 400
        pipe.hset(f"rq:job:{number}", mapping={"description": f"many.job({number})", "origin": "default"})
        pipe.xadd(f"rq:results:{number}", _result(number, ended), id=f"{ended * 1000}-{number}")
        pipe.zadd("rq:finished:default", {str(number): ended + 500})
    pipe.execute()
    watching = Watching(redis_url)

    watching.poll()
    assert len(watching.ends) == len(watching.seen.runs()) == 10_000
    client.config_resetstat()
    watching.poll()

    assert len(watching.ends) == 10_000
    asked = client.info("commandstats")
    assert "cmdstat_xrevrange" not in asked
    assert asked["cmdstat_zrangebyscore"]["calls"] < 10


def _result(number: int, ended: float) -> dict[str, Any]:
    return {
        "type": 1,
        "worker_name": "w",
        "execution_id": f"{number:032x}",
        "execution_started_at": ended - 0.5,
        "execution_ended_at": ended,
    }


@pytest.mark.parametrize("ttl", [3, 60, 86_400, 40 * 365 * 86_400, -1])
@pytest.mark.parametrize("kind", ["finished", "failed"])
def test_a_job_is_found_however_long_it_is_kept(redis_url: str, ttl: int, kind: str):
    client = redis.Redis.from_url(redis_url)
    client.sadd("rq:queues", "rq:queue:default")
    watching = Watching(redis_url)
    watching.poll()
    now = client.time()[0]
    client.hset("rq:job:1", mapping={"description": "many.job(1)", "origin": "default"})
    client.xadd("rq:results:1", _result(1, now))
    forever = "+inf" if kind == "finished" else -1
    client.zadd(f"rq:{kind}:default", {"1": forever if ttl < 0 else now + ttl})
    watching.bridge._way._runs._ends._registries[kind, "default"]._deep = 0  # as 20 seconds later

    watching.poll()

    assert len(watching.ends) == 1


def test_an_attempt_whose_worker_is_gone_is_lost_once(redis_url: str, ledger: Any, tmp_path: Path):
    jobs, watching = queue(redis_url), Watching(redis_url)
    watching.poll()
    with worker(redis_url) as process:
        jobs.enqueue(rq_jobs.until_gate, ledger.path, str(tmp_path / "gate"))
        watching.until(lambda: len(watching.seen.facts) == 1 and ledger.lines("begin"))
        process.kill()
        os.kill(ledger.lines("begin")[0]["pid"], signal.SIGKILL)
    (member,) = jobs.connection.zrange("rq:wip:default", 0, -1)
    jobs.connection.zadd("rq:wip:default", {member: 1})  # as a minute and a half later

    watching.ended(1)
    StartedJobRegistry("default", connection=jobs.connection).cleanup()  # what another worker does
    assert jobs.failed_job_registry.count == 1
    watching.poll()

    assert list(map(short, watching.ends)) == [("until_gate", "failed", "worker_lost")]
    assert len(watching.seen.runs()) == 1


def test_an_attempt_too_short_to_be_seen_is_told_while_its_job_waits_for_the_next(
    redis_url: str, tmp_path: Path
):
    jobs, watching = queue(redis_url), Watching(redis_url)
    watching.poll()
    with worker(redis_url):
        jobs.enqueue(rq_jobs.fail_twice, str(tmp_path / "ledger"), 0.0, retry=Retry(max=3, interval=3600))
        until(lambda: jobs.scheduled_job_registry.count == 1)
    watching.poll()
    watching.poll()

    assert list(map(short, watching.ends)) == [("fail_twice", "retried", "error")]
    (job,) = watching.reading(Jobs).jobs
    assert (job.name, job.triggers[0].state) == ("rq_jobs.fail_twice", "WAITING")
    assert job.next_run == jobs.connection.zrange("rq:scheduled:default", 0, 0, withscores=True)[0][1]


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "too short to be seen"])
@pytest.mark.parametrize(
    ("job", "retry"), [("fail_late", Retry(max=3, interval=3600)), ("wants_another_later", None)]
)
def test_an_attempt_that_is_followed_by_another_later_is_told_once(
    redis_url: str, tmp_path: Path, seen: bool, job: str, retry: Retry | None
):
    jobs, watching, gate = queue(redis_url), Watching(redis_url), tmp_path / "gate"
    watching.poll()
    with worker(redis_url):
        sent = jobs.enqueue(getattr(rq_jobs, job), str(gate), retry=retry)
        if seen:
            watching.until(lambda: watching.seen.facts)
        gate.touch()
        until(lambda: jobs.scheduled_job_registry.count == 1)
    for _ in range(3):
        watching.poll()
    with worker(redis_url):
        jobs.scheduled_job_registry.remove(sent.id)
        jobs.enqueue_job(sent)
        until(lambda: sent.get_status() == "finished")
    watching.until(lambda: [fact.status for fact in watching.ends][-1] == "success")
    watching.poll()

    assert [fact.status for fact in watching.ends] == ["retried", "success"]
    assert len(watching.seen.runs()) == 2


def test_runs_that_left_no_trace_are_counted_as_unseen(redis_url: str, ledger: Any):
    jobs, watching = queue(redis_url), Watching(redis_url)
    with worker(redis_url):
        watching.poll()
        for _ in range(3):
            jobs.enqueue(rq_jobs.work, ledger.path, result_ttl=0)
        jobs.enqueue(rq_jobs.work, ledger.path)
        until(lambda: jobs.finished_job_registry.count == 1)
        for _ in range(5):
            watching.poll()

    told = len(watching.ends)
    assert told >= 1
    assert watching.reading(SchedulerState).unseen == 4 - told


def test_jobs_are_named_by_the_function_of_their_call(redis_url: str, ledger: Any):
    jobs = queue(redis_url, "mail")
    with worker(redis_url, "mail"):
        jobs.enqueue(rq_jobs.work, ledger.path, description="Invoice 4711 for bob")
        jobs.enqueue(rq_jobs.work, ledger.path)
        until(lambda: jobs.finished_job_registry.count == 2)

    plain, described = Watching(redis_url), Watching(redis_url, descriptions=True)
    plain.poll()
    described.poll()

    assert {fact.job for fact in plain.ends} == {"rq_jobs.work", "(mail)"}
    assert {fact.job for fact in described.ends} == {"rq_jobs.work", "Invoice 4711 for bob"}


def test_keys_with_another_prefix_are_found(redis_url: str):
    client = redis.Redis.from_url(redis_url)
    client.sadd("{shop}:queues", "{shop}:queue:mail")
    client.rpush("{shop}:queue:mail", "1")
    client.hset("{shop}:job:1", mapping={"description": "many.job(1)", "enqueued_at": "2026-01-01T00:00:00Z"})
    watching = Watching(redis_url, prefix="{shop}")
    watching.poll()

    state = watching.reading(QueueState)
    assert (state.queue, state.ready, state.oldest) == ("mail", 1, 1767225600.0)


def test_only_the_queues_that_are_named_are_watched(redis_url: str, ledger: Any):
    with worker(redis_url, "mail", "video"):
        for name in ("mail", "video"):
            queue(redis_url, name).enqueue(rq_jobs.work, ledger.path)
        until(lambda: len(ledger.lines("end")) == 2)
        until(lambda: queue(redis_url, "video").finished_job_registry.count == 1)
    watching, by_object = Watching(redis_url, queues=("mail",)), Watching(queue(redis_url, "video"))

    for one, name in ((watching, "mail"), (by_object, "video")):
        one.poll()
        assert {fact.queue for fact in one.ends} == {name}
        assert one.reading(QueueState).queue == name


def test_a_redis_that_was_away_is_read_again(redis_server: Redis, redis_url: str):
    watching = Watching(redis_url)
    watching.poll()
    redis_server.stop()
    with pytest.raises(redis.ConnectionError):
        watching.poll()
    redis_server.start()
    watching.poll()

    assert watching.reading(SchedulerState).up


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ({"target": "http://127.0.0.1/"}, "redis://"),
        ({"target": "redis://127.0.0.1/", "options": {"queue": "mail"}}, "queues"),
        ({"target": "redis://127.0.0.1/", "options": {"catch_up": "soon"}}, "duration"),
        ({"target": "redis://127.0.0.1:port/"}, "redis://HOST:PORT/DB"),
    ],
)
def test_what_cannot_be_watched_is_said_in_a_sentence(source: dict[str, Any], sentence: str):
    with pytest.raises(BadArgument, match=sentence):
        made(Source(system="rq", **source), "s").attach(lambda event: None)
