"""The command line.

Exit codes: 0 all is right, 1 problems were found, 2 wrong use or settings, explained in a sentence on stderr.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from taskscope import __version__, show
from taskscope.crontab_command import crontab
from taskscope.errors import TaskscopeError
from taskscope.health_command import health
from taskscope.history_commands import history, runs, show_one
from taskscope.inspect_commands import inspect
from taskscope.options import (
    config_option,
    duration,
    history_options,
    history_url,
    json_option,
    load_settings,
    url_options,
)

if TYPE_CHECKING:
    from taskscope.check import Finding

# Whatever takes long to import is imported by the command that needs it: `--help` is quick, and so are the
# children of a process pool, which import the main module again.


def main() -> None:
    """The command `taskscope`."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and give its exit code."""
    try:
        result = commands.main(list(arguments), prog_name="taskscope", standalone_mode=False)
    except click.Abort:
        return 130
    except click.UsageError as error:
        where = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        return _complain(error.format_message() + where)
    except (TaskscopeError, OSError) as error:
        return _complain(str(error))
    return result if isinstance(result, int) else 0


def _complain(sentence: str) -> int:
    print(f"taskscope: {sentence}", file=sys.stderr)  # noqa: T201 - it is a command line
    return 2


class Commands(click.Group):
    """The commands; a reader of their output that has seen enough, such as `head`, is no failure."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command to the last byte of its output."""
        try:
            result = super().invoke(context)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed at exit
            return 0
        return result


@click.group(
    cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="taskscope", message="%(prog)s %(version)s")
@click.pass_context
def commands(context: click.Context) -> None:
    """Metrics, history and API for everything that runs jobs.

    \b
    Example: taskscope demo
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (runs, show_one, history, crontab, health, inspect):
    commands.add_command(command)


@commands.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def execute(arguments: tuple[str, ...]) -> None:
    """Run any command and tell a taskscope how it went.

    For crontabs, units of systemd, containers; `taskscope exec --help` in a shell tells all of it.

    \b
    Example: taskscope exec --job nightly-backup --schedule '0 3 * * *' -- pg_dump -f shop.sql shop
    """
    from taskscope.exec.command import main as run_command

    run_command(sys.argv[sys.argv.index("exec") + 1 :])  # in `arguments` the first -- is missing


@commands.command()
@config_option
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), help="Default: as settings say, else text."
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Default: as settings say, else info.",
)
def serve(config: Path | None, log_format: str | None, log_level: str | None) -> int:
    """Watch what the settings name, and serve.

    A scheduler whose broker is away is tried again until it is there; all else must be right at start.

    \b
    SIGTERM, Ctrl-C  ends it, after storing what has been seen: exit code 0
    SIGHUP           reads the settings again: schedulers, labels, jobs,
                     queues, health, retention, redact, tokens,
                     metrics_open, log_level, log_format; what else changed
                     is named in the log
    exit code 2      a wrong setting, a missing extra, a taken port, a history
                     that is away: in one sentence on stderr

    \b
    Example: taskscope serve --config taskscope.yaml --log-format json
    """
    from taskscope import collector, logs

    read = partial(load_settings, config, strict=True, log_format=log_format, log_level=log_level)
    logs.begin(log_format or os.environ.get("TASKSCOPE_LOG_FORMAT", ""))
    try:
        collector.run(read(), read)
    except TaskscopeError as error:
        return logs.die(error)
    return 0


@commands.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=9750, show_default=True, help="0 takes a free one."
)
@click.option("--for", "seconds", type=duration, help="End by itself after this time.")
@click.option(
    "--history",
    metavar="FILE",
    type=history_url,
    help="Keep the history here; default: a temporary file, removed at the end.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on, without tokens.")
@click.option("--stack", is_flag=True, help="Start Prometheus and Alertmanager beside it, with the rules.")
def demo(port: int, seconds: float | None, history: str | None, host: str, stack: bool) -> None:
    """Watch real schedulers with a dozen real jobs.

    \b
    Example: taskscope demo --for 30s
    """
    from taskscope import demo as demonstration

    demonstration.run(show.standard_output(), host, port, history, seconds, stack)


@commands.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@url_options
@click.option(
    "--token-file",
    metavar="FILE",
    help="Where those servers find the token for taskscope, if it asks for one.",
)
@click.option("--kubernetes", is_flag=True, help="Manifests as well.")
@click.option("--force", is_flag=True, help="Overwrite files that differ; the old ones stay as FILE.before.")
def assets(folder: Path, token_file: str | None, kubernetes: bool, force: bool, **urls: str) -> None:
    """Write dashboards, rules and configuration for Grafana, Prometheus and Alertmanager.

    \b
    Example: taskscope assets ./taskscope-assets --grafana-url https://grafana.example
    """
    from taskscope import assets as shipped

    console, where = show.standard_output(), shipped.addresses(token_file, **urls)
    texts = shipped.files(folder, where)
    if kubernetes:
        texts |= shipped.kubernetes(texts, where)
    for done, path in shipped.write(folder, texts, force):
        show.print_line(console, f"{done}  {folder / path}")
    for line in shipped.next_steps(folder, where, kubernetes):
        show.print_line(console, line)


@commands.command()
@click.argument("scheduler", required=False)
@history_options
@json_option
def check(
    scheduler: str | None, config: Path | None, history: str | None, service: str | None, as_json: bool
) -> int:
    """Say in sentences what is wrong.

    Give it what you give to the program that it is about. It also follows one made-up run from event to row,
    counter and scrape.

    With SCHEDULER, which is SYSTEM=URL or the name of a scheduler in the settings, it connects to that alone and
    shows one reading.

    \b
    Example: taskscope check --service billing
             taskscope check celery=redis://localhost:6379/0
    """
    from taskscope import check as checks

    if scheduler is not None:
        return _check_scheduler(scheduler, config, as_json)
    return _print_findings(checks.findings(config, history=history, service=service), as_json)


def _check_scheduler(told: str, config: Path | None, as_json: bool) -> int:
    from taskscope.check_scheduler import Look, print_readings, source_of

    look = Look(*source_of(told, load_settings(config)))
    code = _print_findings(look.findings(), as_json)
    print_readings(show.standard_output(), look.readings, as_json)
    return code


def _print_findings(findings: "Iterable[Finding]", as_json: bool) -> int:
    """Print them as they are found; returns the exit code."""
    console, bad = show.standard_output(), 0
    for finding in findings:
        bad += not finding.good
        if as_json:
            show.print_line(console, msgspec.json.encode(finding).decode())
        else:
            mark, style = ("ok   ", "green") if finding.good else ("WRONG", "bold red")
            if finding.note:
                mark, style = "--   ", "dim"
            show.print_mark(console, mark, style, f"{finding.about}: {finding.sentence}")
    return 1 if bad else 0


@commands.command()
@json_option
def metrics(as_json: bool) -> None:
    """List every metric there is.

    \b
    Example: taskscope metrics
    """
    from taskscope.sinks.metrics.catalog import CATALOG

    columns = (
        show.Column("metric"),
        show.Column("type", from_width=100),
        show.Column("labels", from_width=140, wrap=True),
        show.Column("what it says", wrap=True),
    )
    rows = [[metric.sample, metric.kind, ", ".join(metric.every_label), metric.help] for metric in CATALOG]
    show.print_listing(show.standard_output(), columns, rows, as_json)


@commands.command("bridges")
@json_option
def list_bridges(as_json: bool) -> None:
    """List the schedulers that can be watched.

    \b
    Example: taskscope bridges
    """
    from taskscope import bridges
    from taskscope.collector import remedy

    columns = (show.Column("system"), show.Column("watches", wrap=True), show.Column("installed"))
    rows = [
        [system, ", ".join(bridges.by_name(system).watches()), remedy(system) or "yes"]
        for system in bridges.systems()
        if not bridges.by_name(system).scripted
    ]
    show.print_listing(show.standard_output(), columns, rows, as_json)


@commands.command("config")
@config_option
@json_option
def show_config(config: Path | None, as_json: bool) -> None:
    """Show the settings in force, without secrets.

    \b
    Example: taskscope config --config taskscope.yaml
    """
    import yaml

    from taskscope.configure import describe

    text = describe(load_settings(config))
    click.echo(msgspec.json.encode(yaml.safe_load(text)).decode() if as_json else text, nl=as_json)
