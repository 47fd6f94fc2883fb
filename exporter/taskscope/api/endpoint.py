"""What an endpoint is: one function whose signature and docstring are its declaration.

Its parameters `path`, `query` and `body`, where it has them, are structs of what the request may say; its return
type is what it answers with; its docstring is its description. Routing, checks and the OpenAPI document are
read off these.
"""

import asyncio
import importlib
import pkgutil
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from functools import partial
from inspect import getdoc
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, get_type_hints

import msgspec
from aiohttp import web

import taskscope.api
from taskscope.api.backend import AlertReader, Backend, Writer
from taskscope.api.errors import ApiError, busy
from taskscope.api.pool import Pool
from taskscope.errors import Overloaded, Unavailable
from taskscope.sinks.history.store import Store

if TYPE_CHECKING:
    from taskscope.sinks.history.queries import Queries

P = ParamSpec("P")
T = TypeVar("T")

Scope = Literal["", "metrics", "monitoring", "manage", "ingest"]
Method = Literal["GET", "POST", "DELETE"]
Handler = Callable[..., Coroutine[Any, Any, Any]]

JSON = "application/json"
ACTOR = web.RequestKey("actor", str)
"""The name of the token that a request came with; missing where it needed none."""
_PATIENCE = 12.0  # seconds for a write to be durable


class Call(msgspec.Struct, frozen=True):
    """One request, and everything to answer it with."""

    request: web.Request
    backend: Backend
    pool: Pool
    endpoints: "tuple[Endpoint, ...]"

    @property
    def now(self) -> int:
        """The time, in ms since the epoch."""
        return round(self.backend.clock() * 1000)

    @property
    def actor(self) -> str:
        """Who asks: the name of the token, empty where none is needed."""
        actor: str = self.request.get(ACTOR, "")
        return actor

    @property
    def question(self) -> list[tuple[str, str]]:
        """The query as it was given: a cursor goes with it."""
        return list(self.request.query.items())

    @property
    def queries(self) -> "Queries":
        """The history. Raises 404 where there is none."""
        if self.backend.queries is None:
            raise ApiError(404, "This taskscope keeps no history (`history` is null).")
        return self.backend.queries

    @property
    def alerts(self) -> AlertReader:
        """Where alerts are read. Raises 404 where none are kept."""
        return self.backend.alerts or self.queries

    @property
    def writer(self) -> Writer:
        """What takes what is sent. Raises 503 where nothing does."""
        if self.backend.writer is None:
            raise busy("This server only reads its history.", after=60)
        return self.backend.writer

    async def write(self, work: Callable[[Store], T]) -> T:
        """What the work returns once it is durable. Raises as `durable` does."""
        return await self.durable(self.writer.do(partial(work, self.writer.store)))

    async def durable(self, done: Future[T]) -> T:
        """The result of what is written, once it is. Raises 429 or 503; it may be durable then all the same."""
        try:
            return await asyncio.wait_for(asyncio.wrap_future(done), _PATIENCE)
        except TimeoutError:
            raise busy(f"The history did not take it within {_PATIENCE:g} s.", after=5) from None
        except Overloaded as error:
            raise ApiError(
                429, f"{error}; send less at once, or later.", headers={"Retry-After": "1"}
            ) from error
        except Unavailable as error:
            raise busy(str(error), after=5) from error

    async def ask(self, question: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The answer of a question that blocks."""
        return await self.pool.ask(question, *args, **kwargs)


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One path and the function that answers it."""

    method: Method
    path: str
    handler: Handler
    scope: Scope
    """What a token must be allowed; empty for an endpoint that is open to all."""
    tag: str
    media: str
    errors: tuple[int, ...]
    """Statuses it answers with beyond those that its declaration implies."""
    also: tuple[int, ...]
    """Statuses beyond 200 that carry its usual answer."""
    file: str = ""
    """As what a browser saves the answer, with the path's variables in braces; empty for no name of its own."""
    takes: Mapping[str, Any] = {}
    """By Content-Type, the type of what is sent, where the function reads the body by itself, as bytes."""

    @property
    def bodies(self) -> Mapping[str, Any]:
        """By Content-Type, the type of what is sent; empty for nothing."""
        return self.takes or ({JSON: self.hints["body"]} if "body" in self.hints else {})

    @property
    def wants_body(self) -> bool:
        """Must something be sent?"""
        body = self.hints.get("body")
        optional = isinstance(body, type) and issubclass(body, msgspec.Struct) and not _required(body)
        return bool(self.bodies) and not optional

    @property
    def name(self) -> str:
        """Unique among all endpoints."""
        return self.handler.__name__

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        return (getdoc(self.handler) or "").partition("\n")[0]

    @property
    def description(self) -> str:
        """The rest of what it says of itself."""
        return (getdoc(self.handler) or "").partition("\n")[2].strip()

    @property
    def hints(self) -> dict[str, Any]:
        """The types of `path`, `query`, `body` and `return`, as far as it has them."""
        return get_type_hints(self.handler, include_extras=True)

    @property
    def statuses(self) -> tuple[int, ...]:
        """Every error that it may answer with."""
        of_body = (413, 415) if "body" in self.hints else ()
        return tuple(sorted({400, 403, *({401} if self.scope else ()), *of_body, *self.errors}))


def _required(kind: type[msgspec.Struct]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(kind) if field.required]


def get(
    path: str,
    *,
    tag: str,
    scope: Scope = "monitoring",
    media: str = JSON,
    errors: tuple[int, ...] = (),
    also: tuple[int, ...] = (),
    file: str = "",
) -> Callable[[Handler], Endpoint]:
    """Declare the function below as what answers GET (and HEAD) on this path."""

    def declare(handler: Handler) -> Endpoint:
        return Endpoint(
            method="GET",
            path=path,
            handler=handler,
            scope=scope,
            tag=tag,
            media=media,
            errors=errors,
            also=also,
            file=file,
        )

    return declare


def post(
    path: str,
    *,
    tag: str,
    scope: Scope,
    media: str = JSON,
    errors: tuple[int, ...] = (),
    also: tuple[int, ...] = (),
    takes: Mapping[str, Any] | None = None,
) -> Callable[[Handler], Endpoint]:
    """Declare the function below as what answers POST on this path; what it writes, it does by `Call.write`."""

    def declare(handler: Handler) -> Endpoint:
        return Endpoint(
            method="POST",
            path=path,
            handler=handler,
            scope=scope,
            tag=tag,
            media=media,
            errors=(503, *errors),
            also=also,
            takes=takes or {},
        )

    return declare


def delete(
    path: str, *, tag: str, scope: Scope, errors: tuple[int, ...] = ()
) -> Callable[[Handler], Endpoint]:
    """Declare the function below as what answers DELETE on this path, as `post` does for POST."""
    declare = post(path, tag=tag, scope=scope, errors=errors)
    return lambda handler: msgspec.structs.replace(declare(handler), method="DELETE")


def endpoints() -> tuple[Endpoint, ...]:
    """Every endpoint of this package, by path; those without a variable part first, because they win."""
    found = {
        thing.handler: thing
        for module in pkgutil.iter_modules(taskscope.api.__path__, f"{taskscope.api.__name__}.")
        for thing in vars(importlib.import_module(module.name)).values()
        if isinstance(thing, Endpoint)
    }
    return tuple(
        sorted(found.values(), key=lambda endpoint: ("{" in endpoint.path, endpoint.path, endpoint.method))
    )
