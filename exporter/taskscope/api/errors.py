"""The errors that the API answers with; every one is `{"error": …, "errors": {field: why}}`."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec

MEANINGS: Mapping[int, str] = {
    400: "A parameter, or a field of the body, is unknown, malformed or out of bounds; `errors` says which and why.",
    401: "No token, or one that is not known.",
    403: "The token lacks the scope, the Host header names another machine, or a page of elsewhere sent it.",
    404: "There is no such thing, or this taskscope keeps no history.",
    405: "The path does not take this method; the Allow header lists those it takes.",
    409: "That cannot be done to it as it is now; `error` says why.",
    413: "The request body is larger than `limits.body`, packed or unpacked, or holds more than `limits.events`.",
    415: "The Content-Type, or the Content-Encoding, of the request body is none that is taken.",
    422: "None of the events could be taken; `errors` says why, by `[index]`. Sending them again does not help.",
    429: "More waits to be written than there is room for; try again after the seconds in Retry-After.",
    500: "A fault of taskscope; its log has the details under the id given.",
    502: "The function that the program registered failed; `error` names class and message of what it raised.",
    503: "The history is away or busy, or another process writes it; try again after the seconds in Retry-After.",
}


class Problem(msgspec.Struct, frozen=True):
    """What went wrong."""

    error: str
    """One sentence."""
    errors: dict[str, str] = {}
    """By parameter, or field of the body, why it was refused."""


class ApiError(Exception):
    """Ends a request with this status, sentence and headers."""

    def __init__(
        self,
        status: int,
        error: str,
        errors: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.problem = Problem(error, dict(errors or {}))
        self.headers = dict(headers or {})


def refused(errors: Mapping[str, str]) -> ApiError:
    """400 for these parameters."""
    return ApiError(400, "; ".join(f"{name}: {why}" for name, why in errors.items()), errors)


def missing(what: str) -> ApiError:
    """404 for a thing that is not there."""
    return ApiError(404, f"There is no {what}.")


def busy(why: str, after: int) -> ApiError:
    """503, worth trying again after so many seconds."""
    return ApiError(503, why, headers={"Retry-After": str(after)})


def of_status(status: int, method: str, path: str) -> ApiError:
    """What the HTTP server itself refused, as an error of ours."""
    match status:
        case 404:
            return missing(f"{path}; `/` and `/api/openapi.json` list what there is")
        case 405:
            return ApiError(405, f"{path} does not take {method}.")
        case 413:
            return ApiError(413, "The request body is too large.")
    return ApiError(status, f"{HTTPStatus(status).phrase}.")
