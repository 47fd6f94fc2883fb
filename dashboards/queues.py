"""Panels about the queues and workers of schedulers, where they have any."""

from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders import timeseries

from dashboards.panels import graph, over_time
from dashboards.promql import SCHEDULERS, metric, state
from dashboards.tables import YES, ago, label, number, scheduler_column, table


def queues() -> tables.Panel:
    """What waits in each queue."""
    by = "scheduler, queue"
    ready, in_flight, scheduled = (
        state("queue_messages", SCHEDULERS, f'state="{name}"', by=by)
        for name in ("ready", "in_flight", "scheduled")
    )
    return table(
        "Queues",
        "What waits in each queue of the chosen schedulers: ready, handed to workers, and for later; the age of what "
        "waits longest, and how many consume it.",
        label("queue", "Queue"),
        scheduler_column(width=90),
        number("Ready", ready, width=80),
        number("In flight", in_flight, width=70),
        number("Later", scheduled, width=55),
        ago(
            "Oldest", state("queue_oldest_message_timestamp_seconds", SCHEDULERS, by=by), never="-", width=110
        ),
        number(
            "Consumers", state("queue_consumers", SCHEDULERS, by=by), width=100, levels={0: "red", 1: "text"}
        ),
        sort="Ready",
        descending=True,
        width=13,
        height=7,
        no_value="no queue is known",
    )


def workers() -> tables.Panel:
    """Each worker and what it does."""
    by = "scheduler, worker"
    return table(
        "Workers",
        "Each worker of the chosen schedulers: whether it answers, how many runs it executes, and what it uses.",
        label("worker", "Worker"),
        scheduler_column(width=90),
        number("Up", state("worker_up", SCHEDULERS, by=by), texts=YES, width=70),
        number("Running", state("worker_active_runs", SCHEDULERS, by=by), width=75),
        number("Memory", state("worker_resident_memory_bytes", SCHEDULERS, by=by), "bytes", width=80),
        number("Threads", state("worker_threads", SCHEDULERS, by=by), width=75),
        sort="Up",
        width=11,
        height=7,
        no_value="no worker is known",
    )


def waiting() -> timeseries.Panel:
    """Whether queues grow."""
    return graph(
        "Waiting in queues",
        "Messages of each queue that are ready and that no worker has taken yet.",
        over_time(
            state("queue_messages", SCHEDULERS, 'state="ready"', by="scheduler, queue"),
            "{{queue}} of {{scheduler}}",
        ),
        unit="short",
        width=8,
        no_value="no queue is known",
    )


def workers_by_state() -> timeseries.Panel:
    """Whether workers are lost."""
    return graph(
        "Workers by state",
        "Workers of the chosen schedulers that answer, and that do not.",
        over_time(f"sum by (state) ({state('workers', SCHEDULERS, by='scheduler, state')})", "{{state}}"),
        unit="short",
        width=8,
        stacked=True,
        colours={"up": "green", "down": "red"},
        no_value="no worker is known",
    )


def load() -> timeseries.Panel:
    """What workers use of the CPU."""
    cpu = f"rate({metric('worker_cpu_seconds_total', SCHEDULERS)}[$__rate_interval])"
    return graph(
        "CPU of workers",
        "Cores that each worker uses.",
        over_time(f"max by (scheduler, worker) ({cpu})", "{{worker}}"),
        unit="suffix:cores",
        width=8,
        no_value="no worker is known",
    )
