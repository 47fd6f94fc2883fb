"""A sender of events, as a program elsewhere would be one: it repeats what was not acknowledged."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

JOBS = ("mail", "report", "sync")
ENDINGS = ("success", "failed", "retried", "skipped")


class Sender(threading.Thread):
    """Tells runs to collectors at these ports until it is stopped; what it tells comes twice and in any order."""

    def __init__(self, name: str, ports: Sequence[int], everybody: bool = False) -> None:
        """To any collector, or to each of them with `everybody`."""
        super().__init__(name=name, daemon=True)
        self.sent: dict[str, str] = {}
        """What it told and was acknowledged: native id of a run to its ending."""
        self.acknowledged = 0
        """Requests."""
        self._ports, self._everybody = list(ports), everybody
        self._chance = random.Random(name)
        self._open: list[dict[str, object]] = []
        self._old: list[list[dict[str, object]]] = []
        self._over = threading.Event()

    def run(self) -> None:
        """Batches of starts and endings; the endings of a run come with a later batch, or with an earlier one."""
        for number in range(1_000_000):
            ends = number == 0 or not self._over.is_set()
            runs = {f"{self.name}-{number}-{each}": self._chance.choice(ENDINGS) for each in range(20 * ends)}
            events = [fact for native, ending in runs.items() for fact in self._facts(native, ending)]
            self._chance.shuffle(events)
            cut = self._chance.randint(0, len(events))
            batch, self._open = self._open + events[:cut], events[cut:]
            if not batch:
                break
            self._tell(batch)
            self.sent |= runs
            self._old = [*self._old[-5:], batch]

    def stop(self) -> None:
        """Begin no more runs and come to the end of those that were begun."""
        self._over.set()
        self.join(60)
        assert not self.is_alive(), "a sender is stuck"

    @property
    def statuses(self) -> Counter[str]:
        """How many runs of each status there must be."""
        return Counter(self.sent.values())

    def _facts(self, native: str, ending: str) -> list[dict[str, object]]:
        now = time.time()
        job = JOBS[hash(native) % 3]
        known = {"type": "fact", "scheduler": "shop", "native": native, "job": job, "anchor": now}
        started = {"status": "started", "at": now}
        ended = {"status": ending, "at": now + 0.5, "started": now, "duration": 0.5}
        return [known | {"status": "queued", "at": now}, known | started, known | ended]

    def _tell(self, batch: list[dict[str, object]]) -> None:
        again = [self._chance.choice(self._old)] if self._old and self._chance.random() < 0.3 else []
        for told in (batch, *again):
            ports = self._ports if self._everybody else [self._chance.choice(self._ports)]
            for port in self._chance.sample(ports, len(ports)):
                while not self._post(port, told):
                    time.sleep(0.01)
                self.acknowledged += 1

    def _post(self, port: int, batch: list[dict[str, object]]) -> bool:
        """Was it acknowledged?"""
        body, where = json.dumps(batch).encode(), f"http://127.0.0.1:{port}/api/ingest/events"
        try:
            with urlopen(Request(where, body, {"Content-Type": "application/json"}), timeout=10) as answer:
                assert json.loads(answer.read())["refused"] == 0
                return True
        except HTTPError as refusal:
            if refusal.code not in (429, 503):
                raise
        except (OSError, HTTPException):
            pass  # the collector was killed
        return False
