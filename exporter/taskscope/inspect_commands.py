"""`taskscope inspect`: what the settings look for in the history, tried out and exported."""

import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from taskscope import show
from taskscope.errors import BadArgument
from taskscope.options import history_options, json_option, load_settings
from taskscope.settings import Inspection, Settings

if TYPE_CHECKING:
    from taskscope.sinks.history.finding_records import Finding
    from taskscope.sinks.history.queries import Queries

_LISTED = ("inspection", "schedule", "time zone", "looks for", "last", "next", "open", "gave up because")
_FOUND = ("level", "kind", "scheduler", "job", "since", "overview")


@click.group()
def inspect() -> None:
    """Try out and export the inspections that the settings name.

    \b
    Example: taskscope inspect run hourly
    """


@inspect.command("list")
@history_options
@json_option
def list_all(config: Path | None, history: str | None, service: str | None, as_json: bool) -> None:
    """List the inspections, when each looked last and what is open.

    \b
    Example: taskscope inspect list
    """
    from taskscope import past
    from taskscope.inspection.timetable import next_due

    settings, now = load_settings(config, history=history, service=service), time.time()
    with past.opened(settings) as queries:
        done, current = queries.inspections(), queries.current_findings(round(now * 1000))
    rows = [
        [
            name,
            rules.schedule,
            rules.timezone,
            ", ".join(rules.looks),
            _when(done[name].at) if name in done else "",
            _when(round(next_due(rules, now) * 1000)) if rules.enabled else "disabled",
            str(sum(one.inspection == name and not one.recovered for one in current)),
            done[name].failure if name in done else "",
        ]
        for name, rules in settings.inspections.items()
    ]
    show.print_listing(show.standard_output(), _columns(_LISTED), rows, as_json)


@inspect.command()
@click.argument("name")
@history_options
@json_option
def run(name: str, config: Path | None, history: str | None, service: str | None, as_json: bool) -> None:
    """Print what an inspection would report now; nothing is written, nobody is told.

    It looks at the last full hours, as the settings say, also where it is disabled. It knows what is in the history;
    what only the taskscope that runs can know, it says on standard error.

    \b
    Example: taskscope inspect run hourly
    """
    from taskscope import past
    from taskscope.inspection.inspector import Inspector, window_of

    settings = load_settings(config, history=history, service=service)
    _named(settings, name)
    with past.opened(settings) as queries:
        try:
            found = Inspector(settings, queries).look(name, round(time.time() * 1000))
            kinds = {one.kind for one in found if not one.recovered}
            unknown = list(_unknown(settings, queries, name, kinds))
        except TimeoutError as error:
            raise BadArgument(f"inspection {name} gave up: {error}; give it more, or a filter") from error
    for sentence in unknown:
        show.print_line(show.standard_error(), show.printable(sentence))
    console = show.standard_output()
    if not found and not as_json:
        rules, end = settings.inspections[name], time.time() // 3600 * 3600
        window = f"{_when(round(end - window_of(rules) / 1000) * 1000)} to {_when(round(end) * 1000)}"
        show.print_line(console, f"it would report nothing of the full hours from {window}")
        return
    show.print_listing(console, _columns(_FOUND), list(map(_row, found)), as_json)


@inspect.command()
@click.argument("name")
@history_options
def export(name: str, config: Path | None, history: str | None, service: str | None) -> None:
    """Print an inspection as JSON: its settings, how it went last, and what is open.

    \b
    Example: taskscope inspect export hourly
    """
    from taskscope import past
    from taskscope.api.inspection import exported

    settings, now = load_settings(config, history=history, service=service), round(time.time() * 1000)
    _named(settings, name)
    with past.opened(settings) as queries:
        done, current = queries.inspections(), queries.current_findings(now, name)
    told = exported(settings, name, done.get(name), current, now)
    show.print_line(show.standard_output(), msgspec.json.format(msgspec.json.encode(told)).decode())


def _named(settings: Settings, name: str) -> Inspection:
    rules = settings.inspections.get(name)
    if rules is None:
        known = ", ".join(settings.inspections) or "none: name one under `inspections`"
        raise BadArgument(f"there is no inspection {name!r} in the settings; there are {known}")
    return rules


def _row(one: "Finding") -> list[str]:
    state = "recovered" if one.recovered else one.level
    return [state, one.kind, one.scheduler, one.job, _when(one.started), one.overview]


def _unknown(settings: Settings, queries: "Queries", name: str, kinds: Collection[str]) -> Iterator[str]:
    """What might make a difference and is not in the history, each in a sentence."""
    from taskscope.rules import labels_of

    if settings.inspections[name].labels:
        told, known = queries.labels(), {scheduler for scheduler, _ in queries.job_states()}
        if silent := sorted(one for one in known if one not in told and not labels_of(settings, one)):
            yield f"what {', '.join(silent)} belongs to is not in the history: the taskscope that runs may know"
    if "silence" in kinds:
        yield "when jobs were resumed, only the taskscope that runs knows: one that was lately is not silent yet"


def _columns(names: tuple[str, ...]) -> list[show.Column]:
    return [show.Column(name, wrap=name in ("overview", "looks for", "gave up because")) for name in names]


def _when(ms: int) -> str:
    return show.moment(ms)
