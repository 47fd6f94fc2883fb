"""What the command line does with a history: show, copy and cut it."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import Progress

from taskscope import identity, show
from taskscope.errors import BadArgument, NotOwner
from taskscope.events import JobKey, Status
from taskscope.identity import anchor_ms
from taskscope.settings import Settings
from taskscope.sinks.history import url_for
from taskscope.sinks.history.database import parse
from taskscope.sinks.history.error_records import Occurrence
from taskscope.sinks.history.export import flat, rfc3339, write_json_lines, writer
from taskscope.sinks.history.owner import Owner
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.reader import Reader
from taskscope.sinks.history.records import Filter, Run
from taskscope.sinks.history.retention import Retention, plan
from taskscope.sinks.history.sql import SqlStore
from taskscope.values import masked

COLUMNS = (
    show.Column("when"),
    show.Column("scheduler", from_width=100, cut=True),
    show.Column("job", cut=True),
    show.Column("status"),
    show.Column("took", right=True),
    show.Column("why", cut=True),
    show.Column("id", from_width=140, style="dim"),
)

_PAGE = 1_000  # runs asked for at a time


def filter_of(
    statuses: Sequence[Status], jobs: Sequence[str], schedulers: Sequence[str], since: float | None
) -> Filter:
    """Runs with one of these statuses, of these jobs, of the last `since` seconds; empty fields do not filter."""
    begin = None if since is None else round((time.time() - since) * 1000)
    return Filter(status=tuple(statuses), job=tuple(jobs), scheduler=tuple(schedulers), since=begin)


def show_runs(console: Console, settings: Settings, wanted: Filter, limit: int, as_json: bool) -> None:
    """The newest runs as a table, or as JSON lines; where there are none, standard error is told where that was."""
    with opened(settings) as queries:
        found = list(_runs(queries, wanted, limit))
        if not found:
            nothing = f"no such run is in the history {masked(_url(settings))}{_strangers(queries, wanted)}"
            show.print_line(show.standard_error(), show.printable(nothing))
    if as_json:
        for run in found:
            show.print_line(console, msgspec.json.encode(flat(run)).decode())
    else:
        show.print_table(console, COLUMNS, map(_row, found))


def _strangers(queries: Queries, wanted: Filter) -> str:
    """Which of the wanted jobs it never saw, and what is spelled alike."""
    names = queries.names(wanted.scheduler)
    missing = [job for job in wanted.job if job not in names]
    near = [name for job in missing for name in get_close_matches(job, names)]
    never = f"; it never saw a job {' or '.join(missing)}" if missing else ""
    return never + (f", but {', '.join(dict.fromkeys(near))}" if near else "")


def _row(run: Run) -> list[show.Cell]:
    duration = None if run.duration is None else run.duration / 1e6
    why = f"{run.exception}: {run.message}" if run.exception else run.reason
    return [
        show.moment(run.started or run.due or run.enqueued or run.ended or anchor_ms(run.id)),
        run.scheduler,
        run.job,
        show.status(run.status),
        show.span(duration),
        why,
        identity.text(run.id),
    ]


def _runs(queries: Queries, wanted: Filter, limit: int) -> Iterator[Run]:
    after = None
    while limit > 0:
        page = queries.runs(wanted, limit=min(limit, _PAGE), after=after)
        yield from page.runs
        after, limit = page.after, limit - len(page.runs)
        if after is None:
            return


def show_run(console: Console, queries: Queries, id: bytes, as_json: bool) -> None:
    """One run with all that is known of it. Raises `BadArgument` where there is none."""
    run = queries.run(id)
    if run is None:
        raise BadArgument(
            f"there is no run {identity.text(id)} in this history; `taskscope runs` shows which there are"
        )
    reported = [one for one in queries.errors_of(id) if not one.fatal]
    if as_json:
        write_json_lines([run], sys.stdout, reported=[_reported(one) for one in reported])
        return
    known = [[name, cell] for name, cell in _known(run) if str(cell)]
    show.print_table(console, (show.Column("what"), show.Column("how it is", wrap=True)), known)
    show.print_block(console, "stack trace", run.stack)
    show.print_block(console, "data of the exception", _indented(run.data))
    show.print_block(console, "details", _indented(run.details))
    for one in reported:
        what = f"{one.kind}: {one.message}" if one.message else one.kind
        show.print_block(console, f"reported at {_exactly(one.at)}: {show.printable(what)}", one.stack)
        show.print_block(console, "data of what was reported", _indented(one.data))


def _reported(one: Occurrence) -> dict[str, Any]:
    """An exception that a run reported and survived, for programs."""
    told = {"at": rfc3339(one.at), "exception": one.kind, "message": one.message, "stack": one.stack}
    return told | {"data": msgspec.json.decode(one.data) if one.data else None}


def _known(run: Run) -> Iterator[tuple[str, show.Cell]]:
    """What is known of a run in a line; empty where it is not."""
    yield "id", identity.text(run.id)
    yield "job", run.job
    yield "scheduler", run.scheduler
    yield "status", show.status(run.status, run.reason)
    yield "attempt", str(run.attempt) if run.attempt else ""
    for name in ("due", "enqueued", "started", "ended"):
        yield name, _exactly(getattr(run, name))
    yield "took", show.span(None if run.duration is None else run.duration / 1e6)
    yield "waited", _between(run.enqueued, run.started)
    yield "started late by", _between(run.due, run.started)
    for name in ("queue", "worker", "instance", "entity", "key", "result"):
        yield name, getattr(run, name)
    yield "trace", run.trace_id
    yield "error", f"{run.exception}: {run.message}" if run.message else run.exception


def _exactly(ms: int | None) -> str:
    return "" if ms is None else f"{show.moment(ms)}.{ms % 1000:03}"


def _between(begin: int | None, end: int | None) -> str:
    """Clocks of two hosts may disagree, so never below 0."""
    return "" if begin is None or end is None else show.span(max(0, end - begin) / 1e3)


def _indented(json: str) -> str:
    return msgspec.json.format(json, indent=2) if json else ""


@contextmanager
def opened(settings: Settings) -> Iterator[Queries]:
    """The history for reading, which is safe beside the process that writes it. Raises `BadArgument` without one."""
    queries = Queries(_url(settings), settings)
    try:
        yield queries
    finally:
        queries.close()


def export(queries: Queries, wanted: Filter, format: str, output: Path | None) -> None:
    """Write all that is known of the runs to a file, or to standard output."""
    write = writer(format)
    if output is None:
        write(queries.iterate(wanted), sys.stdout)
        return
    try:
        with output.open("w", encoding="utf-8", newline="") as file, _progress() as bar:
            runs = bar.track(
                queries.iterate(wanted), total=queries.runs(wanted, limit=1).total, description="export"
            )
            count = write(runs, file)
    except OSError as error:
        raise BadArgument(
            f"{output} cannot be written ({error.strerror}); name another file with -o"
        ) from error
    show.print_line(show.standard_error(), f"{count} runs are in {output}.")


def show_info(console: Console, settings: Settings, as_json: bool) -> None:
    """Where the history is, what it holds, who owns it."""
    with opened(settings) as queries:
        newest = queries.runs(Filter(), limit=1)
        oldest = queries.runs(Filter(), limit=1, descending=False)
    place = masked(_url(settings))
    file = file_of(_url(settings))
    bytes_, owner = (_bytes(file), owner_of(file)) if file else (None, None)
    moments = [anchor_ms(page.runs[0].id) if page.runs else None for page in (oldest, newest)]
    if as_json:
        facts = {
            "history": place,
            "bytes": bytes_,
            "runs": newest.total,
            "runs_are_exact": newest.exact,
            "owner": owner,
        }
        facts |= dict(zip(("oldest", "newest"), map(rfc3339, moments), strict=True))
        show.print_line(console, msgspec.json.encode(facts).decode())
        return
    rows = [
        ["history", place],
        ["size", "" if bytes_ is None else show.size(bytes_)],
        ["runs", f"{'' if newest.exact else 'about '}{newest.total}"],
        ["oldest", show.moment(moments[0])],
        ["newest", show.moment(moments[1])],
        ["owner", f"process {owner}" if owner else "nobody" if file else "any number of processes"],
    ]
    show.print_table(console, (show.Column("what"), show.Column("how it is", wrap=True)), rows)


def prune(console: Console, settings: Settings, dry_run: bool) -> None:
    """Remove what retention lets go, or only say what that is. Raises `NotOwner` while another process owns it."""
    planned = _planned(settings)
    total = sum(planned.values())
    if dry_run:
        rows = [[scheduler, job, str(count)] for (scheduler, job), count in sorted(planned.items())]
        columns = (
            show.Column("scheduler", cut=True),
            show.Column("job", cut=True),
            show.Column("would go", right=True),
        )
        show.print_table(console, columns, [*rows, ["all", "", str(total)]])
        return
    store = SqlStore(_url(settings), settings)
    store.open()
    try:
        with _progress() as bar:
            task = bar.add_task("prune", total=total)
            removed = Retention(store).prune(time.time(), lambda count: bar.advance(task, count))
    finally:
        store.close()
    show.print_line(console, f"{removed} runs were removed.")


def _planned(settings: Settings) -> dict[JobKey, int]:
    """How many runs of which job would go; reading is enough."""
    reader = Reader(_url(settings))
    try:
        with reader.snapshot() as connection:
            return plan(connection, settings, time.time())
    finally:
        reader.close()


def _progress() -> Progress:
    """A progress bar on standard error; nothing where that is no terminal."""
    console = show.standard_error()
    return Progress(
        *Progress.get_default_columns(), console=console, transient=True, disable=not console.is_terminal
    )


def _url(settings: Settings) -> str:
    """Of a history that is there: reading must not make one. Raises `BadArgument`."""
    url = url_for(settings)
    if url is None:
        raise BadArgument("no history is kept, because `history` is null; name one with --history")
    file = file_of(url)
    if file is None or file.exists():
        return url
    found, ours = sorted(file.parent.glob("*.db")), settings.history == "auto"
    if len(found) == 1 and ours and not settings.service:  # nobody asked for another
        return f"sqlite:///{found[0]}"
    names = ", ".join(other.stem if ours else str(other) for other in found)
    there = f"; there {'is' if len(found) == 1 else 'are'} {names}" if found else ""
    ways = "--service, --history or --config" if ours else "--history or --config"
    raise BadArgument(f"there is no history {file}{there}: name one with {ways}")


def file_of(url: str) -> Path | None:
    """The history's file; None on a server. Raises `BadArgument`."""
    parsed = parse(url)
    return Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None


def connect(url: str) -> None:
    """Try whether the history can be reached. Raises `Unavailable`."""
    reader = Reader(url)
    try:
        with reader.snapshot():
            pass
    finally:
        reader.close()


def _bytes(file: Path) -> int:
    """With what stands beside it and is not merged into it yet."""
    parts = (file, file.with_name(file.name + "-wal"))
    return sum(part.stat().st_size for part in parts if part.exists())


def owner_of(file: Path) -> int | None:
    """The process that owns the history; None for nobody."""
    lock = Owner(file)
    if not lock.path.exists():
        return None
    try:
        lock.acquire()
    except NotOwner:
        return int(lock.path.read_text())
    lock.close()
    return None
