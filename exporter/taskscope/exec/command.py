"""The command `taskscope exec`, from its arguments to its exit."""

from __future__ import annotations

import errno
import os

from taskscope.exec.child import Child, Ended, Mask, become, end_as, exit_code_of
from taskscope.exec.oom import oom_kills
from taskscope.exec.options import Options, parse
from taskscope.exec.report import Report
from taskscope.exec.run import Run
from taskscope.exec.say import say
from taskscope.exec.tail import tail_of_stderr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_OWN = {errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.EISDIR, errno.E2BIG, errno.ELOOP}
"""What is wrong with the command, not with us."""


def main(arguments: list[str]) -> NoReturn:
    """Run the command that these name, then end as it did."""
    mask, options = Mask(), parse(arguments)
    for complaint in options.complaints:
        say(complaint)
    try:
        watch = Watch(options, mask)
    except Exception as error:  # noqa: BLE001 - isolation: the command runs, whatever is wrong with us
        say(f"{type(error).__name__}: {error}; the command runs without taskscope")
        os._exit(become(options.command, mask))
    end_as(watch.ended())


class Watch:
    """The command, and all that watches it."""

    def __init__(self, options: Options, mask: Mask) -> None:
        """Start it. Exits where it is not to be started, or cannot be."""
        self._options, self._mask = options, mask
        self._run = Run(options)
        self._report = Report(options.to, self._run.heartbeat, options.heartbeat)
        if options.lock and not _locked(options):
            self._exit(options.lock_exit_code, self._run.skipped())
        mask.close()
        self._oom_kills = oom_kills()
        self._tail = tail_of_stderr(options.tail)
        try:
            self._child = self._started()
        finally:
            self._tail.started()
        self._report.begin(self._run.begun())

    def ended(self) -> Ended:
        """Wait for its end, and tell of it."""
        try:
            ended = self._child.wait(self._options.timeout, self._options.kill_after)
        except Exception as error:  # noqa: BLE001 - isolation: it runs, and somebody waits for us
            say(f"{type(error).__name__}: {error}; signals do not reach the command any more")
            ended = self._child.wait_plainly()
        try:
            if not self._tail.ended(patience=1.0):
                self._mask.restore()
                self._tail.ended()
            oom = oom_kills() > self._oom_kills
            self._report.end(self._run.ended(ended, self._tail.text(), oom))
        except Exception as error:  # noqa: BLE001 - isolation: we end as the command did
            say(f"{type(error).__name__}: {error}; nobody hears how this run ended")
        return ended

    def _started(self) -> Child:
        environment = {**os.environ, "TRACEPARENT": self._run.traceparent}
        try:
            return Child(self._options.command, environment, self._mask, self._tail.output)
        except OSError as error:
            if error.errno not in _OWN:
                raise
            say(f"{self._options.command[0]}: {error.strerror}")
            self._exit(exit_code_of(error), self._run.unstarted(error))

    def _exit(self, code: int, events: list[dict[str, object]]) -> NoReturn:
        self._report.begin(events)
        self._report.end([])
        os._exit(code)


def _locked(options: Options) -> bool:
    """Is the lock ours? One that cannot be tried keeps nothing from running."""
    from taskscope.exec.lock import lock

    try:
        return lock(options.scheduler, options.job)
    except OSError as error:
        say(f"there is no lock, because {error.filename or 'its file'} cannot be used ({error.strerror})")
        return True
