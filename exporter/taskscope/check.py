"""`taskscope check`: is all right here? Answers are sentences; one made-up run is followed all the way."""

import os
import shutil
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from taskscope import bridges, collector, past, show
from taskscope.api.discovery import Targets
from taskscope.api.server import bound
from taskscope.bridges.fake import FakeScheduler
from taskscope.configure import FILE, load
from taskscope.errors import TaskscopeError, Unavailable
from taskscope.exporter import Exporter
from taskscope.forwarding import ask
from taskscope.identity import anchor_ms
from taskscope.settings import Settings, Source
from taskscope.sinks.history import url_for
from taskscope.sinks.history.records import Filter
from taskscope.values import masked

_LITTLE_SPACE = 256 * 2**20  # bytes; some hundred thousand runs
_PATIENCE = 10.0  # seconds that each station of the made-up run may take


class Finding(msgspec.Struct, frozen=True):
    """One answer."""

    about: str
    good: bool
    sentence: str
    note: bool = False
    """Not what is right or wrong, but worth knowing."""


def findings(config: Path | None = None, **arguments: Any) -> Iterator[Finding]:
    """All answers, as they are found. The settings come first: without them nothing else can be asked.

    `arguments` are settings that the program gives itself; None where it does not.
    """
    try:
        settings = load(
            path=config, **{name: given for name, given in arguments.items() if given is not None}
        )
    except TaskscopeError as error:
        yield _bad("settings", error)
        return
    yield Finding("settings", True, f"{_source(config)} can be used.")
    yield from _schedulers(settings)
    yield from _forward(settings)
    yield _port(settings)
    yield from _history(settings)
    yield from made_up_run()


def _bad(about: str, error: TaskscopeError) -> Finding:
    text = str(error)
    return Finding(about, False, text if text.endswith((".", "?")) else f"{text}.")


def _source(config: Path | None) -> str:
    file = config or Path(os.environ.get("TASKSCOPE_CONFIG") or FILE)
    return (
        f"What {file} says"
        if file.exists()
        else f"There is no {file} here; what the environment and the defaults say"
    )


def _schedulers(settings: Settings) -> Iterator[Finding]:
    """Can what `taskscope serve` shall watch be found? It is not imported: that could start its jobs."""
    for name, source in settings.schedulers.items():
        try:
            yield Finding(f"schedulers.{name}", True, _found(name, source))
        except TaskscopeError as error:
            yield _bad(f"schedulers.{name}", error)


def _found(name: str, source: Source) -> str:
    if "://" not in source.target:
        collector.find(name, source)
        return f"{source.target} is there, and so is the {source.system} bridge."
    bridges.made(collector.target(name, source), name)
    return f"{masked(source.target)} can be watched; `taskscope check {name}` connects."


def _forward(settings: Settings) -> Iterator[Finding]:
    """Does the other taskscope take what this one would send?"""
    if settings.forward is not None:
        try:
            ask(settings.forward, settings)
        except TaskscopeError as error:
            yield _bad("forward", error)
        else:
            yield Finding("forward", True, f"{settings.forward} takes what is sent to it.")


def _port(settings: Settings) -> Finding:
    place = f"{settings.host}:{settings.port}"
    if settings.port is None:
        return Finding("port", True, "There is none: nothing is served, as the settings say.")
    try:
        bound(settings.host, settings.port).close()
    except Unavailable as error:
        scheme = "https" if settings.tls_certificate else "http"
        if '"healthy"' in _got(f"{scheme}://{place}/-/healthy"):
            return _taken(place, _served(f"{scheme}://{place}/sd"), settings.service)
        return _bad("port", error)
    return Finding("port", True, f"{place} is free.")


def _taken(place: str, whose: str, service: str) -> Finding:
    """The port is a taskscope's: of this service, or of another, beside which this one is not served."""
    named = f" for service {whose}" if whose else ""
    if whose and service and whose != service:
        sentence = (
            f"{place} is taken by the taskscope{named}; give {service} another port, else it is not served."
        )
        return Finding("port", False, sentence)
    return Finding("port", True, f"A taskscope{named} serves on {place} already.")


def _served(url: str) -> str:
    """For which service the taskscope with this service discovery serves; nothing where it does not say."""
    with suppress(msgspec.MsgspecError):
        for target in msgspec.json.decode(_got(url) or "[]", type=list[Targets]):
            return target.labels.get("service", "")
    return ""


def _history(settings: Settings) -> Iterator[Finding]:
    """Can it be reached and written, who owns it, how much space is left?"""
    url = url_for(settings)
    try:
        if url is None:
            yield Finding("history", True, "None is kept, as the settings say.")
        elif file := past.file_of(url):
            yield _file(file)
            yield from _content(file, settings)
            yield _space(file)
        else:
            past.connect(url)
            yield Finding("history", True, f"{masked(url)} can be reached.")
    except TaskscopeError as error:
        yield _bad("history", error)


def _file(file: Path) -> Finding:
    """May it be written, or created?"""
    if file.exists():
        good, can = os.access(file, os.W_OK), "written"
    else:
        standing = _standing(file)
        good, can = standing.is_dir() and os.access(standing, os.W_OK), "created"
    if good:
        return Finding("history", True, f"{file} can be {can}.")
    return Finding("history", False, f"{file} cannot be {can}; make that possible or name another `history`.")


def _standing(file: Path) -> Path:
    """What is there of its path."""
    return next(path for path in file.absolute().parents if path.exists())


def _content(file: Path, settings: Settings) -> Iterator[Finding]:
    """What it holds and who writes it, if it is there."""
    if not file.exists():
        return
    with past.opened(settings) as queries:
        newest = queries.runs(Filter(), limit=1)
    held = "1 run" if newest.total == 1 else f"{newest.total} runs"
    owner = past.owner_of(file)
    yield Finding(
        "history", True, f"It holds {held} and is owned by {f'process {owner}' if owner else 'nobody'}."
    )
    if owner is None:
        whom = f"watches for service {settings.service}" if settings.service else "writes this history"
        last = show.moment(anchor_ms(newest.runs[0].id)) if newest.runs else ""
        when = f"; the history's last run was at {last}" if last else ""
        yield Finding("history", True, f"Nothing {whom} now{when}.", note=True)


def _space(file: Path) -> Finding:
    free = shutil.disk_usage(_standing(file)).free
    good = free > _LITTLE_SPACE
    return Finding(
        "disk", good, f"{show.size(free)} are free{'' if good else '; make room or keep fewer runs'}."
    )


def made_up_run() -> Iterator[Finding]:
    """One run, told by a scripted scheduler, at each station of its way; on a port and a file of its own."""
    with tempfile.TemporaryDirectory(prefix="taskscope-check-") as folder:
        settings = Settings(service="check", history=f"sqlite:///{folder}/check.db", port=0, strict=True)
        scheduler = FakeScheduler()
        try:
            with Exporter(scheduler, names=["check"], settings=settings) as exporter:
                scheduler.job("made-up").run(duration=0.25)
                yield from _followed(exporter)
        except TaskscopeError as error:
            yield _bad("made-up run", error)


def _followed(exporter: Exporter) -> Iterator[Finding]:
    began = time.monotonic()
    url = f"{exporter.url}/api/task/?task=made-up"
    stations: list[tuple[str, str, Callable[[], bool]]] = [
        ("event", "its end was seen", lambda: ("check", "made-up") in exporter.live.jobs),
        ("row", "the API finds it in the history", lambda: '"success"' in _got(url)),
        ("counter", "the scrape counts it", lambda: _counted(_got(f"{exporter.url}/metrics")) == 1),
    ]
    for station, reached, is_reached in stations:
        good = _soon(is_reached)
        took = show.span(time.monotonic() - began)
        sentence = (
            f"After {took} {reached}." if good else f"After {took} it is still not true that {reached}."
        )
        yield Finding(f"made-up run, {station}", good, sentence)


def _counted(page: str) -> float:
    """Successes of the made-up job, by this page of metrics."""
    samples = (sample for family in text_string_to_metric_families(page) for sample in family.samples)
    wanted = {"scheduler": "check", "job_name": "made-up", "status": "success"}
    return sum(
        sample.value
        for sample in samples
        if sample.name == "taskscope_runs_total" and sample.labels == wanted
    )


def _soon(is_true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while not (true := is_true()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return true


def _got(url: str) -> str:
    """What is served there; nothing when it is not."""
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = (
        False,
        ssl.CERT_NONE,
    )  # it is asked whether it is there, no more
    try:
        with urlopen(url, timeout=2, context=anybody) as answer:
            return str(answer.read().decode())
    except (OSError, HTTPException):
        return ""
