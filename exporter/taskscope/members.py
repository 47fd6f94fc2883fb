"""The socket file at which the owner of a history takes the events of other processes of this user.

Beside a SQLite file every process with the same history finds it. With another history only forked children do, and
it is made where a bridge has some.
"""

import shutil
import socket
import tempfile
from pathlib import Path

from taskscope.api.backend import Backend
from taskscope.api.server import Server
from taskscope.settings import Settings
from taskscope.sinks.history import url_for


class Members:
    """Where the other processes send to; and, in the owner, who listens there."""

    def __init__(self, settings: Settings, forks: bool) -> None:
        """`forks`: runs are executed in forked children."""
        self._beside = _beside(settings)
        self._private = (
            forks and self._beside is None and settings.forward is None and hasattr(socket, "AF_UNIX")
        )
        self._folder: str | None = None
        self._server: Server | None = None

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
        """Listen, if anybody could come; called by the owner alone. Raises `Unavailable`."""
        if self._private and self._folder is None:
            self._folder = tempfile.mkdtemp(prefix="taskscope-")
        if self._server is None and self.url is not None:
            self._server = Server(backend)
            try:
                self._server.start_file(Path(self.url.removeprefix("unix://")))
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Take nothing more; may be called twice."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def abandon(self) -> None:
        """In a forked child: its parent listens, and the child sends there."""
        server, self._server = self._server, None
        if server is not None:
            server.abandon()


def _beside(settings: Settings) -> Path | None:
    """The socket file of a SQLite history."""
    url = url_for(settings) or ""
    if not url.startswith("sqlite:") or not hasattr(socket, "AF_UNIX"):
        return None
    from taskscope.sinks.history.database import (
        parse,
    )  # a database library, which `history=None` does without

    return Path(f"{parse(url).database}.sock").absolute()
