"""Who may ask: bearer tokens with scopes, or, without tokens, whoever is on this host."""

import hmac
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address

from aiohttp import web

from taskscope.api.backend import Backend
from taskscope.api.endpoint import ACTOR, Scope
from taskscope.api.errors import ApiError
from taskscope.errors import BadArgument
from taskscope.settings import Settings, Token

logger = logging.getLogger("taskscope")

_IMPLIED: Mapping[str, tuple[str, ...]] = {"manage": ("monitoring",)}
"""Who may pause a job may see it. No other scope holds another."""


class Gate:
    """Decides whether a request may do what a scope covers."""

    def __init__(self, backend: Backend, host: str) -> None:
        self._backend, self._is_local = backend, is_loopback(host)

    def check(self, request: web.Request, scope: Scope) -> None:
        """Raises 401 or 403."""
        settings = self._backend.settings
        if not settings.tokens:
            if self._is_local:
                _check_host(request.headers.get("Host"))
            _check_origin(request)
        if guarded(settings, scope):
            admit(request, settings, scope, request.headers.get("Authorization", ""))


class Open:
    """Lets everybody in who could come so far: on a socket file, whom its permissions admit."""

    def check(self, request: web.Request, scope: Scope) -> None:
        """Raises nothing."""


def admit(request: web.Request, settings: Settings, scope: Scope, authorization: str) -> None:
    """Let the request in by this value of Authorization. Raises 401 or 403."""
    token = _token(settings.tokens, authorization)
    granted = scope in allowed(token)
    logger.debug("token %s asked for %s: %s", token.name, scope, "granted" if granted else "refused")
    if not granted:
        raise ApiError(403, f"This token lacks the scope {scope}.")
    request[ACTOR] = token.name


def guarded(settings: Settings, scope: Scope) -> bool:
    """Does what a scope covers need a token?"""
    return bool(scope and settings.tokens) and not (scope == "metrics" and settings.metrics_open)


def allowed(token: Token) -> frozenset[str]:
    """The scopes of a token and those they imply."""
    return frozenset(token.scopes).union(*(_IMPLIED.get(scope, ()) for scope in token.scopes))


def refuse_open(settings: Settings, host: str) -> None:
    """Raises `BadArgument` where the settings would let strangers in."""
    if not settings.tokens and not settings.insecure and not is_loopback(host):
        raise BadArgument(
            f"host={host!r} is reachable from other machines: set tokens, or insecure=true to serve everybody"
        )


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Does this name or address mean the host itself, whoever resolves it?"""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def host_name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _token(tokens: Sequence[Token], header: str) -> Token:
    kind, _, token = header.partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise _unknown("Send a token: Authorization: Bearer …")
    digest = sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
    found: Token | None = None
    for candidate in tokens:  # all of them, so that the time taken does not tell which one
        if hmac.compare_digest(bytes.fromhex(candidate.sha256), digest):
            found = candidate
    if found is None:
        raise _unknown("This token is not known.", ', error="invalid_token"')
    return found


def _check_host(host: str | None) -> None:
    """A page of the web that points its own name at 127.0.0.1 must not read this through a browser."""
    if host and not is_loopback(host_name(host)):
        why = f"{host} is not a name of this host; set tokens to serve under other names."
        raise ApiError(403, why)


def _check_origin(request: web.Request) -> None:
    """A page of elsewhere must not change anything here: browsers send its forms without asking first."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        ours = site in ("same-origin", "none")
    else:
        ours = origin is None or origin.partition("://")[2] == request.headers.get("Host")
    if request.method not in ("GET", "HEAD") and not ours:
        raise ApiError(403, "A page of elsewhere may change nothing here; set tokens, and send one.")


def _unknown(why: str, detail: str = "") -> ApiError:
    return ApiError(401, why, headers={"WWW-Authenticate": f'Bearer realm="taskscope"{detail}'})
