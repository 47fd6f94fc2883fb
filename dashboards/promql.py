"""The expressions that pages share: replicas and several Prometheus targets never count a job twice."""

JOBS = 'scheduler=~"$scheduler", job_name=~"$job_name"'
"""Chooses what belongs to the chosen jobs."""
SCHEDULERS = 'scheduler=~"$scheduler"'
"""Chooses what belongs to the chosen schedulers."""

BY_JOB = "scheduler, job_name"
BY_ERROR = "scheduler, job_name, exception"

RAN = 'status!="skipped"'
ENDED = 'status=~"success|failed|unknown"'
BAD_ENDS = ("failed", "unknown")
"""The statuses of runs that failed or got lost."""
FAILED = f'status=~"{"|".join(BAD_ENDS)}"'

GRACE_SECONDS = 300
"""How late a job may be before it is overdue, unless the settings say so; the alerts take the same."""


def metric(name: str, *matchers: str) -> str:
    """A metric of ours by its name without prefix, where all `matchers` hold."""
    chosen = ", ".join(filter(None, matchers))
    return f"taskscope_{name}{{{chosen}}}" if chosen else f"taskscope_{name}"


def state(name: str, *matchers: str, by: str = BY_JOB) -> str:
    """A gauge for each job, where replicas that export the same say it once."""
    return f"max by ({by}) ({metric(name, *matchers)})"


def rate(name: str, *matchers: str, by: str = "") -> str:
    """How fast a counter grows per second, over all replicas."""
    return summed(f"rate({metric(name, *matchers)}[$__rate_interval])", by)


def counted(name: str, *matchers: str, by: str = "") -> str:
    """By how much a counter grew within each bar of a graph, in whole numbers.

    The rate spans the last scrape before the bar too, so that no growth falls between two bars; multiplied by
    the width of the bar it is the growth from scrape to scrape, where `increase` would add its extrapolation.
    """
    return f"round({rate(name, *matchers, by=by)} * $__interval_ms / 1000)"


def grown(name: str, *matchers: str, by: str = "") -> str:
    """By how much a counter grew within the time range."""
    return summed(f"increase({metric(name, *matchers)}[$__range])", by)


def total(name: str, *matchers: str, by: str = "") -> str:
    """By how much a counter grew within the time range, in whole numbers."""
    return f"round({grown(name, *matchers, by=by)})"


def share(part: str, whole: str) -> str:
    """The part of the whole from 0 to 1; nothing while the whole is 0."""
    return f"{part} / ({whole} > 0)"


def mean(histogram: str, *matchers: str, window: str = "$__rate_interval", by: str = "") -> str:
    """The mean of what a histogram observed."""
    sums, counts = (
        summed(f"rate({metric(histogram + suffix, *matchers)}[{window}])", by)
        for suffix in ("_sum", "_count")
    )
    return share(sums, counts)


def quantile(of: str, histogram: str, *matchers: str, window: str = "$__rate_interval", by: str = "") -> str:
    """A quantile of what a histogram observed, estimated within its bucket; of 1 it is the bucket's end."""
    buckets = metric(histogram + "_bucket", *matchers)
    labels = ", ".join(filter(None, (by, "le")))
    return f"histogram_quantile({of}, sum by ({labels}) (rate({buckets}[{window}])))"


def down(*matchers: str) -> str:
    """For each target that exported our metrics in the time range 1 when it cannot be scraped now, else 0."""
    known = f"present_over_time({metric('build_info', *matchers)}[$__range])"
    return f"(up == bool 0) and on (job, instance) {known}"


def zero(expr: str) -> str:
    """The number; 0 only while every taskscope is scraped that was there in the time range: else there may be more."""
    return f"({expr}) > 0 or 0 * max({metric('build_info')}) unless on () ({down()}) > 0"


def failing(*matchers: str) -> str:
    """For each job 1 when its latest run that ended well or badly ended badly, else 0."""
    failure = state("job_last_failure_timestamp_seconds", *matchers)
    return f"({failure} > bool {state('job_last_success_timestamp_seconds', *matchers)})"


def failures_in_a_row(*matchers: str) -> str:
    """For each job how many runs failed since its latest success, whatever an older replica remembers."""
    return f"{state('job_consecutive_failures', *matchers)} * {failing(*matchers)}"


def overdue(*matchers: str) -> str:
    """For each job 1 when it should have started and did not, else 0; nothing while it is paused."""
    due = state("job_next_run_timestamp_seconds", *matchers)
    grace = state("job_limit_seconds", 'limit="grace"', *matchers)
    allowed = f"({grace} or 0 * {due} + {GRACE_SECONDS})"
    return f"({due} > bool 0) * (time() - {due} > bool {allowed})"


def abnormal(trigger_state: str, *matchers: str) -> str:
    """For each job with a trigger in this state 1; nothing for the others."""
    since = state("trigger_abnormal_since_timestamp_seconds", f'state="{trigger_state}"', *matchers)
    return f"({since} > bool 0)"


def condition(*matchers: str) -> str:
    """For each job how it is: the sum of the `TROUBLES` that it has; the greater the worse."""
    none = f"0 * {state('job_paused', *matchers)}"
    found = {
        PAUSED: state("job_paused", *matchers),
        BLOCKED: abnormal("BLOCKED", *matchers),
        OVERDUE: overdue(*matchers),
        FAILING: failing(*matchers),
        BROKEN: abnormal("ERROR", *matchers),
    }
    return " + ".join(f"{weight} * ({expr} or {none})" for weight, expr in found.items())


PAUSED, BLOCKED, OVERDUE, FAILING, BROKEN = 1, 2, 4, 8, 16
"""What can be the matter with a job, by its weight in `condition`; BROKEN is a trigger in ERROR."""
TROUBLES = {
    BROKEN: ("trigger error", "red"),
    FAILING: ("failing", "red"),
    OVERDUE: ("overdue", "orange"),
    BLOCKED: ("blocked", "orange"),
    PAUSED: ("paused", "yellow"),
}
"""Their names and colours, the worst first."""


def _named(weights: int) -> tuple[str, str]:
    has = [trouble for weight, trouble in TROUBLES.items() if weights & weight]
    return (", ".join(name for name, _ in has).capitalize(), has[0][1]) if has else ("OK", "green")


CONDITIONS = {str(weights): _named(weights) for weights in range(2 * BROKEN)}
"""What `condition` means, and its colours."""


def errors_counted(*matchers: str) -> str:
    """How often each error of each job happened, within each bar of a graph."""
    return f"round({_counted('run_failures_total', BY_ERROR, *matchers)})"


def new_errors_counted(*matchers: str) -> str:
    """How many errors of each job were seen for the first time, within each bar of a graph."""
    return f"round({summed(_counted('new_errors_total', BY_JOB, *matchers), 'job_name')})"


def _counted(name: str, by: str, *matchers: str) -> str:
    growth = f"rate({metric(name, *matchers)}[$__rate_interval]) * $__interval_ms / 1000"
    begun = _first_counts(name, by, *matchers, window="$__interval", seconds="$__interval_ms / 1000")
    return summed(f"{growth} or {begun}", by)


def errors_total(*matchers: str) -> str:
    """How often each error of each job happened within the time range."""
    growth = f"increase({metric('run_failures_total', *matchers)}[$__range])"
    begun = _first_counts("run_failures_total", BY_ERROR, *matchers, window="$__range", seconds="$__range_s")
    return f"round({summed(f'{growth} or {begun}', BY_ERROR)})"


def _first_counts(name: str, by: str, *matchers: str, window: str, seconds: str) -> str:
    """What counters of errors began with where they began within the window.

    Such a counter is born with the first failure, which `increase` and `rate` therefore do not see. Of a job that
    was not scraped when the window began they count nothing: then all its counters seem to begin.
    """
    errors = metric(name, *matchers)
    before = f"max by ({by}) ({errors} offset {window})"
    scraped = f"max by ({BY_JOB}) ({metric('job_paused', *matchers)} offset {window})"
    young = f"{state('job_first_seen_timestamp_seconds', *matchers)} > time() - {seconds}"
    begun = f"sum by ({by}) (min_over_time({errors}[{window}])) unless {before}"
    return f"{begun} and on ({BY_JOB}) ({scraped} or {young})"


def summed(expr: str, by: str) -> str:
    """The sum for each of these labels, or of all."""
    return f"sum by ({by}) ({expr})" if by else f"sum({expr})"
