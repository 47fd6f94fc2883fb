"""What the shared expressions find in series that are written down, told by promtool."""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from dashboards.promql import (
    BLOCKED,
    BROKEN,
    CONDITIONS,
    FAILING,
    OVERDUE,
    PAUSED,
    condition,
    counted,
    errors_counted,
    errors_total,
    failing,
    failures_in_a_row,
    new_errors_counted,
    overdue,
    state,
    total,
    zero,
)

ONE = 'scheduler="s", job_name="j"'
TWO_REPLICAS = ('instance="a"', 'instance="b"')
JOB = {"scheduler": "s", "job_name": "j"}
ERROR = {**JOB, "exception": "KeyError"}
MACROS = {
    "$__rate_interval": "75s",
    "$__range_s": "3600",
    "$__range": "1h",
    "$__interval_ms": "60000",
    "$__interval": "60s",
}
"""As Grafana fills them in for a scrape every 15 s, a bar a minute and the last hour."""

Find = Callable[..., None]


@pytest.fixture
def find(promtool: str, tmp_path: Path) -> Find:
    """Asserts what an expression finds at a time, in series of which a value stands for each 15 s."""

    def found(
        expr: str,
        series: Mapping[str, str],
        at: str,
        wanted: float | None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        for macro, value in MACROS.items():
            expr = expr.replace(macro, value)
        name = "{" + ", ".join(f'{label}="{value}"' for label, value in (labels or {}).items()) + "}"
        samples = [] if wanted is None else [{"labels": name, "value": wanted}]
        scenario: dict[str, Any] = {
            "interval": "15s",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [{"expr": expr, "eval_time": at, "exp_samples": samples}],
        }
        path = tmp_path / "test.yml"
        path.write_text(yaml.safe_dump({"evaluation_interval": "15s", "tests": [scenario]}))
        told = subprocess.run(
            [promtool, "test", "rules", str(path)], capture_output=True, text=True, timeout=60
        )
        assert told.returncode == 0, told.stdout + told.stderr

    return found


def series(name: str, *values: str, more: str = "") -> dict[str, str]:
    """A metric of the job, with values of one replica or of two."""
    labels = f"{ONE}, {more}" if more else ONE
    replicas = zip(TWO_REPLICAS, values, strict=False)
    return {f"taskscope_{name}{{{labels}, {replica}}}": written for replica, written in replicas}


def outcomes(success: str, failure: str) -> dict[str, str]:
    return series("job_last_success_timestamp_seconds", success) | series(
        "job_last_failure_timestamp_seconds", failure
    )


def test_two_replicas_say_a_gauge_once(find: Find) -> None:
    find(f"sum({state('runs_in_progress')})", series("runs_in_progress", "2x9", "2x9"), "1m", 2)


def test_counters_of_two_replicas_add_up(find: Find) -> None:
    grows = series("runs_total", "0+1x400", "0+1x400", more='status="success"')

    find(total("runs_total"), grows, "90m", 480)


@pytest.mark.parametrize("minute", range(1, 10))
def test_a_single_failure_is_counted_in_one_bar_and_no_other(find: Find, minute: int) -> None:
    # Given one failure between the scrapes at 4:00 and 4:15
    failed = series("runs_total", "0x16 1x60", more='status="failed"')

    find(counted("runs_total"), failed, f"{minute}m", 1 if minute == 5 else 0)


def test_bars_add_up_to_all_runs_where_increase_counts_a_quarter_too_many(find: Find) -> None:
    grows = series("runs_total", "0+3x400", more='status="success"')

    find(counted("runs_total"), grows, "30m", 12)
    find('sum(increase(taskscope_runs_total{status="success"}[75s]))', grows, "30m", 15)


def test_a_job_that_never_succeeded_fails_from_its_first_failure(find: Find) -> None:
    find(failing(), outcomes("0x99", "0x9 150x90"), "2m", 0, JOB)
    find(failing(), outcomes("0x99", "0x9 150x90"), "4m", 1, JOB)


def test_a_success_on_one_replica_ends_the_failing_of_another(find: Find) -> None:
    # Given that replica a saw the failure, and b, later, the success
    seen = series("job_last_failure_timestamp_seconds", "100x99", "0x99")
    seen |= series("job_last_success_timestamp_seconds", "0x99", "200x99")
    seen |= series("job_consecutive_failures", "7x99", "0x99")

    find(failing(), seen, "10m", 0, JOB)
    find(failures_in_a_row(), seen, "10m", 0, JOB)


def test_a_job_is_overdue_after_the_grace_of_the_settings_or_five_minutes(find: Find) -> None:
    due = series("job_next_run_timestamp_seconds", "600x400")
    patient = due | series("job_limit_seconds", "1800x400", more='limit="grace"')

    find(overdue(), due, "14m", 0, JOB)
    find(overdue(), due, "16m", 1, JOB)
    find(overdue(), patient, "39m", 0, JOB)
    find(overdue(), patient, "41m", 1, JOB)


def test_a_job_that_is_not_due_is_never_overdue(find: Find) -> None:
    find(overdue(), series("job_next_run_timestamp_seconds", "0x400"), "90m", 0, JOB)


def test_a_paused_job_has_a_state_though_it_is_not_due(find: Find) -> None:
    paused = outcomes("50x99", "0x99") | series("job_paused", "1x99")

    find(condition(), paused, "10m", PAUSED, JOB)
    find(condition(), paused | outcomes("50x99", "60x99"), "10m", FAILING + PAUSED, JOB)


@pytest.mark.parametrize(("trigger_state", "trouble"), [("ERROR", BROKEN), ("BLOCKED", BLOCKED)])
def test_a_job_with_a_trigger_that_cannot_fire_is_not_well_until_it_can(
    find: Find, trigger_state: str, trouble: int
) -> None:
    never_ran = outcomes("0x99", "0x99") | series("job_paused", "0x99", "0x99")
    stuck = series("trigger_abnormal_since_timestamp_seconds", "60x39 stale", more=f'state="{trigger_state}"')

    find(condition(), never_ran | stuck, "5m", trouble, JOB)
    find(condition(), never_ran | stuck, "15m", 0, JOB)


def test_whatever_is_the_matter_with_a_job_is_said_the_worst_first() -> None:
    assert CONDITIONS["0"] == ("OK", "green")
    assert CONDITIONS[str(BROKEN)] == ("Trigger error", "red")
    assert CONDITIONS[str(BLOCKED)] == ("Blocked", "orange")
    assert CONDITIONS[str(PAUSED + OVERDUE + FAILING)] == ("Failing, overdue, paused", "red")
    assert list(CONDITIONS) == [str(weights) for weights in range(len(CONDITIONS))]


def test_the_first_failure_of_a_kind_counts_though_its_series_is_born_with_it(find: Find) -> None:
    # Given a job known for long, and its first KeyError just before the scrape at 100:00
    known = series("job_paused", "0x900") | series("job_first_seen_timestamp_seconds", "1x900")
    born = known | series("run_failures_total", "_x400 1x400", more='exception="KeyError"')

    find(errors_total(), born, "110m", 1, ERROR)
    find(errors_counted(), born, "100m", 1, ERROR)
    find(errors_counted(), born, "101m", 0, ERROR)
    find("round(sum(increase(taskscope_run_failures_total[1h])))", born, "110m", 0)


def test_the_first_failure_of_a_new_job_counts(find: Find) -> None:
    # Given a job that became known by the run that failed, at 100:00
    new = series("job_paused", "_x400 0x400") | series("job_first_seen_timestamp_seconds", "_x400 5990x400")
    new |= series("run_failures_total", "_x400 1x400", more='exception="KeyError"')

    new |= series("new_errors_total", "_x400 1x400")

    find(errors_total(), new, "110m", 1, ERROR)
    find(errors_counted(), new, "100m", 1, ERROR)
    find(new_errors_counted(), new, "100m", 1, {"job_name": "j"})
    find(new_errors_counted(), new, "101m", 0, {"job_name": "j"})


def test_old_failures_count_no_second_time_when_taskscope_returns(find: Find) -> None:
    # Given 500 failures of long ago, and a taskscope that was away for twenty minutes
    away = series("job_paused", "0x400 _x80 0x400") | series(
        "job_first_seen_timestamp_seconds", "1x400 _x80 1x400"
    )
    away |= series("run_failures_total", "500x400 _x80 500x400", more='exception="KeyError"')

    find(errors_counted(), away, "121m", 0, ERROR)
    find(errors_total(), away, "125m", 0, ERROR)


def test_nothing_found_is_0_only_while_taskscope_is_scraped(find: Find) -> None:
    info = {'taskscope_build_info{version="1", instance="a"}': "1x20 stale"}

    find(zero("count(taskscope_degraded > 0)"), info, "2m", 0)
    find(zero("count(taskscope_degraded > 0)"), info, "10m", None)


def test_while_a_taskscope_is_down_what_the_others_say_is_no_0(find: Find) -> None:
    info = {f'taskscope_build_info{{job="t", instance="{one}"}}': "1x20" for one in ("a", "b")}
    well = {'up{job="t", instance="a"}': "1x20", 'up{job="t", instance="b"}': "1x20"}
    gone = {**well, 'up{job="t", instance="b"}': "1x10 0x10", 'up{job="other", instance="x"}': "0x20"}
    failing_jobs = {'taskscope_job_last_failure_timestamp_seconds{scheduler="s", job_name="j"}': "9x20"} | {
        'taskscope_job_last_success_timestamp_seconds{scheduler="s", job_name="j"}': "0x20"
    }

    find(zero("sum(taskscope_job_paused)"), info | well, "5m", 0)
    find(zero("sum(taskscope_job_paused)"), info | gone, "2m", 0)
    find(zero("sum(taskscope_job_paused)"), info | gone, "5m", None)
    find(zero(f"sum({failing()})"), info | gone | failing_jobs, "5m", 1)
