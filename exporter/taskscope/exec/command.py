"""The command `taskscope exec`, from its arguments to its exit."""

from __future__ import annotations

import errno
import os
from functools import partial

from taskscope.exec.child import Child, Ended, Mask, become, end_as, exit_code_of
from taskscope.exec.oom import oom_kills
from taskscope.exec.options import Options, divided, parse
from taskscope.exec.report import Report
from taskscope.exec.run import Run
from taskscope.exec.say import say
from taskscope.exec.tail import tail_of_stderr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

_OWN = {errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.EISDIR, errno.E2BIG, errno.ELOOP}
"""What is wrong with the command, not with us."""


def main(arguments: list[str]) -> NoReturn:
    """Run the command that these name, then end as it did."""
    mask = Mask()
    try:
        options = parse(arguments)
        for complaint in options.complaints:
            say(complaint)
        watch = Watch(options, mask)
    except Exception as error:  # noqa: BLE001 - isolation: the command runs, whatever is wrong with us
        say(f"{type(error).__name__}: {error}; the command runs without taskscope")
        os._exit(become(divided(arguments)[1], mask))
    end_as(watch.ended())


class Watch:
    """The command, and all that watches it."""

    def __init__(self, options: Options, mask: Mask) -> None:
        """Start it. Exits where it is not to be started, or cannot be."""
        self._options, self._mask = options, mask
        self._run = Run(options)
        self._report = Report(options.to, self._run.heartbeat, options.heartbeat)
        held = self._locked() if options.lock else []
        mask.close()
        self._oom_kills = oom_kills()
        self._tail = tail_of_stderr(options.tail)
        try:
            self._child = self._started(held)
        finally:
            _isolated(self._tail.started, "what the command writes may come late")
        _isolated(lambda: self._report.begin(self._run.begun()), "nobody hears that this run began")

    def ended(self) -> Ended:
        """Wait for its end, and tell of it."""
        try:
            ended = self._child.wait(self._options.timeout, self._options.kill_after)
        except Exception as error:  # noqa: BLE001 - isolation: it runs, and somebody waits for us
            say(f"{type(error).__name__}: {error}; signals do not reach the command any more")
            ended = self._child.wait_plainly()
        _isolated(lambda: self._tell(ended), "nobody hears how this run ended")
        return ended

    def _tell(self, ended: Ended) -> None:
        if not self._tail.ended(patience=1.0):
            self._mask.restore()
            self._tail.ended()
        oom = oom_kills() > self._oom_kills
        self._report.end(self._run.ended(ended, self._tail.text(), oom))

    def _started(self, held: list[int]) -> Child:
        environment = {**os.environ, "TRACEPARENT": self._run.traceparent}
        try:
            return Child(self._options.command, environment, self._mask, self._tail.output, held)
        except OSError as error:
            if error.errno not in _OWN:
                raise
            say(f"{self._options.command[0]}: {error.strerror}")
            self._exit(exit_code_of(error), partial(self._run.unstarted, error))

    def _locked(self) -> list[int]:
        """The handle of the lock. One that cannot be tried keeps nothing from running."""
        from taskscope.exec.lock import lock

        try:
            return [lock(self._options.scheduler, self._options.job)]
        except BlockingIOError:
            self._exit(self._options.lock_exit_code, self._run.skipped)
        except OSError as error:
            say(f"there is no lock, because {error.filename or 'its file'} cannot be used ({error.strerror})")
            return []

    def _exit(self, code: int, events: Callable[[], list[dict[str, object]]]) -> NoReturn:
        """Tell these, and end; whatever goes wrong with that, the command is not run instead."""
        _isolated(lambda: self._report.begin(events()), "nobody hears of this run")
        _isolated(lambda: self._report.end([]), "nobody hears of this run")
        os._exit(code)


def _isolated(work: Callable[[], None], otherwise: str) -> None:
    """Do what the command must not notice; where that fails, a sentence says what follows."""
    try:
        work()
    except Exception as error:  # noqa: BLE001 - isolation: after the start only the command decides
        say(f"{type(error).__name__}: {error}; {otherwise}")
