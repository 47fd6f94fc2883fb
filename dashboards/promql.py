"""The expressions that pages share: replicas and several Prometheus targets never count a job twice."""

JOBS = 'scheduler=~"$scheduler", job_name=~"$job_name"'
"""Chooses what belongs to the chosen jobs."""
SCHEDULERS = 'scheduler=~"$scheduler"'
"""Chooses what belongs to the chosen schedulers."""
ONE_JOB = 'scheduler="$scheduler", job_name="$job_name"'
"""Chooses the one job of a page about one job."""

BY_JOB = "scheduler, job_name"

RAN = 'status!="skipped"'
FAILED = 'status=~"failed|unknown"'


def metric(name: str, *matchers: str) -> str:
    """A metric of ours by its name without prefix, where all `matchers` hold."""
    chosen = ", ".join(filter(None, matchers))
    return f"taskscope_{name}{{{chosen}}}" if chosen else f"taskscope_{name}"


def state(name: str, *matchers: str, by: str = BY_JOB) -> str:
    """A gauge for each job, where replicas that export the same say it once."""
    return f"max by ({by}) ({metric(name, *matchers)})"


def rate(name: str, *matchers: str, by: str = "") -> str:
    """How fast a counter grows per second, over all replicas."""
    return _summed(f"rate({metric(name, *matchers)}[$__rate_interval])", by)


def counted(name: str, *matchers: str, by: str = "") -> str:
    """By how much a counter grew within each bar of a graph, in whole numbers.

    The rate spans the last scrape before the bar too, so that no growth falls between two bars; multiplied by
    the width of the bar it is the growth from scrape to scrape, where `increase` would add its extrapolation.
    """
    return f"round({rate(name, *matchers, by=by)} * $__interval_ms / 1000)"


def total(name: str, *matchers: str, by: str = "") -> str:
    """By how much a counter grew within the time range, in whole numbers."""
    return f"round({_summed(f'increase({metric(name, *matchers)}[$__range])', by)})"


def zero(expr: str) -> str:
    """The count, or 0 where nothing is found while taskscope is scraped; nothing while it is not."""
    return f"{expr} or 0 * max(taskscope_build_info)"


def _summed(expr: str, by: str) -> str:
    return f"sum by ({by}) ({expr})" if by else f"sum({expr})"
