"""The command as a process: started, signalled, waited for, ended when its time is over."""

from __future__ import annotations

import errno
import os
import signal
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource
    from typing import NoReturn

    from taskscope.exec.family import Family

_NAMES = ("HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "TERM", "WINCH", "PWR")
PASSED = {int(getattr(signal, f"SIG{name}")) for name in _NAMES if hasattr(signal, f"SIG{name}")}
_REAL_TIME = range(getattr(signal, "SIGRTMIN", 0), getattr(signal, "SIGRTMAX", -1) + 1)  # not on macOS
PASSED |= set(_REAL_TIME) & set(map(int, signal.valid_signals()))
"""Signals that the command gets when we get them."""
_OF_KEYS = {signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH}
_BY_KERNEL = 0x80  # si_code of a signal that no process sent: the terminal sent it to the command, too
_LONG = 3600.0  # seconds; nobody wakes us and nothing is to be done


class Ended:
    """How the command ended."""

    def __init__(
        self, status: int, duration: float, cpu_user: float, cpu_system: float, max_rss: int
    ) -> None:
        """`status` is as of `wait`, `max_rss` in bytes."""
        code = os.waitstatus_to_exitcode(status)
        self.exit_code: int | None = code if code >= 0 else None
        self.signal: int | None = -code if code < 0 else None
        self.duration, self.cpu_user, self.cpu_system, self.max_rss = duration, cpu_user, cpu_system, max_rss
        self.timed_out = False


class Mask:
    """Signals wait for us while the command runs, which has them as they were."""

    def __init__(self) -> None:
        self.waited = PASSED | {signal.SIGCHLD}
        self.before = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def close(self) -> None:
        """Signals wait, also for threads that are begun from now on."""
        if not hasattr(signal, "sigtimedwait"):
            raise OSError(errno.ENOSYS, "this system cannot wait for signals, as Linux can")
        if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:  # else nobody could wait for the command
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, self.waited)

    def restore(self) -> None:
        """Signals come at once again."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self.before)


class Child:
    """The running command."""

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        mask: Mask,
        output: dict[int, int],
        kept: list[int],
    ) -> None:
        """Start it; `output` says which of its descriptors are to be which of ours, `kept` which it shall not have.

        Raises `OSError`, and then it does not run.
        """
        actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_DUP2, ours, its) for its, ours in output.items()]
        actions += [(os.POSIX_SPAWN_CLOSE, ours) for ours in kept]
        self.began = time.monotonic()
        self._mask = mask
        self._deadline = self._kill_at = 0.0
        self._kill_after = 0.0
        self._family: Family | None = None
        self._over: Ended | None = None
        self.pid = _spawned(command, environment, actions, mask.before)

    def wait(self, timeout: float = 0.0, kill_after: float = 10.0) -> Ended:
        """Pass signals on until it has ended. After `timeout` seconds it is asked to end, later it is made to."""
        self._deadline, self._kill_after = (self.began + timeout if timeout else 0.0), kill_after
        while True:
            found = signal.sigtimedwait(self._mask.waited, self._patience())
            if found is None:
                self._overdue()
            elif found.si_signo != signal.SIGCHLD:
                self._pass(found.si_signo, found.si_code)
            elif ended := self._reaped():
                return self._gone(ended)

    def wait_plainly(self) -> Ended:
        """Wait for its end, if it goes on, and do nothing else."""
        if self._over is None:
            _, status, usage = os.wait4(self.pid, 0)
            self._over = self._ended(status, usage)
        return self._over

    def _patience(self) -> float:
        at = self._kill_at or self._deadline
        return min(_LONG, max(0.0, at - time.monotonic())) if at else _LONG

    def _pass(self, number: int, code: int) -> None:
        """One that has become somebody else's, as with `sudo`, would not get it without us either."""
        if not (number in _OF_KEYS and code == _BY_KERNEL):
            with suppress(PermissionError):
                os.kill(self.pid, number)

    def _overdue(self) -> None:
        """Its time may be over: ask it and its descendants to end, then make them."""
        now = time.monotonic()
        if self._kill_at and now >= self._kill_at and self._family:
            self._family.signal(signal.SIGKILL)
            self._kill_at = now + 1.0  # for what was born meanwhile
        elif self._deadline and now >= self._deadline and not self._family:
            from taskscope.exec.family import Family

            self._family = Family(self.pid)
            self._family.signal(signal.SIGTERM)
            self._kill_at = now + self._kill_after

    def _reaped(self) -> Ended | None:
        """Wait for whatever has ended (we may be the first process of a container); the command, if it is among it."""
        while True:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == self.pid:
                self._over = self._ended(status, usage)
                return self._over
            if pid == 0:
                return None

    def _ended(self, status: int, usage: resource.struct_rusage) -> Ended:
        took = time.monotonic() - self.began
        return Ended(status, took, usage.ru_utime, usage.ru_stime, usage.ru_maxrss * 1024)

    def _gone(self, ended: Ended) -> Ended:
        """It has ended. Descendants that were asked to end with it may take the rest of their time."""
        if self._family:
            ended.timed_out = True
            self._family.outlive(self._kill_at)
        return ended


def become(command: list[str], mask: Mask) -> int:
    """Let the command take the place of this process; what to exit with, where that cannot be."""
    mask.restore()
    for number in _defaults():
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        if error.errno == errno.ENOEXEC and (path := _found(command[0])):
            os.execv("/bin/sh", ["/bin/sh", path, *command[1:]])
        return exit_code_of(error)


def exit_code_of(error: OSError) -> int:
    """What a shell exits with for a command that cannot be started."""
    return 127 if isinstance(error, FileNotFoundError) else 126


def end_as(ended: Ended) -> NoReturn:
    """End this process as the command did."""
    if ended.signal is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        if ended.signal not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(ended.signal, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {ended.signal})
        os.kill(os.getpid(), ended.signal)
        os._exit(128 + ended.signal)  # the first process of a container is not killed by its own signals
    code = ended.exit_code or 0
    os._exit(124 if ended.timed_out and not code else code)  # nothing of ours waits to be written


def _spawned(
    command: list[str], environment: dict[str, str], actions: list[tuple[int, ...]], mask: set[int]
) -> int:
    """Its pid. A script without `#!` is one for the shell, as shells have it."""
    settings = {"file_actions": actions, "setsigmask": mask, "setsigdef": _defaults()}
    try:
        return os.posix_spawnp(command[0], command, environment, **settings)  # type: ignore[arg-type]
    except OSError as error:
        if error.errno != errno.ENOEXEC or not (path := _found(command[0])):
            raise
    return os.posix_spawn("/bin/sh", ["/bin/sh", path, *command[1:]], environment, **settings)  # type: ignore[arg-type]


def _defaults() -> list[int]:
    """Signals which Python ignores and the command shall not. Units of systemd ignore SIGPIPE by themselves."""
    direct = os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())
    return [signal.SIGXFSZ] if direct else [signal.SIGPIPE, signal.SIGXFSZ]


def _found(program: str) -> str | None:
    """The file that is executed under this name."""
    if "/" in program:
        return program
    places = (os.path.join(place, program) for place in os.get_exec_path())
    return next((path for path in places if os.access(path, os.X_OK) and os.path.isfile(path)), None)
