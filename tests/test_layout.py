"""The house rules that no linter knows; which module may import which is in pyproject.toml."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import grimp
import pytest

import taskscope
from lowest import lowest
from taskscope.bridges import systems

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "exporter" / "taskscope"
MODULES = sorted(PACKAGE.rglob("*.py"))
SCHEDULERS = {"apscheduler", "celery", "rq", "dramatiq", "huey", "arq", "procrastinate"}
PUBLIC = [
    "BadArgument",
    "Bridge",
    "Exporter",
    "Run",
    "RunFilter",
    "Settings",
    "Sink",
    "TaskscopeError",
    "Unavailable",
    "capture_exception",
    "current_run",
    "describe_run",
    "on_backfill",
    "watch",
]


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Every function and its length without decorators and docstring."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            first = body[0].lineno if body else node.lineno
            yield f"{name(path)}:{node.name}", (node.end_lineno or first) - first + 1


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_has_at_most_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_no_two_modules_of_tests_have_one_name() -> None:
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))

    assert [name for name, files in names.items() if files > 1] == []


def test_functions_are_short() -> None:
    lengths = dict(function for path in MODULES for function in functions(path))

    assert median(lengths.values()) <= 8
    assert {function for function, length in lengths.items() if length > 40} == set()


def test_no_module_is_a_drawer_for_everything() -> None:
    assert {path.stem for path in MODULES} & {
        "utils",
        "core",
        "manager",
        "helpers",
        "common",
        "misc",
    } == set()


def test_the_public_names_are_these() -> None:
    assert taskscope.__all__ == PUBLIC
    assert all(getattr(taskscope, public).__name__ == public for public in PUBLIC)


def test_the_changelog_knows_the_version() -> None:
    newest = re.search(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert newest is not None
    assert newest[1] in (taskscope.__version__, "Unreleased")
    assert f"## [{taskscope.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_a_scheduler_is_imported_by_its_bridge_and_the_demo_alone() -> None:
    graph = grimp.build_graph("taskscope", include_external_packages=True, cache_dir=None)

    for scheduler in SCHEDULERS & graph.modules:
        for importer in graph.find_modules_that_directly_import(scheduler):
            assert re.match(rf"taskscope\.(bridges\._?{scheduler}|demo)(_\w+)?$", importer), scheduler


def test_nothing_of_ours_unpickles() -> None:
    """A pickle may run anything: job stores and results are read by the scheduler they belong to alone."""
    graph = grimp.build_graph("taskscope", include_external_packages=True, cache_dir=None)

    assert {"pickle", "shelve", "marshal", "dill", "cloudpickle"} & graph.modules == set()
    assert "pickletools" in graph.modules, "which reads one without running it"


def test_a_bridge_imports_no_other_and_nothing_private_to_another() -> None:
    graph = grimp.build_graph("taskscope", cache_dir=None)

    for importer in graph.find_descendants("taskscope.bridges"):
        for imported in graph.find_modules_directly_imported_by(importer):
            if imported.startswith("taskscope.bridges."):
                assert bridge_of(imported) in (None, bridge_of(importer)), f"{importer} imports {imported}"


def bridge_of(module: str) -> str | None:
    """The bridge that a module is, or is a private part of; None for what all bridges share."""
    stem = module.rsplit(".", 1)[-1]
    return next((system for system in systems() if re.match(rf"_?{system}(_|$)", stem)), None)


@pytest.mark.parametrize("module", ["taskscope", "taskscope.cli", "taskscope.exporter", "taskscope.testing"])
def test_importing_loads_no_scheduler_and_starts_no_thread(module: str) -> None:
    loaded, threads = imported(module)

    assert SCHEDULERS & loaded == set()
    assert threads == 1


def test_the_command_line_does_not_load_what_a_command_does_not_use() -> None:
    loaded, _ = imported("taskscope.cli")

    assert {"sqlalchemy", "aiohttp", "yaml"} & loaded == set()


@pytest.mark.parametrize("package", ["taskscope.exec", "taskscope.sinks.forward"])
def test_what_wraps_commands_and_forwards_needs_the_standard_library_alone(package: str) -> None:
    graph = grimp.build_graph("taskscope", include_external_packages=True, cache_dir=None)

    needed = {name.split(".")[0] for name in graph.find_upstream_modules(package, as_package=True)}

    assert needed - sys.stdlib_module_names == {"taskscope"}


def test_before_a_command_starts_nothing_is_loaded_that_it_need_not_wait_for() -> None:
    loaded, _ = imported("taskscope.exec.command")

    late = {
        "asyncio",
        "click",
        "email",
        "http",
        "json",
        "logging",
        "msgspec",
        "pathlib",
        "socket",
        "ssl",
        "subprocess",
        "typing",
    }
    assert late & loaded == set()


def imported(module: str) -> tuple[set[str], int]:
    """The modules that are loaded and the threads that run after an import."""
    code = f"import sys, threading, {module}; print(threading.active_count(), *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    threads, *modules = done.stdout.split()
    return set(modules), int(threads)


def test_no_file_names_a_place_on_a_machine_or_a_registry() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    words = re.compile(r"/(root|work)/\w|index-url|--registry")
    found = [
        f"{file}: {hit[0]}"
        for file in listed.stdout.splitlines()
        if file != "tests/test_layout.py" and (ROOT / file).is_file()
        for hit in words.finditer((ROOT / file).read_text(errors="replace"))
    ]

    assert found == []


def test_the_oldest_versions_that_are_tested_are_those_that_are_promised() -> None:
    lines = (ROOT / "constraints-lowest.txt").read_text().lower().replace("_", "-").split()
    locked = dict(line.split("==") for line in lines)

    for package, bound in lowest():
        assert f"{locked[package]}.0.".startswith(f"{bound}."), f"{package} {bound}: run `make constraints`"
