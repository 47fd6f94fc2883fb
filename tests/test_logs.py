"""The log of the collector: one line for one thing, and no secret in it."""

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from taskscope import logs
from taskscope.redaction import Redaction
from taskscope.settings import Settings


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the log says, as the collector sets it up."""
    stream, level = io.StringIO(), logging.getLogger("taskscope").level
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    before = logs._handler.setStream(stream)
    logs.begin("")
    yield stream
    logging.captureWarnings(False)
    logging.getLogger().removeHandler(logs._handler)
    logging.getLogger("taskscope").setLevel(level)
    logs._handler.setStream(before or sys.stderr)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_holds_the_exception_and_the_scheduler(written: io.StringIO):
    logs.write(Settings(log_format="json"))
    try:
        raise RuntimeError("broken\nredis://:hunter2@broker/0 password=hunter2")
    except RuntimeError:
        logging.getLogger("taskscope").exception('it "failed"', extra={"scheduler": "shop"})
    (line,) = lines(written)
    assert (line["level"], line["logger"], line["message"]) == ("error", "taskscope", 'it "failed"')
    assert line["scheduler"] == "shop"
    assert "RuntimeError: broken" in line["exception"]
    assert "hunter2" not in written.getvalue()


def test_text_holds_no_secret_either(written: io.StringIO):
    logs.write(Settings())
    logging.getLogger("taskscope").warning("cannot reach %s", "amqp://bob:hunter2@broker//")
    assert written.getvalue().rstrip().endswith("WARNING cannot reach amqp://bob:***@broker//")


def test_what_json_cannot_hold_is_replaced_and_what_is_endless_cut():
    told = logging.makeLogRecord({"msg": "\ud800 %s", "args": ("x" * 100_000,)})
    line = json.loads(logs.Json(Redaction(())).format(told))
    assert line["message"].startswith("? xxx")
    assert len(line["message"]) == 65_536


def test_the_level_holds_for_taskscope_and_warnings_of_others_come_through(written: io.StringIO):
    logs.write(Settings(log_level="error", log_format="json"))
    logging.getLogger("taskscope").warning("not this")
    logging.getLogger("other").warning("but this")
    assert [line["message"] for line in lines(written)] == ["but this"]


def test_a_warning_of_python_and_the_death_of_a_thread_are_lines(written: io.StringIO):
    logs.write(Settings(log_format="json"))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        thread = threading.Thread(target=lambda: 1 / 0, name="a-thread")
        thread.start()
        thread.join()
    warned, died = lines(written)
    assert "DeprecationWarning: old" in warned["message"]
    assert died["message"] == "the thread a-thread ended with an error"
    assert "ZeroDivisionError" in died["exception"]
