"""Why something at a URL cannot be used, in a sentence made from what its library raised; without secrets.

Libraries are known by the names of their exceptions: none of them is imported here.
"""

import re
from collections.abc import Iterator
from urllib.parse import SplitResult, unquote, urlsplit

from taskscope.errors import TaskscopeError
from taskscope.values import masked

_PORTS = {"redis": 6379, "rediss": 6379, "amqp": 5672, "amqps": 5671}
_REASONS: tuple[tuple[str, str], ...] = (
    (r"^gaierror:", "the name {host} does not resolve; correct the host of its URL"),
    (r"^ConnectionRefusedError:", "{place} refuses the connection; start what shall listen there, or correct the URL"),
    (r"vhost .*not found|no such vhost", "{place} has no virtual host {path!r}; correct the end of its URL"),
    (r"access to vhost .*refused", "{place} does not let {user!r} into the virtual host {path!r}; give it the right"),
    (r"^AccessRefused:|ACCESS_REFUSED", "{place} refuses user {user!r}; correct user and password in its URL"),
    (r"NOAUTH|[Aa]uthentication required|HELLO must be called", "{place} wants a password; put it into its URL"),
    (r"^AuthenticationError:|WRONGPASS|invalid (user|pass)", "{place} refuses the password; correct it in its URL"),
    (r"NOPERM", "{place} does not let {user!r} do what watching needs; give it the right: {said}"),
    (r"DB index is out of range|invalid DB index", "{place} has no database {path!r}; correct the end of its URL"),
    (r"LOADING|MASTERDOWN|BUSY ", "{place} is not ready yet: {said}"),
    (r"^SSL\w*Error:|SSL", "{place} and TLS do not fit together ({said}); correct scheme or certificates"),
    (r"^\w*Time(d)?[oO]ut\w*:", "{place} does not answer in time"),
    (r"^(ConnectionReset|BrokenPipe)Error:|closed (by server|the connection)", "{place} closed the connection"),
)  # fmt: skip
_LENGTH = 300  # characters of what a library said


def sentence(error: BaseException, url: str = "") -> str:
    """What is wrong and what to do, as far as that can be known; `url` is what was to be reached."""
    chain = list(_chain(error))
    known = next((one for one in chain if isinstance(one, TaskscopeError)), None)
    if known is not None:
        return masked(str(known))
    texts = [f"{type(one).__name__}: {one}" for one in chain]
    for pattern, reason in _REASONS:
        for text in texts:
            if re.search(pattern, text):
                return _filled(reason, url, text)
    return _short(texts[0]) + (f" ({_place(urlsplit(url))})" if url else "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from; libraries wrap one into another."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        yield one
        seen.add(id(one))
        one = one.__cause__ or one.__context__


def _filled(reason: str, url: str, text: str) -> str:
    parts = urlsplit(url)
    return reason.format(
        host=parts.hostname or "of its host",
        place=_place(parts),
        path=unquote(parts.path.removeprefix("/")),
        user=unquote(parts.username or ""),
        said=_short(text.partition(": ")[2]),
    )


def _place(parts: SplitResult) -> str:
    """Host and port, without what stands before them."""
    if not parts.hostname:
        return "the other side"
    port = parts.port or _PORTS.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}" if port else host


def _short(text: str) -> str:
    text = masked(" ".join(text.split()))
    return text if len(text) <= _LENGTH else text[: _LENGTH - 1] + "…"
