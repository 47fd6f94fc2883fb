"""`python -m benchmarks [NAME …] [--json FOLDER]`: runs the benchmarks one after the other."""

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in ("__init__", "__main__", "show"))


def main() -> int:
    """Run each in a process of its own; the exit status counts those that failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", choices=[[], *NAMES], help=f"of {', '.join(NAMES)}; none: all")
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="also write one JSON file for each")
    arguments = parser.parse_args()
    failed = 0
    for number, name in enumerate(arguments.name or NAMES, 1):
        print(
            f"== {name} ({number} of {len(arguments.name or NAMES)}), since {time.strftime('%H:%M:%S')}",
            flush=True,
        )
        failed += bool(subprocess.run(command(name, arguments.json), check=False).returncode)
    return failed


def command(name: str, folder: Path | None) -> list[str]:
    """How to run one."""
    found = [sys.executable, "-m", f"benchmarks.{name}"]
    if folder is None:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    return [*found, "--json", str(folder / f"{name}.json")]


if __name__ == "__main__":
    sys.exit(main())
