"""Hears from process-pool children at once that a run has started, and that it succeeded."""

import os
import select
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress

from taskscope.bridges._apscheduler_child import NEWS

Heard = Callable[[int, int, float, float, int], None]
"""Takes submission number, index of the run, start, duration (-1: it begins) and pid."""


class Starts:
    """A Unix datagram socket of our own, opened when the first run goes to a process pool."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._lock = threading.Lock()
        self._pid = 0
        self._directory = ""
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def address(self) -> str:
        """Where children send to; empty where that is not possible, and then starts are told with the end."""
        with self._lock:
            if self._pid != os.getpid():  # also after a fork: the socket and its thread are the parent's
                self._pid = os.getpid()
                try:
                    self._open()
                except (OSError, AttributeError):  # no AF_UNIX, or no place for it
                    self._directory = self._remove()
            return self._path if self._directory else ""

    def drain(self) -> None:
        """Take what has been sent and is not heard yet."""
        with self._lock:
            while self._socket is not None and self._pid == os.getpid():
                try:
                    datagram = self._socket.recv(64, socket.MSG_DONTWAIT)
                except OSError:
                    return
                if len(datagram) == NEWS.size:
                    self._heard(*NEWS.unpack(datagram))

    def close(self) -> None:
        """End the thread and remove the socket. May be called twice."""
        with self._lock:
            opened, thread = self._socket, self._thread
            self._socket = self._thread = None
            mine, self._pid = self._pid == os.getpid(), 0
        if opened is None:
            return
        if mine and thread is not None:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as waker:
                waker.sendto(b"", self._path)
            thread.join(5)
            self._remove()
        opened.close()

    def abandon(self) -> None:
        """In a forked child: let go of the parent's socket and thread, which go on there."""
        opened, self._socket, self._thread = self._socket, None, None
        self._lock, self._pid, self._directory = threading.Lock(), 0, ""
        if opened is not None:
            opened.close()

    @property
    def _path(self) -> str:
        return os.path.join(self._directory, "starts")

    def _remove(self) -> str:
        shutil.rmtree(self._directory, ignore_errors=True)
        return ""

    def _open(self) -> None:
        self._directory = tempfile.mkdtemp(prefix="taskscope-")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._path)
        self._thread = threading.Thread(
            target=self._listen, args=[self._socket], name="taskscope-starts", daemon=True
        )
        self._thread.start()

    def _listen(self, opened: socket.socket) -> None:
        poll = select.poll()  # select() refuses descriptors above 1023
        poll.register(opened, select.POLLIN)
        while self._socket is opened:
            poll.poll()
            self.drain()
