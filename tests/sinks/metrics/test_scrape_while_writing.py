import itertools
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from metrics_scene import NOW, OPENMETRICS, Scene, counted, job
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from taskscope.counts import Exemplar, JobState
from taskscope.events import Fact

SECONDS = 3.0


def test_a_page_is_whole_and_no_counter_falls_while_others_write(scene: Scene) -> None:
    stop = threading.Event()

    def repeatedly(work: Callable[[int], None]) -> None:
        for turn in itertools.count(1):
            work(turn)
            if stop.is_set():
                return

    def publish(turn: int) -> None:
        names = [job(f"job {number}") for number in range(turn % 7, 40, 3)]
        exemplar = Exemplar(turn.to_bytes(16, "big"), "", 0.02, NOW)
        scene.metrics.publish(
            {name: counted(success=turn, duration=float(turn)) for name in names},
            {(names[0], "duration", 1): exemplar},
        )

    def live(turn: int) -> None:
        scene.live.restore({job(f"job {number}"): JobState(first_seen=NOW) for number in range(40)})
        comes = Fact(scheduler="main", job=f"short {turn % 20}", native=f"{turn}", status="started", at=NOW)
        scene.live.fold([comes])
        scene.sync()
        with scene.live.lock:
            scene.lose(f"short {turn % 20}")
        scene.sync()

    def scrape_compressed(turn: int) -> None:
        assert scene.metrics.render(compress=True).blocks

    pages, last = 0, dict[tuple[str, tuple[tuple[str, str], ...]], float]()
    deadline = time.monotonic() + SECONDS
    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(repeatedly, work) for work in (publish, publish, live, scrape_compressed)]
        try:
            while time.monotonic() < deadline or pages < 5:
                found = counters(scene.page(OPENMETRICS))
                assert all(value >= last.get(key, 0) for key, value in found.items())
                last |= found
                pages += 1
        finally:
            stop.set()
    for writer in writers:
        writer.result()

    assert max(last.values()) > 5


def counters(page: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every number of the page that may not fall; also that histograms agree with themselves."""
    found = {}
    for family in text_string_to_metric_families(
        page
    ):  # refuses a page with a series twice or buckets that fall
        if family.type in ("counter", "histogram"):
            for sample in family.samples:
                found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_a_scrape_does_no_io(scene: Scene) -> None:
    scene.know("a")
    scene.publish("a")
    opened: list[str] = []
    watching = threading.get_ident()

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if watching == threading.get_ident() and event.startswith(("open", "socket.", "subprocess.", "os.")):
            opened.append(event)

    sys.addaudithook(audit)
    scene.metrics.render()
    scene.metrics.render(OPENMETRICS, compress=True)
    watching = 0

    assert opened == []
