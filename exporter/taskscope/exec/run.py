"""One run of a command, in the words of `taskscope.events` as JSON has them."""

from __future__ import annotations

import os
import re
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from taskscope.exec.child import Ended
    from taskscope.exec.options import Options

_LONGEST = 2048  # characters of a command line that are told
_DAY = 86400.0
_PARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})")


class Run:
    """Knows who it is, and makes the events that tell of it."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.host, self.pid = os.uname().nodename, os.getpid()
        self.at = time.time()
        identity = os.urandom(16).hex()
        self.instance = f"{self.host}:{self.pid}-{identity}"
        """Not `host:pid:uuid`: from another container nobody can tell by a pid whether a process lives."""
        self._invocation = _invocation()
        self._native = f"{self._invocation}:{self.pid}" if self._invocation else identity
        self._due = _due(self.at)
        self.trace_id, self.traceparent = _trace()

    def begun(self) -> list[dict[str, Any]]:
        """It has started, and what its job is."""
        return [
            self._defined(),
            self._fact("started", self.at, started=self.at, details=self._details(cpu_seconds=0)),
        ]

    def skipped(self) -> list[dict[str, Any]]:
        """An earlier run of the job goes on."""
        return [self._defined(), self._fact("skipped", self.at, reason="overlap", details=self._details())]

    def unstarted(self, error: OSError) -> list[dict[str, Any]]:
        """The system cannot execute it."""
        what = {"kind": type(error).__name__, "message": f"{self._options.command[0]}: {error.strerror}"}
        return [
            self._defined(),
            self._fact("failed", self.at, reason="error", error=what, details=self._details()),
        ]

    def ended(self, ended: Ended, tail: str, oom: bool) -> list[dict[str, Any]]:
        """It has ended."""
        reason = _reason(ended, oom)
        fact = self._fact(
            "failed" if reason else "success",
            self.at + ended.duration,
            started=self.at,
            duration=ended.duration,
            reason=reason,
            details=self._details(
                cpu_seconds=round(ended.cpu_user + ended.cpu_system, 6),
                cpu_user_seconds=ended.cpu_user,
                cpu_system_seconds=ended.cpu_system,
                max_rss_bytes=ended.max_rss,
                **(
                    {"exit_code": ended.exit_code}
                    if ended.signal is None
                    else {"signal": _name(ended.signal)}
                ),
            ),
        )
        if reason:
            fact["error"] = _error(ended, reason, tail)
        return [fact]

    def heartbeat(self) -> dict[str, Any]:
        """It goes on."""
        return {"type": "heartbeat", "instance": self.instance, "at": time.time()}

    def _defined(self) -> dict[str, Any]:
        options, triggers = self._options, []
        if options.schedule:
            trigger = {"key": "cron", "state": "WAITING", "schedule": options.schedule}
            triggers.append({**trigger, "timezone": options.timezone})
        job = {
            "name": options.job,
            "key": options.job,
            "description": _line(options.command),
            "triggers": triggers,
        }
        return {"type": "defined", "scheduler": options.scheduler, "at": self.at, "job": job}

    def _fact(self, status: str, at: float, **more: Any) -> dict[str, Any]:
        fact = {
            "type": "fact",
            "scheduler": self._options.scheduler,
            "native": self._native,
            "status": status,
            "at": at,
            "anchor": self.at,
            "job": self._options.job,
            "worker": self.host,
            "instance": self.instance,
            "trace_id": self.trace_id,
            **more,
        }
        return fact if self._due is None else fact | {"due": self._due}

    def _details(self, **more: Any) -> dict[str, Any]:
        """Of two texts of details the greater is kept: `cpu_seconds`, the first that differs, begins as 0."""
        user = os.environ.get("LOGNAME") or os.environ.get("USER") or f"uid {os.getuid()}"
        details = {
            "command": _bounded(self._options.command),
            "host": self.host,
            "pid": self.pid,
            "user": user,
            **more,
        }
        return details | ({"invocation_id": self._invocation} if self._invocation else {})


def _reason(ended: Ended, oom: bool) -> str:
    """Why it failed; empty where it did not."""
    if ended.timed_out:
        return "timeout"
    if oom and (ended.signal == signal.SIGKILL or ended.exit_code == 128 + signal.SIGKILL):
        return "oom"
    if ended.signal is not None:
        return "killed"
    return "error" if ended.exit_code else ""


def _error(ended: Ended, reason: str, tail: str) -> dict[str, Any]:
    """Its last words."""
    how = f"exit {ended.exit_code}" if ended.signal is None else _name(ended.signal)
    kind = {"timeout": "Timeout", "oom": "OutOfMemory"}.get(reason, how)
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return {"kind": kind, "message": lines[-1] if lines else f"it ended with {how}", "stack": tail}


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _line(command: list[str]) -> str:
    import shlex

    return _clean(shlex.join(command)[:_LONGEST])


def _bounded(command: list[str]) -> list[str]:
    """The words of the command, up to a length."""
    words, room = [], _LONGEST
    for word in command:
        words.append(_clean(word[:room]))
        room -= len(word)
        if room <= 0:
            return [*words[:-1], words[-1] + "…"]
    return words


def _clean(text: str) -> str:
    """Without the halves of characters that stand for bytes which are no text."""
    return text.encode("utf-8", "replace").decode()


def _invocation() -> str:
    """The id that systemd gave to this run of a unit; empty where we are not the process that it started."""
    direct = os.environ.get("SYSTEMD_EXEC_PID", str(os.getpid() if os.getppid() == 1 else 0)) == str(
        os.getpid()
    )
    return os.environ.get("INVOCATION_ID", "") if direct else ""


def _due(now: float) -> float | None:
    """When a timer of systemd wanted it to start."""
    told = os.environ.get("TRIGGER_TIMER_REALTIME_USEC", "")
    due = int(told) / 1e6 if told.isdecimal() and len(told) < 20 else 0.0
    return due if now - _DAY < due < now + _DAY else None


def _trace() -> tuple[str, str]:
    """The id of the trace that goes on here, or begins, and what the command is told of it."""
    found = _PARENT.fullmatch(os.environ.get("TRACEPARENT", ""))
    trace, flags = (found[1], found[2]) if found and int(found[1], 16) else (os.urandom(16).hex(), "01")
    return trace, f"00-{trace}-{os.urandom(8).hex()}-{flags}"
