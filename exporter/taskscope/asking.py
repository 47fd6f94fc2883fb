"""Asks a taskscope that runs."""

import os
import ssl
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import msgspec

from taskscope.errors import Unavailable

_PATIENCE = 10.0  # seconds


def asked(url: str, path: str, token: str | None = None, insecure: bool = False) -> Any:
    """What it answers to GET, as plain data. Raises `Unavailable` with what is wrong and what to do."""
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
