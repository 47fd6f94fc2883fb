"""Inspections in a program that is watched: from a real exception to the API, the metrics, and what does not work."""

import json
import time
from urllib.request import urlopen

import pytest

from services.process import until
from taskscope.exporter import Exporter
from taskscope.inspection import rounds
from taskscope.settings import Inspection
from taskscope.testing import Clock, FakeScheduler


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    monkeypatch.setattr(rounds, "_OFTEN", 0.05)
    monkeypatch.setattr(rounds, "_EVERY", 0.1)


def asked(exporter, path):
    with urlopen(f"{exporter.url}{path}", timeout=10) as answer:
        return json.load(answer)


def page(exporter):
    exporter.refresh()
    return b"".join(exporter.metrics.render().blocks).decode()


def failed(history):
    """A scheduler of which something went wrong in the last full hour, before anybody inspected it."""
    scheduler = FakeScheduler(Clock(time.time() // 3600 * 3600 - 1200))
    with Exporter(scheduler, names=["shop"], history=history, port=None, strict=True):
        try:
            json.loads("{")
        except ValueError as error:
            scheduler.job("import").run(duration=0.5, fails=error)
    return FakeScheduler(scheduler.clock)


def inspecting(history, **settings):
    """Inspects a history in which a job has failed, every hour."""
    how = {"port": None, "inspections": {"hourly": Inspection()}} | settings
    return Exporter(failed(history), names=["shop"], history=history, **how)


@pytest.fixture
def history(tmp_path):
    return f"sqlite:///{tmp_path}/runs.db"


def test_a_real_exception_becomes_a_finding(history, alertmanager):
    from test_teller import QUIET

    told = alertmanager.configure(QUIET)
    with inspecting(history, port=0, alertmanager=told, strict=True) as exporter:
        until(lambda: asked(exporter, "/api/finding/")["data"], what="a finding")
        (found,) = asked(exporter, "/api/finding/")["data"]
        assert (found["kind"], found["scheduler"], found["task"]) == ("new_error", "shop", "import")
        in_full = asked(exporter, f"/api/finding/{found['id']}")
        assert "JSONDecodeError" in in_full["stack_trace"]
        assert asked(exporter, f"/api/error/{found['error']}")["count"] == 1
        assert asked(exporter, f"/api/task/{found['run']}")["error"] == found["error"]
        until(lambda: alertmanager.alerts(), what="Alertmanager being told")
        (told,) = alertmanager.alerts()
        assert told["labels"]["alertname"] == "TaskscopeFoundNewError"
        until(
            lambda: 'taskscope_findings{kind="new_error",scheduler="shop"} 1.0\n' in page(exporter),
            what="it counted",
        )
        until(lambda: asked(exporter, f"/api/finding/{found['id']}")["notified_at"], what="that it was told")
        lines = page(exporter)
        assert 'taskscope_inspection_failed{inspection="hourly"} 0.0\n' in lines
        assert 'taskscope_inspection_failures_total{inspection="hourly"} 0.0\n' in lines
        last = next(
            float(line.rpartition(" ")[2])
            for line in lines.splitlines()
            if line.startswith("taskscope_inspection_last_timestamp_seconds{")
        )
        assert last == pytest.approx(time.time(), abs=60)
        assert exporter.degraded == {}


def test_what_does_not_work_is_said(history):
    hasty = {"hourly": Inspection(timeout=1e-9)}
    with inspecting(history, inspections=hasty, alertmanager="http://127.0.0.1:9") as exporter:
        until(lambda: "inspection" in exporter.degraded, what="an inspection giving up")

        assert exporter.degraded["inspection"].startswith("hourly: it took longer than 1e-09 s")
        lines = page(exporter)
        assert 'taskscope_degraded{reason="inspection"} 1.0\n' in lines
        assert 'taskscope_inspection_failed{inspection="hourly"} 1.0\n' in lines
        assert 'taskscope_inspection_failures_total{inspection="hourly"} 1.0\n' in lines


def test_what_a_scheduler_belongs_to_is_kept_for_when_it_is_gone(history):
    belongs = {"environment": "prod"}
    with inspecting(history, labels=belongs) as exporter:
        until(lambda: exporter.queries.labels() == {"shop": belongs}, what="its labels being kept")


def test_alertmanager_that_is_away_is_said(history, caplog):
    with inspecting(history, alertmanager="http://127.0.0.1:9") as exporter:
        until(lambda: "alertmanager" in exporter.degraded, what="Alertmanager being missed")
        assert exporter.degraded["alertmanager"].startswith("Alertmanager does not answer")
        for _ in range(3):
            time.sleep(0.1)  # it is tried again, and said once
    assert caplog.text.count("cannot tell of findings") == 1


def test_without_inspections_there_is_no_thread(tmp_path):
    import threading

    before = {thread.name for thread in threading.enumerate()}
    with Exporter(FakeScheduler(), history=f"sqlite:///{tmp_path}/runs.db", port=None):
        names = {thread.name for thread in threading.enumerate()} - before
        assert "taskscope-inspect" not in names
    with Exporter(FakeScheduler(), history=None, port=None, inspections={"a": Inspection()}):
        pass  # nothing to inspect
