"""What is said to systemd, where it asks (`Type=notify`): a datagram to the socket that it names."""

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Say `READY=1`, `STOPPING=1` …; nothing happens where nobody asks."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if place:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.sendto(state.encode(), "\0" + place[1:] if place.startswith("@") else place)
