"""Exporter: taskscope watching itself."""

from grafana_foundation_sdk.builders import prometheus as prom
from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.house import labels_of, page, row
from dashboards.panels import at_end, bars, graph, over_time, properties, stat
from dashboards.promql import down, metric, summed, zero
from dashboards.tables import ago, label, number, table

TARGETS = 'job=~"$job", instance=~"$instance"'
"""Chooses the targets of Prometheus at which a taskscope is scraped."""

ALERTS = 'alertname!~"TaskscopeJob.+|TaskscopeRun.+|TaskscopeTrigger.+"'


def dashboard() -> Dashboard:
    """The page."""
    return page(
        "exporter",
        "Exporter",
        "Taskscope watching itself: whether it takes everything in, keeps it, and what that costs.",
        row(
            "",
            targets_down(),
            store_down(),
            lag_now(),
            dropped_in_range(),
            limited_in_range(),
            degraded_now(),
        ),
        row("", every_target(), reasons()),
        row("Events", events(), dropped(), sink_errors(), lag()),
        row("History", store_writes(), transactions(), store_rows()),
        row("Metrics", series(), scrape_time(), reading_age()),
        row("Process", cpu(), memory(), garbage()),
        variables=[
            labels_of("job", "Scrape job", "label_values(taskscope_build_info, job)"),
            labels_of("instance", "Instance", 'label_values(taskscope_build_info{job=~"$job"}, instance)'),
        ],
        alerts=ALERTS,
    )


def targets_down() -> stats.Panel:
    """Whether Prometheus reaches every taskscope."""
    return stat(
        "Taskscope",
        "Targets that exported taskscope's metrics in this time range and cannot be scraped now.",
        at_end(f"sum({down(TARGETS)})"),
        unit="suffix:down",
        levels={1: "red"},
        texts={"0": ("Up", "green")},
        no_value="not scraped",
    )


def store_down() -> stats.Panel:
    """Whether every history takes writes."""
    return stat(
        "History",
        "Histories that take no writes now. Events wait meanwhile; counters stand still.",
        at_end(f"sum({metric('store_up', TARGETS)} == bool 0)"),
        unit="suffix:down",
        levels={1: "red"},
        texts={"0": ("Up", "green")},
    )


def lag_now() -> stats.Panel:
    """How far the history is behind."""
    return stat(
        "Lag",
        "Age of the oldest event that is not durable yet.",
        at_end(f"max({metric('pipeline_lag_seconds', TARGETS)})"),
        unit="s",
        levels={5: "orange", 60: "red"},
    )


def dropped_in_range() -> stats.Panel:
    """How many events were lost."""
    return stat(
        "Dropped in range",
        "Events of this time range that are counted nowhere else: the queue was full, or they were bad.",
        at_end(_total("events_dropped_total", 'reason!="expired"')),
        unit="locale",
        levels={1: "red"},
    )


def limited_in_range() -> stats.Panel:
    """Whether the budget of series was used up."""
    return stat(
        "Series left out",
        "Updates of this time range that got no series of their own because a budget was used up.",
        at_end(_total("series_limited_total")),
        unit="locale",
        levels={1: "orange"},
    )


def degraded_now() -> stats.Panel:
    """Whether taskscope works without something."""
    return stat(
        "Degraded",
        "Reasons for which a taskscope works without something; the table below names them.",
        at_end(zero(f"count({metric('degraded', TARGETS)} > 0)")),
        unit="locale",
        levels={1: "orange"},
    )


def every_target() -> tables.Panel:
    """Each taskscope and how it is."""
    by = "job, instance"
    version = f"max by ({by}, version, python) ({metric('build_info', TARGETS)})"
    started = f"max by ({by}) (process_start_time_seconds{{{TARGETS}}} and on ({by}) {metric('build_info')})"
    return table(
        "Instances",
        "Each taskscope that is scraped: its version, since when its process runs, and what it keeps.",
        label("instance", "Instance"),
        label("version", "Version", width=80),
        label("python", "Python", width=80),
        number("Scraped", version, texts={"1": ("Yes", "green")}, width=80),
        ago("Started", started),
        number("Runs kept", f"max by ({by}) ({metric('store_rows', TARGETS)})", width=90),
        number("Series", f"max by ({by}) ({metric('series', TARGETS)})", width=90),
        number("Degraded", f"count by ({by}) ({metric('degraded', TARGETS)} > 0)", no_value="no", width=95),
        sort="Instance",
        width=16,
        height=6,
    )


def reasons() -> tables.Panel:
    """Why taskscope is degraded."""
    return table(
        "What is missing",
        "What a taskscope works without now; its log says more.",
        label("reason", "Reason"),
        label("instance", "Instance"),
        number("Is so", f"max by (reason, instance) ({metric('degraded', TARGETS)} > 0)", hidden=True),
        sort="Reason",
        width=8,
        height=6,
        no_value="nothing is known to be missing",
    )


def events() -> timeseries.Panel:
    """What is taken in."""
    return graph(
        "Events taken in",
        "Events per second by lane: accepted ones of bridges, and those that other processes send.",
        over_time(_rate("events_total", by="lane"), "{{lane}}"),
        unit="suffix:/s",
        width=6,
    )


def dropped() -> timeseries.Panel:
    """What is not."""
    growth = f"round({_rate('events_dropped_total', by='reason')} * $__interval_ms / 1000)"
    return bars(
        "Dropped events",
        "Events that are counted nowhere else, in each bar by reason. Expired: about runs that retention removed.",
        over_time(growth, "{{reason}}"),
        colours={
            "overflow": "red",
            "bad": "orange",
            "expired": "blue",
            "member": "purple",
            "refused": "dark-orange",
        },
        width=6,
    )


def sink_errors() -> timeseries.Panel:
    """Failures of what the user gave us."""
    growth = f"round({_rate('sink_errors_total', by='sink')} * $__interval_ms / 1000)"
    return bars(
        "Errors of sinks",
        "Failures of sinks that were given to taskscope besides its own, in each bar by class.",
        over_time(growth, "{{sink}}"),
        width=6,
        no_value="no failed sink is known",
    )


def lag() -> timeseries.Panel:
    """How far the history was behind."""
    return graph(
        "Pipeline lag",
        "Age of the oldest event that is not durable yet, of each instance.",
        over_time(_each("pipeline_lag_seconds"), "{{instance}}"),
        unit="s",
        width=6,
    )


def store_writes() -> timeseries.Panel:
    """How long transactions take."""
    buckets = summed(f"rate({metric('store_write_seconds_bucket', TARGETS)}[$__rate_interval])", "le")
    sums, counts = (_rate(f"store_write_seconds_{part}") for part in ("sum", "count"))
    return graph(
        "Duration of transactions",
        "How long one transaction of the history took: mean and the time that 99 % of them stay below.",
        over_time(f"{sums} / ({counts} > 0)", "mean"),
        over_time(f"histogram_quantile(0.99, {buckets})", "p99"),
        unit="s",
        width=8,
        no_value="nothing was written",
    )


def transactions() -> timeseries.Panel:
    """How much is written and removed."""
    return graph(
        "Transactions and removals",
        "Transactions of the history per second, and runs that retention removed per second.",
        over_time(_rate("store_write_seconds_count"), "transactions"),
        over_time(_rate("retention_deleted_total"), "runs removed"),
        unit="suffix:/s",
        width=8,
    )


def store_rows() -> timeseries.Panel:
    """How much is kept."""
    return graph(
        "Runs kept",
        "Runs in the history of each instance.",
        over_time(_each("store_rows"), "{{instance}}"),
        unit="short",
        width=8,
    )


def series() -> timeseries.Panel:
    """How many series are exported."""
    return _limited(
        "Series of run metrics",
        "Series that each instance exports, and how many it may: the setting `series_budget`.",
        over_time(_each("series"), "{{instance}}"),
        "series_budget",
        unit="short",
    )


def scrape_time() -> timeseries.Panel:
    """What a scrape takes."""
    known = metric("build_info", TARGETS)
    return graph(
        "Duration of scrapes",
        "How long Prometheus waited for the metrics of each instance.",
        over_time(
            f"max by (job, instance) (scrape_duration_seconds and on (job, instance) {known})", "{{instance}}"
        ),
        unit="s",
        width=8,
    )


def reading_age() -> timeseries.Panel:
    """How old is what schedulers say of themselves."""
    newest = f"max by (scheduler, reading) ({metric('reading_timestamp_seconds', TARGETS)})"
    oldest = f"min by (scheduler) ({newest})"
    return graph(
        "Age of readings",
        "How old the oldest of what each scheduler tells is: its jobs, its state, its queues and its workers.",
        over_time(f"time() - {oldest}", "{{scheduler}}"),
        unit="s",
        width=8,
    )


def cpu() -> timeseries.Panel:
    """What the process uses of the CPU."""
    used = f"max by (instance) (rate(process_cpu_seconds_total{{{TARGETS}}}[$__rate_interval]))"
    return _limited(
        "CPU",
        "Cores used by the process that taskscope runs in, and its limit where it has one.",
        over_time(used, "{{instance}}"),
        "process_cpu_limit_cores",
        unit="suffix:cores",
    )


def memory() -> timeseries.Panel:
    """What the process uses of the memory."""
    return _limited(
        "Memory",
        "Resident memory of the process that taskscope runs in, and its limit where it has one.",
        over_time(f"max by (instance) (process_resident_memory_bytes{{{TARGETS}}})", "{{instance}}"),
        "process_memory_limit_bytes",
        unit="bytes",
    )


def garbage() -> timeseries.Panel:
    """How often garbage is collected."""
    collections = f"rate(python_gc_collections_total{{{TARGETS}}}[$__rate_interval])"
    return graph(
        "Garbage collections",
        "Collections per second by generation, in the processes that taskscope runs in.",
        over_time(f"sum by (generation) ({collections})", "generation {{generation}}"),
        unit="suffix:/s",
        width=8,
    )


def _limited(
    title: str, description: str, used: prom.Dataquery, limit: str, *, unit: str
) -> timeseries.Panel:
    most = over_time(_each(limit), "limit of {{instance}}")
    dashed = {
        "color": {"mode": "fixed", "fixedColor": "red"},
        "custom.fillOpacity": 0,
        "custom.lineStyle": {"fill": "dash", "dash": [8, 8]},
    }
    return graph(title, description, used, most, unit=unit, width=8).override_by_query(
        "B", properties(dashed)
    )


def _rate(name: str, *, by: str = "") -> str:
    return summed(f"rate({metric(name, TARGETS)}[$__rate_interval])", by)


def _total(name: str, *matchers: str) -> str:
    return f"round(sum(increase({metric(name, TARGETS, *matchers)}[$__range])))"


def _each(name: str) -> str:
    return f"max by (instance) ({metric(name, TARGETS)})"
