"""Jobs, queues, workers and scheduler info, from what is live."""

from hashlib import sha256

import pytest
from asking import NOW, job_path

from taskscope.events import Fact, Job, Jobs, Trigger
from taskscope.settings import Settings, Token


def test_jobs_are_listed_with_triggers_and_times_in_utc(client):
    answer = client.ask("/api/job/")

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert {key: answer.json[key] for key in ("total", "limit", "offset")} == {
        "total": 2,
        "limit": 50,
        "offset": 0,
    }
    job = answer.json["data"][0]
    assert (job["scheduler"], job["name"], job["function"], job["interval"]) == (
        "main",
        "nightly",
        "app:nightly",
        3000,
    )
    assert job["first_seen_at"] == "2025-11-21T18:33:20.000Z"
    assert job["last_run_at"] is None
    assert job["triggers"][0]["schedule"] == "cron[hour='2']"
    assert job["triggers"][0]["next_run_at"] == "2025-11-21T18:34:20.000Z"


def test_a_paused_job_that_shares_its_name_is_among_the_triggers(client, live):
    due, paused = (
        Job(name="nightly", key=key, next_run=at, triggers=(Trigger(key=key, state=state, next_run=at),))
        for key, state, at in (("n1", "WAITING", NOW + 60), ("n2", "PAUSED", None))
    )
    live.fold([Jobs(scheduler="main", at=NOW, jobs=(paused, due))])

    listed = client.ask("/api/job/").json["data"][0]
    (told,) = client.ask("/api/task/info").json["jobs"]

    for job in (listed, told, client.ask(job_path("main", "nightly")).json):
        triggers = {trigger["key"]: trigger["state"] for trigger in job["triggers"]}
        assert (job["key"], triggers) == ("n1", {"n1": "WAITING", "n2": "PAUSED"})


def test_a_job_in_progress_shows_since_when(client, live):
    live.fold([Fact(scheduler="main", native="r1", status="started", at=NOW - 1.5, job="nightly")])

    job = client.ask(job_path("main", "nightly")).json

    assert (job["running"], job["oldest_running_at"]) == (1, "2025-11-21T18:33:18.500Z")


@pytest.mark.parametrize("name", ["odd/name ü?#%2F", "nightly"])
def test_a_job_is_found_whatever_is_in_its_name(client, name):
    answer = client.ask(job_path("main", name))

    assert (answer.status, answer.json["name"]) == (200, name)


def test_jobs_are_filtered_and_paged(client):
    assert [job["key"] for job in client.ask("/api/job/", {"q": "NIGHT"}).json["data"]] == ["n1"]
    assert client.ask("/api/job/", {"scheduler": ["main", "other"]}).json["total"] == 2
    assert client.ask("/api/job/", {"scheduler": "other"}).json["data"] == []
    page = client.ask("/api/job/", {"limit": 1, "offset": 1}).json
    assert (page["total"], [job["key"] for job in page["data"]]) == (2, ["o1"])


def test_a_job_that_does_not_exist_is_named(client):
    answer = client.ask(job_path("main", "gone"))

    assert (answer.status, answer.json) == (
        404,
        {"error": "There is no job 'gone' of scheduler 'main'.", "errors": {}},
    )


def test_what_json_cannot_say_of_a_job_is_shown_by_repr(client, live):
    class Broken:
        def __repr__(self):
            raise RuntimeError

    data = {
        "big": 2**80,
        "broken": Broken(),
        "lone": "\ud800",
        "nan": float("nan"),
        "bytes": b"x",
        "set": {1},
    }
    live.fold([Jobs(scheduler="main", at=NOW, jobs=(Job(name="foreign", key="f", data=data),))])

    answer = client.ask(job_path("main", "foreign"))

    assert answer.status == 200
    shown = answer.json["data"]
    assert (shown["big"], shown["lone"], shown["nan"]) == (str(2**80), "\\ud800", None)
    assert "Broken object" in shown["broken"]
    assert shown["set"] == [1]


def test_info_has_summary_lines_and_jobs_but_none_that_was_removed(client, live):
    live.fold([Jobs(scheduler="main", at=NOW, jobs=(Job(name="nightly", key="n1"),))])

    info = client.ask("/api/task/info").json

    assert info["scheduler"] == ["main (fake): running", "2 threads"]
    assert [scheduler["system"] for scheduler in info["schedulers"]] == ["fake"]
    assert [job["name"] for job in info["jobs"]] == ["nightly"]
    assert client.ask("/api/task/info", {"scheduler": "other"}).json["jobs"] == []


def test_info_has_everything_that_a_scheduler_says_of_a_job_and_its_triggers(client, live):
    trigger = Trigger(
        key="t1",
        state="PAUSED",
        schedule="cron[hour='3']",
        description="at three",
        timezone="Europe/Berlin",
        priority=5,
        start=NOW,
        end=NOW + 60,
        next_run=NOW + 10,
        previous_run=NOW - 10,
        may_fire_again=True,
        misfire_policy="fired at once",
        data={"key": "value"},
    )
    job = Job(
        name="nightly",
        key="n1",
        function="app:nightly",
        description="Every night.",
        queue="default",
        overlap=False,
        durable=True,
        properties={"requests_recovery": True},
        data={"url": "x"},
        triggers=(trigger,),
    )
    live.fold([Jobs(scheduler="main", at=NOW, jobs=(job,))])

    (told,) = client.ask("/api/task/info").json["jobs"]

    assert told["triggers"] == [
        {
            "key": "t1",
            "state": "PAUSED",
            "schedule": "cron[hour='3']",
            "description": "at three",
            "timezone": "Europe/Berlin",
            "priority": 5,
            "start_at": "2025-11-21T18:33:20.000Z",
            "end_at": "2025-11-21T18:34:20.000Z",
            "next_run_at": "2025-11-21T18:33:30.000Z",
            "previous_run_at": "2025-11-21T18:33:10.000Z",
            "may_fire_again": True,
            "misfire_policy": "fired at once",
            "data": {"key": "value"},
        }
    ]
    described = {
        "name": "nightly",
        "key": "n1",
        "function": "app:nightly",
        "description": "Every night.",
        "queue": "default",
        "overlap": False,
        "durable": True,
        "properties": {"requests_recovery": True},
        "data": {"url": "x"},
    }
    assert {name: told[name] for name in described} == described


def test_queues_and_workers_show_their_last_reading(client):
    queue, worker = client.ask("/api/queue/").json["data"], client.ask("/api/worker/").json["data"]

    assert queue == [
        {
            "scheduler": "main",
            "queue": "default",
            "at": "2025-11-21T18:33:20.000Z",
            "ready": 3,
            "in_flight": None,
            "scheduled": None,
            "oldest_at": None,
            "consumers": None,
            "deferred": None,
            "failed": None,
        }
    ]
    assert (worker[0]["worker"], worker[0]["active"], worker[0]["up"]) == ("w1", 1, True)
    assert client.ask("/api/queue/", {"queue": "none"}).json["total"] == 0


def test_a_job_that_its_scheduler_lists_is_not_removed_here(client):
    answer = client.ask(job_path("main", "nightly"), method="DELETE")

    assert answer.status == 409
    assert answer.json["error"] == "Scheduler 'main' lists 'nightly'; remove it there."


def test_a_job_whose_scheduler_is_silent_can_be_removed(serve):
    client = serve(clock=lambda: NOW + 61)

    assert client.ask(job_path("main", "nightly"), method="DELETE").status == 200


def test_removing_needs_the_scope_manage(serve):
    def token(scope):
        return Token(name=scope, sha256=sha256(scope.encode()).hexdigest(), scopes=(scope,))

    settings = Settings(history=None, tokens=(token("ingest"), token("monitoring"), token("manage")))
    statuses = {
        scope: serve(settings, token=scope).ask(job_path("main", "gone"), method="DELETE").status
        for scope in ("ingest", "monitoring", "manage", "")
    }

    assert statuses == {"ingest": 403, "monitoring": 403, "manage": 404, "": 401}
