"""Prints constraints.txt with the lower bounds of pyproject.toml in place of the newest versions."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def lowest() -> dict[str, str]:
    """Every dependency with a lower bound, and that bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    bounds = (re.match(r"([\w-]+)(?:\[.*])?>=([\d.]+)", dependency) for dependency in wanted)
    return {bound[1].lower(): bound[2] for bound in bounds if bound}


def constraints() -> dict[str, str]:
    """Every package that is installed, and its version."""
    lines = (ROOT / "constraints.txt").read_text().split()
    return {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}


if __name__ == "__main__":
    for name, version in sorted({**constraints(), **lowest()}.items()):
        print(f"{name}=={version}")
