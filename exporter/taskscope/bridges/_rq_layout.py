"""Where RQ keeps things in Redis, and how it writes times, names and failures there."""

import binascii
import json
import re
import zlib
from base64 import b64decode
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from taskscope.events import Error
from taskscope.failure import MESSAGE, STACK, cut

JOB_FIELDS = (
    "description", "origin", "status", "enqueued_at", "started_at", "ended_at", "worker_name", "retries_left",
    "result_ttl", "group_id", "dependency_ids",
)  # fmt: skip
"""Of a job's hash. Never `data`, `meta` or a result: these are pickles."""
WORKER_FIELDS = ("state", "queues", "successful_job_count", "failed_job_count", "taskscope")
EXECUTION_FIELDS = ("created_at", "worker_name")
CRON_FIELDS = ("cron_jobs", "created_at")
MARK = "taskscope"
"""A field that a worker with taskscope inside writes into its own hash: nobody else needs to guess about its runs."""

ABANDONED, STUCK = "AbandonedJobError", "Job was stuck in intermediate queue"
STOPPED, DIED = "Job stopped by user", "Work-horse terminated unexpectedly"
_TIMEOUT = "rq.timeouts.JobTimeoutException"
_TRACEBACK = "Traceback (most recent call last):\n"
_LARGEST = 4 * 2**20  # bytes of a failure's text that are inflated
_call = re.compile(r"[A-Za-z_][\w.<>]*(?=\()").match
_kind = re.compile(r"[A-Za-z_][\w.<>]*\Z").match
_died_by_signal = re.compile(r"\(signal \d+\)").search


class Keys:
    """The names of RQ's keys, below its prefix."""

    def __init__(self, prefix: str) -> None:
        self.queues, self.workers = f"{prefix}:queues", f"{prefix}:workers"
        self.suspended, self.crons = f"{prefix}:suspended", f"{prefix}:cron_schedulers"
        self._prefix = prefix

    def queue(self, name: str) -> str:
        """The list of ids of jobs that wait."""
        return f"{self._prefix}:queue:{name}"

    def registry(self, kind: str, queue: str) -> str:
        """A sorted set: `wip`, `finished`, `failed`, `scheduled` or `deferred`."""
        return f"{self._prefix}:{kind}:{queue}"

    def job(self, job_id: str) -> str:
        """A job's hash."""
        return f"{self._prefix}:job:{job_id}"

    def results(self, job_id: str) -> str:
        """The stream of how a job's attempts ended."""
        return f"{self._prefix}:results:{job_id}"

    def worker(self, name: str) -> str:
        """A worker's hash."""
        return f"{self._prefix}:worker:{name}"

    def execution(self, member: str) -> str:
        """An attempt in progress, by `job id:execution id`."""
        return f"{self._prefix}:execution:{member}"

    def cron(self, name: str) -> str:
        """A cron scheduler's hash."""
        return f"{self._prefix}:cron_scheduler:{name}"

    def last(self, key: str) -> str:
        """What stands behind the colon of a queue's or a worker's key."""
        return key.removeprefix(f"{self._prefix}:").partition(":")[2]


class Job(Struct, frozen=True, kw_only=True):
    """What a job's hash says."""

    id: str
    name: str
    queue: str
    status: str = ""
    enqueued: float | None = None
    started: float | None = None
    ended: float | None = None
    worker: str = ""
    retries_left: int = 0
    result_ttl: int | None = None
    details: dict[str, Any] = {}


def job_of(job_id: str, values: list[bytes | None], described: bool) -> Job | None:
    """The job behind the values of `JOB_FIELDS`; None where it is gone."""
    fields = {name: text(value) for name, value in zip(JOB_FIELDS, values, strict=True) if value}
    if (
        "origin" not in fields and "description" not in fields
    ):  # a heartbeat that came late leaves such a hash
        return None
    queue = fields.get("origin", "")
    named = {"group": fields.get("group_id"), "depends_on": _names(fields.get("dependency_ids"))}
    description = fields.get("description", "")
    return Job(
        id=job_id,
        name=function_in(description) or (described and description) or f"({queue})",
        queue=queue,
        status=fields.get("status", ""),
        enqueued=moment(fields.get("enqueued_at")),
        started=moment(fields.get("started_at")),
        ended=moment(fields.get("ended_at")),
        worker=fields.get("worker_name", ""),
        retries_left=whole(fields.get("retries_left")) or 0,
        result_ttl=whole(fields.get("result_ttl")),
        details={"job_id": job_id, **{name: value for name, value in named.items() if value}},
    )


def function_in(description: str) -> str:
    """The function that the call in a description names; empty where the description is one of the user's own."""
    call = _call(description)
    return call[0] if call else ""


def _names(listed: str | None) -> list[str]:
    try:
        names = json.loads(listed or "[]")
    except ValueError:
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def text(value: Any) -> str:
    """Text of Redis, whatever bytes it holds."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def whole(value: str | bytes | None) -> int | None:
    """A whole number; None where there is none."""
    try:
        return int(value) if value else None
    except ValueError:
        return None


def number(value: str | bytes | None) -> float | None:
    """A point in time as seconds since the epoch."""
    try:
        return float(value) if value else None
    except ValueError:
        return None


def moment(value: str | bytes | None) -> float | None:
    """A point in time as RQ writes it into hashes: ISO 8601, in UTC."""
    try:
        read = datetime.fromisoformat(text(value).removesuffix("Z")) if value else None
    except ValueError:
        return None
    return read.replace(tzinfo=UTC).timestamp() if read else None


def failure_text(packed: bytes | None) -> str:
    """The text of a failure that a result holds: base64 around zlib, inflated within bounds."""
    try:
        unpacked = zlib.decompressobj().decompress(b64decode(packed or b""), _LARGEST)
    except (binascii.Error, zlib.error, ValueError):
        return ""
    return unpacked.decode("utf-8", "replace")


def reason_of(why: str) -> str:
    """Why an attempt failed, from the text of its failure."""
    if why.startswith(STOPPED):
        return "cancelled"
    if why.startswith(DIED):
        return "killed" if _died_by_signal(why) else "worker_lost"
    if is_abandoned(why):
        return "worker_lost"
    return "timeout" if _last(why)[0] == _TIMEOUT else "error"


def is_abandoned(why: str) -> bool:
    """Does the text say that the worker was gone?"""
    return why.startswith(STUCK) or (not why.startswith("Traceback") and ABANDONED in why)


def error_of(why: str) -> Error | None:
    """What an attempt failed with: the class and message of the last traceback; a sentence of RQ's has no class."""
    if not why:
        return None
    kind, message = _last(why)
    stack = cut(why, STACK) if kind else ""
    return Error(kind=kind, message=cut(message, MESSAGE), stack=stack)


def _last(why: str) -> tuple[str, str]:
    """Class and message of the exception that ended it; no class where the text is no traceback."""
    _, found, raised = why.rpartition(_TRACEBACK)
    if not found:
        return "", why.strip()
    lines = raised.splitlines()
    number = next((n for n, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
    kind, _, message = "\n".join(lines[number:]).partition(": ")
    if _kind(kind.strip()):
        return kind.strip(), message.strip()
    return "Exception", "\n".join(lines[number:]).strip()
