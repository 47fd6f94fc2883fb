"""Retention at work beside the pipeline: in short steps, and everybody sees what it did."""

import logging

import taskscope
from services.process import until
from taskscope.settings import Retention
from taskscope.testing import FakeScheduler


def value(exporter, name):
    exporter.refresh()
    page = b"".join(exporter.metrics.render().blocks).decode()
    return [float(line.split()[1]) for line in page.splitlines() if line.startswith(f"taskscope_{name} ")]


def test_what_retention_removes_is_counted_and_logged_and_leaves_the_rows(tmp_path, caplog):
    scheduler = FakeScheduler()
    rules = Retention(max_runs=10, interval=0.2)
    history = f"sqlite:///{tmp_path}/runs.db"
    with (
        caplog.at_level(logging.INFO, "taskscope"),
        taskscope.Exporter(
            scheduler, history=history, port=None, retention=rules, dedup_window=0.1
        ) as exporter,
    ):
        for _ in range(50):
            scheduler.job("job").run()
        assert exporter.flush(10)
        until(lambda: value(exporter, "store_rows") == [10])

        assert value(exporter, "retention_deleted_total") == [40]
        until(lambda: "retention removed" in caplog.text)
    said = [record.getMessage() for record in caplog.records if "retention removed" in record.message]
    assert sum(int(one.split()[3]) for one in said) == 40
