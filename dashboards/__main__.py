"""Builds every page into dashboards/json/; `--check` only says which are stale, and exits 1 if any is."""

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from grafana_foundation_sdk.cog.encoder import JSONEncoder

FOLDER = Path(__file__).parent
JSON = FOLDER / "json"


def pages() -> dict[str, str]:
    """Every page by the name of its file, as the JSON that Grafana loads.

    A page is a module of this folder with a function `dashboard`.
    """
    return {
        module.name: _built(module.name) for module in iter_modules([str(FOLDER)]) if _is_page(module.name)
    }


def stale() -> Iterator[str]:
    """The files in json/ that are not what the pages are now: changed, missing or left over."""
    wanted = {f"{name}.json": page for name, page in pages().items()}
    found = {path.name: path.read_text(encoding="utf-8") for path in JSON.glob("*.json")}
    return (name for name in sorted(wanted | found) if wanted.get(name) != found.get(name))


def write() -> None:
    """Write json/ anew where it is stale."""
    current = pages()
    for name in stale():
        path = JSON / name
        if page := current.get(path.stem):
            path.write_text(page, encoding="utf-8")
        else:
            path.unlink()


def _is_page(name: str) -> bool:
    return name != "__main__" and hasattr(import_module(f"dashboards.{name}"), "dashboard")


def _built(name: str) -> str:
    model = import_module(f"dashboards.{name}").dashboard().build()
    return json.dumps(model, cls=JSONEncoder, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Do what the command line says; the exit status."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write(f"python -m dashboards takes only --check, not {' '.join(arguments)}\n")
        return 2
    if not arguments:
        write()
    left = list(stale())
    sys.stderr.writelines(f"dashboards/json/{name} is stale; run `make generate`\n" for name in left)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
