"""Every metric, declared once: storage, page, docs and tests read these entries.

Names stand here without their prefix `taskscope_`. Adding a metric is adding one entry.
"""

from typing import Any, Literal

import msgspec

from taskscope.errors import BadArgument

PREFIX = "taskscope_"

Kind = Literal["counter", "gauge", "histogram", "info"]
Stability = Literal["stable", "experimental"]

STATUSES = ("success", "failed", "retried", "skipped", "unknown")
TRIGGER_STATES = ("WAITING", "EXECUTING", "PAUSED", "BLOCKED", "ERROR")
TRIGGER_EVENTS = ("fired", "completed", "misfired", "vetoed")
_JOB = ("scheduler", "job_name")
_QUEUE = ("scheduler", "queue")
_WORKER = ("scheduler", "worker")
_WRITE_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30)


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric as it is exported."""

    name: str
    """With its suffix (`_total`, `_info`), without its prefix."""
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    split: tuple[str, tuple[str, ...]] | None = None
    """A last label of which every value is exported together: its name and these values."""
    core: bool = False
    """Exported for every job from the moment it is known."""
    job: bool = False
    """Belongs to a job: counts against the series budget."""
    bounds: tuple[float, ...] | str = ()
    """Upper bounds of the buckets, or the field of `Settings.buckets` that holds them."""
    born: tuple[tuple[str, ...], ...] = ()
    """Label values that are exported, at 0, from the start."""
    stability: Stability = "stable"

    @property
    def sample(self) -> str:
        """The name under which Prometheus knows it."""
        return PREFIX + self.name

    @property
    def family(self) -> str:
        """Its name in OpenMetrics, where `_total` and `_info` belong to the samples."""
        suffix = {"counter": "_total", "info": "_info"}.get(self.kind, "")
        return self.sample.removesuffix(suffix)

    @property
    def unit(self) -> str:
        """Its base unit, with which the name ends; empty where it only counts."""
        name = self.family if self.kind != "info" else ""
        return next((unit for unit in ("seconds", "bytes") if name.endswith(f"_{unit}")), "")

    @property
    def every_label(self) -> tuple[str, ...]:
        """All labels in the order in which values are given, `le` aside."""
        return (*self.labels, self.split[0]) if self.split else self.labels


def _counter(name: str, help: str, *labels: str, **more: Any) -> Metric:
    return Metric(name=name, kind="counter", help=help, labels=labels, **more)


def _gauge(name: str, help: str, *labels: str, **more: Any) -> Metric:
    return Metric(name=name, kind="gauge", help=help, labels=labels, **more)


def _of_runs(name: str, help: str, bounds: str) -> Metric:
    return Metric(name=name, kind="histogram", help=help, labels=_JOB, bounds=bounds, job=True)


def _of_job(name: str, help: str) -> Metric:
    return _gauge(name, help, *_JOB, core=True, job=True)


_AT_ONCE = ((),)  # born without labels


CATALOG: tuple[Metric, ...] = (
    # Runs: counted exactly, never above what is committed.
    _counter(
        "runs_total",
        "Runs that ended, by status; one that was declared lost and ends after all counts as both.",
        *_JOB,
        split=("status", STATUSES),
        core=True,
        job=True,
    ),
    _counter(
        "run_failures_total",
        "Failed runs by class of exception, or by reason where there was no exception.",
        *_JOB,
        "exception",
        job=True,
    ),
    _counter(
        "runs_skipped_total",
        "Runs that were due and did not happen, by reason (misfire, overlap ...).",
        *_JOB,
        "reason",
        job=True,
    ),
    _counter(
        "new_errors_total",
        "Error groups of the job that were seen for the first time.",
        *_JOB,
        core=True,
        job=True,
    ),
    _counter(
        "captured_exceptions_total",
        "Exceptions that runs reported by `capture_exception`, and did not fail of; not part of `run_failures_total`.",
        *_JOB,
        job=True,
    ),
    _of_runs(
        "run_duration_seconds", "How long runs took, by the clock of whoever executed them.", "duration"
    ),
    _of_runs("run_queue_wait_seconds", "From enqueued to started.", "wait"),
    _of_runs("run_start_delay_seconds", "From due to started.", "delay"),
    # Jobs: memories and promises, without a time to live.
    _of_job("runs_in_progress", "Runs that have started and not ended."),
    _of_job(
        "run_oldest_in_progress_timestamp_seconds",
        "When the oldest run in progress started; 0 when none is.",
    ),
    _of_job("job_last_run_timestamp_seconds", "When the latest run started; 0 before the first."),
    _of_job("job_last_success_timestamp_seconds", "When the latest success ended; 0 before the first."),
    _of_job(
        "job_last_failure_timestamp_seconds",
        "When the latest failed or lost run ended; 0 before the first.",
    ),
    _of_job("job_last_duration_seconds", "How long the latest run took; 0 before the first."),
    _of_job("job_consecutive_failures", "Failed and lost runs since the latest success."),
    _of_job(
        "job_next_run_timestamp_seconds",
        "When the job is due next, as last read (`poll_interval`); 0 when it is not due, absent while it is paused.",
    ),
    _of_job("job_interval_seconds", "Between the next two due times; 0 where the scheduler cannot say."),
    _of_job("job_first_seen_timestamp_seconds", "When the job became known."),
    _of_job("job_paused", "1 while the job is paused."),
    Metric(
        name="job_info",
        kind="info",
        help="How the job is defined, its queue (without a definition that of its runs), whom the settings name.",
        labels=(*_JOB, "schedule", "timezone", "queue", "team", "severity"),
        core=True,
        job=True,
    ),
    _gauge(
        "job_limit_seconds",
        "What the settings promise for the job: grace, max_duration, max_silence (`expect_every`).",
        *_JOB,
        "limit",
        job=True,
    ),
    _gauge(
        "trigger_abnormal_since_timestamp_seconds",
        "Since when a trigger of the job is in such a state (ERROR, BLOCKED); absent while none is.",
        *_JOB,
        "state",
        job=True,
    ),
    _gauge(
        "error_groups", "Error groups by state (open, resolved, regressed, ignored).", "scheduler", "state"
    ),
    _counter(
        "error_groups_limited_total",
        "Errors that were counted as `_other` because there are as many groups as may be (`retention.max_errors`).",
        "scheduler",
    ),
    # Inspections, of all replicas together.
    _gauge("findings", "Findings of inspections that are open, by kind.", "scheduler", "kind"),
    _gauge("inspection_last_timestamp_seconds", "When it was last inspected.", "inspection"),
    _gauge("inspection_next_timestamp_seconds", "When the next inspection after it is due.", "inspection"),
    _gauge("inspection_duration_seconds", "How long the last inspection took.", "inspection"),
    _gauge("inspection_failed", "1 when the last inspection gave up.", "inspection"),
    _counter("inspection_failures_total", "Inspections of this replica that gave up.", "inspection"),
    _counter("backfills_total", "Backfills of this process, by outcome (success, failed).", *_JOB, "outcome"),
    # Schedulers: readings, gone past their time to live.
    _gauge("triggers", "Triggers by state.", "scheduler", "state"),
    _counter("trigger_events_total", "What triggers did.", "scheduler", split=("event", TRIGGER_EVENTS)),
    _gauge("scheduler_up", "1 when the scheduler answered the latest question.", "scheduler"),
    _gauge("scheduler_running", "1 while the scheduler starts jobs; 0 when stopped or paused.", "scheduler"),
    _counter(
        "runs_unseen_total",
        "Runs that workers counted and that left nothing to read, where a scheduler is watched from outside.",
        "scheduler",
        stability="experimental",
    ),
    _gauge(
        "queue_messages",
        "Messages by state (ready, in_flight, scheduled; deferred, failed where the queue keeps them).",
        *_QUEUE,
        "state",
    ),
    _gauge(
        "queue_oldest_message_timestamp_seconds", "When the oldest waiting message was enqueued.", *_QUEUE
    ),
    _gauge("queue_consumers", "Consumers of the queue.", *_QUEUE),
    _gauge(
        "runs_queued",
        "Runs that were told to be queued, or were due, within the last hour, and of which no start was told since.",
        *_QUEUE,
        stability="experimental",
    ),
    _gauge("queue_limit_messages", "More waiting messages than this are a backlog (`queues:`).", *_QUEUE),
    _gauge("queue_limit_age_seconds", "For longer than this no message should wait (`queues:`).", *_QUEUE),
    Metric(
        name="queue_info",
        kind="info",
        help="Whom the settings name for the queue; only queues that a rule of `queues:` matches.",
        labels=(*_QUEUE, "team", "severity"),
    ),
    _gauge("workers", "Workers by state (up, down).", "scheduler", "state"),
    _gauge("worker_up", "1 while the worker answers.", *_WORKER),
    _gauge("worker_active_runs", "Runs the worker executes now.", *_WORKER),
    _gauge("worker_slots", "Runs the worker can execute at once.", *_WORKER),
    _gauge("worker_reserved_runs", "Runs the worker has taken and not started.", *_WORKER),
    _gauge("worker_resident_memory_bytes", "Resident memory of the worker.", *_WORKER),
    _gauge("worker_threads", "Threads of the worker.", *_WORKER),
    _counter("worker_cpu_seconds_total", "CPU time of the worker.", *_WORKER),
    _gauge(
        "reading_timestamp_seconds",
        "When this was last read of the scheduler: jobs, scheduler, queue, worker.",
        "scheduler",
        "reading",
    ),
    # Health; an empty `scheduler` is all of them together with taskscope itself.
    _gauge("health_score", "100 less what failing checks deduct.", "scheduler"),
    _gauge("health_status", "1 for what it is now: healthy, degraded or unhealthy.", "scheduler", "status"),
    _gauge("health_check", "1 while the check is passed, 0 while it fails.", "scheduler", "check"),
    _gauge("health_limit", "The threshold of a check that has one.", "scheduler", "check"),
    # Taskscope itself.
    _counter("events_total", "Events taken in, by lane.", "lane", born=(("accepted",),)),
    _counter(
        "events_dropped_total",
        "Events that are counted nowhere else, by reason (overflow, bad, refused, expired, member, unsaved, surplus).",
        "reason",
        born=(("overflow",), ("bad",), ("expired",), ("member",)),
    ),
    _counter("sink_errors_total", "Failures of a sink that was given to taskscope, by its class.", "sink"),
    _gauge("pipeline_lag_seconds", "Age of the oldest event that is not durable yet.", born=_AT_ONCE),
    _gauge("store_up", "1 while the history takes writes.", born=_AT_ONCE),
    _gauge("store_rows", "Runs kept in the history.", born=_AT_ONCE),
    Metric(
        name="store_write_seconds",
        kind="histogram",
        help="How long one transaction of the history took.",
        bounds=_WRITE_BOUNDS,
        born=_AT_ONCE,
    ),
    _counter("retention_deleted_total", "Runs removed from the history by retention.", born=_AT_ONCE),
    _gauge("series", "Series of run metrics that are exported.", born=_AT_ONCE),
    _gauge("series_budget", "Series of run metrics that may be exported: the setting `series_budget`."),
    _counter(
        "series_limited_total",
        "Updates that got no series of their own because a budget was used up, by metric.",
        "metric",
        born=(("runs_total",),),
    ),
    _gauge("degraded", "1 while taskscope works without something, by reason.", "reason"),
    Metric(name="build_info", kind="info", help="Which taskscope this is.", labels=("version", "python")),
    _gauge("process_memory_limit_bytes", "Memory limit of the control group; absent when there is none."),
    _gauge(
        "process_cpu_limit_cores",
        "CPU limit of the control group; absent when there is none.",
        stability="experimental",
    ),
)

_BY_NAME = {metric.name: metric for metric in CATALOG}


def metric(name: str) -> Metric:
    """The entry of this name (without prefix). Raises `BadArgument`."""
    if found := _BY_NAME.get(name):
        return found
    raise BadArgument(f"{name!r} is no metric of taskscope; the names are in docs/metrics.md")


def markdown() -> str:
    """The page `docs/metrics.md`."""
    rows = "\n".join(map(_markdown_row, CATALOG))
    return f"{_INTRODUCTION}\n| metric | type | labels | what | stability |\n|---|---|---|---|---|\n{rows}\n"


def _markdown_row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.every_label)
    where = " (setting `buckets." + metric.bounds + "`)" if isinstance(metric.bounds, str) else ""
    core = " *Core.*" if metric.core else ""
    cells = (f"`{metric.sample}`", metric.kind + where, labels, metric.help + core, metric.stability)
    return f"| {' | '.join(cells)} |"


_INTRODUCTION = """\
<!-- Generated from exporter/taskscope/sinks/metrics/catalog.py: change that, then `make generate`. -->
# Metrics

What `/metrics` exports, in the Prometheus text format 0.0.4 and in OpenMetrics 1.0, whichever `Accept`
prefers. Times are Unix timestamps in seconds, durations are seconds; 0 as a timestamp means never.

* **Counters and histograms** count what is durable: no exported number is ever above what is committed,
  and none falls after a crash or a restart.
* *Core* metrics exist for every known job at once, at 0; the others begin with their first observation.
  A job's series leave one hour (setting `job_ttl`) after its scheduler removed it.
* `job_…` metrics are memories and promises and have no time to live. Readings (`scheduler_…`, `queue_…`,
  `worker_…`, `triggers`) disappear when they are older than the setting `reading_ttl`;
  `taskscope_reading_timestamp_seconds` says how old they are.
* Beyond the settings `series_budget` and `job_budget` new histograms and exceptions are left out first, then
  new jobs are counted as `job_name="_other"`; `taskscope_series_limited_total` says so. Jobs that were
  removed, or not heard of since the start, give way to those that were. History and API stay complete.
* Histogram buckets carry exemplars (`run_id`, and `trace_id` where it is known) in OpenMetrics.
* `process_…` and `python_…` metrics are those of the standard Python client, under their usual names.

Stable metrics keep name, labels and meaning within a major version; experimental ones may change.
"""
