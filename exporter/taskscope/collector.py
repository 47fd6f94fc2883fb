"""`taskscope serve`: watches what the settings name, until it is told to end."""

import logging
import sys
import threading
from functools import reduce
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from taskscope import bridges
from taskscope.api.server import rehearse
from taskscope.errors import BadArgument
from taskscope.exporter import Exporter
from taskscope.settings import Settings, Source
from taskscope.signals import stopped_by_signals

logger = logging.getLogger("taskscope")


def run(settings: Settings) -> None:
    """Serve until Ctrl-C or SIGTERM, then carry what has been seen.

    Raises `BadArgument` and `Unavailable` at start for whatever keeps it from working fully.
    """
    rehearse(settings)  # before a history is made: an empty one would pass for the only one there is
    stop = threading.Event()
    schedulers = {name: target(name, source) for name, source in settings.schedulers.items()}
    exporter = Exporter(*schedulers.values(), names=list(schedulers), settings=settings)
    with stopped_by_signals(stop), exporter:
        watched = ", ".join(schedulers) or "nothing yet: name schedulers in the settings file"
        logger.info("taskscope serves on %s and watches %s", exporter.url or "no port", watched)
        stop.wait()
        logger.info("taskscope ends: it stores what has been seen")
    logger.info("taskscope has ended")


def target(name: str, source: Source) -> Any:
    """What a source names: the object at `module:attribute`, or the source itself where it says a URL.

    Raises `BadArgument`.
    """
    if "://" in source.target:
        _check(name, source)
        return source
    module, attribute = find(name, source)
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
    if not module or not attribute:
        raise BadArgument(
            f"{key}.target must be `module:attribute`, such as `shop.jobs:scheduler`, not {source.target!r}"
        )
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
