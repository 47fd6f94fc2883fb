"""How RQ writes names, times and failures."""

import zlib
from base64 import b64encode
from traceback import format_exception

import pytest

from taskscope.bridges._rq_layout import error_of, failure_text, function_in, is_abandoned, moment, reason_of
from taskscope.failure import describe


class Group:
    class Inner(Exception):
        """With a qualified name."""


def raised(error: BaseException) -> BaseException:
    try:
        try:
            raise KeyError("cause")
        except KeyError as cause:
            raise error from cause
    except BaseException as caught:  # noqa: BLE001 - also what is no Exception
        return caught


@pytest.mark.parametrize(
    "error",
    [
        ValueError("plain"),
        ValueError("two\n  lines: of it"),
        ValueError("with: colon"),
        Group.Inner("dotted"),
        KeyError("quoted"),
        SystemExit(3),
        ValueError(),
    ],
    ids=repr,
)
def test_the_class_and_message_in_a_text_are_those_of_the_live_exception(error: BaseException):
    live = raised(error)
    read, told = error_of("".join(format_exception(live))), describe(live)

    assert (read.kind, read.message) == (told.kind, told.message)
    assert read.stack == told.stack


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        ("Job stopped by user, work-horse terminated.", "cancelled"),
        ("Work-horse terminated unexpectedly; waitpid returned 9 (signal 9); ", "killed"),
        ("Work-horse terminated unexpectedly; waitpid returned 1792; ", "worker_lost"),
        ("Moved to FailedJobRegistry, due to AbandonedJobError, at 2026-01-01", "worker_lost"),
        ("Job was stuck in intermediate queue.", "worker_lost"),
        ("Traceback (most recent call last):\n  File\nrq.timeouts.JobTimeoutException: 1 second", "timeout"),
        ("Traceback (most recent call last):\n  File\nValueError: AbandonedJobError", "error"),
        ("", "error"),
    ],
)
def test_the_reason_is_read_from_the_text(why: str, reason: str):
    assert reason_of(why) == reason
    assert is_abandoned(why) == (reason == "worker_lost" and "horse" not in why)


def test_a_text_that_would_inflate_without_end_is_cut():
    bomb = b64encode(zlib.compress(b"x" * 50_000_000))
    assert len(failure_text(bomb)) == 4 * 2**20


@pytest.mark.parametrize("packed", [None, b"", b"no base64!", b64encode(b"no zlib")])
def test_a_text_that_cannot_be_read_is_empty(packed: bytes | None):
    assert failure_text(packed) == ""


@pytest.mark.parametrize(
    ("description", "function"),
    [
        ("jobs.ok(3)", "jobs.ok"),
        ("jobs.Mail.send(to='(x)')", "jobs.Mail.send"),
        ("jobs.make.<locals>.inner()", "jobs.make.<locals>.inner"),
        ("Invoice 4711 (urgent)", ""),
        ("", ""),
    ],
)
def test_a_function_is_named_only_by_a_call(description: str, function: str):
    assert function_in(description) == function


def test_times_are_utc_and_nonsense_is_none():
    assert moment(b"2026-01-01T00:00:00.500000Z") == 1767225600.5
    assert moment("2026-01-01T00:00:00Z") == 1767225600.0
    assert moment("yesterday") is moment("") is moment(None) is None
