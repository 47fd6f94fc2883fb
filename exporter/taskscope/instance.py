"""Which process this is."""

import os
import socket
from functools import lru_cache
from uuid import uuid4


def instance() -> str:
    """This process as `host:pid:uuid`; another after a fork, and never that of an earlier process."""
    return _instance(os.getpid())


def new_instance() -> str:
    """Another name for this process, for what must not be taken for its earlier self."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex}"


@lru_cache(maxsize=1)
def _instance(pid: int) -> str:
    return new_instance()
