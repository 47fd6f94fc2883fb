"""What the commands of the command line have in common: their options, and the settings that these give."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from taskscope.errors import BadArgument
from taskscope.settings import Seconds, Settings
from taskscope.shipped import URLS

Command = TypeVar("Command", bound=Callable[..., Any])


def history_url(text: str) -> str:
    """The URL of a history that may be named by its file."""
    return text if "://" in text or text == "auto" else f"sqlite:///{Path(text).absolute()}"


def duration(text: str) -> float:
    """Seconds, from `30s`, `1h30m`, `2d`; refused in the words that settings use."""
    from taskscope.values import parse, read

    try:
        return float(read(parse(text, Seconds, "it"), Seconds, "it"))
    except BadArgument as error:
        raise click.BadParameter(str(error)) from error


def config_option(command: Command) -> Command:
    """`--config FILE`."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Settings file; default: taskscope.yaml here, if there is one.",
    )(command)


def history_options(command: Command) -> Command:
    """Which history is read: `--history`, `--service`, `--config`."""
    history = click.option(
        "--history", metavar="FILE", type=history_url, help="SQLite file, or a URL; default: as settings say."
    )
    service = click.option("--service", metavar="NAME", help="The application whose history it is.")
    return config_option(history(service(command)))


def url_options(command: Command) -> Command:
    """`--grafana-url`, `--taskscope-url` … as `grafana`, `taskscope` …"""
    for name, url in reversed(URLS.items()):
        text = f"Where {name.capitalize()} is found."
        command = click.option(
            f"--{name}-url", name, metavar="URL", default=url, help=text, show_default=True
        )(command)
    return command


json_option = click.option("--json", "as_json", is_flag=True, help="JSON for programs.")


def load_settings(config: Path | None, **arguments: Any) -> Settings:
    """The settings in force; arguments that are None do not count."""
    from taskscope.configure import load

    return load(path=config, **{name: value for name, value in arguments.items() if value is not None})
