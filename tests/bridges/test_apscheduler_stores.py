"""Job stores in memory, in a database and in Redis are read through the scheduler, never by us."""

import importlib
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor as PlainPool
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
import recorded
from apscheduler.executors.pool import ProcessPoolExecutor, ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.jobstores.redis import RedisJobStore
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from sqlalchemy.pool import NullPool
from watching import ended, now, reasons, stop

from taskscope.bridges._apscheduler_stores import Unrestored, sparing
from taskscope.events import Jobs


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request, tmp_path):
    """Makes a job store: another one on the same data each time."""
    if request.param == "memory":
        return MemoryJobStore
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'jobs.db'}"
        return lambda: SQLAlchemyJobStore(url, engine_options={"poolclass": NullPool})
    address = urlsplit(request.getfixturevalue("redis_url"))
    return lambda: RedisJobStore(
        db=int(address.path.strip("/") or 0), host=address.hostname, port=address.port
    )


def read(scheduler) -> dict:
    (jobs,) = [reading for reading in scheduler.bridge.poll() if isinstance(reading, Jobs)]
    return {job.name: job for job in jobs.jobs}


def test_jobs_of_every_store_run_and_are_read(make, store, ledger, seen):
    scheduler = make(jobstores={"kept": store()})
    scheduler.start()
    scheduler.add_job(
        recorded.work, "date", [ledger.path, "once"], id="once", jobstore="kept", misfire_grace_time=None
    )
    scheduler.add_job(
        recorded.work,
        "interval",
        [ledger.path, "often"],
        seconds=0.2,
        id="often",
        jobstore="kept",
        next_run_time=now(),
    )
    ended(seen, 3)
    scheduler.pause_job("often")
    seen.wait_for(lambda: all(facts[-1].status == "success" for facts in seen.runs().values()))

    job = read(scheduler)["often"]

    ledger.agrees_with(seen.runs())
    assert "once" not in read(scheduler)
    assert (job.paused, job.next_run, job.properties["jobstore"]) == (True, None, "kept")
    assert job.durable == (store is not MemoryJobStore)
    assert job.previous_run == max(fact.due for fact in seen.facts if fact.job == "often")
    assert all(":kept:" in fact.native for fact in seen.facts)


@pytest.mark.parametrize("store", ["sqlite", "redis"], indirect=True)
def test_jobs_that_outlived_the_program_are_watched_from_the_start(make, store, ledger, seen):
    first = make(jobstores={"default": store()})
    first.start(paused=True)
    soon = now() + timedelta(seconds=0.5)
    first.add_job(
        recorded.work, "date", [ledger.path, "kept"], run_date=soon, id="kept", misfire_grace_time=None
    )
    stop(first)

    second = make(jobstores={"default": store()})
    second.start()

    ended(seen, 1)
    ledger.agrees_with(seen.runs())
    assert reasons(seen, "kept") == {("success", ""): 1}


def test_a_process_pool_runs_jobs_of_every_store(make, store, ledger, seen):
    scheduler = make(jobstores={"default": store()}, executors={"default": ProcessPoolExecutor(1)})
    scheduler.start()

    scheduler.add_job(recorded.work, "date", [ledger.path, "away"], id="away", misfire_grace_time=None)

    ended(seen, 1)
    ledger.agrees_with(seen.runs())


def test_the_same_id_in_two_stores_is_two_jobs(make, store, ledger, seen):
    scheduler = make(jobstores={"kept": store()}, executors={"default": ThreadPoolExecutor(2)})
    scheduler.start(paused=True)
    due = now()
    for alias in ("default", "kept"):
        scheduler.add_job(
            recorded.work,
            "date",
            [ledger.path, "twin"],
            run_date=due,
            id="twin",
            jobstore=alias,
            misfire_grace_time=None,
        )
    assert len(next(r for r in scheduler.bridge.poll() if isinstance(r, Jobs)).jobs) == 2

    scheduler.resume()

    ended(seen, 2)
    ledger.agrees_with(seen.runs())
    assert len(seen.runs()) == 2


@pytest.mark.parametrize("store", ["sqlite", "redis"], indirect=True)
def test_watching_deletes_no_job_that_cannot_be_restored_here(make, store, tmp_path, monkeypatch, caplog):
    elsewhere = tmp_path / "elsewhere.py"
    elsewhere.write_text("def work(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    first = make(jobstores={"default": store()})
    first.start(paused=True)
    for job in ("foreign", None):
        first.add_job("elsewhere:work", "date", run_date=now() + timedelta(hours=1), id=job)
    first.add_job(print, "interval", hours=1, id="fine")
    stop(first)
    elsewhere.unlink()
    sys.modules.pop("elsewhere")
    scheduler = make(jobstores={"default": store()})
    scheduler.start(paused=True)

    for _ in range(3):
        found = read(scheduler)

    assert found.keys() == {"foreign", "elsewhere:work", "fine"}
    foreign = found["foreign"]
    (trigger,) = foreign.triggers
    assert (foreign.key, foreign.function, foreign.durable) == ("foreign", "elsewhere:work", True)
    assert (trigger.state, trigger.description) == ("ERROR", "cannot be restored in this process")
    assert "elsewhere" in trigger.data["error"]
    assert "removing it" not in caplog.text
    elsewhere.write_text("def work(): pass\n")
    importlib.invalidate_caches()
    assert {job.id for job in scheduler.get_jobs()} > {"foreign", "fine"}
    assert len(scheduler.get_jobs()) == 3


def test_a_store_that_removes_jobs_while_it_is_read_keeps_them(make):
    """As those in ZooKeeper and etcd do with a job that they cannot even unpickle."""

    class Tidy(MemoryJobStore):
        def get_all_jobs(self):
            for job in super().get_all_jobs():
                self.remove_job(job.id)
            return super().get_all_jobs()

    scheduler = make(jobstores={"default": Tidy()})
    scheduler.start(paused=True)
    scheduler.add_job(print, "interval", hours=1, id="job")

    assert read(scheduler).keys() == {"job"}
    assert scheduler.get_job("job")
    scheduler.remove_job("job")
    assert read(scheduler) == {}


def test_only_our_own_reading_is_spared(tmp_path):
    """For other threads, also those of the scheduler, the store is as it always was; afterwards it is for all."""
    store = SQLAlchemyJobStore(f"sqlite:///{tmp_path / 'jobs.db'}")
    store.jobs_t.create(store.engine)
    before = dict(vars(store))
    with PlainPool(1) as other, sparing([store]):
        assert isinstance(store._reconstitute_job(b"no pickle"), Unrestored)
        store.remove_job("none")
        with pytest.raises(pickle.UnpicklingError):
            other.submit(store._reconstitute_job, b"no pickle").result()
        with pytest.raises(JobLookupError):
            other.submit(store.remove_job, "none").result()

    assert vars(store) == before
    store.engine.dispose()
