"""The commands that read and cut a history."""

from pathlib import Path
from typing import get_args

import click

from taskscope import identity, show
from taskscope.events import Status
from taskscope.options import duration, history_options, json_option, load_settings


def run_id(text: str) -> bytes:
    """The id of a run."""
    try:
        return identity.parse(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no id of a run; `taskscope runs --json` tells them") from error


@click.command()
@history_options
@click.option("--failed", is_flag=True, help="The same as --status failed.")
@click.option(
    "--status", "statuses", multiple=True, type=click.Choice(get_args(Status)), help="May be repeated."
)
@click.option("--job", "jobs", multiple=True, metavar="NAME", help="May be repeated.")
@click.option("--scheduler", "schedulers", multiple=True, metavar="NAME", help="May be repeated.")
@click.option("--since", type=duration, help="Runs of the last 30m, 1h, 2d …")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="The newest so many."
)
@json_option
def runs(
    config: Path | None,
    history: str | None,
    service: str | None,
    failed: bool,
    statuses: tuple[Status, ...],
    jobs: tuple[str, ...],
    schedulers: tuple[str, ...],
    since: float | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show runs, newest first.

    Newest by the time when they were due, or, if that was long before, submitted. The program that writes the
    history may go on.

    \b
    Example: taskscope runs --failed --since 1h
    """
    from taskscope import past

    wanted = past.filter_of(statuses + (("failed",) if failed else ()), jobs, schedulers, since)
    settings = load_settings(config, history=history, service=service)
    past.show_runs(show.standard_output(), settings, wanted, limit, as_json)


@click.command("show")
@click.argument("run", metavar="ID", type=run_id)
@history_options
@json_option
def show_one(
    run: bytes, config: Path | None, history: str | None, service: str | None, as_json: bool
) -> None:
    """Show one run with all that is known of it.

    ID is what `taskscope runs` tells on a wide terminal and with --json, and your log lines with `RunFilter`.

    \b
    Example: taskscope show 019a6c1e-9f40-8c5d-b3a1-5f0e8d2c4b7a
    """
    from taskscope import past

    with past.opened(load_settings(config, history=history, service=service)) as queries:
        past.show_run(show.standard_output(), queries, run, as_json)


@click.group()
def history() -> None:
    """Look at the history, cut it, copy it.

    \b
    Example: taskscope history info
    """


@history.command()
@history_options
@json_option
def info(config: Path | None, history: str | None, service: str | None, as_json: bool) -> None:
    """Say where the history is, how much it holds, and who owns it.

    \b
    Example: taskscope history info --service billing
    """
    from taskscope import past

    past.show_info(show.standard_output(), load_settings(config, history=history, service=service), as_json)


@history.command()
@history_options
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def prune(config: Path | None, history: str | None, service: str | None, dry_run: bool) -> None:
    """Remove the runs that retention lets go.

    The process that owns the history does so by itself; this is for a history that nobody owns now.

    \b
    Example: taskscope history prune --dry-run
    """
    from taskscope import past

    past.prune(show.standard_output(), load_settings(config, history=history, service=service), dry_run)


@history.command()
@history_options
@click.option("--format", "format_", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@click.option(
    "--status", "statuses", multiple=True, type=click.Choice(get_args(Status)), help="May be repeated."
)
@click.option("--job", "jobs", multiple=True, metavar="NAME", help="May be repeated.")
@click.option("--since", type=duration, help="Runs of the last 30m, 1h, 2d …")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="File; default: standard output."
)
def export(
    config: Path | None,
    history: str | None,
    service: str | None,
    format_: str,
    statuses: tuple[Status, ...],
    jobs: tuple[str, ...],
    since: float | None,
    output: Path | None,
) -> None:
    """Write runs as JSON lines or CSV, newest first.

    \b
    Example: taskscope history export --format csv --since 7d -o runs.csv
    """
    from taskscope import past

    wanted = past.filter_of(statuses, jobs, (), since)
    with past.opened(load_settings(config, history=history, service=service)) as queries:
        past.export(queries, wanted, format_, output)
