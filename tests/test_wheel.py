"""What is installed from the wheel works alone."""

import os
import subprocess
import sys
from pathlib import Path
from venv import EnvBuilder
from zipfile import ZipFile

import pytest

import taskscope

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "exporter" / "taskscope"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("wheel")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds the wheel and what it asks for, nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    EnvBuilder(with_pip=True).create(folder)
    run(folder / "bin" / "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel)
    return folder / "bin"


def run(*command: object, **variables: str) -> str:
    """The output of a command that must succeed, away from the checkout."""
    foreign = ("PYTHON", "TASKSCOPE_", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    done = subprocess.run(
        [*map(str, command)],
        env=kept | variables,
        cwd="/",
        text=True,
        timeout=280,
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_types_license_and_migrations_are_inside(wheel: Path) -> None:
    migrations = {f"taskscope/{path.relative_to(PACKAGE)}" for path in PACKAGE.glob("**/versions/*.py")}

    files = set(ZipFile(wheel).namelist())

    assert migrations
    assert migrations <= files
    assert "taskscope/py.typed" in files
    assert any(file.endswith("/licenses/LICENSE") for file in files)


def test_the_command_says_its_version(environment: Path) -> None:
    assert taskscope.__version__ in run(environment / "taskscope", "--version")


def test_no_scheduler_and_no_extra_comes_along(environment: Path) -> None:
    installed = {line.split("==")[0].lower() for line in run(environment / "pip", "freeze").split()}

    assert "sqlalchemy" in installed
    assert installed & {"apscheduler", "celery", "rq", "psycopg", "pytest"} == set()


def test_a_run_is_followed_to_row_counter_and_scrape(environment: Path, tmp_path: Path) -> None:
    said = run(environment / "taskscope", "check", TASKSCOPE_HOME=str(tmp_path), TASKSCOPE_PORT="0")

    assert "WRONG" not in said
