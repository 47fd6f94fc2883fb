import random
import signal
import time

from histories import opened, python, select

WRITE = """
import sys
from itertools import count
from histories import NOW, batch, done, opened, row
from taskscope.facts import Bit

def told(rows):
    rows = list(rows)
    for row in rows[::2]:  # every other run has no anchor
        row.facts |= Bit.UNANCHORED
    return batch(rows)

with opened(sys.argv[1]) as store:
    for turn in count(int(sys.argv[2])):
        numbers = range(turn * 100, turn * 100 + 100)
        store.apply(told(row(number, "started", job=f"job{number % 7}") for number in numbers))
        store.apply(told(done(number, job=f"job{number % 7}", anchor=NOW + 1 - number % 2) for number in numbers))
        print(turn, flush=True)
"""
KILLS = 5


def test_rows_and_counters_agree_after_every_kill_and_nothing_acknowledged_is_missing(history_url: str):
    turn, dice = 0, random.Random(1)
    for _ in range(KILLS):
        acknowledged = run_for_a_while(history_url, turn, dice.uniform(0.0, 0.3))
        turn = acknowledged + 1

        ended, total = agreement(history_url)

        assert ended == total
        assert total >= 100 * turn


def run_for_a_while(url: str, turn: int, seconds: float) -> int:
    """The last turn that a writer acknowledged before it was killed, some time after its first."""
    with python(WRITE, url, str(turn)) as writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        lines = [writer.stdout.readline()]
        assert lines[0], writer.stderr.read()
        time.sleep(seconds)  # the moment of the kill is the point, not a wait for something
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
    return max(int(line) for line in lines if line.endswith("\n"))


def agreement(url: str) -> tuple[int, int]:
    """Runs stored as ended, and runs counted as ended."""
    with opened(url) as store:
        total = sum(counts.statuses.get("success", 0) for counts in store.totals().values())
        started = sum(counts.triggers.get("fired", 0) for counts in store.totals().values())
    ((ended,),) = select(url, "SELECT count(*) FROM run WHERE rank = 6")
    ((stored, different),) = select(url, "SELECT count(*), count(DISTINCT substr(id, 7)) FROM run")
    assert started == stored == different
    return ended, total
