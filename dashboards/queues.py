"""Queues & workers: what waits, for how long, and who works on it."""

from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.house import RUNBOOK_PAGE, labels_of, page, row, schedulers
from dashboards.infinity import Ask, amount, api_table, word
from dashboards.panels import Texts, at_end, graph, over_time, stat
from dashboards.promql import BY_JOB, ENDED, FAILED, SCHEDULERS, grown, metric, share, state
from dashboards.tables import YES, Column, ago, label, number, scheduler_column, table

BY_QUEUE = "scheduler, queue"
BY_WORKER = "scheduler, worker"
QUEUES = f'{SCHEDULERS}, queue=~"$queue"'
READY = 'state="ready"'
KNOWN = metric("queue_messages", SCHEDULERS)
CAUSES: Texts = {
    "no_worker": ("no worker", "red"),
    "no_consumer": ("no consumer", "red"),
    "slow_runs": ("slow runs", "orange"),
    "more_work": ("more work", "orange"),
    "draining": ("draining", "green"),
    "unknown": ("unknown", ""),
}


def dashboard() -> Dashboard:
    """The page."""
    return page(
        "queues",
        "Queues & workers",
        "What waits in the queues, for how long, and who works on it?",
        row("", messages(), oldest(), unconsumed(), workers_up(), busy(), backlogs()),
        row("", why_runs_wait()),
        row(
            "Queues",
            queues(*more_of_queues(), chosen=QUEUES, width=24, height=9),
            waiting(QUEUES),
            ages(),
            told(),
            outlook(),
        ),
        row("Workers", workers(*more_of_workers(), width=24, height=9)),
        row("", pools(width=6), workers_by_state(width=6), load(width=6), memory(width=6)),
        variables=[schedulers(), labels_of("queue", "Queue", f"label_values({KNOWN}, queue)")],
        asks_api=True,
        refresh="10s",
        alerts='scheduler=~"$scheduler|"',
    )


def messages() -> stats.Panel:
    """How much waits."""
    return stat(
        "Waiting",
        "Messages that are ready and that no worker has taken, in all chosen queues.",
        at_end(f"sum({state('queue_messages', QUEUES, READY, by=BY_QUEUE)})"),
        unit="locale",
        no_value="no queue is known",
    )


def oldest() -> stats.Panel:
    """For how long the oldest message waits."""
    since = state("queue_oldest_message_timestamp_seconds", QUEUES, by=BY_QUEUE)
    return stat(
        "Oldest",
        "For how long the oldest message of the chosen queues waits; 0 while none does.",
        at_end(f"max(time() - ({since} > 0)) or 0 * count({since})"),
        unit="s",
        no_value="not known",
    )


def unconsumed() -> stats.Panel:
    """How many queues nobody works on."""
    ready = state("queue_messages", QUEUES, READY, by=BY_QUEUE)
    consumers = state("queue_consumers", QUEUES, by=BY_QUEUE)
    return stat(
        "Not consumed",
        "Queues in which something waits and that no worker consumes.",
        at_end(f"sum(({consumers} == bool 0) * ({ready} > bool 0))"),
        unit="suffix:queues",
        levels={1: "red"},
        no_value="not known",
    )


def backlogs() -> stats.Panel:
    """How many queues are beyond their limit."""
    ready = state("queue_messages", QUEUES, READY, by=BY_QUEUE)
    limit = state("queue_limit_messages", QUEUES, by=BY_QUEUE)
    return stat(
        "Backlogs",
        "Queues in which more waits than their limit allows (setting `queues`, else 1000).",
        at_end(f"sum({ready} > bool {limit})"),
        unit="suffix:queues",
        levels={1: "orange"},
        no_value="no queue is known",
    )


def workers_up() -> stats.Panel:
    """How many workers answer."""
    up = state("workers", SCHEDULERS, 'state="up"', by="scheduler, state")
    return stat(
        "Workers up",
        "Workers of the chosen schedulers that answer.",
        at_end(f"sum({up})"),
        unit="short",
        texts={"0": ("none", "red")},
        no_value="no worker is known",
    )


def busy() -> stats.Panel:
    """What workers do now."""
    return stat(
        "Running",
        "Runs that workers execute now.",
        at_end(f"sum({state('worker_active_runs', SCHEDULERS, by=BY_WORKER)})"),
        unit="short",
        no_value="not known",
    )


def why_runs_wait() -> tables.Panel:
    """What holds, and whether it will be over by itself."""
    columns = [
        word("Queue", "queue", width=110),
        word("Scheduler", "scheduler", width=90),
        amount("Waiting", "waiting", "locale", width=75),
        word("Cause", "cause", texts=CAUSES, width=95, link=RUNBOOK_PAGE),
        word("Why", "explanation", wraps=True),
        amount("Come", "arrivals", "suffix:/s", width=105),
        amount("Done", "completions", "suffix:/s", width=105),
        amount("Drains in", "drains_in", "ms", width=85),
        word("What to do", "advice", wraps=True),
        word("Alert", "alert", hidden=True),
    ]
    return api_table(
        "Why runs wait",
        "Every queue of all schedulers in which something waits: the first cause that holds, how many runs came and "
        "were done in the last hour, and when at this pace nothing waits any more. A click on a cause shows more of "
        "what to do.",
        Ask("/api/monitoring/diagnosis", "data", *columns),
        columns,
        height=7,
        no_value="nothing waits",
    )


def queues(*more: Column, chosen: str = SCHEDULERS, width: int = 13, height: int = 7) -> tables.Panel:
    """What waits in each queue."""
    oldest = state("queue_oldest_message_timestamp_seconds", chosen, by=BY_QUEUE)
    consumers = state("queue_consumers", chosen, by=BY_QUEUE)
    return table(
        "Queues",
        "What waits in each queue of the chosen schedulers: ready, handed to workers, and for later; the age of what "
        "waits longest, and how many consume it.",
        label("queue", "Queue"),
        scheduler_column(width=90),
        number("Ready", _in_state("ready", chosen), width=80),
        number("In flight", _in_state("in_flight", chosen), width=70),
        number("Later", _in_state("scheduled", chosen), width=55),
        ago("Oldest", oldest, never="-", width=110),
        number("Consumers", consumers, width=100, levels={0: "red", 1: "text"}),
        *more,
        sort="Ready",
        descending=True,
        width=width,
        height=height,
        no_value="no queue is known",
    )


def more_of_queues() -> list[Column]:
    """From where on what is ready is a backlog, what only some systems tell, and how a queue's runs end."""
    return [
        number("Limit", state("queue_limit_messages", QUEUES, by=BY_QUEUE), width=70),
        number("Deferred", _in_state("deferred", QUEUES), width=75),
        number("Failed", _in_state("failed", QUEUES), width=70),
        number("Failure rate", _failure_rate(), "percentunit", width=95),
    ]


def workers(*more: Column, width: int = 11, height: int = 7) -> tables.Panel:
    """Each worker and what it does."""
    by = BY_WORKER
    return table(
        "Workers",
        "Each worker of the chosen schedulers: whether it answers, how many runs it executes, and what it uses.",
        label("worker", "Worker"),
        scheduler_column(width=90),
        number("Up", state("worker_up", SCHEDULERS, by=by), texts=YES, width=70),
        number("Running", state("worker_active_runs", SCHEDULERS, by=by), width=75),
        number("Memory", state("worker_resident_memory_bytes", SCHEDULERS, by=by), "bytes", width=80),
        number("Threads", state("worker_threads", SCHEDULERS, by=by), width=75),
        *more,
        sort="Up",
        width=width,
        height=height,
        no_value="no worker is known",
    )


def more_of_workers() -> list[Column]:
    """What workers have room for, where they say it."""
    return [
        number("Pool", state("worker_slots", SCHEDULERS, by=BY_WORKER), width=60),
        number("Prefetched", state("worker_reserved_runs", SCHEDULERS, by=BY_WORKER), width=95),
    ]


def pools(width: int = 12) -> timeseries.Panel:
    """Whether there is room."""
    parts = {
        "running": "worker_active_runs",
        "prefetched": "worker_reserved_runs",
        "pool": "worker_slots",
    }
    return graph(
        "Room in the pools",
        "Runs that the workers of the chosen schedulers execute, have taken and not started, and can execute at once.",
        *(
            over_time(f"sum({state(name, SCHEDULERS, by=BY_WORKER)})", legend)
            for legend, name in parts.items()
        ),
        unit="short",
        width=width,
        colours={"pool": "text"},
        no_value="no worker says",
    )


def waiting(chosen: str = SCHEDULERS, width: int = 12) -> timeseries.Panel:
    """Whether queues grow."""
    return graph(
        "Waiting in queues",
        "Messages of each queue that are ready and that no worker has taken yet.",
        over_time(
            state("queue_messages", chosen, READY, by=BY_QUEUE),
            "{{queue}} of {{scheduler}}",
        ),
        unit="short",
        width=width,
        no_value="no queue is known",
    )


def told(width: int = 12) -> timeseries.Panel:
    """Whether messages were lost."""
    queued = state("runs_queued", QUEUES, by=BY_QUEUE)
    messages = state("queue_messages", QUEUES, 'state!="failed"', by=f"{BY_QUEUE}, state")
    held = f"sum by ({BY_QUEUE}) ({messages})"
    known = f"({held} and on ({BY_QUEUE}) {_in_state('in_flight', QUEUES)})"
    return graph(
        "Waiting: said and counted",
        "Runs of the chosen queues that were enqueued in the last hour and of which nobody told that they started, "
        "beside all messages in these queues, in flight and for later too. More said than counted for long: messages "
        "were purged or lost. Only queues of which both is known.",
        over_time(f"sum({queued} and on ({BY_QUEUE}) {known})", "said"),
        over_time(f"sum({known} and on ({BY_QUEUE}) {queued})", "counted"),
        unit="short",
        width=width,
        colours={"counted": "text"},
        no_value="nobody tells of runs that wait",
    )


def outlook() -> timeseries.Panel:
    """Whether workers keep up."""
    ready = _in_state("ready", QUEUES)
    pace = f"max by ({BY_QUEUE}) (deriv({metric('queue_messages', QUEUES, READY)}[1h]))"
    room = f"{state('queue_limit_messages', QUEUES, by=BY_QUEUE)} - {ready}"
    return graph(
        "Time to empty, time to the limit",
        "When each queue will be empty, or beyond its limit, if the last hour's pace goes on. Nothing of what takes "
        "longer than a day.",
        over_time(f"{ready} / ({pace} < 0) * -1 < 86400", "{{queue}} of {{scheduler}} is empty"),
        over_time(f"({room} > 0) / ({pace} > 0) < 86400", "{{queue}} of {{scheduler}} is at its limit"),
        unit="s",
        no_value="no queue grows or shrinks",
    )


def ages() -> timeseries.Panel:
    """Whether messages wait longer and longer."""
    since = state("queue_oldest_message_timestamp_seconds", QUEUES, by=BY_QUEUE)
    return graph(
        "Age of the oldest message",
        "For how long the oldest message of each queue had waited.",
        over_time(f"time() - ({since} > 0)", "{{queue}} of {{scheduler}}"),
        unit="s",
        no_value="nothing waits, or nobody can say for how long",
    )


def memory(width: int = 8) -> timeseries.Panel:
    """Whether workers grow."""
    return graph(
        "Memory of workers",
        "Resident memory of each worker.",
        over_time(state("worker_resident_memory_bytes", SCHEDULERS, by=BY_WORKER), "{{worker}}"),
        unit="bytes",
        width=width,
        no_value="no worker says",
    )


def workers_by_state(width: int = 8) -> timeseries.Panel:
    """Whether workers are lost."""
    return graph(
        "Workers by state",
        "Workers of the chosen schedulers that answer, and that do not.",
        over_time(f"sum by (state) ({state('workers', SCHEDULERS, by='scheduler, state')})", "{{state}}"),
        unit="short",
        width=width,
        stacked=True,
        colours={"up": "green", "down": "red"},
        no_value="no worker is known",
    )


def load(width: int = 8) -> timeseries.Panel:
    """What workers use of the CPU."""
    cpu = f"rate({metric('worker_cpu_seconds_total', SCHEDULERS)}[$__rate_interval])"
    return graph(
        "CPU of workers",
        "Cores that each worker uses.",
        over_time(f"max by ({BY_WORKER}) ({cpu})", "{{worker}}"),
        unit="suffix:cores",
        width=width,
        no_value="no worker is known",
    )


def _in_state(name: str, chosen: str) -> str:
    """The messages of each queue in this state."""
    return state("queue_messages", chosen, f'state="{name}"', by=BY_QUEUE)


def _failure_rate() -> str:
    """The share of each queue's runs in this time range that failed; a job counts for the queue that is told of it."""
    told = f"group by ({BY_JOB}, queue) ({metric('job_info', QUEUES)})"
    failed, ended = (
        f"sum by ({BY_QUEUE}) ({grown('runs_total', SCHEDULERS, ends, by=BY_JOB)}"
        f" * on ({BY_JOB}) group_left (queue) topk by ({BY_JOB}) (1, {told}))"
        for ends in (FAILED, ENDED)
    )
    return f"{share(failed, ended)} and on ({BY_QUEUE}) {_in_state('ready', QUEUES)}"
