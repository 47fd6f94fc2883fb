"""`/api/openapi.json` and `docs/http-api.md`, both generated from the endpoints' declarations."""

from collections.abc import Iterable, Sequence
from typing import Any, get_args

import msgspec
from aiohttp import web

from taskscope import __version__
from taskscope.api.auth import guarded
from taskscope.api.endpoint import Call, Endpoint, endpoints, get
from taskscope.api.errors import MEANINGS, Problem
from taskscope.api.params import Parameter, parameters
from taskscope.settings import Limits, Settings

Json = dict[str, Any]
_REF = "#/components/schemas/{name}"


@get("/api/openapi.json", tag="Pages")
async def openapi(call: Call) -> Json:
    """Give this description of the API (OpenAPI 3.1)."""
    return document(call.endpoints, call.backend.settings)


def document(known: Sequence[Endpoint], settings: Settings) -> Json:
    """The OpenAPI document of these endpoints, with the bounds and the guards that settings give them."""
    told = [kind for endpoint in known for kind in (answer(endpoint), *endpoint.bodies.values())]
    schemas, components = msgspec.json.schema_components([Problem, *told], ref_template=_REF)
    problem, *rest = schemas
    paths: dict[str, Json] = {}
    described = iter(rest)
    for endpoint in known:
        good = next(described)
        bodies = {media: {"schema": next(described)} for media in endpoint.bodies}
        operation = _operation(endpoint, settings, good, problem, bodies)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "taskscope", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def answer(endpoint: Endpoint) -> Any:
    """The type of what it answers with; text where it writes the response itself."""
    kind = endpoint.hints["return"]
    if kind is web.StreamResponse:
        return str
    others = [part for part in get_args(kind) if part is not web.StreamResponse]
    return others[0] if web.StreamResponse in get_args(kind) else kind


def of_endpoint(endpoint: Endpoint, place: str, limits: Limits) -> Iterable[Parameter]:
    """Its parameters in the `query` or the `path`."""
    hints = endpoint.hints
    return parameters(hints[place], limits) if place in hints else ()


def _operation(endpoint: Endpoint, settings: Settings, schema: Json, problem: Json, bodies: Json) -> Json:
    good = {"description": "The answer.", "content": {endpoint.media: {"schema": schema}}}
    bad = {"application/json": {"schema": problem}}
    return {
        **({"requestBody": {"required": endpoint.wants_body, "content": bodies}} if bodies else {}),
        "operationId": endpoint.name,
        "tags": [endpoint.tag],
        "summary": endpoint.summary,
        "description": endpoint.description,
        "parameters": [
            _parameter(parameter, place)
            for place in ("path", "query")
            for parameter in of_endpoint(endpoint, place, settings.limits)
        ],
        "responses": {
            **{
                str(status): {"description": MEANINGS[status], "content": bad} for status in endpoint.statuses
            },
            **{str(status): good for status in (200, *endpoint.also)},
        },
        "security": [{"bearer": [endpoint.scope]}] if guarded(settings, endpoint.scope) else [],
    }


def _parameter(parameter: Parameter, place: str) -> Json:
    return {
        "name": parameter.name,
        "in": place,
        "required": parameter.required,
        "description": parameter.description,
        "schema": parameter.schema,
    }


def markdown() -> str:
    """The text of `docs/http-api.md`."""
    known, limits = endpoints(), Limits()
    components: Json = document(known, Settings())["components"]["schemas"]
    parts = [
        _INTRODUCTION,
        _table(("status", "meaning"), ((f"{status}", why) for status, why in MEANINGS.items())),
    ]
    for tag in sorted({endpoint.tag for endpoint in known}):
        parts.append(f"## {tag}\n")
        parts += [_section(endpoint, limits) for endpoint in known if endpoint.tag == tag]
    parts.append("## What is in an answer\n")
    parts += [_schema(name, schema) for name, schema in sorted(components.items())]
    return "\n".join(parts)


def _section(endpoint: Endpoint, limits: Limits) -> str:
    says = [f"### `{endpoint.method} {endpoint.path}`\n", f"{endpoint.summary}\n"]
    if endpoint.description:
        says.append(f"{endpoint.description}\n")
    rows = [
        (f"`{parameter.name}`", _values(parameter.schema), parameter.description)
        for place in ("path", "query")
        for parameter in of_endpoint(endpoint, place, limits)
    ]
    if rows:
        says.append(_table(("parameter", "value", "meaning"), rows))
    if endpoint.bodies:
        takes = " or ".join(f"{_shown(kind)} as `{media}`" for media, kind in endpoint.bodies.items())
        says.append(f"Takes {takes}.\n")
    scope = f"the scope `{endpoint.scope}`" if endpoint.scope else "no token"
    fails = ", ".join(map(str, endpoint.statuses))
    says.append(f"Needs {scope}. Answers with {_kind(endpoint)}; errors: {fails}.\n")
    return "\n".join(says)


def _kind(endpoint: Endpoint) -> str:
    kind = answer(endpoint)
    if kind is str:
        return f"`{endpoint.media}`"
    return _shown(kind) + (f" (also with {', '.join(map(str, endpoint.also))})" if endpoint.also else "")


def _shown(kind: Any) -> str:
    return _values(msgspec.json.schema_components([kind], ref_template=_REF)[0][0])


def _schema(name: str, schema: Json) -> str:
    rows = (
        (f"`{field}`", _values(details), details.get("description", ""))
        for field, details in schema.get("properties", {}).items()
    )
    return f"### {name}\n\n{schema.get('description', '')}\n\n" + _table(("field", "value", "meaning"), rows)


def _values(schema: Json) -> str:
    """The values that a schema allows, for people."""
    match schema:
        case {"$ref": reference}:
            name = reference.rpartition("/")[2]
            return f"[{name}](#{name.lower()})"
        case {"anyOf": choices}:
            ordered = sorted(
                choices, key=lambda choice: choice == {"type": "null"}
            )  # msgspec's own order varies
            return " or ".join(dict.fromkeys(_values(choice) for choice in ordered))
        case {"enum": choices}:
            return ", ".join(f"`{choice}`" for choice in choices)
        case {"const": choice}:
            return f"`{choice}`"
        case {"type": "array"}:
            return f"list of {_values(schema.get('items', {}))}"
        case {"type": "object", "additionalProperties": dict(values)}:
            return f"object of {_values(values)}"
        case {"format": form}:
            return str(form)
    return _bounded(schema)


def _bounded(schema: Json) -> str:
    kind = str(schema.get("type", "text" if "pattern" in schema else "any"))
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = "" if low is None and high is None else f", {low if low is not None else ''}...{high or ''}"
    default = f", default {schema['default']}" if "default" in schema else ""
    return f"{kind}{bounds}{default}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


_INTRODUCTION = """\
# HTTP API

Generated from the endpoints' declarations; `/api/openapi.json` says the same to programs.

Answers are JSON. Times are RFC 3339 in UTC with milliseconds, durations are milliseconds, what is not known
is null. Every GET also takes HEAD. What is sent by POST is JSON, but for the form of `/backfill`, and an answer of
200 says that what it writes is durable. Answers are packed with gzip where the client takes it. A path that ends
with a slash is also found without it.

**Parameters.** A time is RFC 3339, a date (its midnight, UTC), seconds or milliseconds since the epoch,
`now`, or how long ago: `-90s`, `-1h`, `-7d` (also `now-1h`). A parameter that takes a list is given several
times; choices and numbers may also be joined by commas. Text and times that are left empty do not filter. An
unknown parameter is an error.

**Who may ask.** Without `tokens` the server listens on this host only and answers everybody there; it then
refuses a Host header that names another machine, and what a page of elsewhere has a browser send by POST or DELETE
(`Sec-Fetch-Site`, `Origin`). With tokens every request but `/-/healthy`, `/-/ready`, `/runbook` and `/backfill`, whose
form has a token in it, needs `Authorization: Bearer …` with the endpoint's scope; `metrics_open` opens `/metrics`. The
scope `manage` includes `monitoring`, no other scope includes another. Listening beyond this host without tokens needs
`insecure`.

**Errors** are `{"error": "one sentence", "errors": {"parameter or field": "why"}}`. A request that is not HTTP, or
whose line or headers are longer than 8 KiB, is answered 400 by the server itself; a connection beyond
`limits.connections` gets 503.
"""
