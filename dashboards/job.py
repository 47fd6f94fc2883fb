"""Job: how long one job takes, how often it runs and fails, and whether it starts in time."""

from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import statetimeline as timelines
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.builders.dashboard import CustomVariable, Dashboard

from dashboards.house import API, choice, jobs, page, row, same_on, schedulers
from dashboards.infinity import Ask, duration, findings, told_alerts
from dashboards.panels import (
    at_end,
    bars,
    coarse,
    graph,
    in_unit,
    line_over_bars,
    linked,
    numbers,
    over_time,
    properties,
    stat,
    timeline,
)
from dashboards.promql import (
    BAD_ENDS,
    BLOCKED,
    CONDITIONS,
    ENDED,
    FAILED,
    FAILING,
    JOBS,
    PAUSED,
    RAN,
    condition,
    counted,
    failing,
    failures_in_a_row,
    grown,
    mean,
    metric,
    overdue,
    quantile,
    rate,
    share,
    state,
    total,
)
from dashboards.tables import label, number, table

PERCENTILES = ("50", "75", "90", "95", "99", "99.9")
CHOSEN = ("50", "90", "95", "99")


def dashboard() -> Dashboard:
    """The page."""
    return page(
        "job",
        "Job",
        "How long one job takes, how often it runs and fails, and whether it starts in time.",
        row("", condition_now(), in_a_row(), last_success(), last_run(), next_run(), running_now()),
        row("", definition()),
        row("", history()),
        row("Response time", response_time(), response_time_in_range(), longest_run()),
        row("Runs", runs(), runs_in_range()),
        row("Failures", failures(), failures_in_range()),
        row("Starting in time", start_delay(), queue_wait(), skipped()),
        variables=[schedulers(many=False), jobs(many=False), *percentiles()],
        asks_api=True,
        annotations=[
            told_alerts(scheduler="${scheduler}", job="${job_name}"),
            findings(scheduler="${scheduler}", task="${job_name}"),
        ],
    )


def percentiles() -> list[CustomVariable]:
    """Four percentiles that the viewer chooses: `$percentile_1` to `$percentile_4`."""
    return [
        choice(f"percentile_{place}", "" if place > 1 else "Percentiles", PERCENTILES, chosen)
        for place, chosen in enumerate(CHOSEN, 1)
    ]


def condition_now() -> stats.Panel:
    """How the job is."""
    return stat(
        "State",
        "Failing: its latest run failed or got lost. Overdue: it was due longer ago than its grace and did not start. "
        "Blocked, trigger error: a trigger of it is in state BLOCKED or ERROR.",
        at_end(f"max({condition(JOBS)})"),
        unit="short",
        levels={PAUSED: "yellow", BLOCKED: "orange", FAILING: "red"},
        texts={value: (text, "") for value, (text, _) in CONDITIONS.items()},
        size=22,
        no_value="unknown",
        link=same_on("triggers"),
    )


def in_a_row() -> stats.Panel:
    """Failures since the latest success."""
    return stat(
        "Failures in a row",
        "Runs that failed or got lost since the latest success.",
        at_end(f"max({failures_in_a_row(JOBS)})"),
        unit="short",
        levels={1: "red"},
        link=same_on("runs", status=BAD_ENDS),
    )


def last_success() -> stats.Panel:
    """When it last succeeded."""
    return _when("Last success", "When the latest success ended.", _last("success"), "never")


def last_run() -> stats.Panel:
    """When it last ran."""
    return _when("Last run", "When the latest run started.", _last("run"), "never")


def next_run() -> stats.Panel:
    """When it will run."""
    due = f"min({state('job_next_run_timestamp_seconds', JOBS)} > 0)"
    moment = f"({due} or 0 * max({state('job_paused', JOBS)}))"
    return _when("Next run", "When the job is due next; a paused job is not.", moment, "not due")


def running_now() -> stats.Panel:
    """Runs in progress."""
    return stat(
        "Running now",
        "Runs that have started and not ended.",
        at_end(f"sum({state('runs_in_progress', JOBS)})"),
        unit="short",
        link=same_on("runs", status="started"),
    )


def definition() -> tables.Panel:
    """How the job is defined."""
    labels = "scheduler, job_name, schedule, timezone, queue, team, severity"
    return table(
        "Definition",
        "How the scheduler defines the job, and whom the settings name for it.",
        label("job_name", "Job"),
        label("schedule", "Schedule"),
        label("timezone", "Time zone"),
        label("queue", "Queue"),
        label("team", "Team"),
        label("severity", "Severity"),
        number("Interval", state("job_interval_seconds", JOBS), "s", texts={"0": ("irregular", "")}),
        number("Defined", f"max by ({labels}) ({metric('job_info', JOBS)})", hidden=True),
        sort="Job",
        height=3,
    )


def history() -> timelines.Panel:
    """What happened when."""
    ran = [
        (14, counted("runs_total", JOBS, FAILED)),
        (11, counted("runs_total", JOBS, 'status="success"')),
        (13, f"sum({state('runs_in_progress', JOBS)})"),
        (12, counted("runs_total", JOBS, 'status="skipped"')),
    ]
    happened = " or ".join(f"{code} + 0 * ({count} > 0)" for code, count in ran)
    paused = state("job_paused", JOBS)
    success, failure = (
        state(f"job_last_{outcome}_timestamp_seconds", JOBS) for outcome in ("success", "failure")
    )
    schedule = f"20 + {paused} + 2 * ({overdue(JOBS)} or 0 * {paused})"
    return timeline(
        "What happened",
        "Runs: what ended in each moment, the worst of it; short runs are seen too. Latest outcome: that of the last "
        "run that had ended. Schedule: whether the job started when it was due.",
        over_time(f"{happened} or 10 + 0 * max({paused})", "Runs"),
        over_time(f"max({failing(JOBS)}) - (max({success} + {failure}) == bool 0)", "Latest outcome"),
        over_time(f"max({schedule})", "Schedule"),
        texts=MOMENTS,
        height=6,
    )


def response_time() -> timeseries.Panel:
    """Mean, maximum and four percentiles."""
    of = "run_duration_seconds"
    chosen = [f"$percentile_{place}" for place in range(1, 5)]
    panel = graph(
        "Response time",
        "How long runs took, without waiting: mean, percentiles (estimated within the buckets of the histogram) "
        "and the end of the bucket into which the longest run fell. The points are runs; a click leads to one.",
        over_time(mean(of, JOBS), "mean"),
        *(over_time(quantile(f"{one} / 100", of, JOBS), f"p{one}") for one in chosen),
        over_time(quantile("1", of, JOBS), "max, at most", exemplars=True),
        unit="s",
        width=19,
        height=9,
        colours={"mean": "text", "max, at most": "red"},
        no_value="nothing was observed",
    )
    for ref, colour in zip("BCDE", ("super-light-blue", "light-blue", "blue", "dark-blue"), strict=True):
        panel.override_by_query(ref, properties({"color": {"mode": "fixed", "fixedColor": colour}}))
    return coarse(panel).fill_opacity(0).override_by_name("mean", properties({"custom.lineWidth": 2}))


def response_time_in_range() -> stats.Panel:
    """The same for the whole range."""
    of = "run_duration_seconds"
    chosen = [f"$percentile_{place}" for place in range(1, 5)]
    return numbers(
        "In this time range",
        "Mean and percentiles of all runs that ended in this time range.",
        at_end(mean(of, JOBS, window="$__range"), "Mean"),
        *(at_end(quantile(f"{one} / 100", of, JOBS, window="$__range"), f"p{one}") for one in chosen),
        width=5,
        height=6,
    ).unit("s")


def longest_run() -> stats.Panel:
    """The exact maximum, from the history."""
    return stat(
        "Longest run",
        "The longest run of the chosen job that ended in this time range, exactly, from the history of taskscope.",
        Ask(
            "/api/task/stats",
            "overall",
            duration("Longest run", "max"),
            task="${job_name}",
            scheduler="${scheduler}",
            from_="${__from:date:iso}",
            to="${__to:date:iso}",
        ),
        unit="ms",
        width=5,
        height=3,
        size=20,
        no_value="only for one job",
    ).datasource(API)


def runs() -> timeseries.Panel:
    """How often it runs."""
    panel = line_over_bars(
        "Runs",
        "Runs that ended: their count in each bar, and per second as a line on the right axis. Skipped ones aside.",
        over_time(rate("runs_total", JOBS, RAN), "per second"),
        over_time(counted("runs_total", JOBS, RAN), "runs"),
        unit="suffix:/s",
        colour="blue",
        width=19,
    )
    return linked(panel, "Show runs", same_on("runs"))


def runs_in_range() -> stats.Panel:
    """How often in total."""
    panel = numbers(
        "Runs in this time range",
        "Runs that ended, and how many a second on average.",
        at_end(total("runs_total", JOBS, RAN), "Runs"),
        at_end(f"{grown('runs_total', JOBS, RAN)} / $__range_s", "Per second"),
        width=5,
    )
    return in_unit(panel, {"Per second": "suffix:/s"})


def failures() -> timeseries.Panel:
    """How often it fails."""
    ratio = share(rate("runs_total", JOBS, FAILED), rate("runs_total", JOBS, ENDED))
    panel = line_over_bars(
        "Failures",
        "Runs that failed or got lost: their count in each bar, and their share of the runs that ended for good as a "
        "line on the right axis.",
        over_time(ratio, "failure rate"),
        over_time(counted("runs_total", JOBS, FAILED), "failures"),
        unit="percentunit",
        colour="red",
        width=19,
    )
    return linked(panel, "Show failed runs", same_on("runs", status=BAD_ENDS))


def failures_in_range() -> stats.Panel:
    """How often in total."""
    failed = grown("runs_total", JOBS, FAILED)
    panel = numbers(
        "Failures in this time range",
        "Runs that failed or got lost, how many a minute on average, and their share of the runs that ended for good.",
        at_end(total("runs_total", JOBS, FAILED), "Failures"),
        at_end(f"{failed} / $__range_s * 60", "Per minute"),
        at_end(share(failed, grown("runs_total", JOBS, ENDED)), "Failure rate"),
        width=5,
    )
    return in_unit(panel, {"Per minute": "suffix:/min", "Failure rate": "percentunit"})


def start_delay() -> timeseries.Panel:
    """Whether it starts when it is due."""
    return _waiting("Start delay", "From when a run was due to when it started.", "run_start_delay_seconds")


def queue_wait() -> timeseries.Panel:
    """How long it waits to be executed."""
    return _waiting(
        "Queue wait", "From when a run was enqueued to when it started.", "run_queue_wait_seconds"
    )


def skipped() -> timeseries.Panel:
    """What did not happen."""
    return bars(
        "Skipped runs",
        "Runs that were due and did not happen, in each bar by reason.",
        over_time(counted("runs_skipped_total", JOBS, by="reason"), "{{reason}}"),
        width=8,
        no_value="no skipped run is known",
    )


def _when(title: str, description: str, moment: str, never: str) -> stats.Panel:
    return stat(
        title,
        description,
        at_end(f"1000 * {moment}"),
        unit="dateTimeFromNow",
        texts={"0": (never, "")},
        size=18,
    )


def _last(what: str) -> str:
    return f"max({state(f'job_last_{what}_timestamp_seconds', JOBS)})"


def _waiting(title: str, description: str, histogram: str) -> timeseries.Panel:
    panel = graph(
        title,
        f"{description} Mean and the second and fourth of the chosen percentiles.",
        over_time(mean(histogram, JOBS), "mean"),
        over_time(quantile("$percentile_2 / 100", histogram, JOBS), "p$percentile_2"),
        over_time(quantile("$percentile_4 / 100", histogram, JOBS), "p$percentile_4", exemplars=True),
        unit="s",
        width=8,
        colours={"mean": "text"},
        no_value="nothing was observed",
    )
    return coarse(panel)


MOMENTS = {
    "-1": ("none ended yet", "text"),
    "0": ("success", "green"),
    "1": ("failed", "red"),
    "10": ("none ended", "transparent"),
    "11": ("success", "green"),
    "12": ("skipped", "blue"),
    "13": ("in progress", "super-light-blue"),
    "14": ("failed", "red"),
    "20": ("in time", "green"),
    "21": ("paused", "yellow"),
    "22": ("overdue", "orange"),
    "23": ("overdue", "orange"),
}
"""What the numbers of the timeline mean."""
