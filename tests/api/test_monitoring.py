"""Alertmanager's webhook over real HTTP into a real pipeline, and the alerts that can be asked for then."""

import gzip
import json
import time
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest
from asking import Answer, Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.process import until
from taskscope import Exporter
from taskscope.api.server import Server
from taskscope.settings import Limits, Settings, Token

JSON = {"Content_Type": "application/json"}
CAPTURED = json.loads(
    """
    {"receiver":"w","status":"firing","alerts":[{"status":"firing","labels":{"alertname":"TaskscopeJobFailing",
    "job_name":"nightly","scheduler":"main","severity":"warning"},"annotations":{"summary":"nightly fails"},
    "startsAt":"2026-11-21T22:14:20.107554677Z","endsAt":"0001-01-01T00:00:00Z",
    "generatorURL":"http://localhost:9090/graph","fingerprint":"009d0b4db052a4a3"}],
    "groupLabels":{"alertname":"TaskscopeJobFailing"},"commonLabels":{"alertname":"TaskscopeJobFailing",
    "job_name":"nightly","scheduler":"main","severity":"warning"},"commonAnnotations":{"summary":"nightly fails"},
    "externalURL":"http://localhost:9093","version":"4","groupKey":"{}:{alertname=\\"TaskscopeJobFailing\\"}",
    "truncatedAlerts":0}
    """
)
"""What Alertmanager 0.25 sent."""


def ago(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() - seconds, UTC).isoformat().replace("+00:00", "Z")


def told(fingerprint: str = "f", status: str = "firing", **fields: Any) -> dict[str, Any]:
    """One alert of a notification; it began an hour ago and, if it is resolved, ended a minute ago."""
    alert = CAPTURED["alerts"][0] | {"fingerprint": fingerprint, "status": status, "startsAt": BEGIN}
    if status == "resolved":
        alert["endsAt"] = END
    return alert | fields


BEGIN, END = ago(3600), ago(60)


def send(client: Client, *alerts: Any, **fields: Any) -> Answer:
    body = json.dumps(CAPTURED | {"alerts": alerts} | fields).encode()
    return client.ask("/api/monitoring/webhook", method="POST", body=body, **JSON)


def listed(client: Client, **query: Any) -> list[dict[str, Any]]:
    answer = client.ask("/api/monitoring/alerts", query)
    assert answer.status == 200, answer.body
    rows: list[dict[str, Any]] = answer.json["data"]
    return rows


def client_of(exporter: Exporter, token: str = "") -> Client:
    until(lambda: exporter.pipeline.opened)
    return Client(int((exporter.url or "").rpartition(":")[2]), token)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def client(request, tmp_path):
    histories = {"memory": lambda: None, "sqlite": lambda: f"sqlite:///{tmp_path}/runs.db"}
    history = histories.get(request.param, lambda: request.getfixturevalue("postgres_url"))()
    with Exporter(history=history, port=0) as exporter:
        yield client_of(exporter)


def test_what_alertmanager_sends_is_kept_and_listed(client):
    firing = CAPTURED["alerts"][0] | {"startsAt": BEGIN}

    answer = send(client, firing)

    assert (answer.status, answer.json) == (200, {"kept": 1, "refused": 0, "errors": {}})
    [alert] = listed(client)
    duration = alert.pop("duration")
    assert 3_600_000 <= duration < 7_200_000, "so far"
    assert alert == {
        "fingerprint": "009d0b4db052a4a3",
        "name": "TaskscopeJobFailing",
        "type": "job_failing",
        "severity": "warning",
        "status": "active",
        "scheduler": "main",
        "job_name": "nightly",
        "object": "main/nightly",
        "started_at": BEGIN[:23] + "Z",
        "recovered_at": None,
        "summary": "nightly fails",
        "description": None,
        "labels": firing["labels"],
        "annotations": firing["annotations"],
        "generator_url": "http://localhost:9090/graph",
    }


def test_a_recovery_ends_the_alert(client):
    send(client, told())
    send(client, told(status="resolved"), status="resolved")

    [alert] = listed(client)

    assert (alert["status"], alert["recovered_at"]) == ("recovered", END[:23] + "Z")
    assert alert["duration"] == pytest.approx(3_540_000, abs=2)
    assert listed(client, status="active") == []


@pytest.mark.parametrize(
    ("labels", "type_", "about"),
    [
        ({"alertname": "TaskscopeSchedulerDown", "scheduler": "main"}, "scheduler_down", "main"),
        ({"alertname": "QueueBacklog", "scheduler": "main", "queue": "mail"}, "queue_backlog", "main/mail"),
        ({"alertname": "TaskscopeProcessCPUHigh", "instance": "h:9750"}, "process_cpu_high", "h:9750"),
        ({"alertname": "Any thing", "type": "sync_stale"}, "sync_stale", None),
        ({}, "", None),
    ],
)
def test_type_and_object_are_read_off_the_labels(client, labels, type_, about):
    send(client, told(labels=labels))

    [alert] = listed(client)

    assert (alert["type"], alert["object"], alert["labels"]) == (type_, about, labels)


def test_a_bad_alert_is_refused_alone_and_told(client, caplog):
    far = "2999-01-01T00:00:00Z"
    bad = [told("late", startsAt=far), told("ever", "resolved", endsAt="0001-01-01T00:00:00Z"), 7]
    bad += [told("who", status="pending"), told("zone", startsAt="2026-01-01T00:00:00"), {"status": "firing"}]

    answer = send(client, told("good"), *bad, told("too"))

    assert answer.status == 200
    assert (answer.json["kept"], answer.json["refused"]) == (2, 6)
    assert answer.json["errors"] == {
        "alerts[1].startsAt": "must be a time after 1970 and not in the future",
        "alerts[2].endsAt": "must be a time after 1970 and not in the future",
        "alerts[3]": "must be object, got int",
        "alerts[4].status": "Invalid enum value 'pending'",
        "alerts[5].startsAt": "must be datetime with a timezone component",
        "alerts[6].labels": "is missing",
    }
    assert {alert["fingerprint"] for alert in listed(client)} == {"good", "too"}
    assert "refused 6 of 8 alerts: alerts[1].startsAt: must be a time" in caplog.text


def test_where_no_alert_is_understood_the_answer_is_400(client):
    answer = send(client, told(startsAt="yesterday"))

    assert (answer.status, list(answer.json["errors"])) == (400, ["alerts[0].startsAt"])


@pytest.mark.parametrize(
    ("body", "field", "why"),
    [
        (b"", "body", "is not JSON"),
        (b"nonsense", "body", "is not JSON"),
        (b'{"alerts": ' + b"[" * 100_000, "body", "is not JSON"),
        (b'{"version": NaN}', "body", "is not JSON"),
        (b"[]", "body", "must be object, got array"),
        (b'{"version": "4"}', "alerts", "is missing"),
        (b'{"alerts": []}', "version", "is missing"),
        (b'{"version": "3", "alerts": []}', "version", "Invalid enum value '3'"),
        (b'{"version": "4", "alerts": {}}', "alerts", "must be array, got object"),
    ],
)
def test_a_body_that_is_no_notification_is_a_400_that_names_the_field(serve, body, field, why):
    answer = serve().ask("/api/monitoring/webhook", method="POST", body=body, **JSON)

    assert (answer.status, answer.json["errors"]) == (400, {field: why})


def test_only_json_is_taken(serve):
    for kind in ({}, {"Content_Type": "text/plain"}, {"Content_Type": "application/x-www-form-urlencoded"}):
        answer = serve().ask("/api/monitoring/webhook", method="POST", body=b"{}", **kind)
        assert answer.status == 415, kind

    assert serve().ask("/api/monitoring/webhook").headers["Allow"] == "POST"


def test_a_body_beyond_the_bound_is_refused_also_where_it_is_packed_or_comes_in_chunks(serve):
    client = serve(Settings(history=None, limits=Limits(body=10_000)), clock=time.time)
    long = json.dumps(CAPTURED | {"alerts": [told(annotations={"summary": "x" * 50_000})]}).encode()

    for body, headers in (
        (long, {}),
        (iter([long[:5_000], long[5_000:]]), {}),
        (gzip.compress(long), {"Content_Encoding": "gzip"}),
        (gzip.compress(b" " * 50_000_000), {"Content_Encoding": "gzip"}),
    ):
        answer = client.ask("/api/monitoring/webhook", method="POST", body=body, **JSON, **headers)
        assert answer.status == 413, headers

    broken = client.ask(
        "/api/monitoring/webhook", method="POST", body=b"no gzip", Content_Encoding="gzip", **JSON
    )
    assert broken.status == 400
    packed = gzip.compress(json.dumps(CAPTURED | {"alerts": [told()]}).encode())
    answer = client.ask(
        "/api/monitoring/webhook", method="POST", body=packed, Content_Encoding="gzip", **JSON
    )
    assert answer.status == 200


def test_labels_are_bounded_cleaned_and_without_secrets(client):
    labels = {"alertname": "A", "nul": "a\0b", "half": "\ud800", "password": "hunter2", "long": "x" * 100_000}
    labels |= {f"l{number}": "v" for number in range(200)}

    assert send(client, told(labels=labels, annotations={"summary": "s" * 100_000})).status == 200

    [alert] = listed(client)
    assert len(alert["labels"]) == 64
    assert (alert["labels"]["nul"], alert["labels"]["half"]) == ("a\N{REPLACEMENT CHARACTER}b", "?")
    assert "hunter2" not in json.dumps(alert)
    assert (len(alert["labels"]["long"]), len(alert["summary"])) == (1024, 4096)


def test_filters_cursor_and_offset(client):
    alerts = [
        told(f"f{n}", startsAt=ago(10 * n + 100), labels={"severity": "info", "n": f"{n}"}) for n in range(7)
    ]
    alerts.append(
        told("loud", startsAt=ago(5000), labels={"alertname": "X", "severity": "critical", "job_name": "j"})
    )
    send(client, *alerts)
    send(client, told("over", "resolved", startsAt=ago(9000), endsAt=ago(8000), labels={"scheduler": "s"}))

    names = [f"f{n}" for n in range(7)] + ["loud", "over"]
    assert [alert["fingerprint"] for alert in listed(client)] == names
    for query, found in (
        ({"severity": "critical"}, ["loud"]),
        ({"status": "recovered"}, ["over"]),
        ({"scheduler": "s"}, ["over"]),
        ({"job": "j", "name": "X"}, ["loud"]),
        ({"to": "-2h"}, ["over"]),
        ({"from": "-1h", "severity": "critical"}, ["loud"]),
        ({"from": "-1h", "scheduler": "s"}, []),
        ({"offset": 7}, ["loud", "over"]),
    ):
        assert [alert["fingerprint"] for alert in listed(client, **query)] == found, query

    seen, cursor = [], None
    while True:
        page = client.ask(
            "/api/monitoring/alerts", {"limit": 4} | ({"cursor": cursor} if cursor else {})
        ).json
        seen += [alert["fingerprint"] for alert in page["data"]]
        assert (page["total"], page["limit"]) == (9, 4)
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == names
    refused = client.ask("/api/monitoring/alerts", {"cursor": "AAAA", "limit": 4})
    assert refused.json["errors"].keys() == {"cursor"}


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    with Exporter(history=f"sqlite:///{tmp_path_factory.mktemp('alerts')}/runs.db", port=0) as exporter:
        yield client_of(exporter)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_deliveries_may_come_twice_and_in_any_order(lasting, data):
    example = data.draw(st.uuids()).hex
    deliveries = [
        [told(f"{example}{who}", status) for who in whom]
        for whom, status in (("ab", "firing"), ("b", "firing"), ("a", "resolved"), ("ac", "resolved"))
    ]
    often = deliveries + data.draw(st.lists(st.sampled_from(deliveries), max_size=4))

    for delivery in data.draw(st.permutations(often)):
        assert send(lasting, *delivery).status == 200

    found = [one for one in listed(lasting, limit=1000) if one["fingerprint"].startswith(example)]
    states = {one["fingerprint"][32:]: (one["status"], bool(one["recovered_at"])) for one in found}
    assert len(found) == 3
    assert states == {"a": ("recovered", True), "b": ("active", False), "c": ("recovered", True)}


TEXT = st.text(st.characters(exclude_categories=[]), max_size=8)  # also NUL and halves of surrogate pairs
TEXTS = st.dictionaries(TEXT | st.sampled_from(["alertname", "job_name", "password"]), TEXT, max_size=4)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXT, values, max_size=3),
    max_leaves=5,
)
TIME = st.sampled_from(
    ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "2020-01-01T00:00:00-23:59"]
)
ALERT = st.fixed_dictionaries(
    {
        "status": st.sampled_from(["firing", "resolved"]),
        "labels": TEXTS,
        "startsAt": TIME,
        "fingerprint": TEXT,
    },
    optional={"endsAt": TIME, "annotations": TEXTS | ANYTHING, "generatorURL": TEXT, "more": ANYTHING},
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(alerts=st.lists(ALERT | ANYTHING, max_size=4))
def test_whatever_is_sent_is_taken_or_refused_and_never_a_fault(lasting, alerts):
    answer = send(lasting, *alerts)

    assert answer.status in (200, 400), answer.body
    assert answer.status == 400 or answer.json["kept"] + answer.json["refused"] == len(alerts)
    assert lasting.ask("/api/monitoring/alerts", {"limit": 1000}).status == 200


def test_what_was_acknowledged_is_there_after_a_restart(tmp_path):
    history = f"sqlite:///{tmp_path}/runs.db"
    with Exporter(history=history, port=0) as exporter:
        assert send(client_of(exporter), told()).status == 200

    with Exporter(history=history, port=0) as exporter:
        assert [alert["status"] for alert in listed(client_of(exporter))] == ["active"]


def test_while_the_store_is_away_alertmanager_is_asked_to_come_again(postgres_server, postgres_url):
    with Exporter(history=postgres_url, port=0, heartbeat=0.1) as exporter:
        client = client_of(exporter)
        send(client, told("before"))
        postgres_server.stop()
        until(lambda: exporter.degraded.get("store"))

        answer = send(client, told("meanwhile"))

        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert "cannot be written" in answer.json["error"]
        assert client.ask("/api/monitoring/alerts").status == 503
        postgres_server.start()
        until(lambda: send(client, told("meanwhile")).status == 200, timeout=60, what="the store")
        assert {alert["fingerprint"] for alert in listed(client)} == {"before", "meanwhile"}


def test_a_store_that_hangs_is_a_503_in_time(postgres_server, postgres_url, monkeypatch):
    monkeypatch.setattr("taskscope.api.endpoint._PATIENCE", 0.5)
    with Exporter(history=postgres_url, port=0) as exporter:
        client = client_of(exporter)
        postgres_server.pause()
        begin = time.monotonic()

        answer = send(client, told())

        postgres_server.resume()
        assert (answer.status, time.monotonic() - begin < 5) == (503, True)
        assert "did not take it within 0.5 s" in answer.json["error"]


def test_a_process_that_does_not_own_the_history_says_so(tmp_path):
    history = f"sqlite:///{tmp_path}/runs.db"
    with Exporter(history=history, port=None) as owner, Exporter(history=history, port=None) as member:
        until(lambda: owner.pipeline.opened and member.pipeline.failure)
        server = Server(member._backend)
        answer = send(Client(server.start("127.0.0.1", 0)), told())
        server.stop()

    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert "is owned by process" in answer.json["error"]


def test_the_webhook_needs_the_scope_ingest_and_the_list_needs_monitoring(serve):
    def token(scope: str) -> Token:
        return Token(name=scope, sha256=sha256(scope.encode()).hexdigest(), scopes=(scope,))

    guarded = Settings(history=None, tokens=(token("ingest"), token("monitoring"), token("manage")))
    expected = {"ingest": (200, 403), "monitoring": (403, 200), "manage": (403, 200), "": (401, 401)}
    for scope, (sent, asked) in expected.items():
        client = serve(guarded, token=scope, clock=time.time)
        assert send(client, told()).status == sent, scope
        assert client.ask("/api/monitoring/alerts").status == asked, scope


def test_the_document_describes_the_notification(serve):
    paths = serve().ask("/api/openapi.json").json["paths"]

    operation = paths["/api/monitoring/webhook"]["post"]
    assert operation["requestBody"]["required"]
    assert {"200", "400", "401", "403", "413", "415", "503"} <= operation["responses"].keys()
    assert "get" not in paths["/api/monitoring/webhook"]
