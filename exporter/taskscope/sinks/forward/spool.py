"""Bodies that wait on disk for a taskscope that is away: a file each, durable once `put` returns, sent in order."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from itertools import count
from pathlib import Path

from taskscope.errors import Refused, Unavailable

_numbers = count()
_MOST = 64 * 2**20  # bytes


def spool_for(folder: str, whom: str, most: int = _MOST) -> "Spool":
    """What waits in `folder` for `whom`, an address: nobody else is to get it."""
    return Spool(Path(folder).absolute() / sha256(whom.encode()).hexdigest()[:16], most)


class Spool:
    """A folder of bodies. Any number of processes may put into it and drain it: what is sent twice does no harm."""

    def __init__(self, folder: Path, most: int = _MOST) -> None:
        """At most `most` bytes wait."""
        self._folder, self._most = folder, most
        self._sent: set[str] = set()
        """Names of files that wait for nothing but to be removed."""

    def put(self, body: bytes) -> None:
        """Keep a body; it is durable afterwards. Raises `Unavailable` where the disk does not take it."""
        name = f"{time.time_ns():020}-{os.getpid()}-{next(_numbers)}"
        draft = self._folder / f".{name}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.size() + len(body) > self._most:
                raise Unavailable(
                    f"the spool {self._folder} holds {self._most} bytes already; make it drain, or larger"
                )
            with open(draft, "xb", opener=_private) as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(self._folder / name)
            _sync(self._folder)
        except OSError as error:
            with suppress(OSError):
                draft.unlink()
            raise Unavailable(f"the spool {self._folder} cannot be written ({error})") from error

    def drain(self, send: Callable[[bytes], object], complain: Callable[[str], object]) -> int:
        """Send what waits, the oldest first, and forget what was taken or will never be; how many were taken.

        Of a file that is refused, or cannot be read or removed, `complain` hears each time; it keeps no other from
        being sent, and is sent once. Raises what `send` raises when it is `Unavailable`; the rest then waits on.
        """
        taken = 0
        for file in self._files():
            body = self._read(file, complain)
            if body is not None:
                try:
                    send(body)
                    taken += 1
                except Refused as error:
                    complain(str(error))
                self._sent.add(file.name)
            if file.name in self._sent:
                self._remove(file, complain)
        return taken

    def _read(self, file: Path, complain: Callable[[str], object]) -> bytes | None:
        """None where it cannot be read, or was sent."""
        try:
            return None if file.name in self._sent else file.read_bytes()
        except FileNotFoundError:  # another process has just sent it
            return None
        except OSError as error:
            complain(
                f"what waits in {file} is not sent, because it cannot be read ({error.strerror});"
                " give it to the user who runs this, or delete it"
            )
            return None

    def _remove(self, file: Path, complain: Callable[[str], object]) -> None:
        try:
            file.unlink(missing_ok=True)
            self._sent.discard(file.name)
        except OSError as error:
            complain(
                f"{file} was sent and cannot be removed ({error.strerror});"
                " delete it, and give its folder to the user who runs this"
            )

    def size(self) -> int:
        """Bytes that wait."""
        return sum(_size(file) for file in self._files())

    def _files(self) -> Iterator[Path]:
        try:
            names = sorted(os.listdir(self._folder))
        except OSError:
            names = []
        return (self._folder / name for name in names if not name.startswith("."))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync(folder: Path) -> None:
    """Make what was renamed in it durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
