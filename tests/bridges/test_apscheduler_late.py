"""Runs that are so late that retention could already have removed their due time."""

import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest
import recorded
from apscheduler.executors.pool import ProcessPoolExecutor, ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from watching import now, stop

from services.process import until
from taskscope.exporter import Exporter
from taskscope.identity import text
from taskscope.testing import Recorder


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, ProcessPoolExecutor])
@pytest.mark.parametrize("late", [9.9, 10.1, 60 * 24 * 400], ids=lambda minutes: f"{minutes} minutes late")
def test_every_fact_of_a_late_run_has_its_one_id_and_what_is_told_twice_counts_once(
    pool, late, ledger, tmp_path
):
    scheduler, seen = BackgroundScheduler(executors={"default": pool(2)}, timezone="UTC"), Recorder()
    due = now() - timedelta(minutes=late)
    with Exporter(
        scheduler, sinks=[seen], history=f"sqlite:///{tmp_path}/runs.db", port=None, strict=True
    ) as exporter:
        for number in range(3):
            scheduler.add_job(
                recorded.work,
                "date",
                [ledger.path, "job"],
                run_date=due,
                id=f"job-{number}",
                misfire_grace_time=None,
            )
        scheduler.start()
        until(lambda: successes(exporter) == 3)
        for fact in reversed(seen.facts):
            exporter.pipeline.emit(fact)
        until(lambda: exporter.pipeline.backlog == 0)
        stop(scheduler)

        assert successes(exporter) == 3
    kept = {text(change.row.id) for change in seen.changes}
    assert kept == {line["run"] for line in ledger.lines("end")}
    with closing(sqlite3.connect(tmp_path / "runs.db")) as history:
        assert history.execute("SELECT count(*) FROM run").fetchone() == (3,)


def successes(exporter: Exporter) -> float:
    """What a scrape says."""
    exporter.refresh()
    page = b"".join(exporter.metrics.render().blocks).decode()
    lines = [line for line in page.splitlines() if line.startswith("taskscope_runs_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if 'status="success"' in line)
