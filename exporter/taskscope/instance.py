"""Which process this is."""

import os
import socket
from functools import lru_cache
from uuid import uuid4


def instance() -> str:
    """This process as `host:pid:uuid`; another after a fork, and never that of an earlier process."""
    return _instance(os.getpid())


@lru_cache(maxsize=1)
def _instance(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}:{uuid4().hex}"
