"""A real scheduler, scraped by a real Prometheus: PromQL gives what the jobs themselves wrote down."""

import json
import subprocess
import time
from urllib.request import Request, urlopen

import pytest
from apscheduler.schedulers.background import BackgroundScheduler

import taskscope
from services.process import until
from services.prometheus import Prometheus
from taskscope.counts import Bounds

pytestmark = pytest.mark.xdist_group("scraped")  # they share a scheduler and a Prometheus

BOUNDS = Bounds(duration=(0.02, 0.2, 5.0), wait=(0.5, 5.0), delay=(0.5, 5.0))


class Diary:
    """What the jobs really did."""

    def __init__(self, path):
        self._path = path

    def steady(self):
        self._write("steady", "success")
        time.sleep(0.05)

    def broken(self):
        self._write("broken", "failed")
        raise LookupError("nothing here")

    def _write(self, job, outcome):
        with self._path.open("a") as file:
            file.write(json.dumps([job, outcome]) + "\n")

    def count(self, job, outcome):
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        return sum(json.loads(line) == [job, outcome] for line in lines)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """The diary of a scheduler that ran two jobs some times, and the exporter's address."""
    place = tmp_path_factory.mktemp("watched")
    diary = Diary(place / "diary")
    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.add_job(diary.steady, "interval", seconds=0.2, id="steady", max_instances=3)
    scheduler.add_job(diary.broken, "interval", seconds=0.3, id="broken")
    history = f"sqlite:///{place}/runs.db"
    with taskscope.Exporter(scheduler, history=history, port=0, buckets=BOUNDS) as exporter:
        scheduler.start()
        until(lambda: diary.count("broken", "failed") >= 4)
        scheduler.pause()
        yield diary, exporter.url
        scheduler.shutdown()


@pytest.fixture(scope="module")
def prometheus(watched):
    """A Prometheus that scrapes it: one for all, because each scrapes nothing for its first 5 seconds."""
    server = Prometheus()
    try:
        server.scrape([watched[1].removeprefix("http://")], scrape_interval=0.2)
        yield server
    finally:
        server.remove()


def test_promql_gives_the_true_numbers(watched, prometheus):
    diary, _ = watched
    steady, broken = diary.count("steady", "success"), diary.count("broken", "failed")

    def value(promql):
        return prometheus.value(promql)

    until(lambda: value('taskscope_runs_total{job_name="steady",status="success"}') == steady)
    until(lambda: value('taskscope_runs_total{job_name="broken",status="failed"}') == broken)
    assert value('taskscope_run_failures_total{job_name="broken",exception="LookupError"}') == broken
    assert value('taskscope_job_consecutive_failures{job_name="broken"}') == broken
    assert value('taskscope_run_duration_seconds_count{job_name="steady"}') == steady
    assert value('taskscope_run_duration_seconds_bucket{job_name="steady",le="0.02"}') == 0
    assert value('taskscope_run_duration_seconds_bucket{job_name="steady",le="5.0"}') == steady
    assert value('taskscope_job_last_duration_seconds{job_name="steady"}') == pytest.approx(0.05, abs=0.05)
    assert value('taskscope_job_last_success_timestamp_seconds{job_name="broken"}') == 0
    assert value('time() - taskscope_job_last_success_timestamp_seconds{job_name="steady"}') < 30
    assert value('taskscope_job_interval_seconds{job_name="steady"}') == pytest.approx(0.2, abs=0.01)
    assert value('sum(taskscope_triggers{state="WAITING"})') == 2
    assert value("taskscope_scheduler_up") == 1
    until(lambda: value("taskscope_scheduler_running") == 0, what="the pause")
    schedule = prometheus.query('taskscope_job_info{job_name="steady"}')[0]["metric"]["schedule"]
    assert schedule.startswith("interval")


def test_an_exemplar_leads_from_the_bucket_to_the_run(watched, prometheus):
    _, url = watched
    until(lambda: prometheus.value("taskscope_scheduler_up"))

    found = prometheus.get(
        "query_exemplars",
        query='taskscope_run_duration_seconds_bucket{job_name="steady"}',
        start=time.time() - 600,
        end=time.time() + 60,
    )

    run_id = found[0]["exemplars"][0]["labels"]["run_id"]
    with urlopen(f"{url}/api/task/{run_id}", timeout=5) as answer:
        assert json.load(answer)["task"] == "steady"


def test_the_page_is_clean_and_small_questions_get_small_answers(watched, promtool):
    _, url = watched
    with urlopen(f"{url}/metrics", timeout=5) as answer:
        page = answer.read()
    checked = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")

    with urlopen(f"{url}/metrics?name[]=taskscope_scheduler_up", timeout=5) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line[0] != "#"]
    assert [line.partition("{")[0] for line in lines] == ["taskscope_scheduler_up"]

    with urlopen(Request(f"{url}/metrics", method="HEAD"), timeout=5) as answer:
        assert answer.read() == b""
