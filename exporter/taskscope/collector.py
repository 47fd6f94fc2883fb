"""`taskscope serve`: watches what the settings name, until it is told to end.

SIGTERM and Ctrl-C end it, after what has been seen is stored; SIGHUP makes it read its settings again.
"""

import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from taskscope import bridges, logs
from taskscope.api.server import rehearse
from taskscope.errors import BadArgument, TaskscopeError
from taskscope.exporter import Exporter
from taskscope.reload import Change, change
from taskscope.settings import Settings, Source
from taskscope.signals import next_of, received
from taskscope.systemd import notify

logger = logging.getLogger("taskscope")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(settings: Settings, read_again: Callable[[], Settings]) -> None:
    """Serve until Ctrl-C or SIGTERM, then carry what has been seen. `read_again` gives the settings at SIGHUP.

    Raises `BadArgument` and `Unavailable` at start for whatever keeps it from working fully; a scheduler at a URL may
    be away.
    """
    logs.write(settings)
    rehearse(settings)  # before a history is made: an empty one would pass for the only one there is
    schedulers = {name: target(name, source) for name, source in settings.schedulers.items()}
    exporter = Exporter(*schedulers.values(), names=list(schedulers), settings=settings)
    had_terminal = _has_terminal()
    with received(*_SIGNALS) as signals, exporter:
        hint = "" if schedulers else "; it watches nothing yet: name schedulers in the settings file"
        logger.info("taskscope goes on until SIGTERM, and reads its settings again at SIGHUP%s", hint)
        _collect_seldom()
        notify("READY=1")
        while next_of(signals) == signal.SIGHUP and not (had_terminal and not _has_terminal()):
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            _reload(exporter, read_again)
            notify("READY=1")
        notify("STOPPING=1")
        logger.info("taskscope ends: it stores what has been seen")
    logger.info("taskscope has ended")


def _collect_seldom() -> None:
    """Hardly anything here is garbage in cycles: to look for it as often as Python does costs 2 us an event."""
    gc.freeze()  # what is there now stays
    gc.set_threshold(50_000, 20, 50)


def _reload(exporter: Exporter, read_again: Callable[[], Settings]) -> None:
    """Go on by the settings as they are now; by the old ones where the new cannot be used."""
    try:
        found = change(exporter.settings, read_again())
        come = {name: target(name, found.settings.schedulers[name]) for name in found.come}
        exporter.adopt(found.settings, found.gone, come)
    except TaskscopeError as error:
        logger.error("taskscope keeps its old settings: %s", error)
        return
    except Exception:  # isolation: the schedulers that are watched already must not end with a new one
        logger.exception("taskscope could not take over all of its settings")
        return
    logs.write(found.settings)
    logger.info("taskscope has read its settings again%s", _what(found))
    if found.later:
        logger.warning("taskscope must be started again for what changed of %s", ", ".join(found.later))


def _what(found: Change) -> str:
    """What is watched from now on, and what no more."""
    words = {"now": sorted(found.come), "no more": found.gone}
    told = [f"{word} {', '.join(names)}" for word, names in words.items() if names]
    return f"; it watches {', '.join(told)}" if told else ""


def _has_terminal() -> bool:
    """Is there a terminal? One that was closed says so by SIGHUP, too."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def target(name: str, source: Source) -> Any:
    """What a source names: the object at `module:attribute`, or the source itself where it says a URL.

    Raises `BadArgument`.
    """
    if "://" in source.target:
        _check(name, source)
        return source
    module, attribute = find(name, source)
    if source.options:
        raise BadArgument(
            f"schedulers.{name}.options must be left out: they are for what is watched at a URL"
        )
    try:
        found = reduce(getattr, attribute.split("."), import_module(module))
    except Exception as error:  # whatever a foreign module raises when it is imported
        why = f"{type(error).__name__}: {error}"
        raise BadArgument(f"schedulers.{name}.target={source.target!r} cannot be imported ({why})") from error
    if bridges.find(found).system != source.system:
        raise BadArgument(
            f"schedulers.{name} is a {bridges.find(found).system}, not a {source.system}; correct its system"
        )
    return found


def find(name: str, source: Source) -> tuple[str, str]:
    """Module and attribute that a source names, without importing the module. Raises `BadArgument`."""
    key = f"schedulers.{name}"
    _check(name, source)
    module, _, attribute = source.target.partition(":")
    kind = bridges.by_name(source.system)
    if not module or not attribute or not kind.targets:
        raise BadArgument(f"{key}.target is {source.target!r}; give one of: {bridges.forms(kind)}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does: the program stands in the working directory
    try:
        there = find_spec(module) is not None
    except (ImportError, ValueError):  # a package above it is missing, or is none
        there = False
    if not there:
        raise BadArgument(
            f"{key}.target={source.target!r}: there is no module {module!r} in {Path.cwd()} or installed"
        )
    return module, attribute


def _check(name: str, source: Source) -> None:
    """Is there such a bridge, and what it needs? Raises `BadArgument`."""
    if source.system not in bridges.systems():
        raise BadArgument(
            f"schedulers.{name}.system is {source.system!r}; there are {', '.join(bridges.systems())}"
        )
    if what := remedy(source.system):
        raise BadArgument(f"schedulers.{name} needs what is not installed: {what}")


def remedy(system: str) -> str:
    """How to install what a bridge needs; empty where it is there."""
    packages = {target.partition(".")[0] for target in bridges.by_name(system).targets}
    return "" if all(map(find_spec, packages)) else f"pip install 'taskscope[{system}]'"
