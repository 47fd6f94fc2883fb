"""The log of `taskscope serve`: lines of text, or of JSON, without secrets. An embedding program has its own."""

import logging
import sys
import threading
from datetime import UTC, datetime
from typing import Any

import msgspec

from taskscope.admission import clean
from taskscope.redaction import Redaction
from taskscope.settings import Settings

_LONGEST = 65_536  # characters of a message, and of an exception


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one line says."""

    time: str
    level: str
    logger: str
    message: str
    scheduler: str = ""
    exception: str = ""


class Text(logging.Formatter):
    """Time, level and message, for people."""

    def __init__(self, redaction: Redaction) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self._redaction = redaction

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return self._redaction.text(super().format(record))


class Json(logging.Formatter):
    """An object on a line of its own, for programs."""

    def __init__(self, redaction: Redaction) -> None:
        super().__init__()
        self._redaction = redaction

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON, within bounds."""
        line = Line(
            time=datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            level=record.levelname.lower(),
            logger=record.name,
            message=self._shown(record.getMessage()),
            scheduler=getattr(record, "scheduler", ""),
            exception=self._shown(self.formatException(record.exc_info)) if record.exc_info else "",
        )
        return msgspec.json.encode(line).decode()

    def _shown(self, text: str) -> str:
        return clean(self._redaction.text(text), _LONGEST)


_FORMATS = {"text": Text, "json": Json}
_handler = logging.StreamHandler(sys.stderr)


def begin(format: str) -> None:
    """From now on all that this process logs, warns of, or dies of in a thread is a line on stderr.

    `format` holds until the settings are known.
    """
    logging.getLogger().addHandler(_handler)
    logging.captureWarnings(True)
    threading.excepthook = _died
    _handler.setFormatter(_FORMATS.get(format, Text)(Redaction(Settings().redact)))


def die(error: Exception) -> int:
    """The last line, where it cannot begin; returns the exit code."""
    if isinstance(_handler.formatter, Json):
        logging.getLogger("taskscope").critical("%s", error)
    else:
        print(f"taskscope: {error}", file=sys.stderr)  # noqa: T201 - to whoever called it, as all commands do
    return 2


def write(settings: Settings) -> None:
    """Write as these settings say; may be called again."""
    _handler.setFormatter(_FORMATS[settings.log_format](Redaction(settings.redact)))
    logging.getLogger("taskscope").setLevel(settings.log_level.upper())


def _died(thread: Any) -> None:
    told = (thread.exc_type, thread.exc_value, thread.exc_traceback)
    name = thread.thread.name if thread.thread else "?"
    logging.getLogger("taskscope").error("the thread %s ended with an error", name, exc_info=told)
