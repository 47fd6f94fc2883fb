"""Asks a taskscope that runs."""

import os
import ssl
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import msgspec

from taskscope.errors import Unavailable
from taskscope.settings import Settings

_PATIENCE = 10.0  # seconds


def served_at(settings: Settings) -> str:
    """Where a taskscope with these settings serves, as seen from this host."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    return f"{'https' if settings.tls_certificate else 'http'}://{host}:{settings.port or 9750}"


def asked(url: str, path: str, token: str | None = None, insecure: bool = False) -> Any:
    """What it answers to GET, as plain data. Raises `Unavailable` with what is wrong and what to do."""
    if "://" not in url:
        url = f"http://{url}"
    context = ssl._create_unverified_context() if insecure else None
    request = Request(url.rstrip("/") + path, headers=_authorization(token))
    try:
        with urlopen(request, timeout=_PATIENCE, context=context) as answer:
            return msgspec.json.decode(answer.read())
    except HTTPError as error:
        why = {401: "give it a token (--token, or TASKSCOPE_TOKEN)", 403: "the token may not do this"}
        raise Unavailable(f"{url} answers {error.code}: {why.get(error.code, error.reason)}") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Unavailable(f"no taskscope answers on {url} ({reason}); name its address by --url") from error


def _authorization(token: str | None) -> dict[str, str]:
    token = token or os.environ.get("TASKSCOPE_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}
