import re
from pathlib import Path

import pytest
from metrics_scene import Scene
from prometheus_client.openmetrics.exposition import generate_latest

import taskscope
from taskscope.errors import BadArgument
from taskscope.sinks.metrics.catalog import CATALOG, Metric, markdown
from taskscope.sinks.metrics.process import cpu_limit, memory_limit


def test_counters_and_gauges_about_itself_can_be_set_and_added_to(scene: Scene) -> None:
    scene.metrics.add("events_total", 3, "accepted")
    scene.metrics.add("events_total", 2, "accepted")
    scene.metrics.set("store_up", 1)
    scene.metrics.set("degraded", 1, "port")
    scene.metrics.set("degraded", 0, "port")

    assert scene.value("events_total", lane="accepted") == 5
    assert scene.value("store_up") == 1
    assert scene.value("degraded", reason="port") == 0


def test_a_counter_that_is_set_never_falls(scene: Scene) -> None:
    scene.metrics.set("events_dropped_total", 7, "overflow")
    scene.metrics.set("events_dropped_total", 5, "overflow")

    assert scene.value("events_dropped_total", reason="overflow") == 7


def test_a_value_is_observed_in_every_bucket_that_holds_it(scene: Scene) -> None:
    for value in (0.001, 0.02, 99.0):
        scene.metrics.observe("store_write_seconds", value)

    buckets = {
        le: scene.value("store_write_seconds_bucket", le=le)
        for le in ("0.001", "0.01", "0.05", "30.0", "+Inf")
    }
    assert buckets == {"0.001": 1, "0.01": 1, "0.05": 2, "30.0": 2, "+Inf": 3}
    assert scene.value("store_write_seconds_count") == 3
    assert scene.value("store_write_seconds_sum") == 99.021


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("set", ("no_such_metric", 1)),
        ("add", ("events_total", 1)),
        ("add", ("events_total", 1, "accepted", "twice")),
        ("add", ("runs_total", 1, "main", "a", "success")),
        ("set", ("runs_in_progress", 1, "main", "a")),
        ("set", ("store_write_seconds", 1)),
        ("observe", ("store_up", 1)),
        ("observe", ("run_duration_seconds", 1, "main", "a")),
    ],
)
def test_a_name_or_label_that_is_not_in_the_catalog_is_refused_in_words(
    scene: Scene, call: str, arguments: tuple[object, ...]
) -> None:
    before = scene.page()

    with pytest.raises(BadArgument, match=f"{arguments[0]!r}"):
        getattr(scene.metrics, call)(*arguments)

    assert scene.page() == before


def test_what_is_known_in_advance_is_exported_at_0_from_the_start(scene: Scene) -> None:
    assert scene.value("events_dropped_total", reason="overflow") == 0
    assert scene.value("store_write_seconds_count") == 0
    assert scene.value("retention_deleted_total") == 0
    assert len([name for name in scene.names() if name == "taskscope_build_info"]) == 1


@pytest.mark.parametrize("metric", CATALOG, ids=lambda metric: metric.name)
def test_every_metric_follows_the_naming_rules(metric: Metric) -> None:
    assert re.fullmatch(r"[a-z][a-z_]*[a-z]", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.name.endswith("_info") == (metric.kind == "info")
    assert not metric.name.endswith(("_count", "_sum", "_bucket", "_created"))
    assert metric.help.endswith(".")
    assert not set('\\\n"') & set(metric.help)
    assert not {"job", "instance", "le", "quantile", "type"} & set(metric.every_label)
    assert all(len(values) == len(metric.labels) for values in metric.born)
    assert not (metric.core and not metric.job)


def test_every_metric_that_the_package_writes_is_declared() -> None:
    package = Path(taskscope.__file__).parent
    source = "".join(file.read_text() for file in package.rglob("*.py"))

    written = set(re.findall(r'etrics\.(?:set|add|observe)\(\s*"(\w+)"', source))

    assert {"events_total", "store_up", "store_write_seconds"} <= written
    assert written <= {metric.name for metric in CATALOG}


def test_no_two_metrics_share_a_name(scene: Scene) -> None:
    families = [metric.family for metric in CATALOG]

    assert len(set(families)) == len(families)
    assert generate_latest(scene.registry()).endswith(b"# EOF\n")


def test_the_page_of_the_docs_has_a_line_for_every_metric_and_label() -> None:
    lines = {line.split("`")[1]: line for line in markdown().splitlines() if line.startswith("| `")}

    assert list(lines) == [metric.sample for metric in CATALOG]
    for metric in CATALOG:
        assert metric.help in lines[metric.sample]
        assert all(f"`{label}`" in lines[metric.sample] for label in metric.every_label)


def control_group(root: Path, told: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A file system that says such limits."""
    for name, text in files.items():
        file = root / "fs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (root / "cgroup").write_text(told)
    return root / "fs", root / "cgroup"


@pytest.mark.parametrize(
    ("told", "files", "memory", "cpu"),
    [
        ("0::/\n", {"memory.max": "1073741824\n", "cpu.max": "150000 100000\n"}, 2**30, 1.5),
        ("0::/\n", {"memory.max": "max\n", "cpu.max": "max 100000\n"}, None, None),
        (
            "0::/a/b\n",
            {"a/b/memory.max": "max\n", "a/memory.max": "4096\n", "a/b/cpu.max": "max 1\n"},
            4096,
            None,
        ),
        (
            "5:memory:/x\n4:cpu,cpuacct:/x\n",
            {
                "memory/x/memory.limit_in_bytes": "2048\n",
                "cpu,cpuacct/x/cpu.cfs_quota_us": "50000\n",
                "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
            },
            2048,
            0.5,
        ),
        (
            "5:memory:/\n4:cpu,cpuacct:/\n",
            {
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            None,
            None,
        ),
        ("", {}, None, None),
    ],
)
def test_the_limits_of_the_control_group_are_found(
    tmp_path: Path, told: str, files: dict[str, str], memory: float | None, cpu: float | None
) -> None:
    root, file = control_group(tmp_path, told, files)

    assert memory_limit(root, file) == memory
    assert cpu_limit(root, file) == cpu


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert memory_limit(tmp_path, tmp_path / "none") is None
    assert cpu_limit(tmp_path, tmp_path / "none") is None
