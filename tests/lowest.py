"""Prints the lower bounds of pyproject.toml as constraints: what `make constraints` locks the oldest versions from."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def lowest() -> Iterator[tuple[str, str]]:
    """Every dependency with a lower bound, and that bound."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras = project["optional-dependencies"].values()
    for dependency in [*project["dependencies"], *(wanted for extra in extras for wanted in extra)]:
        if bound := re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", dependency):
            yield bound[1], bound[2]


if __name__ == "__main__":
    for name, version in lowest():
        print(f"{name}=={version}")
