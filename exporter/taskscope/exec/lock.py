"""One run of a job at a time, on this host and for this user."""

from __future__ import annotations

import fcntl
import os
from zlib import crc32

from taskscope.exec.options import home


def lock(scheduler: str, job: str) -> int:
    """Take the lock of a job until this process ends, also as what takes its place; returns its handle.

    Raises `BlockingIOError` where an earlier run has it, `OSError` where there is none to be had.
    """
    folder = os.path.join(home(), "lock")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    handle = os.open(os.path.join(folder, _file(scheduler, job)), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.set_inheritable(handle, True)
    return handle


def _file(scheduler: str, job: str) -> str:
    """A name of its own for each job, that a person can read."""
    text = f"{scheduler}/{job}"
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in text)[:80]
    return f"{plain}-{crc32(text.encode('utf-8', 'surrogateescape')):08x}.lock"
