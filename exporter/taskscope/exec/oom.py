"""Did the kernel kill for want of memory in our cgroup? Asked before and after."""

from __future__ import annotations


def oom_kills() -> int:
    """How often so far; 0 where that cannot be read."""
    for path in _counters():
        try:
            with open(path) as file:
                return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
        except (OSError, ValueError):
            continue
    return 0


def _counters() -> list[str]:
    """Files, of cgroups of version 2 and 1, that may hold the count."""
    try:
        with open("/proc/self/cgroup") as file:
            groups = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return []
    places = []
    for _, controllers, path in groups:
        if not controllers:
            places += [f"/sys/fs/cgroup{path}/memory.events", "/sys/fs/cgroup/memory.events"]
        elif "memory" in controllers.split(","):
            places += [
                f"/sys/fs/cgroup/memory{path}/memory.oom_control",
                "/sys/fs/cgroup/memory/memory.oom_control",
            ]
    return places
