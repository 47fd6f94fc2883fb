"""`/api/finding/` and `/api/inspection/`: what was found, how it goes on, and by which settings."""

from contextlib import closing
from urllib.parse import quote

import pytest
from msgspec.structs import replace

from taskscope.api.finding import row_of
from taskscope.identity import text
from taskscope.settings import Inspection, Notify, Settings
from taskscope.sinks.history.finding_records import Finding, Inspected
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.sql import SqlStore

HOUR = 3_600_000
EDITED = "https://git.example/ops/taskscope.yaml"
LINKS = {
    "config": EDITED,
    "logs": "https://l/{job_name}?from={started}&to={ended}",
    "host": "https://h/{host}",
}
T0 = 1_763_748_000_000


def finding(kind="new_error", hour=0, recovered=0, job="mail", scheduler="shop", key="1f" * 8, **known):
    known = {"inspection": "hourly", "look": "new_errors", "level": "warning", "attributes": {}} | known
    details = {"error": f"/api/error/{key}", "count": 3, "stack": "in f", "last_seen": T0} if key else {}
    return Finding(
        kind=kind,
        scheduler=scheduler,
        job=job,
        object=f"{job} fails",
        key=key,
        title=f"{kind} in {job}",
        overview="It happened.",
        started=T0 + hour * HOUR,
        last_seen=T0 + (hour + 1) * HOUR,
        recovered=recovered and T0 + recovered * HOUR,
        details=details,
        distribution=((T0, 1.0), (T0 + HOUR, 2.0)),
        **known,
    )


FOUND = (
    finding(recovered=3, attributes={"exception": "ValueError", "place": "jobs:f", "version": "2"}),
    finding(hour=5, attributes={"exception": "ValueError", "place": "jobs:f", "version": "3"}),
    finding(
        "regression", hour=6, level="critical", scheduler="other", attributes={"exception": "ValueError"}
    ),
    finding("slow_job", hour=5, key="", job="sync", inspection="nightly", look="slow_jobs"),
    finding("silence", hour=100, key="", job="far", scheduler="other", look="silence"),
    finding(
        "slow_job", hour=300, key="", job="sync", scheduler="third", inspection="nightly", look="slow_jobs"
    ),
)


@pytest.fixture
def inspected(tmp_path, serve):
    """A server that remembers these findings, and looks for more every hour."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    rules = {
        "hourly": Inspection(notify=Notify(receivers=("ops",))),
        "nightly": Inspection(schedule="0 3 * * *", timezone="Europe/Berlin", looks=("slow_jobs",)),
        "off": Inspection(enabled=False),
    }
    settings = Settings(history=url, inspections=rules, links=LINKS)
    store = SqlStore(url, settings)
    store.open()
    failed = Inspected(name="nightly", at=T0, took=70, failure="it took longer than 1 s")
    store.record_findings(FOUND, failed)
    store.record_findings([], Inspected(name="hourly", through=T0, at=T0 + 5, took=120, found=2))
    store.tell_findings([FOUND[0].id], T0 + HOUR)
    store.close()
    queries = Queries(url, settings)
    yield serve(settings, queries=queries)
    queries.close()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, [5, 4, 2, 1, 3, 0]),
        ({"inspection": "nightly"}, [5, 3]),
        ({"inspection": ["nightly", "none"]}, [5, 3]),
        ({"kind": "new_error"}, [1, 0]),
        ({"kind": "new_error,silence"}, [4, 1, 0]),
        ({"level": "critical"}, [2]),
        ({"state": "open"}, [5, 4, 2, 1, 3]),
        ({"state": "recovered"}, [0]),
        ({"state": "open,recovered"}, [5, 4, 2, 1, 3, 0]),
        ({"scheduler": "other"}, [4, 2]),
        ({"task": "sync"}, [5, 3]),
        ({"to": (T0 + 5 * HOUR) / 1000}, [0]),
        ({"from": (T0 + 4 * HOUR) / 1000}, [5, 4, 2, 1, 3]),
        ({"from": (T0 + HOUR) / 1000, "to": (T0 + 6 * HOUR) / 1000}, [1, 3, 0]),
        ({"limit": 1, "offset": 1}, [4]),
    ],
)
def test_findings_are_filtered_newest_first(inspected, query, found):
    answer = inspected.ask("/api/finding/", query).json

    wanted = [text(FOUND[number].id) for number in found]
    assert sorted(one["id"] for one in answer["data"]) == sorted(wanted)
    started = [one["started_at"] for one in answer["data"]]
    assert started == sorted(started, reverse=True)


def test_the_cursor_walks_all_pages(inspected):
    seen, query = [], {"limit": 2, "scheduler": "shop"}
    while True:
        page = inspected.ask("/api/finding/", query).json
        assert page["total"] == 3
        seen += [one["id"] for one in page["data"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert len(seen) == len(set(seen)) == 3


def test_a_finding_shows_everything_that_is_known_of_it(inspected):
    told = inspected.ask(f"/api/finding/{text(FOUND[0].id)}").json

    assert told["state"] == "recovered"
    assert told["duration"] == 3 * HOUR
    assert told["started_at"] == "2025-11-21T18:00:00.000Z"
    assert told["recovered_at"] == "2025-11-21T21:00:00.000Z"
    assert told["notified_at"] == "2025-11-21T19:00:00.000Z"
    assert told["receivers"] == ["ops"]
    assert told["links"] == [{"name": "logs", "url": f"https://l/mail?from={T0}&to={T0 + 3 * HOUR}"}]
    assert told["error"] == "1f" * 8
    assert told["stack_trace"] == "in f"
    assert told["details"] == {
        "error": "/api/error/" + "1f" * 8,
        "count": 3,
        "last_seen": "2025-11-21T18:00:00.000Z",
    }
    assert [step["value"] for step in told["distribution"]] == [1.0, 2.0]
    assert [one["id"] for one in told["history"]] == [text(FOUND[1].id), text(FOUND[0].id)]


def test_a_finding_about_an_entity_leads_to_its_run_and_to_the_error_of_it():
    details = finding().details | {"run": text(bytes(16))}
    row = row_of(replace(finding("failing_entity", key="shop-7"), details=details), T0)

    assert (row.error, row.run) == ("1f" * 8, text(bytes(16)))


def test_the_history_of_a_finding_is_that_of_its_own_job(inspected):
    """Jobs of two schedulers may have one name."""
    told = inspected.ask(f"/api/finding/{text(FOUND[3].id)}").json

    assert [one["id"] for one in told["history"]] == [text(FOUND[3].id)]


def test_related_findings_say_what_they_share(inspected):
    told = inspected.ask(f"/api/finding/{text(FOUND[1].id)}").json
    shared = {one["id"]: set(one["shared"]) for one in told["related"]}

    assert shared == {
        text(FOUND[0].id): {"job", "exception", "place", "scheduler"},
        text(FOUND[2].id): {"exception"},
        text(FOUND[3].id): {"scheduler", "time"},
    }
    assert told["related"][0]["id"] == text(FOUND[0].id), "what shares most comes first"


@pytest.mark.parametrize(
    "path", ["/api/finding/00000000-0000-0000-0000-000000000000", "/api/inspection/none"]
)
def test_what_there_is_not_is_said(inspected, path):
    answer = inspected.ask(path)

    assert answer.status == 404
    assert "finding" in answer.json["error"] or "inspection" in answer.json["error"]


def test_inspections_are_listed(inspected):
    rows = {one["name"]: one for one in inspected.ask("/api/inspection/").json["data"]}

    assert list(rows) == ["hourly", "nightly", "off"]
    hourly, nightly, off = rows.values()
    assert (hourly["open"], hourly["found"], hourly["took"], hourly["failure"]) == (3, 2, 120, None)
    assert hourly["through"] == "2025-11-21T18:00:00.000Z"
    assert hourly["next_at"] == "2025-11-21T19:00:00.000Z"
    assert (nightly["open"], nightly["failure"]) == (2, "it took longer than 1 s")
    assert nightly["next_at"] == "2025-11-22T02:00:00.000Z", "three o'clock in Berlin"
    assert (off["enabled"], off["next_at"], off["last_at"]) == (False, None, None)


def test_an_inspection_is_exported_with_its_settings_and_what_is_open(inspected):
    told = inspected.ask("/api/inspection/nightly").json

    assert told["settings"]["schedule"] == "0 3 * * *"
    assert told["settings"]["looks"] == ["slow_jobs"]
    assert {one["scheduler"] for one in told["findings"]} == {"third", "shop"}


def test_without_a_history_there_are_none(client):
    assert client.ask("/api/inspection/").status == client.ask("/api/finding/").status == 404


def test_what_is_exported_has_a_name_to_be_saved_under(inspected):
    id = inspected.ask("/api/finding/").json["data"][0]["id"]

    def name(path):
        return inspected.ask(path).headers["Content-Disposition"]

    assert name("/api/inspection/hourly") == "inline; filename*=UTF-8''hourly.json"
    assert name(f"/api/finding/{id}") == f"inline; filename*=UTF-8''finding-{id}.json"
    assert name("/api/finding/") is None


def test_a_name_to_be_saved_under_is_one_name(tmp_path, serve):
    url, name = f"sqlite:///{tmp_path / 'runs.db'}", 'nächtlich/"1"; x'
    settings = Settings(history=url, inspections={name: Inspection()})
    store = SqlStore(url, settings)
    store.open()
    store.close()
    queries = Queries(url, settings)
    answer = serve(settings, queries=queries).ask(f"/api/inspection/{quote(name)}")
    queries.close()

    said = answer.headers["Content-Disposition"]
    assert said == f"inline; filename*=UTF-8''{quote(name, safe='')}.json"


def test_a_finding_and_an_inspection_lead_to_where_the_settings_are_edited_if_these_say_where(
    inspected, tmp_path, serve
):
    paths = (f"/api/finding/{text(FOUND[0].id)}", "/api/inspection/hourly")
    assert [inspected.ask(path).json["config_url"] for path in paths] == [EDITED, EDITED]
    assert {one["config_url"] for one in inspected.ask("/api/inspection/").json["data"]} == {EDITED}

    settings = Settings(history=f"sqlite:///{tmp_path / 'runs.db'}", inspections={"hourly": Inspection()})
    with closing(Queries(settings.history, settings)) as queries:
        silent = serve(settings, queries=queries)
        assert [silent.ask(path).json["config_url"] for path in paths] == [None, None]
