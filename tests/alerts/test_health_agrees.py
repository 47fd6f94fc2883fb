"""Health and the alerts, which rest on the same thresholds, say the same of the same minutes."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from day.replica import Replica
from taskscope.bridges.fake import Clock
from taskscope.checks import CHECKS
from taskscope.errors import Unavailable
from taskscope.events import Fact, Job, Jobs, QueueState, SchedulerState, Trigger, WorkerState
from taskscope.settings import Check, Health, JobRule, QueueRule, Retention, Settings
from taskscope.shipped import shipped

pytestmark = pytest.mark.xdist_group("health-agrees")  # the same five hours for all of them

MINUTE = 60.0
BEGIN = 1_763_750_400.0
LENGTH = 300  # minutes

SETTINGS = {
    "health": Health(
        checks={"failure_rate": Check(threshold=0.15)},
        schedulers={
            "drops": {"failure_rate": Check(threshold=0.4)},
            "patient": {"stale_job": Check(threshold=1800.0)},
            "slow": {"stuck_run": Check(threshold=1500.0)},
        },
    ),
    "queues": (QueueRule(match="celery/mail", backlog=200),),
    "jobs": (
        JobRule(match="import", grace=900, max_duration=1200),
        JobRule(match="export", expect_every=3600),
    ),
    "retention": Retention(max_age=None),
}


class Situation:
    """One scheduler to which something happens for some minutes; all readings are told every minute."""

    def __init__(self, replica: Replica, scheduler: str) -> None:
        self.scheduler, self._replica = scheduler, replica
        self._runs = 0

    def tell(self, kind: type, **fields: Any) -> None:
        """Tell a reading or a fact of now."""
        self._replica.pipeline.emit(kind(scheduler=self.scheduler, at=self._replica.clock(), **fields))

    def well(self, *jobs: Job) -> None:
        """The scheduler answers and has these jobs."""
        self.tell(SchedulerState, system="fake", up=True, running=True)
        self.tell(Jobs, jobs=jobs)

    def run(self, job: str, status: str = "success", **fields: Any) -> None:
        """A run ends now."""
        self._runs += 1
        now = self._replica.clock()
        started = {"started": now - 1, "duration": 1.0}
        self.tell(Fact, native=str(self._runs), status=status, anchor=now, job=job, **started | fields)


def job(name: str, next_run: float, state: str = "WAITING") -> Job:
    trigger = Trigger(key=name, state=state, next_run=next_run)
    return Job(name=name, key=name, next_run=next_run, interval=3600.0, triggers=(trigger,))


def backlog(it: Situation, minute: int) -> None:
    it.well()
    it.tell(QueueState, queue="mail", ready=300 if 60 <= minute < 120 else 150)


def no_workers(it: Situation, minute: int) -> None:
    it.well()
    for worker in ("w1", "w2"):
        it.tell(WorkerState, worker=worker, up=not 60 <= minute < 100)


def dead(it: Situation, minute: int) -> None:
    up = not 60 <= minute < 100
    it.tell(SchedulerState, system="fake", up=up, running=up)


def drops(it: Situation, minute: int) -> None:
    """Half of its runs fail for an hour; a fifth is allowed to at all times."""
    it.well()
    for number in range(4):
        it.run("mail", "failed" if number < (2 if 90 <= minute < 150 else 1) else "success")


def late(it: Situation, minute: int) -> None:
    due = BEGIN + 60 * MINUTE if minute < 110 else BEGIN + 600 * MINUTE
    it.well(job("import", due))


def patient(it: Situation, minute: int) -> None:
    """No rule says how late its job may be, the check does."""
    due = BEGIN + 60 * MINUTE if minute < 110 else BEGIN + 600 * MINUTE
    it.well(job("sync", due))


def slow(it: Situation, minute: int) -> None:
    """Its runs take a second, and one hangs for an hour."""
    it.well(job("sync", BEGIN + 600 * MINUTE))
    if minute < 60:
        it.run("sync")
    at = BEGIN + 60 * MINUTE
    if minute == 60:
        it.tell(Fact, native="hangs", status="started", anchor=at, job="sync")
    if minute == 130:
        it.tell(
            Fact, native="hangs", status="success", anchor=at, job="sync", started=at, duration=70 * MINUTE
        )


def silent(it: Situation, minute: int) -> None:
    it.well(job("export", BEGIN + 600 * MINUTE))
    if minute % 20 == 0 and not 40 < minute < 180:
        it.run("export")


def stuck(it: Situation, minute: int) -> None:
    it.well(job("import", BEGIN + 600 * MINUTE))
    at = BEGIN + 60 * MINUTE
    if minute == 60:
        it.tell(Fact, native="stuck", status="started", anchor=at, job="import")
    if minute == 130:
        it.tell(
            Fact, native="stuck", status="success", anchor=at, job="import", started=at, duration=70 * MINUTE
        )


def own(replica: Replica, minute: int) -> None:
    """What happens to taskscope itself."""
    if 230 <= minute < 250:
        replica.pipeline._away(Unavailable("no space is left"), replica.clock())
    replica.degraded = {"forward"} if 190 <= minute < 220 else set()
    replica.busy = 256 <= minute < 280


def broken(it: Situation, minute: int) -> None:
    it.well(job("import", 0.0, "ERROR" if 60 <= minute < 100 else "WAITING"))


class Case(NamedTuple):
    """What happens to a scheduler, and in which minutes check and alert must both say so."""

    scheduler: str
    happens: Callable[[Any, int], None]
    check: str
    minutes: range
    alert: str = ""
    room: int = 4
    """Minutes by which two looks at one thing may differ: records come every other minute."""

    @property
    def key(self) -> tuple[str, str, str]:
        """Scheduler, check and the alert that says the same."""
        return self.scheduler, self.check, self.alert or CHECKS[self.check].alert


CASES = (
    Case("celery", backlog, "queue_backlog", range(75, 120)),
    Case("workers", no_workers, "worker_down", range(65, 100)),
    Case("dead", dead, "scheduler_down", range(63, 100)),
    Case(
        "drops", drops, "failure_rate", range(127, 174), room=22
    ),  # the alert is kept for a quarter of an hour
    Case("late", late, "stale_job", range(76, 110)),
    Case("patient", patient, "stale_job", range(91, 110)),
    Case("slow", slow, "stuck_run", range(86, 130), room=6),
    Case("silent", silent, "stale_job", range(101, 180), "TaskscopeJobNoSuccess", room=6),
    Case("stuck", stuck, "stuck_run", range(81, 130)),
    Case("broken", broken, "trigger_error", range(62, 100)),
)
OWN = (
    Case("", own, "store", range(232, 250)),
    Case("", own, "taskscope", range(195, 220), "TaskscopeDegraded"),
    Case("", own, "taskscope", range(263, 280), room=6),  # the alert is kept for five minutes
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Told"]:
    history = f"sqlite:///{tmp_path_factory.mktemp('health')}/runs.db"
    settings = Settings(history=history, heartbeat=1e6, lost_after=2e6, poll_interval=30.0, **SETTINGS)
    replica = Replica("a", (), settings, Clock(BEGIN))
    yield Told(replica)
    replica.close()


class Told:
    """What health said every minute, and what a Prometheus scraped."""

    def __init__(self, replica: Replica) -> None:
        self.failing: dict[tuple[str, str, str], set[int]] = {}
        """By scheduler, check and the alert that it names, the minutes in which it failed."""
        self.series: dict[str, dict[int, str]] = {}
        situations = [(Situation(replica, case.scheduler), case.happens) for case in CASES]
        for minute in range(LENGTH):
            replica.clock.now = BEGIN + minute * MINUTE
            for situation, happens in situations:
                happens(situation, minute)
            own(replica, minute)
            self._look(replica, minute)

    def _look(self, replica: Replica, minute: int) -> None:
        for line in replica.page().decode().splitlines():
            series, value, _ = line.rsplit(" ", 2)
            self.series.setdefault(series, {})[minute] = value
        for result in (result for score in replica.health.scores() for result in score.checks):
            failing = self.failing.setdefault((result.scheduler, result.check, result.alert), set())
            if not result.ok:
                failing.add(minute)

    def scraped(self) -> Iterator[dict[str, str]]:
        """Every series as promtool takes it; the clock begins at 0."""
        for series, values in self.series.items():
            shift = BEGIN if "_timestamp_seconds" in series else 0.0
            yield {"series": series, "values": " ".join(_value(values.get(m), shift) for m in range(LENGTH))}


def _value(value: str | None, shift: float) -> str:
    """A point of time counts from the beginning; 0 means never, and stays."""
    if value is None:
        return "_"
    return value if not shift or float(value) == 0 else repr(float(value) - shift)


@pytest.mark.parametrize("case", [*CASES, *OWN], ids=lambda case: "-".join(filter(None, case.key)))
def test_a_check_fails_when_it_should_and_says_so_of_nobody_else(told: Told, case: Case) -> None:
    minutes = told.failing[case.key]
    off = set(case.minutes) ^ minutes

    assert all(min(abs(m - edge) for edge in (case.minutes.start, case.minutes.stop)) <= 2 for m in off), off
    failed = {key for key, failing in told.failing.items() if key[0] == case.scheduler and failing}
    assert failed == {each.key for each in (*CASES, *OWN) if each.scheduler == case.scheduler}


def test_there_is_a_case_of_every_check() -> None:
    assert {case.check for case in (*CASES, *OWN)} == CHECKS.keys()


@pytest.mark.slow
def test_check_and_alert_agree_in_every_minute(told: Told, promtool: str, tmp_path: Path) -> None:
    tests = [_expected(told, case, minute) for case in (*CASES, *OWN) for minute in _sure(told, case)]
    scenario = {
        "rule_files": [str(path) for path in sorted(shipped("alerts").glob("*.yml"))],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": list(told.scraped()), "promql_expr_test": tests}],
    }
    file = tmp_path / "agree.yml"
    file.write_text(yaml.safe_dump(scenario, width=10**9))

    tested = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, timeout=110)

    assert len(tests) > 2000
    assert tested.returncode == 0, (tested.stdout + tested.stderr)[:4000]


def _sure(told: Told, case: Case) -> list[int]:
    """The minutes that are not near a change of the check's mind."""
    failing = told.failing[case.key]
    edges = [minute for minute in range(LENGTH) if (minute in failing) != (minute - 1 in failing)]
    return [minute for minute in range(LENGTH) if all(abs(minute - edge) > case.room for edge in edges)]


def _expected(told: Told, case: Case, minute: int) -> dict[str, Any]:
    _, _, alert = case.key
    about = f'scheduler="{case.scheduler}",' if case.scheduler else ""
    firing = f'ALERTS{{alertname="{alert}",{about}alertstate="firing"}}'
    return {
        "expr": f"clamp_max(count({firing}), 1) or vector(0)",
        "eval_time": f"{minute}m",
        "exp_samples": [{"labels": "{}", "value": int(minute in told.failing[case.key])}],
    }
