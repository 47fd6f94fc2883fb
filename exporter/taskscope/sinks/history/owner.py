"""One process owns a history file: it holds a lock beside it, and it alone writes, prunes and migrates."""

import os
import sys
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from taskscope.errors import NotOwner, Unavailable

_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs")
_MOUNTS = Path("/proc/self/mountinfo")


class Owner:
    """The lock `<file>.lock`. It ends with `close` or this process; a forked child does not hold it."""

    def __init__(self, file: Path) -> None:
        self.path = file.with_name(file.name + ".lock")
        self._handle: int | None = None
        self._pid = 0
        self._hooked = False

    @property
    def held(self) -> bool:
        """Does this very process hold the lock?"""
        return self._handle is not None and self._pid == os.getpid()

    def acquire(self) -> None:
        """Take the lock. Raises `NotOwner` naming who holds it, `Unavailable` where no lock can be."""
        if self.held:
            return
        self._refuse_network()
        handle = self._open()
        try:
            _lock(handle)
        except OSError as error:
            os.lseek(handle, 1, os.SEEK_SET)
            holder = os.read(handle, 32).decode(errors="replace").strip() or "?"
            os.close(handle)
            raise NotOwner(
                f"the history {self._file} is owned by process {holder}; end it or use another file"
            ) from error
        os.ftruncate(handle, 0)
        os.write(handle, f" {os.getpid()}\n".encode())  # the first byte is what Windows locks
        self._handle, self._pid = handle, os.getpid()
        self._make_private()
        if hasattr(os, "register_at_fork") and not self._hooked:
            self._hooked = True
            os.register_at_fork(after_in_child=_disown(weakref.ref(self)))

    def close(self) -> None:
        """Let the lock go; may be called twice."""
        handle, self._handle = self._handle, None
        if handle is not None:
            if self._pid == os.getpid():
                _unlock(handle)
            os.close(handle)

    @property
    def _file(self) -> Path:
        return self.path.with_suffix("")

    def _open(self) -> int:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except (FileExistsError, NotADirectoryError) as error:
            file = next(filter(os.path.lexists, self.path.parents))
            raise Unavailable(
                f"the history {self._file} cannot be made: {file} is not a folder; use another path"
            ) from error
        except OSError as error:
            why = error.strerror or error
            raise Unavailable(f"the history {self._file} cannot be locked: {self.path}: {why}") from error

    def _make_private(self) -> None:
        """A new history is for its user alone: stack traces tell a lot."""
        with suppress(OSError):  # the database will say it better
            os.close(os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600))

    def _refuse_network(self) -> None:
        kind = file_system(self.path)
        if kind in _NETWORK:
            raise Unavailable(
                f"the history {self._file} is on a network file system ({kind}); use a local disk"
            )


def file_system(path: Path, mounts: Path | None = None) -> str:
    """The kind of file system a path is, or would be, on; '' where the system does not say."""
    try:
        lines = (mounts or _MOUNTS).read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    target, best, kind = path.absolute(), -1, ""
    for line in lines:
        mount, _, source = line.partition(" - ")
        point = Path(mount.split()[4].encode().decode("unicode_escape"))
        if target.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), source.split()[0]
    return kind


def default_path(service: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the history of a service lives unless the user says otherwise."""
    if home := environment.get("TASKSCOPE_HOME"):
        directory = Path(home)
    elif state := environment.get("XDG_STATE_HOME"):
        directory = Path(state) / "taskscope"
    else:
        directory = Path(environment.get("HOME") or Path.home()) / ".local" / "state" / "taskscope"
    plain = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in service).strip(".")
    return directory / f"{plain or 'taskscope'}.db"


def _disown(owner: "weakref.ref[Owner]") -> Callable[[], None]:
    """What a forked child does: were its copy of the handle open, the lock would outlive the owner."""

    def close() -> None:
        if (mine := owner()) is not None:
            mine.close()

    return close


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

    def _unlock(handle: int) -> None:
        os.lseek(handle, 0, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_UN)
