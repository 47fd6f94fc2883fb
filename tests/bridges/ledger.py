"""The independent record: every job writes down itself when it began and when it ended, in whatever process it runs."""

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from taskscope.events import Fact
from taskscope.identity import run_id, text
from taskscope.run import current_run

NEAR = 0.25
"""Seconds by which the two records may differ on a busy machine."""


def note(path: str, job: str, what: str) -> None:
    """Append one line; small enough to be written whole, also by several processes."""
    run = current_run()
    line = {
        "job": job,
        "what": what,
        "at": time.time(),
        "pid": os.getpid(),
        "run": run.run_id if run else None,
    }
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, (json.dumps(line) + "\n").encode())
    finally:
        os.close(descriptor)


class Ledger:
    """What the jobs wrote."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def lines(self, what: str, job: str | None = None) -> list[dict[str, Any]]:
        """The `begin`s or `end`s, of one job or of all, in order."""
        try:
            text = Path(self.path).read_text()
        except FileNotFoundError:
            return []
        lines = [json.loads(line) for line in text.splitlines()]
        return [line for line in lines if line["what"] == what and job in (None, line["job"])]

    def agrees_with(self, runs: dict[str, list[Fact]]) -> None:
        """Assert that the runs observed as started are those of the ledger: names, times, durations, ids."""
        begins = {line["run"]: line for line in self.lines("begin")}
        ends = {line["run"]: line for line in self.lines("end")}
        started = {observed_id(facts[-1]): facts for facts in runs.values() if facts[-1].started}
        assert Counter(facts[-1].job for facts in started.values()) == Counter(
            line["job"] for line in self.lines("begin")
        )
        assert started.keys() == begins.keys()
        for run, facts in started.items():
            assert told_in_order(facts), [fact.status for fact in facts]
            assert -0.001 <= begins[run]["at"] - facts[-1].started < NEAR
            if run in ends:
                took = ends[run]["at"] - begins[run]["at"]
                assert -0.002 <= facts[-1].duration - took < NEAR


def observed_id(fact: Fact) -> str:
    """The id under which the history will know the run."""
    return text(run_id(fact.scheduler, fact.native, fact.attempt, round(fact.anchor * 1000)))


def told_in_order(facts: list[Fact]) -> bool:
    """Queued, started, one end; each once."""
    *before, end = [fact.status for fact in facts]
    return before == ["queued", "started"] and end in ("success", "failed")
