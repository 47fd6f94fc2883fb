"""The socket file at which the owner of a history takes the events of other processes of this user.

Beside a SQLite file every process with the same history finds it. With another history only forked children do, and
it is made where a bridge has some.
"""

import logging
import shutil
import socket
import tempfile
import threading
from pathlib import Path

from taskscope.api.backend import Backend
from taskscope.api.server import Server
from taskscope.errors import TaskscopeError
from taskscope.settings import Settings
from taskscope.sinks.history import url_for

logger = logging.getLogger("taskscope")


class Members:
    """Where the other processes send to; and, in the owner, who listens there."""

    def __init__(self, settings: Settings, forks: bool) -> None:
        """`forks`: runs are executed in forked children."""
        self._beside = _beside(settings)
        self._private = forks and self._beside is None and hasattr(socket, "AF_UNIX")
        self._folder: str | None = None
        self._server: Server | None = None
        self._lock, self._ended = threading.Lock(), False

    @property
    def shared(self) -> bool:
        """Do other processes than forked children find it?"""
        return self._beside is not None

    @property
    def url(self) -> str | None:
        """Where to send to; None where there is no such place."""
        path = Path(self._folder, "taskscope.sock") if self._folder else self._beside
        return f"unix://{path}" if path else None

    def open(self, backend: Backend) -> None:
        """Listen, if anybody could come; called by the owner alone. Where that is impossible, say so and go on."""
        with self._lock:
            if self._server is None and not self._ended and (path := self._path()) is not None:
                self._server = Server(backend)
                try:
                    self._server.start_file(path)
                except (
                    TaskscopeError
                ) as error:  # whom it concerns is degraded: a process that would hand on its runs
                    logger.warning("taskscope: %s", error)

    def close(self) -> None:
        """Take nothing more; may be called twice, and by the owner alone."""
        with self._lock:
            self._ended = True
            if self._server is not None:
                self._server.stop()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    def abandon(self) -> None:
        """In a forked child: its parent listens, and the child sends there."""
        server, self._server = self._server, None
        if server is not None:
            server.abandon()

    def _path(self) -> Path | None:
        """Where to listen; makes the folder of a private one."""
        if self._private and self._folder is None:
            self._folder = tempfile.mkdtemp(prefix="taskscope-")
        return Path(self.url.removeprefix("unix://")) if self.url else None


def _beside(settings: Settings) -> Path | None:
    """The socket file of a SQLite history."""
    url = url_for(settings) or ""
    if not url.startswith("sqlite:") or not hasattr(socket, "AF_UNIX"):
        return None
    from taskscope.sinks.history.database import (
        parse,
    )  # a database library, which `history=None` does without

    return Path(f"{parse(url).database}.sock").absolute()
