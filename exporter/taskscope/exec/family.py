"""A process with its descendants, each held by a handle, so that a pid that was given away is not hit.

Those of which the system gives no handle are found anew for each signal.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import suppress


class Family:
    """Those that descend from a process now, and the process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._handles: dict[int, int] = {}
        self._bare: list[int] = []
        """Pids of those that live now and have no handle."""
        self._meet()

    def signal(self, number: int) -> None:
        """Send a signal to all of them, and to those that have been born since."""
        self._meet()
        for handle in self._handles.values():
            with suppress(OSError):
                signal.pidfd_send_signal(handle, number)
        for pid in self._bare:
            with suppress(OSError):
                os.kill(pid, number)

    def outlive(self, until: float) -> None:
        """Wait for the end of all until this moment (monotonic), then kill those that are left."""
        for handle in self._handles.values():
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
                with suppress(OSError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)

    def _meet(self) -> None:
        self._bare = []
        for pid in (self._pid, *_descendants(self._pid)):
            if pid not in self._handles:
                self._hold(pid)

    def _hold(self, pid: int) -> None:
        try:
            self._handles[pid] = os.pidfd_open(pid)
        except ProcessLookupError:  # it has just ended
            return
        except (OSError, AttributeError):  # old kernels, containers that forbid it, other systems
            self._bare.append(pid)


def _descendants(pid: int) -> list[int]:
    """All that were born of it and of its children, as far as their parents live."""
    parents = dict(_parents())
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def _parents() -> Iterator[tuple[int, int]]:
    """Every process and its parent."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdecimal():
            with suppress(OSError, ValueError), open(f"/proc/{name}/stat", "rb") as file:
                yield int(name), int(file.read().rpartition(b")")[2].split()[1])
