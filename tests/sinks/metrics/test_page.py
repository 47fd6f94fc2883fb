import gzip
import subprocess
import sys
import zlib
from array import array
from collections.abc import Callable

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metrics_scene import NOW, OPENMETRICS, Scene, counted, job
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families

from taskscope.counts import Bounds, Exemplar
from taskscope.events import Job, Jobs, SchedulerState, Trigger
from taskscope.sinks.metrics.catalog import STATUSES, metric
from taskscope.sinks.metrics.form import written
from taskscope.sinks.metrics.render import OPENMETRICS as OPENMETRICS_TYPE
from taskscope.sinks.metrics.render import TEXT, wants_openmetrics

AWKWARD = (
    'say "hi"',
    "two\nlines",
    "back\\slash\\n",
    "nul\0",
    "lone\ud800surrogate",
    "größe 日本",
    "%s %b {0}",
    "",
    "\r\x85\u2028",
)
RUN = bytes.fromhex("0199abcd0000800080000000000000ff")


def busy(scene: Scene, *jobs: str) -> None:
    """Jobs with a definition, counts, exemplars."""
    trigger = Trigger(key="t", state="WAITING", schedule="cron[minute='*/5']", timezone="Europe/Berlin")
    known = tuple(
        Job(name=name, key=name, next_run=NOW + 60, interval=300.0, triggers=(trigger,)) for name in jobs
    )
    scene.live.fold([Jobs(scheduler="main", at=NOW, jobs=known)])
    scene.live.fold([SchedulerState(scheduler="main", system="fake", at=NOW, up=True, running=True)])
    exemplars = {
        (job(jobs[0]), "duration", 1): Exemplar(RUN, "4bf92f3577b34da6a3ce929d0e0e4736", 0.02, NOW),
        (job(jobs[0]), "duration", 2): Exemplar(RUN, "", 0.07, NOW),
        (job(jobs[0]), "delay", 0): Exemplar(RUN, "trace-1", 0.00001, NOW),
    }
    scene.metrics.publish({job(name): counted() for name in jobs}, exemplars)
    scene.sync()


def test_a_text_page_is_byte_for_byte_that_of_the_standard_client(scene: Scene) -> None:
    busy(scene, *AWKWARD, *(f"job {number}" for number in range(100)))

    assert scene.ours() == generate_latest(scene.registry())


def test_an_openmetrics_page_is_byte_for_byte_that_of_the_standard_client(scene: Scene) -> None:
    busy(scene, *AWKWARD, *(f"job {number}" for number in range(100)))

    assert scene.ours(OPENMETRICS) == generate_openmetrics(scene.registry())


def test_the_page_is_that_of_a_program_which_counts_with_the_standard_client(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus_client.metrics, "_use_created", False)
    registry = CollectorRegistry()
    runs = Counter(
        "taskscope_runs", metric("runs_total").help, ["scheduler", "job_name", "status"], registry=registry
    )
    seconds = Histogram(
        "taskscope_run_duration_seconds",
        metric("run_duration_seconds").help,
        ["scheduler", "job_name"],
        buckets=Bounds().duration,
        unit="seconds",
        registry=registry,
    )
    paused = Gauge(
        "taskscope_job_paused", metric("job_paused").help, ["scheduler", "job_name"], registry=registry
    )
    info = Info("taskscope_job", metric("job_info").help, ["scheduler", "job_name"], registry=registry)
    info.labels("main", "a").info({"schedule": "", "timezone": "", "queue": "", "team": "", "severity": ""})
    counts = counted(success=1_000_000)
    for status in STATUSES:
        runs.labels("main", "a", status).inc(counts.statuses.get(status, 0))
    child = seconds.labels("main", "a")
    child._sum.set(counts.histograms["duration"].sum)
    for bucket, count in zip(child._buckets, counts.histograms["duration"].buckets, strict=True):
        bucket.set(count)
    paused.labels("main", "a").set(0)
    names = ["taskscope_runs_total", "taskscope_job_paused", "taskscope_job_info"]
    names += [f"taskscope_run_duration_seconds_{part}" for part in ("bucket", "count", "sum")]

    scene.know("a")
    scene.publish("a", counts=counts)

    assert scene.page(names=names).encode() == generate_latest(registry)
    unit = b"# UNIT taskscope_run_duration_seconds seconds\n"  # the client's restricted pages have none
    assert scene.page(OPENMETRICS, names).encode() == generate_openmetrics(registry).replace(unit, b"")


def test_both_formats_are_read_back_with_the_true_numbers(scene: Scene) -> None:
    busy(scene, "a", "b")

    for openmetrics in (False, True):
        samples = scene.samples(openmetrics)
        labels = (("job_name", "b"), ("scheduler", "main"))
        assert samples["taskscope_runs_total", (*labels, ("status", "success"))].value == 5
        assert samples["taskscope_run_duration_seconds_count", labels].value == 6
        assert samples["taskscope_run_duration_seconds_sum", labels].value == 1.5
        assert samples["taskscope_job_next_run_timestamp_seconds", labels].value == NOW + 60


def test_exemplars_point_to_the_run_in_openmetrics_only(scene: Scene) -> None:
    busy(scene, "a", "b")
    labels = (("job_name", "a"), ("le", "0.05"), ("scheduler", "main"))

    exemplar = scene.samples(openmetrics=True)["taskscope_run_duration_seconds_bucket", labels].exemplar

    assert exemplar is not None
    assert exemplar.labels == {
        "run_id": "0199abcd-0000-8000-8000-0000000000ff",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    assert exemplar.value == 0.02
    assert "run_id" not in scene.page()


@pytest.mark.parametrize("trace_id", ["x" * 100, 'odd "id\\', "two\nlines", "\ud800"])
def test_a_trace_id_that_is_none_is_left_out(scene: Scene, trace_id: str) -> None:
    scene.metrics.publish(
        {job("a"): counted()}, {(job("a"), "duration", 1): Exemplar(RUN, trace_id, 0.02, NOW)}
    )

    assert '# {run_id="0199abcd-0000-8000-8000-0000000000ff"} 0.02' in scene.page(OPENMETRICS)


def test_an_openmetrics_page_ends_with_eof_and_has_no_created_samples(scene: Scene) -> None:
    busy(scene, "a")

    page = scene.page(OPENMETRICS)

    assert page.endswith("# EOF\n")
    assert page.count("# EOF") == 1
    assert "_created" not in page
    assert "# UNIT taskscope_run_duration_seconds seconds\n" in page
    assert "# TYPE taskscope_job info\n" in page


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_promtool_finds_nothing_to_say(scene: Scene, promtool: str, accept: str) -> None:
    busy(scene, *AWKWARD, "a")
    page = scene.page()
    if accept:  # promtool reads text: take away what only OpenMetrics has
        page = "".join(line for line in generate_latest(scene.registry()).decode().splitlines(keepends=True))

    found = subprocess.run([promtool, "check", "metrics"], input=page.encode(), capture_output=True)

    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")


@given(st.text(st.characters(), max_size=30), st.text(max_size=10))
def test_any_job_name_survives(name: str, scheduler: str) -> None:
    scene = Scene()
    scene.publish(name, scheduler=scheduler)

    for page in (scene.page(), scene.page(OPENMETRICS)):
        lines = [line for line in page.split("\n") if line.startswith("taskscope_runs_total{")]
        job_name, scheduler_name = written((name, scheduler))
        labels = f'job_name="{job_name}",scheduler="{scheduler_name}",status="success"'
        assert lines[0] == f"taskscope_runs_total{{{labels}}} 5.0"
        assert len(lines) == len(STATUSES)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_job_name_is_read_back_by_the_openmetrics_parser(name: str) -> None:
    scene = Scene()
    scene.publish(name)

    families = {family.name: family for family in openmetrics_families(scene.page(OPENMETRICS))}

    assert families["taskscope_runs"].samples[0].labels["job_name"] == name


def test_names_of_10_kb_make_no_block_above_1_mib(scene: Scene) -> None:
    names = ["\n" * 10_000 + str(number) for number in range(30)]
    scene.publish(*names)

    rendered = scene.metrics.render()

    assert sum(map(len, rendered.blocks)) > 2**21
    assert max(map(len, rendered.blocks)) <= 2**20
    assert scene.page().count(',scheduler="main",status="success"} 5.0') == 30


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        ("text/plain", False),
        ("application/json", False),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; Version=1.0.0; charset=utf-8", True),
        ("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;q=0.4",
            True,
        ),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.9", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=none", False),
        ("application/openmetrics-text;version=2.0.0", False),
        (
            "text/plain;q=0.5, application/openmetrics-text;version=2.0.0, application/openmetrics-text;q=0.6",
            True,
        ),
        (";;;,,=;q=", False),
    ],
)
def test_accept_chooses_the_format(scene: Scene, accept: str, openmetrics: bool) -> None:
    assert wants_openmetrics(accept) is openmetrics
    assert scene.metrics.render(accept).content_type == (OPENMETRICS_TYPE if openmetrics else TEXT)


def restricted_names(scene: Scene, names: tuple[str, ...]) -> set[str]:
    """The samples that the standard client leaves of these and its own collectors."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(scene.metrics.collector())
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return {
        sample.name for family in registry.restricted_registry(names).collect() for sample in family.samples
    }


@pytest.mark.parametrize(
    ("names", "samples"),
    [
        (("taskscope_runs_total",), {"taskscope_runs_total"}),
        (("taskscope_runs",), set()),
        (("taskscope_runs_created",), set()),
        (("taskscope_job",), set()),
        (("taskscope_run_duration_seconds_count",), {"taskscope_run_duration_seconds_count"}),
        (
            (
                "taskscope_run_duration_seconds_sum",
                "taskscope_run_duration_seconds_bucket",
                "taskscope_store_up",
            ),
            {
                "taskscope_run_duration_seconds_sum",
                "taskscope_run_duration_seconds_bucket",
                "taskscope_store_up",
            },
        ),
        (("taskscope_run_duration_seconds",), set()),
        (("taskscope_job_info", "taskscope_store_up"), {"taskscope_job_info", "taskscope_store_up"}),
        (("process_open_fds", "taskscope_store_up"), {"process_open_fds", "taskscope_store_up"}),
        (("python_gc_collections",), set()),
        (("python_gc_collections_total",), {"python_gc_collections_total"}),
        (("taskscope_run",), set()),
        (("nothing",), set()),
    ],
)
def test_names_leave_only_these_families_and_samples(
    scene: Scene, names: tuple[str, ...], samples: set[str]
) -> None:
    busy(scene, "a", "b")

    for accept in ("", OPENMETRICS):
        page = scene.page(accept, names)
        found = {
            line.partition(" ")[0].partition("{")[0] for line in page.split("\n") if line and line[0] != "#"
        }
        assert found == samples == restricted_names(scene, names)


@pytest.mark.parametrize(
    "names",
    [
        ["taskscope_run_duration_seconds_bucket"],
        ["taskscope_run_duration_seconds_count", "taskscope_run_duration_seconds_sum", "taskscope_triggers"],
        [f"taskscope_run_duration_seconds_{part}" for part in ("bucket", "count", "sum")],
        ["taskscope_runs_total", "taskscope_job_info", "taskscope_job", "taskscope_run_start_delay_seconds"],
        ["taskscope_store_write_seconds_bucket", "taskscope_runs", "nothing"],
    ],
)
def test_a_page_with_names_is_byte_for_byte_that_of_the_restricted_registry(
    scene: Scene, names: list[str]
) -> None:
    busy(scene, *AWKWARD, "a")
    restricted = scene.registry().restricted_registry(names)

    assert scene.page(names=names).encode() == generate_latest(restricted)
    assert scene.page(OPENMETRICS, names).encode() == generate_openmetrics(restricted)


@pytest.mark.parametrize("with_isal", [True, False])
def test_gzip_is_one_stream_of_the_same_page(
    new_scene: Callable[[], Scene], monkeypatch: pytest.MonkeyPatch, with_isal: bool
) -> None:
    if with_isal:
        pytest.importorskip("isal")
    else:
        monkeypatch.setitem(sys.modules, "isal", None)
    scene = new_scene()
    names = [f"job {number}" for number in range(300)]
    busy(scene, *names)

    for changed in ([], names[7:9], names, names[:1], [*names, "one more"]):
        scene.publish(*changed, counts=counted(success=7 + len(changed)))
        for accept in ("", OPENMETRICS):
            rendered = scene.metrics.render(accept, compress=True)
            stream = zlib.decompressobj(wbits=31)
            page = stream.decompress(b"".join(rendered.blocks))
            assert rendered.encoding == "gzip"
            assert (stream.eof, stream.unused_data) == (True, b"")
            assert page.decode() == scene.page(accept)


def test_a_gzipped_page_with_names_is_whole(scene: Scene) -> None:
    busy(scene, "a", "b")
    names = ("taskscope_runs_total", "process_open_fds")

    rendered = scene.metrics.render(OPENMETRICS, names, compress=True)

    assert gzip.decompress(b"".join(rendered.blocks)).decode() == scene.page(OPENMETRICS, names)


def test_only_changed_blocks_are_written_anew(scene: Scene) -> None:
    names = [f"job {number:04}" for number in range(500)]
    busy(scene, *names)
    scene.page()
    family = scene.metrics._families["run_duration_seconds"]
    stamps = {block: block.stamp for group in family.groups for block in group.blocks}
    texts = [group.write(openmetrics=False) for group in family.groups]

    scene.publish(names[250], counts=counted(success=50))
    scene.metrics.render(names=["none"])

    changed = [block for block, stamp in stamps.items() if block.stamp is not stamp]
    kept = [group.write(openmetrics=False) is text for group, text in zip(family.groups, texts, strict=True)]
    assert len(stamps) > 100
    assert [job(names[250]) in [row.labels for row in block.rows] for block in changed] == [True]
    assert kept.count(False) == 1


def test_series_that_come_and_go_leave_every_other_as_it_was(scene: Scene) -> None:
    family = scene.metrics._families["run_failures_total"]
    for number in range(200):
        family.put(("main", "a", str(number)), number)
    for number in range(0, 200, 3):
        family.drop(("main", "a", str(number)))
    for number in range(300, 340):
        family.put(("main", "a", str(number)), number)

    wanted = {number for number in range(200) if number % 3} | set(range(300, 340))
    assert {labels["exception"]: value for _, labels, value, _ in family.samples()} == {
        str(n): n for n in wanted
    }
    assert family.get(("main", "a", "100")) == array("d", [100])
    assert scene.ours() == generate_latest(scene.registry())


def test_the_page_has_the_process_metrics_under_their_usual_names(scene: Scene) -> None:
    names = {name for name, _ in scene.samples(openmetrics=True)}

    assert {"process_resident_memory_bytes", "process_cpu_seconds_total", "python_info"} <= names
    assert "python_gc_collections_total" in names
    assert not [
        name for name in generate_latest(scene.registry()).decode().split() if name.startswith("process_")
    ]
