"""The last bytes that the command wrote to stderr, without anybody noticing that they are looked at.

What stderr is decides how. A terminal is left alone. A file is read afterwards. A pipe, a socket and `/dev/null` get
another pipe before them, from which a thread passes on every byte at once; if stdout is the same pipe or socket, it
goes the same way, so that the order of both stays.
"""

from __future__ import annotations

import os
import select
import stat
import threading
from collections import deque

_CHUNK = 65536  # bytes; what a pipe holds


def tail_of_stderr(most: int) -> Tail:
    """What keeps the last `most` bytes; nothing where that cannot be done."""
    try:
        found = os.fstat(2)
        if most and stat.S_ISREG(found.st_mode):
            return FileTail(most, found.st_size)
        null = stat.S_ISCHR(found.st_mode) and found.st_rdev == os.stat(os.devnull).st_rdev
        if most and (null or stat.S_ISFIFO(found.st_mode) or stat.S_ISSOCK(found.st_mode)):
            return PipeTail(most, shared=not null and os.path.sameopenfile(1, 2))
    except (OSError, RuntimeError):  # it is closed; no descriptor or thread is to be had
        pass
    return Tail()


class Tail:
    """Keeps nothing."""

    def __init__(self) -> None:
        self.output: dict[int, int] = {}
        """Which descriptors of the command are to be which of ours."""

    def started(self) -> None:
        """The command has been started, or could not be."""

    def ended(self, patience: float | None = None) -> bool:
        """The command has ended: pass on all it wrote. False where that takes longer than `patience` seconds."""
        return True

    def text(self) -> str:
        """What was kept."""
        return ""


class FileTail(Tail):
    """Reads the file that stderr is, from where it ended before."""

    def __init__(self, most: int, size: int) -> None:
        super().__init__()
        self._most, self._begin = most, size

    def text(self) -> str:
        """What stands in the file now; empty where it cannot be read."""
        try:
            with open("/proc/self/fd/2", "rb") as file:
                size = file.seek(0, os.SEEK_END)
                begin = self._begin if self._begin <= size else 0  # somebody cut it
                file.seek(max(begin, size - self._most))
                return file.read(self._most).decode("utf-8", "replace")
        except OSError:
            return ""


class PipeTail(Tail):
    """Passes on what comes through a pipe."""

    def __init__(self, most: int, shared: bool) -> None:
        """`shared`: stdout is the same as stderr. Raises `OSError` and `RuntimeError`."""
        super().__init__()
        self._most, self._held = most, 0
        self._kept: deque[bytes] = deque()
        self._read, self._write = os.pipe()
        try:
            self._end, self._tell = os.pipe()
            self._thread = threading.Thread(target=self._pass, daemon=True)
            self._thread.start()
        except BaseException:
            self.started()
            os.close(self._read)
            raise
        self.output = {2: self._write, **({1: self._write} if shared else {})}
        self._all = False

    def started(self) -> None:
        """Only the command has the other end now: it is closed when the last of its processes has ended."""
        os.close(self._write)

    def ended(self, patience: float | None = None) -> bool:
        """Pass on all it wrote. What it left running may write on, to a process of ours that stays for that."""
        if self._tell >= 0:
            os.close(self._tell)
            self._tell = -1
        self._thread.join(patience)
        if self._thread.is_alive():  # whoever reads takes nothing now
            return False
        if not self._all:
            _pass_on(self._read)
        return True

    def text(self) -> str:
        """What was kept."""
        return b"".join(self._kept)[-self._most :].decode("utf-8", "replace")

    def _pass(self) -> None:
        """On a thread: copy until the end of the pipe, or until the command has ended and the pipe is empty."""
        poll, after = select.poll(), 0
        poll.register(self._read, select.POLLIN)
        poll.register(self._end, select.POLLIN)
        while after <= _CHUNK:  # the command's own words; a process that it left could write for ever
            ready = {handle for handle, _ in poll.poll()}
            if self._read not in ready:
                return
            data = os.read(self._read, _CHUNK)
            if not data or not _written(data):
                self._all = True
                os.close(self._read)  # nobody reads: let the command find out
                return
            after += len(data) if self._end in ready else 0
            self._keep(data)

    def _keep(self, data: bytes) -> None:
        self._kept.append(data)
        self._held += len(data)
        while self._held - len(self._kept[0]) >= self._most:
            self._held -= len(self._kept.popleft())


def _written(data: bytes) -> bool:
    """Write all of it to stderr; False where nobody reads it any more."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(2, rest) :]
        except BlockingIOError:  # somebody else's choice of mode
            select.select([], [2], [])
        except OSError:
            return False
    return True


def _pass_on(source: int) -> None:
    """Leave a process behind that copies until the end of the pipe, as the pipe itself would have done."""
    if os.fork():
        return
    try:
        os.dup2(source, 0)
        os.close(1)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.chdir("/")
        while (data := os.read(0, _CHUNK)) and _written(data):
            pass
    finally:
        os._exit(0)
