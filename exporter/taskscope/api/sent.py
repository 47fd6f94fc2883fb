"""Events as other processes send them: read in one go where all are good, one by one where some are not."""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, cast

import msgspec

from taskscope.api.body import decode
from taskscope.api.errors import ApiError, refused
from taskscope.events import Defined, Event, Fact, Job, Jobs
from taskscope.settings import Limits

_KIND = cast(type[Event], Event)
_EVENT: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_EVENTS: msgspec.json.Decoder[list[Event]] = msgspec.json.Decoder(list[Event])
_RAW = msgspec.json.Decoder(list[msgspec.Raw])
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[][{},"]', re.DOTALL)
_HINTS = {
    "type": "known are " + ", ".join(sorted(kind.__struct_config__.tag for kind in Event.__args__)),
    "version": "this taskscope reads version 1",
}


class Batch(msgspec.Struct):
    """The events of a request: those that can be read, where each stood, and why the others cannot."""

    events: list[Event]
    places: Sequence[int]
    errors: dict[int, str] = {}


def at_once(body: bytes, in_lines: bool, limits: Limits) -> Batch | None:
    """All events; None where some of them cannot be read, or none. Raises 413."""
    try:
        events = _EVENT.decode_lines(body) if in_lines else _EVENTS.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    _check_count(events, limits)
    telling = [event for event in events if type(event) is not Fact or event.details]  # mostly none
    if any(_depth_of(event, limits.depth) for event in telling):
        return None
    return Batch(events, range(len(events)))


def one_by_one(body: bytes, in_lines: bool, limits: Limits) -> Batch:
    """The events that can be read, and what is wrong with the others. Raises 400 and 413."""
    told = _lines(body) if in_lines else _elements(body)
    some = list(islice(told, limits.events + 1))
    _check_count(some, limits)
    batch, places = Batch([], ()), []
    for place, one in enumerate(some):
        try:
            event = decode(one, _KIND)
        except ApiError as error:
            batch.errors[place] = _sentence(error)
            continue
        if why := _depth_of(event, limits.depth):
            batch.errors[place] = why
        else:
            batch.events.append(event)
            places.append(place)
    batch.places = places
    return batch


def _check_count(events: Sequence[Any], limits: Limits) -> None:
    if len(events) > limits.events:
        raise ApiError(413, f"The request holds more than {limits.events} events; send them in several.")


def _lines(body: bytes) -> Iterator[bytes]:
    return (line for line in body.split(b"\n") if line.strip())


def _elements(body: bytes) -> Iterator[bytes | msgspec.Raw]:
    """The elements of an array, also where one of them is no JSON. Raises 400."""
    try:
        return iter(_RAW.decode(body))
    except msgspec.ValidationError:
        raise refused({"body": "must be an array of events"}) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _split(body)


def _split(body: bytes) -> Iterator[bytes]:
    """What stands between the commas of an array. Raises 400 where it has no end."""
    depth, start = 0, 0
    for found in _TOKEN.finditer(body) if body.lstrip()[:1] == b"[" else ():
        match found[0]:
            case b"[" | b"{":
                depth += 1
                start = start or found.end()
            case b"]" | b"}":
                depth -= 1
                if depth == 0:
                    yield body[start : found.start()]
                    return
            case b"," if depth == 1:
                yield body[start : found.start()]
                start = found.end()
            case b'"':
                break  # a text without end
    raise refused({"body": "is not JSON"})


def _sentence(error: ApiError) -> str:
    """What is wrong with one event."""
    field, why = next(iter(error.problem.errors.items()))
    hint = f"; {_HINTS[field]}" if field in _HINTS else ""
    return f"{why}{hint}" if field == "body" else f"{field}: {why}{hint}"


def _depth_of(event: Event, most: int) -> str:
    """Why what the event adds is nested too deeply; empty where it is not."""
    if isinstance(event, Fact):
        added: tuple[Any, ...] = (event.details,) if event.details else ()
    elif isinstance(event, Jobs | Defined):
        jobs = event.jobs if isinstance(event, Jobs) else (event.job,)
        added = tuple(part for job in jobs for part in _added(job))
    else:
        added = ()
    return "" if all(_fits(part, most) for part in added) else f"is nested more than {most} levels deep"


def _added(job: Job) -> tuple[Any, ...]:
    return (job.properties, job.data, *(trigger.data for trigger in job.triggers))


def _fits(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        return levels > 0 and all(_fits(part, levels - 1) for part in value.values())
    if isinstance(value, list):
        return levels > 0 and all(_fits(part, levels - 1) for part in value)
    return True
