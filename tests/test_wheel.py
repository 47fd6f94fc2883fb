"""What is installed from the wheel works alone."""

import os
import subprocess
import sys
from pathlib import Path
from venv import EnvBuilder
from zipfile import ZipFile

import pytest

import taskscope
from taskscope.assets import Addresses, files, kubernetes

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "exporter" / "taskscope"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("wheel")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    run(*PIP, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def wheel_of_sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the source distribution of this checkout."""
    folder = tmp_path_factory.mktemp("sdist")
    builder = installed("hatchling", folder / "builder")
    run(builder / "hatchling", "build", "--target", "sdist", "--directory", folder, cwd=ROOT)
    (source,) = folder.glob("*.tar.gz")
    run(*PIP, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds the wheel and what it asks for, nothing else."""
    return installed(wheel, tmp_path_factory.mktemp("environment"))


def installed(what: object, folder: Path) -> Path:
    """The programs of a new environment in this folder that holds this and what it asks for."""
    EnvBuilder().create(folder)
    pip = [*PIP, "--python", folder, "install", "--quiet", "--no-compile"]
    run(*pip, "--constraint", ROOT / "constraints.txt", what)
    return folder / "bin"


def run(*command: object, cwd: Path = Path("/"), **variables: str) -> str:
    """The output of a command that must succeed, away from the checkout."""
    foreign = ("PYTHON", "TASKSCOPE_", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    done = subprocess.run(
        [*map(str, command)],
        env=kept | variables,
        cwd=cwd,
        text=True,
        timeout=280,
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("system", "command", "said"),
    [
        ("apscheduler", "demo --for 2s --port 0", "The demo ran for"),
        ("celery", "check celery=redis://127.0.0.1:1/0", "127.0.0.1:1 refuses the connection"),
    ],
)
def test_an_extra_brings_all_that_its_system_needs(
    wheel: Path, tmp_path: Path, system: str, command: str, said: str
) -> None:
    programs = installed(f"{wheel}[{system}]", tmp_path)

    done = subprocess.run(
        [programs / "taskscope", *command.split()], cwd=tmp_path, text=True, capture_output=True, check=False
    )
    assert said in done.stdout, done.stdout + done.stderr


def test_types_license_and_migrations_are_inside(wheel: Path) -> None:
    migrations = {f"taskscope/{path.relative_to(PACKAGE)}" for path in PACKAGE.glob("**/versions/*.py")}

    files = set(ZipFile(wheel).namelist())

    assert migrations
    assert migrations <= files
    assert "taskscope/py.typed" in files
    assert any(file.endswith("/licenses/LICENSE") for file in files)


def test_what_is_shipped_beside_the_code_is_inside_and_no_more(wheel: Path) -> None:
    files = {name.removeprefix("taskscope/share/") for name in ZipFile(wheel).namelist() if "/share/" in name}

    places = (
        "alerts/*.yml",
        "alerts/alertmanager/**/*",
        "dashboards/json/*.json",
        "dashboards/provisioning/*",
        "examples/systemd/*",
    )
    wanted = {path for place in places for path in ROOT.glob(place) if path.is_file()}
    assert len(wanted) > len(places)
    assert {str(path.relative_to(ROOT)) for path in wanted} <= files
    assert {"docs/runbook.md", "examples/stack/alertmanager.yml", "examples/stack/prometheus.yml"} <= files
    assert not any(name.endswith(".py") or name.startswith("alerts/tests/") for name in files)


def test_the_source_distribution_makes_the_same_wheel(wheel: Path, wheel_of_sdist: Path) -> None:
    assert sorted(ZipFile(wheel_of_sdist).namelist()) == sorted(ZipFile(wheel).namelist())


def test_the_installed_command_writes_what_the_checkout_writes(environment: Path, tmp_path: Path) -> None:
    run(environment / "taskscope", "assets", tmp_path, "--kubernetes")

    where = Addresses()
    texts = files(tmp_path, where)
    for path, text in (texts | kubernetes(texts, where)).items():
        assert (tmp_path / path).read_text("utf-8") == text, path


def test_the_installed_package_has_its_runbook(environment: Path) -> None:
    code = "from taskscope.shipped import shipped; print(shipped('docs/runbook.md').read_text())"

    assert "## TaskscopeJobFailing" in run(environment / "python", "-c", code)


def test_the_command_says_its_version(environment: Path) -> None:
    assert taskscope.__version__ in run(environment / "taskscope", "--version")


def test_no_scheduler_and_no_extra_comes_along(environment: Path) -> None:
    frozen = run(*PIP, "--python", environment.parent, "freeze")
    names = {line.split("==")[0].lower() for line in frozen.splitlines()}

    assert "sqlalchemy" in names
    assert names & {"apscheduler", "celery", "rq", "psycopg", "pytest"} == set()


def test_a_run_is_followed_to_row_counter_and_scrape(environment: Path, tmp_path: Path) -> None:
    said = run(environment / "taskscope", "check", TASKSCOPE_HOME=str(tmp_path), TASKSCOPE_PORT="0")

    assert "WRONG" not in said
