"""What a request may say: structs of parameters, read from query or path with every refusal explained."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta
from multidict import MultiMapping

from taskscope.api.errors import refused
from taskscope.settings import Limits

T = TypeVar("T", bound=msgspec.Struct)

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_RELATIVE = r"^(now)?-[0-9]{1,9}(ms|s|m|h|d|w)$"
_EPOCH = r"^[0-9]{1,15}(\.[0-9]{1,6})?$"
_LATEST = 32_503_680_000_000  # the year 3000, in ms
_NOUNS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "uuid": "a UUID"}
_AS_MS = 10**11  # a number from here on is ms: as seconds it would be the year 5138

When = Annotated[
    str,
    Meta(
        extra_json_schema={
            "anyOf": [
                {"format": "date-time"},
                {"format": "date"},
                {"pattern": _RELATIVE},
                {"pattern": _EPOCH},
                {"enum": ["now", ""]},
            ]
        }
    ),
]
"""A point in time as people write it; `moment` reads it."""
Text = Annotated[str, Meta(extra_json_schema={"pattern": "^[^\\x00]*$"})]
Texts = tuple[Text, ...]
Fingerprint = Annotated[
    str, Meta(pattern="^[0-9a-f]{16}$", description="The error group's fingerprint: 16 hex digits.")
]

Limit = Annotated[
    int, Meta(ge=1, description="Rows of the answer, at most `limits.page`.", extra={"most": "page"})
]
Offset = Annotated[int, Meta(ge=0, le=100_000, description="Rows to leave out.")]
Cursor = Annotated[
    str,
    Meta(
        description="`next_cursor` of the previous page; it goes with the same filters.",
        extra_json_schema={"pattern": "^[A-Za-z0-9_-]*$"},
    ),
]


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter, as its field in a struct declares it."""

    name: str
    type: Any
    required: bool
    many: bool
    """It may be given several times."""
    most: int | None
    """A bound that a setting puts on it."""
    description: str
    schema: dict[str, Any]

    @property
    def choices(self) -> list[str]:
        """The values it takes, where these are few."""
        items = self.schema.get("items", self.schema)
        found: list[str] = items.get("enum", [])
        return found

    def read(self, given: Sequence[str]) -> Any:
        """The value. Raises ValueError that says why not."""
        if "\x00" in "".join(given):
            raise ValueError("must not contain NUL")
        if self.many:
            return self._convert(self._items(given))
        if len(given) > 1:
            raise ValueError("may be given only once")
        return self._convert(given[0])

    def _items(self, given: Sequence[str]) -> list[str]:
        """Free text may hold commas and be left empty; other values may be joined by commas."""
        if self.schema["items"].get("type") == "string":
            return [text for text in given if text]
        return [part for text in given for part in text.split(",")]

    def _convert(self, given: Any) -> Any:
        try:
            value = msgspec.convert(given, self.type, strict=False)
        except msgspec.ValidationError as error:
            raise ValueError(self._why(error)) from None
        if self.most is not None and value > self.most:
            raise ValueError(f"is at most {self.most}")
        return value

    def _why(self, error: msgspec.ValidationError) -> str:
        items = self.schema.get("items", self.schema)
        if self.choices:
            return f"must be one of {', '.join(self.choices)}"
        if "got `str`" in str(error) or items.get("format") == "uuid":
            return f"must be {_NOUNS.get(items.get('format', items.get('type')), 'something else')}"
        return str(error).partition(" - at ")[0].replace("`", "").replace("Expected", "must be")


class Reader(Generic[T]):
    """Reads the parameters that a struct declares."""

    def __init__(self, struct: type[T], limits: Limits) -> None:
        self._struct = struct
        self.parameters = {parameter.name: parameter for parameter in parameters(struct, limits)}

    def read(self, given: MultiMapping[str]) -> T:
        """The struct. Raises 400 that names every bad parameter."""
        values: dict[str, Any] = {}
        errors: dict[str, str] = {}
        for name in dict.fromkeys(given):
            parameter = self.parameters.get(name)
            if parameter is None:
                errors[name] = f"is unknown here; known are {', '.join(self.parameters) or 'none'}"
                continue
            try:
                values[name] = parameter.read(given.getall(name))
            except ValueError as error:
                errors[name] = str(error)
        for name, parameter in self.parameters.items():
            if parameter.required and name not in given:
                errors[name] = "is missing"
        if errors:
            raise refused(errors)
        return msgspec.convert(values, self._struct)


def parameters(struct: type[msgspec.Struct], limits: Limits) -> Iterable[Parameter]:
    """The parameters that a struct declares, in its order."""
    for field in msgspec.structs.fields(struct):
        most = _most(field.type, limits)
        default = None if field.required else field.default
        schema = msgspec.json.schema(field.type)
        yield Parameter(
            name=field.encode_name,
            type=field.type,
            required=field.required,
            many=schema.get("type") == "array",
            most=most,
            description=schema.pop("description", ""),
            schema=schema | _bounds(default, most),
        )


def moment(text: str, now: int) -> int:
    """The point in time that `When` means, in ms since the epoch. Raises ValueError."""
    if text == "now":
        return now
    if re.fullmatch(_RELATIVE, text):
        number, unit = re.findall(r"(\d+)(\w+)$", text)[0]
        return _bounded(now - int(number) * _UNITS[unit])
    if re.fullmatch(_EPOCH, text):
        number = float(text)
        return _bounded(round(number if number >= _AS_MS else number * 1000))
    try:  # a plus sign that nobody encoded arrives as a space
        at = datetime.fromisoformat(re.sub(r" (\d\d:\d\d)$", r"+\1", text) if "T" in text.upper() else text)
    except ValueError:
        raise ValueError("is no point in time: give RFC 3339, a date, seconds, ms, `now` or `-1h`") from None
    return _bounded(round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000))


def span(since: str, until: str, now: int) -> tuple[int | None, int | None]:
    """`from` and `to` in ms; None where they are open. Raises 400."""
    begin, end = _at("from", since, now), _at("to", until, now)
    if begin is not None and end is not None and begin > end:
        raise refused({"from": "is after `to`"})
    return begin, end


def window(since: str, until: str, now: int, length: int) -> tuple[int, int]:
    """The same with an end, by default now, and a begin, by default `length` ms before the end."""
    begin, end = span(since, until or "now", now)
    end = now if end is None else end
    return (max(0, end - length) if begin is None else begin), end


def _at(name: str, text: str, now: int) -> int | None:
    try:
        return moment(text, now) if text else None
    except ValueError as error:
        raise refused({name: str(error)}) from None


def _bounded(ms: int) -> int:
    return min(max(ms, 0), _LATEST)


def _most(kind: Any, limits: Limits) -> int | None:
    """The bound that a setting puts on values of this type."""
    info = msgspec.inspect.type_info(kind)
    extra = info.extra if isinstance(info, msgspec.inspect.Metadata) else None
    return getattr(limits, extra["most"]) if extra else None


def _bounds(default: Any, most: int | None) -> dict[str, Any]:
    """What a schema says of a default and of a bound that settings give."""
    bounds: dict[str, Any] = {} if most is None else {"maximum": most}
    if default not in (None, "", ()):
        bounds["default"] = default if most is None else min(default, most)
    return bounds
