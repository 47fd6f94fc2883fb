"""Makes `errors.jsonl` anew: runs the code beside it with every Python, Java and shell that is here.

    python tests/corpus/make.py PYTHON...

One line for each error: its true `name`, `by` whom it is told, and kind, message and stack as they were told. The
Python project is installed in three ways, each of another release: what is the same error must stay the same.
"""

import json
import os
import shutil
import subprocess
import sys
from glob import glob
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
PYTHONS = sys.argv[1:] or [sys.executable]
LAYOUTS = ("srv/shop/releases/20240501", "home/me/code", "venv/lib/python{version}/site-packages")


def main() -> None:
    """Collect everything."""
    with TemporaryDirectory() as directory:
        told = [*pythons(Path(directory)), *javas(Path(directory)), *shells()]
    told = [error for error in told if error["stack"] or error["message"]]
    lines = dict.fromkeys(anywhere(json.dumps(error, sort_keys=True), directory) for error in told)
    (HERE / "errors.jsonl").write_text("\n".join(lines) + "\n")
    print(len(lines), "errors")


def anywhere(line: str, directory: str) -> str:
    """The line as if everything were installed in the usual places."""
    homes = {str(Path(python).resolve().parent.parent): "/usr/local" for python in PYTHONS}
    for home, usual in {**homes, directory: "", str(HERE): "/app"}.items():
        line = line.replace(home, usual)
    return line


def pythons(directory: Path):
    """Each Python with one installation, the newest with all."""
    for number, python in enumerate(PYTHONS):
        version = subprocess.check_output(
            [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], text=True
        ).strip()
        for place, layout in enumerate(LAYOUTS):
            if place == number % len(LAYOUTS) or python == PYTHONS[-1]:
                root = directory / layout.format(version=version)
                install(root, blank=7 * place)
                yield from asked(f"Python {version}", [python, HERE / "collect.py", root])


def install(root: Path, blank: int) -> None:
    """The project as it is after so many lines were put in front of each file."""
    shutil.copytree(HERE / "project", root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in root.rglob("*.py"):
        file.write_text("\n" * blank + file.read_text())


def javas(directory: Path):
    """Each Java."""
    sources = list(map(str, (HERE / "java").rglob("*.java")))
    for home in sorted({os.path.realpath(home) for home in glob("/usr/lib/jvm/*-amd64")}):
        classes = directory / Path(home).name
        subprocess.run([f"{home}/bin/javac", "-d", classes, *sources], check=True)
        yield from asked(
            f"Java {Path(home).name}",
            [f"{home}/bin/java", "-XX:MaxJavaStackTraceDepth=60", "-cp", classes, "com.acme.jobs.Jobs"],
        )


def shells():
    """What commands write."""
    for line in (HERE / "shell.sh").read_text().splitlines()[1:]:
        name, command = line.split(maxsplit=1)
        for n in ("7", "4211"):
            for shell in ("bash", "bash"):
                done = subprocess.run(
                    [shell, "-c", command],
                    env=os.environ | {"N": n, "LC_ALL": "C"},
                    capture_output=True,
                    text=True,
                )
                yield {"name": name, "by": "shell", "kind": "exit", "message": done.stderr, "stack": ""}


def asked(by: str, command):
    """The lines that a command prints, as JSON."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        yield json.loads(line) | {"by": by}


if __name__ == "__main__":
    main()
