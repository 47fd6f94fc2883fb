"""Messages of Celery's events, decoded; and what their texts say that a task failed with."""

import json
import pickle
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from celery.exceptions import Retry
from celery_told import SOME_TRACEBACK, event

from taskscope.bridges._celery_events import Decoder
from taskscope.bridges._celery_failure import error_of, unknown_task
from taskscope.failure import MESSAGE, STACK

EVENT = {"type": "task-started", "uuid": "u", "timestamp": 1.5, "hostname": "w", "clock": 3, "utcoffset": 0}


def enveloped(body: bytes, content_type: str = "application/json") -> bytes:
    """As kombu puts it into Redis."""
    envelope = {
        "body": b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": content_type,
        "headers": {"hostname": "w"},
        "properties": {"body_encoding": "base64", "priority": 0},
    }
    return json.dumps(envelope).encode()


def test_one_event_and_a_list_of_them_are_read_with_and_without_envelope() -> None:
    decoder = Decoder()
    for body, count in ((EVENT, 1), ([EVENT, EVENT], 2), ([], 0)):
        text = json.dumps(body).encode()
        assert len(decoder.enveloped(enveloped(text))) == len(decoder.bare(text, "application/json")) == count
    plain = json.dumps({"body": json.dumps(EVENT), "content-type": "application/json", "properties": {}})
    (found,) = decoder.enveloped(plain.encode())

    assert (found.type, found.uuid, found.timestamp, found.hostname) == ("task-started", "u", 1.5, "w")
    assert decoder.foreign == decoder.broken == 0


def test_one_bad_event_of_a_list_hurts_only_itself() -> None:
    decoder = Decoder()
    bad: list[Any] = [{"type": "task-sent"}, {**EVENT, "timestamp": "noon"}, 17, None]

    found = decoder.bare(json.dumps([EVENT, *bad, EVENT]).encode(), "application/json")

    assert [one.uuid for one in found] == ["u", "u"]
    assert decoder.broken == len(bad)


@pytest.mark.parametrize(
    "message", [b"", b"{", b"17", b'{"body": 1}', b'{"body": "?", "properties": 3}', b"\xff\xfe"]
)
def test_a_broken_message_is_counted(message: bytes) -> None:
    decoder = Decoder()

    assert decoder.enveloped(message) == []
    assert decoder.broken == 1


class Bomb:
    def __reduce__(self) -> Any:
        return pytest.fail, ("a message was unpickled",)


@pytest.mark.parametrize(
    "kind", ["application/x-python-serialize", "application/x-yaml", "application/data", ""]
)
def test_what_is_not_json_is_counted_and_left_alone(kind: str) -> None:
    decoder = Decoder()

    assert decoder.enveloped(enveloped(pickle.dumps(Bomb()), kind)) == []
    assert decoder.bare(pickle.dumps(Bomb()), kind) == []
    assert (decoder.foreign, decoder.broken) == (2, 0)


CHAIN = """\
Traceback (most recent call last):
  File "shop.py", line 3, in pay
    raise KeyError("k")
KeyError: 'k'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "shop.py", line 7, in work
    raise Declined("no\\nfunds: 0") from error
shop.errors.Declined: no
funds: 0
"""
LIMIT = 'Traceback (most recent call last):\n  File "pool.py", line 7, in x\n    raise Y\nbilliard.exceptions.Z: Z(1,)'

RETRY = LIMIT.replace("billiard.exceptions.Z: Z(1,)", "celery.exceptions.Retry: Retry in 5s")


@pytest.mark.parametrize(
    ("exception", "traceback", "kind", "message"),
    [
        ("ValueError('boom')", SOME_TRACEBACK, "ValueError", "boom"),
        ("Declined('no\\nfunds: 0')", CHAIN, "shop.errors.Declined", "no\nfunds: 0"),
        ("KeyError('k')", CHAIN, "KeyError", "'k'\n"),
        ("ExceptionWithTraceback()", CHAIN, "shop.errors.Declined", "no\nfunds: 0"),
        ("ExceptionWithTraceback()", LIMIT, "billiard.exceptions.Z", "Z(1,)"),
        ("<HTTPError 404: 'Not Found'>", LIMIT.replace("Z(1,)", "404"), "billiard.exceptions.Z", "404"),
        ("ValueError('boom')", None, "ValueError", "boom"),
        ("ValueError('two\\nlines, \\'quoted\\'')", None, "ValueError", "two\nlines, 'quoted'"),
        ("ValueError('boom', 5)", None, "ValueError", "ValueError('boom', 5)"),
        ("ValueError('boom'", None, "ValueError", "ValueError('boom'"),
        ("ValueError('\\x1')", None, "ValueError", "ValueError('\\x1')"),
        ("KeyError('k')", None, "KeyError", "'k'"),
        ("NotRegistered('x')", None, "celery.exceptions.NotRegistered", "'x'"),
        (
            "ExceptionWithTraceback()",
            "billiard.exceptions.Lost: exitcode 9",
            "billiard.exceptions.Lost",
            "exitcode 9",
        ),
        ("None", RETRY, "celery.exceptions.Retry", "Retry in 5s"),
        ("Retry(Retry(...), None, 5)", RETRY, "celery.exceptions.Retry", "Retry in 5s"),
        ("Retry('mine')", RETRY, "celery.exceptions.Retry", "Retry in 5s"),
        ("", "", "Exception", ""),
        (None, None, "Exception", ""),
    ],
)
def test_class_and_message_of_what_failed(exception: str, traceback: str, kind: str, message: str) -> None:
    error = error_of(exception, traceback)

    assert (error.kind, error.message.rstrip("\n")) == (kind, message.rstrip("\n"))
    assert error.stack == (traceback or "")


@pytest.mark.parametrize("when", [None, 5, 0.5, datetime(2026, 11, 26, tzinfo=UTC), datetime(2026, 1, 2)])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("x, (5)"), "KeyError: 'x, (5)'"),
        (
            ValueError(1, datetime(2026, 1, 2), "x"),
            "ValueError: ValueError(1, datetime.datetime(2026, 1, 2, 0, 0), 'x')",
        ),
        (SoftTimeLimitExceeded(), "billiard.exceptions.SoftTimeLimitExceeded: SoftTimeLimitExceeded()"),
    ],
)
def test_what_a_task_is_tried_again_for_is_the_same_with_every_pool(
    error: Exception, said: str, when: Any
) -> None:
    retry = Retry(exc=error, when=when)
    stack = f"{LIMIT.rpartition(chr(10))[0]}\ncelery.exceptions.Retry: {retry}"
    threads, prefork = error_of(repr(retry), stack), error_of(repr(error), stack)

    assert threads == prefork
    assert f"{threads.kind}: {threads.message}" == said


def test_texts_without_end_are_cut_after_they_are_read() -> None:
    said = "no funds " * 20_000
    error = error_of(f"Declined({said!r})", CHAIN.replace("no\nfunds: 0", said))

    assert (error.kind, error.message[:8]) == ("shop.errors.Declined", "no funds")
    assert (len(error.message) <= MESSAGE, len(error.stack) <= STACK) == (True, True)


def test_the_name_of_a_task_that_no_worker_knows() -> None:
    assert unknown_task("NotRegistered('shop.it\"s')") == 'shop.it"s'
    assert unknown_task("ValueError('x')") == unknown_task(None) == ""


def test_events_of_the_tests_are_decoded_like_those_of_workers() -> None:
    assert event("worker-heartbeat", active=3, freq=2.0, loadavg=[1, 2, 3]).active == 3
