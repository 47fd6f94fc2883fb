"""`/api/error/`: what is asked of error groups, and what is said of them."""

import json
from collections import Counter
from hashlib import sha256
from random import Random

import pytest
from stored import BEGIN

from taskscope.api.backend import Writer
from taskscope.api.params import moment
from taskscope.errands import Errands
from taskscope.events import Captured, Error, Fact
from taskscope.facts import row_of
from taskscope.identity import run_id, text
from taskscope.settings import Settings, Token
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.sql import SqlStore

ALL = {"from": "-7d", "to": "now"}
STACK = 'Traceback (most recent call last):\n  File "/app/shop.py", line 3, in pay\n    charge()\nE: at another place'
MANAGER = Token(name="ann", sha256=sha256(b"m").hexdigest(), scopes=("manage",))
READER = Token(name="bob", sha256=sha256(b"r").hexdigest(), scopes=("monitoring",))


def group(historian, **query):
    return historian.ask("/api/error/", query).json["data"]


def test_failed_runs_are_one_group(historian):
    (found,) = group(historian)

    assert found["count"] == 10
    assert found["captured"] == 0
    assert (found["scheduler"], found["task"], found["exception"]) == ("main", "flaky", "ValueError")
    assert found["message"] == "50 % of naught_"
    assert found["state"] == "open"
    assert found["first_seen"] < found["last_seen"]


@pytest.mark.parametrize(
    ("query", "total"),
    [
        ({"task": "flaky"}, 1),
        ({"task": "steady"}, 0),
        ({"task": "never seen"}, 0),
        ({"scheduler": "main"}, 1),
        ({"scheduler": "other"}, 0),
        ({"exception": "ValueError"}, 1),
        ({"exception": "KeyError"}, 0),
        ({"state": "open"}, 1),
        ({"state": "open,regressed"}, 1),
        ({"state": "resolved"}, 0),
        ({"q": "NAUGHT"}, 1),
        ({"q": "valueerr"}, 1),
        ({"q": "x"}, 0),
        ({"from": "-2h"}, 1),
        ({"from": "-1m"}, 0),
        ({"to": "-2h"}, 0),
        ({"sort_column": "count", "sort_direction": "asc"}, 1),
        ({"sort_column": "first_seen"}, 1),
    ],
)
def test_groups_are_filtered(historian, query, total):
    answer = historian.ask("/api/error/", query)

    assert answer.json["total"] == len(answer.json["data"]) == total


def test_a_group_shows_its_occurrences_page_by_page(historian):
    fingerprint = group(historian)[0]["fingerprint"]
    seen, query = [], {"limit": 3}
    while True:
        page = historian.ask(f"/api/error/{fingerprint}", query).json
        seen += page["occurrences"]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]

    runs = historian.ask("/api/task/", {"error": fingerprint}).json
    assert [one["run"] for one in seen] == [run["id"] for run in runs["data"]]
    assert runs["total"] == len(seen) == 10
    assert all(one["fatal"] and one["status"] == "failed" for one in seen)
    assert page["stack_trace"].startswith("Traceback")
    assert page["data"] == {"n": "1"}


def test_a_trend_adds_up_to_the_count(historian):
    fingerprint = group(historian)[0]["fingerprint"]

    for span in ({}, ALL, {"from": BEGIN, "to": "now"}, {"from": "-400d", "to": "now"}):
        trend = historian.ask(f"/api/error/{fingerprint}", span).json["trend"]
        assert sum(step["count"] for step in trend) == 10
        assert len(trend) <= 62
    assert historian.ask(f"/api/error/{fingerprint}", {"from": "-1m"}).json["occurrences"] == []


def test_a_run_names_its_group(historian):
    failed = historian.ask("/api/task/", {"status": "failed"}).json["data"][0]["id"]
    fine = historian.ask("/api/task/", {"status": "success"}).json["data"][0]["id"]

    run = historian.ask(f"/api/task/{failed}").json
    assert run["error"] == group(historian)[0]["fingerprint"]
    assert [(one["fatal"], one["error"], one["exception"]) for one in run["exceptions"]] == [
        (True, run["error"], "ValueError")
    ]
    assert run["exceptions"][0]["offset"] == run["duration"]
    assert [(one["category"], one["service"], one["instance"]) for one in run["exceptions"]] == [
        ("task_error", run["scheduler"], run["instance"])
    ]
    run = historian.ask(f"/api/task/{fine}").json
    assert (run["error"], run["exceptions"]) == (None, [])


@pytest.mark.parametrize("path", ["/api/error/0123456789abcdef", "/api/error/0123456789abcdef/resolve"])
def test_a_group_that_is_not_there_is_404(historian, path):
    more = {"method": "POST", "body": b"{}", "Content_Type": "application/json"} if "resolve" in path else {}

    answer = historian.ask(path, **more)

    assert answer.status == 404
    assert "error 0123456789abcdef" in answer.json["error"]


@pytest.mark.parametrize("path", ["/api/error/xyz", "/api/error/0123456789ABCDEF", "/api/error/" + "0" * 17])
def test_what_is_no_fingerprint_is_refused(historian, path):
    assert historian.ask(path).status == 400


def test_a_cursor_goes_with_its_question_alone(historian):
    fingerprint = group(historian)[0]["fingerprint"]
    cursor = historian.ask(f"/api/error/{fingerprint}", {"limit": 3}).json["next_cursor"]

    assert historian.ask(f"/api/error/{fingerprint}", ALL | {"cursor": cursor}).status == 400
    assert historian.ask("/api/error/", {"cursor": cursor, "offset": 1}).json["errors"] == {
        "offset": "does not go with cursor"
    }


def test_without_a_history_there_are_no_groups(client):
    assert client.ask("/api/error/").status == 404


@pytest.fixture
def written(serve, tmp_path):
    """A server whose history is written, at two o'clock, and by whom it is asked."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    settings = Settings(history=url, tokens=(MANAGER, READER))
    store, queries = SqlStore(url, settings), Queries(url, settings)
    store.open()
    errands = Errands()

    def do(work):
        done = errands.do(work)
        errands.step(0)
        return done

    def fail(number, at, job="j", kind="E", anchor=BEGIN):
        fact = Fact(
            scheduler="s",
            native=str(number),
            status="failed",
            at=at,
            anchor=float(anchor),
            job=job,
            started=at - 1,
            duration=1.0,
            error=Error(kind=kind, message=f"number {number}"),
        )
        row = row_of(fact, run_id("s", str(number), 0, round(anchor * 1000)))
        store.apply([row])
        return row.id

    parts = {
        "queries": queries,
        "writer": Writer(store, do, _nothing, _nothing),
        "clock": lambda: BEGIN + 100.0,
    }
    yield serve(settings, token="m", **parts), fail, store
    store.close()
    queries.close()


def _nothing(*_):
    """Nothing is delivered here."""


@pytest.fixture
def failures(written):
    """A client, and what it may ask of: two days of failures as (anchor, job, class), in seconds."""
    client, fail, _ = written
    dice = Random(7)
    kinds = [(f"j{number % 3}", f"E{number}") for number in range(12)]
    told = [
        (BEGIN + 100 - dice.randrange(2 * 86_400), *dice.choices(kinds, range(1, 13))[0]) for _ in range(300)
    ]
    for number, (anchor, job, kind) in enumerate(told):
        fail(number, anchor + 1.0, job, kind, anchor)
    return client, told


@pytest.mark.parametrize(
    ("back", "step", "query", "most"),
    [
        (2 * 86_400, 3_600, {}, 10),
        (2 * 86_400, 3_600, {"top": 3}, 3),
        (2 * 86_400, 3_600, {"task": "j1", "scheduler": "s"}, 4),
        (6 * 3_600, 900, {"top": 50}, 12),
        (6 * 3_600, 900, {"exception": ["E3", "E4"], "state": "open", "q": "e4"}, 1),
        (6 * 3_600, 900, {"scheduler": "t"}, 0),
        (6 * 3_600, 900, {"state": "ignored"}, 0),
    ],
)
def test_the_most_frequent_errors_are_counted_in_each_step(failures, back, step, query, most):
    client, told = failures
    until = (BEGIN + 100) // step * step
    answer = client.ask("/api/error/trend", query | {"from": until - back, "to": until}).json

    def asked(job, kind):
        return (
            (job == query.get("task", job) and kind in query.get("exception", kind))
            and query.get("q", kind.lower()) in kind.lower()
            and query.get("scheduler", "s") == "s"
            and query.get("state", "open") == "open"
        )

    counts = Counter(
        (anchor // step * step, f"{kind} in {job}")
        for anchor, job, kind in told
        if until - back <= anchor < until and asked(job, kind)
    )
    totals = Counter()
    for (_, label), times in counts.items():
        totals[label] += times
    chosen = {row["label"] for row in answer["data"]}
    got = {(round(moment(row["at"], 0) / 1000), row["label"]): row["occurrences"] for row in answer["data"]}
    assert answer["step"] == step * 1000
    assert len(got) == len(answer["data"]) == len(chosen) * back // step
    assert +Counter(got) == Counter({key: n for key, n in counts.items() if key[1] in chosen})
    assert len(chosen) == min(most, len(totals))
    assert sorted(totals[label] for label in chosen) == sorted(n for _, n in totals.most_common(most))
    assert [row["at"] for row in answer["data"]] == sorted(row["at"] for row in answer["data"])


def test_errors_that_would_share_a_name_are_told_apart(written):
    client, fail, store = written
    fail(1, BEGIN + 10.0)
    run = fail(2, BEGIN + 11.0, kind="Other")
    error = Error(kind="E", message="at another place", stack=STACK)
    told = Fact(
        scheduler="s",
        native="2",
        status="started",
        at=BEGIN + 10.5,
        anchor=float(BEGIN),
        job="j",
        captured=Captured(key="a", at=BEGIN + 10.5, error=error),
    )
    store.apply([row_of(told, run)])

    rows = client.ask("/api/error/trend", {"from": BEGIN - 60, "to": BEGIN + 60}).json["data"]
    happened = {
        row["label"]: (row["count"], row["captured"], row["occurrences"])
        for row in rows
        if row["occurrences"]
    }
    groups = {one["fingerprint"]: one for one in client.ask("/api/error/").json["data"]}
    assert happened == {
        "Other in j": (1, 0, 1),
        **{
            f"E in j ({fingerprint})": (one["count"], one["captured"], 1)
            for fingerprint, one in groups.items()
            if one["exception"] == "E"
        },
    }
    assert len(happened) == 3


@pytest.mark.parametrize("query", [{"top": 0}, {"top": 51}, {"top": "all"}, {"from": "now", "to": "-1h"}])
def test_a_trend_of_nonsense_is_refused(historian, query):
    assert historian.ask("/api/error/trend", query).status == 400


def act(client, fingerprint, what, **body):
    path = f"/api/error/{fingerprint}/{what}"
    return client.ask(path, method="POST", body=json.dumps(body).encode(), Content_Type="application/json")


def test_a_resolved_group_that_is_seen_again_is_regressed(written):
    client, fail, _ = written
    fail(1, BEGIN + 10.0)
    fingerprint = client.ask("/api/error/").json["data"][0]["fingerprint"]

    answer = act(client, fingerprint, "resolve", note="fixed in 1.2; password=hunter2")
    fail(2, BEGIN + 50.0)  # told late, happened before
    late = client.ask(f"/api/error/{fingerprint}").json
    fail(3, BEGIN + 300.0)
    fail(4, BEGIN + 200.0)
    again = client.ask(f"/api/error/{fingerprint}").json

    assert (answer.status, answer.json["state"]) == (200, "resolved")
    assert (late["state"], late["count"], late["state_changed_by"]) == ("resolved", 2, "ann")
    assert late["note"] == "fixed in 1.2; password=***"
    assert (again["state"], again["count"]) == ("regressed", 4)
    assert again["regressed_at"] < again["last_seen"]
    assert act(client, fingerprint, "resolve").json["state"] == "resolved"


def test_an_ignored_group_stays_ignored_until_it_is_reopened(written):
    client, fail, _ = written
    fail(1, BEGIN + 10.0)
    fingerprint = client.ask("/api/error/").json["data"][0]["fingerprint"]

    act(client, fingerprint, "ignore")
    fail(2, BEGIN + 300.0)
    ignored = client.ask("/api/error/", {"state": "ignored"}).json["data"]
    reopened = act(client, fingerprint, "reopen").json

    assert [(one["state"], one["count"]) for one in ignored] == [("ignored", 2)]
    assert (reopened["state"], reopened["count"]) == ("open", 2)


@pytest.mark.parametrize(
    "headers", [{}, {"Content_Type": "application/json"}, {"Content_Type": "text/plain"}]
)
def test_a_group_is_resolved_without_a_word(written, headers):
    client, fail, _ = written
    fail(1, BEGIN + 10.0)
    fingerprint = client.ask("/api/error/").json["data"][0]["fingerprint"]

    answer = client.ask(f"/api/error/{fingerprint}/resolve", method="POST", body=b"", **headers)
    full = client.ask(f"/api/error/{fingerprint}").json

    assert (answer.status, answer.json["state"], full["note"]) == (200, "resolved", None)
    refused = client.ask(
        f"/api/error/{fingerprint}/resolve", method="POST", body=b"{}", Content_Type="text/plain"
    )
    assert refused.status == 415


def test_only_who_may_manage_changes_a_group(written, serve):
    client, fail, _ = written
    fail(1, BEGIN + 10.0)
    fingerprint = client.ask("/api/error/").json["data"][0]["fingerprint"]
    client._headers = {"Authorization": "Bearer r"}

    assert client.ask("/api/error/").status == 200
    assert act(client, fingerprint, "resolve").status == 403
    assert client.ask(f"/api/error/{fingerprint}").json["state"] == "open"


def test_what_a_run_reported_stands_beside_what_it_failed_of(written):
    client, fail, store = written
    run = fail(1, BEGIN + 10.0)
    error = Error(kind="K", message="survived", stack="", data={"shop": "7"})
    told = Fact(
        scheduler="s",
        native="1",
        status="started",
        at=BEGIN + 9.5,
        anchor=float(BEGIN),
        job="j",
        captured=Captured(key="a", at=BEGIN + 9.5, error=error),
    )
    for _ in range(2):
        store.apply([row_of(told, run)])

    first, second = client.ask(f"/api/task/{text(run)}").json["exceptions"]
    assert (first["fatal"], first["exception"], first["message"], first["data"]) == (
        False,
        "K",
        "survived",
        {"shop": "7"},
    )
    assert first["offset"] == 500.0
    assert [(one["category"], one["service"]) for one in (first, second)] == [
        ("code", "s"),
        ("task_error", "s"),
    ]
    assert (second["fatal"], second["exception"]) == (True, "E")
    captured = client.ask("/api/error/", {"exception": "K"}).json["data"][0]
    assert (captured["count"], captured["captured"], captured["latest_run"]) == (0, 1, text(run))
    assert client.ask("/api/task/", {"error": captured["fingerprint"]}).json["total"] == 1


def test_a_run_is_created_when_it_was_due_else_enqueued_else_started(written):
    client, _, store = written
    for n, times in enumerate(
        ({"due": 1.0, "enqueued": 2.0}, {"enqueued": 2.0, "started": 3.0}, {"started": 3.0})
    ):
        told = {name: BEGIN + seconds for name, seconds in times.items()}
        status = "started" if "started" in told else "queued"
        fact = Fact(
            scheduler="s", native=str(n), status=status, at=BEGIN + 3.0, anchor=float(BEGIN), job="j", **told
        )
        store.apply([row_of(fact, run_id("s", str(n), 0, BEGIN * 1000))])

    created = {run["created_at"] for run in client.ask("/api/task/").json["data"]}
    assert {moment(at, 0) for at in created} == {(BEGIN + seconds) * 1000 for seconds in (1, 2, 3)}
