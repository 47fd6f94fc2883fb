"""Events sent over real HTTP into a real pipeline and history: what is answered, and what is there then."""

import gzip
import json
import threading
import time
import tracemalloc
from collections import Counter
from hashlib import sha256
from random import Random
from typing import Any

import pytest
from asking import Answer, Client
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from services.process import until
from taskscope import Exporter
from taskscope.api.body import inflated
from taskscope.api.errors import ApiError
from taskscope.settings import JobRule, Limits, Token
from taskscope.sinks.history.records import Filter

JSON, NDJSON = {"Content_Type": "application/json"}, {"Content_Type": "application/x-ndjson"}
PATH = "/api/ingest/events"


def fact(native: str = "n", status: str = "success", **fields: Any) -> dict[str, Any]:
    """One event; it began a second ago."""
    now = time.time()
    known = {
        "type": "fact",
        "scheduler": "shop",
        "native": native,
        "status": status,
        "at": now,
        "job": "mail",
    }
    return known | {"anchor": BEGIN} | fields


BEGIN = time.time() - 1


def send(client: Client, *events: Any, **headers: str) -> Answer:
    return client.ask(PATH, method="POST", body=json.dumps(events).encode(), **JSON, **headers)


def client_of(exporter: Exporter, token: str = "") -> Client:
    until(lambda: exporter.pipeline.opened)
    return Client(int((exporter.url or "").rpartition(":")[2]), token)


def runs(exporter: Exporter, **filters: Any) -> list[Any]:
    return list(exporter.queries.iterate(Filter(**filters)))


def counted(exporter: Exporter) -> Counter[str]:
    """Runs by status, as they are exported."""
    exporter.refresh()
    page = b"".join(exporter.metrics.render().blocks).decode()
    found: Counter[str] = Counter()
    for line in page.splitlines():
        if line.startswith("taskscope_runs_total{"):
            labels, _, value = line.rpartition(" ")
            found[labels.partition('status="')[2].partition('"')[0]] += int(float(value))
    return +found


@pytest.fixture(params=["sqlite", "postgresql"])
def exporter(request, tmp_path):
    url = f"sqlite:///{tmp_path}/runs.db"
    history = url if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with Exporter(history=history, port=0) as exporter:
        until(lambda: exporter.pipeline.opened)
        yield exporter


@pytest.fixture
def memory():
    """One that keeps no history."""
    with Exporter(history=None, port=0) as exporter:
        yield exporter


def test_what_is_answered_is_durable_counted_and_complete(exporter):
    error = {
        "kind": "KeyError",
        "message": "password=hunter2 is wrong",
        "stack": "Traceback …",
        "data": {"a": "1"},
    }
    start = fact("1", "started", at=BEGIN, queue="bulk", worker="w1", instance="h:1:u", due=BEGIN - 2)
    end = fact("1", "failed", started=BEGIN, duration=0.5, error=error, details={"token": "x", "shop": 7})

    answer = send(client_of(exporter), start, end, fact("2", "skipped", reason="overlap"))

    assert (answer.status, answer.json) == (200, {"accepted": 3, "refused": 0, "errors": []})
    [failed] = runs(exporter, status=("failed",))
    assert (failed.job, failed.queue, failed.worker, failed.duration) == ("mail", "bulk", "w1", 500_000)
    assert (failed.exception, failed.stack) == ("KeyError", "Traceback …")
    assert "hunter2" not in failed.message
    assert json.loads(failed.details) == {"token": "***", "shop": 7}
    assert counted(exporter) == {"failed": 1, "skipped": 1}


def test_whatever_is_repeated_or_comes_in_another_order_counts_once(exporter):
    client, random = client_of(exporter), Random(4)
    events = [
        one
        for number in range(60)
        for one in (
            fact(f"{number}", "queued", at=BEGIN),
            fact(f"{number}", "started", at=BEGIN + 0.1),
            fact(f"{number}", "success" if number % 3 else "failed", started=BEGIN + 0.1, duration=0.2),
        )
    ]
    told = events * 3
    random.shuffle(told)

    for start in range(0, len(told), 90):
        assert send(client, *told[start : start + 90]).json["accepted"] == 90

    assert Counter(run.status for run in runs(exporter)) == {"success": 40, "failed": 20}
    assert counted(exporter) == {"success": 40, "failed": 20}


def test_readings_and_definitions_are_what_is_true_now(memory):
    client, now = client_of(memory), time.time()
    job = {"name": "nightly", "key": "nightly", "next_run": now + 60, "properties": {"api_key": "x"}}
    trigger = {"key": "cron", "state": "WAITING", "schedule": "0 3 * * *"}

    answer = send(
        client,
        {"type": "queue", "scheduler": "shop", "queue": "bulk", "at": now, "ready": 3, "version": 1},
        {"type": "worker", "scheduler": "shop", "worker": "w1", "at": now, "active": 2},
        {"type": "scheduler", "scheduler": "shop", "system": "own", "at": now, "up": True, "running": True},
        {"type": "jobs", "scheduler": "shop", "at": now, "jobs": [{"name": "old", "key": "old"}]},
        {"type": "defined", "scheduler": "shop", "at": now, "job": job | {"triggers": [trigger]}},
        {"type": "heartbeat", "instance": "h:1:u", "at": now},
    )

    assert answer.json["accepted"] == 6
    assert client.ask("/api/queue/").json["data"][0]["ready"] == 3
    assert client.ask("/api/worker/").json["data"][0]["active"] == 2
    found = {job["name"]: job for job in client.ask("/api/job/").json["data"]}
    assert found.keys() == {"old", "nightly"}, "a definition says nothing of the other jobs"
    assert found["nightly"]["triggers"][0]["schedule"] == "0 3 * * *"
    assert found["nightly"]["properties"] == {"api_key": "***"}


def test_bad_events_are_refused_alone_by_index_with_a_sentence(exporter):
    now = time.time()
    bad = {
        "no object": 1,
        "no type": {"scheduler": "shop"},
        "unknown type": fact(type="span"),
        "unknown field": fact(colour="red"),
        "other version": fact(version=2),
        "missing field": {"type": "fact", "scheduler": "shop", "native": "x", "status": "success"},
        "wrong type": fact(at="now"),
        "unknown status": fact(status="great"),
        "far past": fact(anchor=1.0),
        "far future": fact(anchor=now + 1e6),
        "negative": fact(duration=-1),
        "huge": fact(attempt=10**30),
        "no native": fact(""),
        "no scheduler": fact(scheduler=""),
        "deep": fact(details={"a": json.loads("[" * 40 + "]" * 40)}),
        "unknown field within": fact(error={"kind": "E", "color": "red"}),
        "reading of tomorrow": {"type": "queue", "scheduler": "s", "queue": "q", "at": now + 1e6},
        "impossible number": {"type": "queue", "scheduler": "s", "queue": "q", "at": now, "ready": 10**25},
    }
    mixed = [event for number, one in enumerate(bad.values()) for event in (fact(f"good-{number}"), one)]

    answer = send(client_of(exporter), *mixed)

    assert answer.status == 200
    assert (answer.json["accepted"], answer.json["refused"]) == (len(bad), len(bad))
    why = {error["index"]: error["error"] for error in answer.json["errors"]}
    assert list(why) == list(range(1, len(mixed), 2))
    told = dict(zip(bad, why.values(), strict=True))
    assert told["unknown type"].startswith("type: Invalid value 'span'; known are defined, fact, heartbeat")
    assert told["unknown field"] == "Object contains unknown field colour"
    assert told["other version"] == "version: Invalid enum value 2; this taskscope reads version 1"
    assert told["missing field"] == "at: is missing"
    assert told["wrong type"] == "at: must be float, got str"
    assert told["far past"].startswith("anchor=1.0 is outside of the time that is kept")
    assert told["deep"] == "is nested more than 32 levels deep"
    assert len(runs(exporter)) == len(bad)
    assert exporter.pipeline.dropped["bad"] == len(bad)


@pytest.mark.parametrize(
    "bad",
    [
        b'{"type": "fact", "at": NaN}',
        b'{"type": "fact", "at": 1e999}',
        b"{" * 50_000 + b"}" * 50_000,
        b'{"type": "fact", "native": "\xff\xfe"}',
        b'{"a": "\\"]}" nonsense}',
        b'{"type": "fact", "at": ' + b"9" * 9_000 + b"}",
        b"",
    ],
)
def test_what_is_no_json_hurts_only_its_event_in_arrays_too(memory, bad):
    good = json.dumps(fact('[,]{\\"')).encode()

    answer = client_of(memory).ask(PATH, method="POST", body=b"[%s,\n%s , %s]" % (good, bad, good), **JSON)

    assert (answer.status, answer.json["accepted"]) == (200, 2)
    assert [error["index"] for error in answer.json["errors"]] == [1]


def test_texts_that_nothing_can_hold_are_made_ones_that_can(exporter):
    event = fact("a\0b", job="nul \0", queue="half \ud800", details={"half": "\udfff", "nul": "\0"})

    assert send(client_of(exporter), event).json["accepted"] == 1
    [run] = runs(exporter)
    assert (run.job, run.queue) == ("nul \N{REPLACEMENT CHARACTER}", "half ?")


def test_lines_are_taken_as_an_array_is(exporter):
    lines = [json.dumps(fact(f"{number}")).encode() for number in range(3)]

    body = b"\n\n".join([lines[0], b"nonsense", lines[1], b'{"a": ', lines[2], b""])
    answer = client_of(exporter).ask(PATH, method="POST", body=body, **NDJSON)

    assert (answer.status, answer.json["accepted"]) == (200, 3)
    assert [error["index"] for error in answer.json["errors"]] == [1, 3], "empty lines do not count"
    good = client_of(exporter).ask(PATH, method="POST", body=b"\n".join(lines) + b"\n", **NDJSON)
    assert good.json == {"accepted": 3, "refused": 0, "errors": []}
    assert len(runs(exporter)) == 3


def test_packed_bodies_are_unpacked_also_when_in_pieces(memory):
    body = json.dumps([fact("1"), fact("2")]).encode()
    pieces = gzip.compress(body[:50]) + gzip.compress(body[50:])

    for packed in (gzip.compress(body), pieces):
        answer = client_of(memory).ask(PATH, method="POST", body=packed, Content_Encoding="gzip", **JSON)
        assert (answer.status, answer.json["accepted"]) == (200, 2)


def test_what_is_no_batch_is_refused_whole_and_says_why(memory):
    client = client_of(memory)
    whole = gzip.compress(json.dumps([fact()]).encode())
    cases = [
        (b"", JSON, 400, "body: is not JSON"),
        (b"nonsense", JSON, 400, "body: is not JSON"),
        (b'[{"type": "fact"', JSON, 400, "body: is not JSON"),
        (b'["' + b"x" * 100_000, JSON, 400, "body: is not JSON"),
        (b"[" * 100_000, JSON, 400, "body: is not JSON"),
        (json.dumps(fact()).encode(), JSON, 400, "body: must be an array of events"),
        (
            b"[]",
            {"Content_Type": "text/plain"},
            415,
            "The body must have the Content-Type application/json or",
        ),
        (b"[]", JSON | {"Content_Encoding": "br"}, 415, "The body must be packed by gzip"),
        (b"no gzip", JSON | {"Content_Encoding": "gzip"}, 400, "The body is not packed by gzip"),
        (whole[:-12], JSON | {"Content_Encoding": "gzip"}, 400, "The body ends in the middle"),
        (b"[1, 2]", JSON, 422, "None of the 2 events could be taken; [0] must be object, got int"),
        (b"nonsense", NDJSON, 422, "None of the 1 events could be taken; [0] is not JSON"),
    ]

    for body, headers, status, why in cases:
        answer = client.ask(PATH, method="POST", body=body, **headers)
        assert (answer.status, answer.json["error"][: len(why)]) == (status, why), (body[:50], answer.body)

    assert client.ask(PATH, method="POST", body=b"[]", **JSON).json["accepted"] == 0
    assert client.ask(PATH).headers["Allow"] == "POST"


def test_what_is_beyond_the_bounds_is_a_413_before_it_takes_room():
    with Exporter(history=None, port=0, limits=Limits(body=20_000, events=10)) as exporter:
        client = client_of(exporter)
        many = json.dumps([fact(f"{n}") for n in range(11)]).encode()
        bomb = gzip.compress(b"[" + b" " * 50_000_000 + b"]")
        for body, headers, why in (
            (b" " * 20_001, JSON, "The request body is larger than 20000 bytes."),
            (
                bomb[:20_000],
                JSON | {"Content_Encoding": "gzip"},
                "The request body, unpacked, is larger than 20000",
            ),
            (many, JSON, "The request holds more than 10 events; send them in several."),
            (many.replace(b'"fact"', b'"what"'), JSON, "The request holds more than 10 events"),
            (b"[NaN" + b", 1" * 10 + b"]", JSON, "The request holds more than 10 events"),
            (b"1\n" * 11, NDJSON, "The request holds more than 10 events"),
        ):
            answer = client.ask(PATH, method="POST", body=body, **headers)
            assert (answer.status, answer.json["error"][: len(why)]) == (413, why)


def test_what_unpacks_to_too_much_is_not_unpacked():
    bomb = gzip.compress(b" " * 50_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(ApiError, match="larger than 20000 bytes"):
            inflated(bomb, 20_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1_000_000


def test_what_follows_a_member_is_not_copied_for_each():
    """Copied whole for each of the members before it, it would take ten seconds."""
    packed = gzip.compress(b"") * 9_000 + gzip.compress(b"x" * 2**24, 0)
    begin = time.thread_time()

    assert len(inflated(packed, 2**25)) == 2**24

    assert time.thread_time() - begin < 3


def test_a_body_of_many_empty_members_is_refused_and_holds_nobody_up(memory):
    client, answers, begin = client_of(memory), [], time.monotonic()
    body = gzip.compress(b"") * 200_000 + gzip.compress(b"[]")
    headers = {"Content_Encoding": "gzip", **JSON}
    sending = threading.Thread(
        target=lambda: answers.append(client.ask(PATH, method="POST", body=body, **headers))
    )

    sending.start()
    assert client.ask("/metrics").status == 200
    sending.join()

    [answer] = answers
    assert answer.status == 413
    assert answer.json["error"] == "The body is packed in more than 10000 pieces; pack it in one."
    assert time.monotonic() - begin < 10


def test_a_member_for_each_event_of_a_full_request_is_taken():
    members = b"".join(gzip.compress(b"%d," % number) for number in range(Limits().events))

    assert inflated(members, Limits().body).count(b",") == Limits().events


def test_only_the_scope_ingest_may_send():
    def token(name: str, *scopes: str) -> Token:
        return Token(name=name, sha256=sha256(name.encode()).hexdigest(), scopes=scopes)

    tokens = (token("sends", "ingest"), token("manages", "manage", "metrics"))
    with Exporter(history=None, port=0, tokens=tokens) as exporter:
        assert send(client_of(exporter)).status == 401
        assert send(client_of(exporter, "manages"), fact()).status == 403
        assert send(client_of(exporter, "sends"), fact()).status == 200


def test_while_the_store_is_away_nothing_is_taken_and_nothing_is_lost(postgres_server, postgres_url):
    with Exporter(history=postgres_url, port=0) as exporter:
        client = client_of(exporter)
        assert send(client, fact("before")).status == 200

        postgres_server.stop()
        refused = [send(client, fact("meanwhile")) for _ in range(3)]
        assert [answer.status for answer in refused] == [503] * 3
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
        assert "cannot be written" in refused[-1].json["error"]

        postgres_server.start()
        until(lambda: send(client, fact("meanwhile")).status == 200, timeout=60, what="taking it after all")
        assert len(runs(exporter)) == 2
        assert counted(exporter) == {"success": 2}
        assert exporter.pipeline.dropped == {}


def test_more_than_there_is_room_for_is_a_429_and_taken_later():
    with Exporter(history=None, port=0, queue_size=5) as exporter:
        client, busy, go_on = client_of(exporter), threading.Event(), threading.Event()
        exporter.pipeline.do(lambda: (busy.set(), go_on.wait(20)))
        assert busy.wait(20)
        waiting = threading.Thread(target=send, args=(client, *[fact(f"{n}") for n in range(9)]))
        waiting.start()
        until(lambda: len(exporter.pipeline._deliveries) == 9)

        answer = send(client, fact("more"))

        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        assert answer.json["error"] == "too much waits to be written; send less at once, or later."
        go_on.set()
        waiting.join()
        assert send(client, fact("more")).status == 200
        assert counted(exporter) == {"success": 10}


def test_whoever_does_not_own_the_history_takes_nothing(tmp_path):
    history = f"sqlite:///{tmp_path}/runs.db"
    with Exporter(history=history, port=0) as owner, Exporter(history=history, port=None) as member:
        send(client_of(owner), fact())
        until(lambda: member.pipeline.failure)

        with pytest.raises(Exception, match="is owned by process"):
            member.pipeline.deliver([]).result(5)


def test_a_server_that_only_reads_says_so(serve):
    answer = send(serve(writer=None), fact())

    assert (answer.status, answer.json["error"]) == (503, "This server only reads its history.")


def test_jobs_that_the_settings_ignore_are_taken_and_forgotten():
    with Exporter(history=None, port=0, jobs=[JobRule(match="noise", ignore=True)]) as exporter:
        answer = send(client_of(exporter), fact("1", job="noise"), fact("2"))

        assert answer.json == {"accepted": 2, "refused": 0, "errors": []}
        assert counted(exporter) == {"success": 1}


def test_of_many_refusals_the_first_hundred_are_told(memory):
    answer = send(client_of(memory), fact(), *[{"type": "what"}] * 500)

    assert (answer.json["accepted"], answer.json["refused"]) == (1, 500)
    assert [error["index"] for error in answer.json["errors"]] == list(range(1, 101))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(blacklist_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(sorted({*fact(), "error", "details", "attempt", "due", "instance", "version"}))


@given(odd=st.lists(st.dictionaries(fields, anything, max_size=4), min_size=1, max_size=4))
@examples(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_is_sent_beside_it_a_good_event_is_taken(memory, odd):
    events = [fact(f"{number}") | one if number % 2 else one for number, one in enumerate(odd)]
    body = json.dumps([*events, fact("good")], allow_nan=True).encode()

    answer = client_of(memory).ask(PATH, method="POST", body=body, **JSON)

    assert answer.status == 200
    assert len(odd) not in [error["index"] for error in answer.json["errors"]]
    assert answer.json["accepted"] + answer.json["refused"] == len(odd) + 1
