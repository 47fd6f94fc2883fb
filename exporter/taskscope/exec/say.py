"""How a person hears what is wrong: one sentence on stderr, which never fails."""

from __future__ import annotations

import os
import sys


def say(sentence: str) -> None:
    """One line, if there is anybody to read it."""
    if sys.stderr is None:  # it was closed before we were started: 2 is now something else
        return
    try:
        os.write(2, f"taskscope: {' '.join(sentence.split())}\n".encode("utf-8", "replace"))
    except OSError:
        return
