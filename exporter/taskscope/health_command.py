"""`taskscope health`: how the whole is doing, for people and for scripts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.text import Text

from taskscope import show
from taskscope.asking import asked, served_at
from taskscope.errors import Unavailable
from taskscope.options import config_option, json_option, load_settings

_EXIT = {"healthy": 0, "degraded": 1, "unhealthy": 2}
_STYLES = {"healthy": "bold green", "degraded": "bold dark_orange3", "unhealthy": "bold red"}
_COLUMNS = (
    show.Column("check"),
    show.Column("scheduler"),
    show.Column("", style="bold"),
    show.Column("now", right=True),
    show.Column("limit", right=True),
    show.Column("since", from_width=100),
    show.Column("what to do", wrap=True),
)


@click.command()
@click.option("--url", help="Where taskscope serves; default: as the settings say.")
@click.option("--token", help="A token with the scope monitoring; default: TASKSCOPE_TOKEN.")
@click.option("--scheduler", help="One scheduler alone; its own score decides.")
@config_option
@json_option
def health(
    url: str | None, token: str | None, scheduler: str | None, config: Path | None, as_json: bool
) -> int:
    """Say how the whole is doing, from 0 to 100.

    Exit code 0 for healthy, 1 for degraded, 2 for unhealthy, and where no taskscope answers.

    \b
    Example: taskscope health --url http://127.0.0.1:9750
    """
    url = url or served_at(load_settings(config))
    console, answer = show.standard_output(), asked(url, "/api/monitoring/health", token)
    told = _of(answer, scheduler) if scheduler else answer
    if as_json:
        show.print_line(console, msgspec.json.encode(told).decode())
    else:
        _print(console, told)
    return _EXIT[told["status"]]


def _of(answer: dict[str, Any], scheduler: str) -> dict[str, Any]:
    known = {one["scheduler"]: one for one in answer["schedulers"]}
    if scheduler not in known:
        raise Unavailable(f"there is no scheduler {scheduler!r}; there are {', '.join(known) or 'none yet'}")
    return dict(known[scheduler])


def _print(console: Console, told: dict[str, Any]) -> None:
    style = _STYLES[told["status"]]
    show.print_mark(console, f"{told['score']:>3}", style, f" of 100: {told['status']}")
    show.print_table(console, _COLUMNS, map(_row, told["checks"]))


def _row(check: dict[str, Any]) -> tuple[show.Cell, ...]:
    return (
        check["check"],
        check["scheduler"] or "",
        Text("ok", "green") if check["ok"] else Text(f"-{check['deduction']}", "bold red"),
        f"{check['value']:g}",
        "" if check["threshold"] is None else f"{check['threshold']:g}",
        (check["since"] or "")[:19].replace("T", " "),
        "" if check["ok"] else "; ".join(_said(check)),
    )


def _said(check: dict[str, Any]) -> Iterator[str]:
    if check["objects"]:
        yield ", ".join(check["objects"])
    yield check["advice"]
