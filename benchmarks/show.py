"""How every benchmark shows what it measured: a table on the screen, and JSON for machines."""

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def finish(name: str, measure: Callable[..., Mapping[str, Any]], **options: str) -> None:
    """Measure, print a table, and write JSON to the file that `--json` names.

    `options` are further options of the command, with what they are for; `measure` gets those that are given.
    """
    parser = argparse.ArgumentParser(description=f"The benchmark {name}.", argument_default=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="also write the figures to this file", default=None)
    for option, what in options.items():
        parser.add_argument(f"--{option.replace('_', '-')}", help=what)
    arguments = parser.parse_args()
    figures = dict(
        measure(**{option: given for option, given in vars(arguments).items() if option != "json"})
    )
    table = Table("figure", "value", title=name, title_justify="left")
    for figure, value in flat(figures):
        table.add_row(figure, value)
    Console().print(table)
    if arguments.json:
        machine = {"python": platform.python_version(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
        arguments.json.write_text(
            json.dumps({"benchmark": name, "machine": machine, **figures}, indent=1) + "\n"
        )


def flat(figures: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Every number with its path."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name} / ")
        else:
            yield (
                before + name,
                f"{value:,.3g}" if isinstance(value, float) and value < 1000 else f"{value:,.0f}",
            )
