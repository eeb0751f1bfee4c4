"""Errors as HTTP answers: the Connect protocol's JSON and statuses, which REST and WebSocket share.

See https://connectrpc.com/docs/protocol#error-end-stream and #error-codes.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping

from discovery.errors import Code, DiscoveryError
from discovery.transport.status import status_of

_STATUS: Mapping[Code, int] = {
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}
_TYPE_PREFIX = "type.googleapis.com/"


def code_name(code: Code) -> str:
    """Return the name that Connect has for `code`."""
    return "canceled" if code is Code.CANCELLED else code.name.lower()


def http_status(error: DiscoveryError) -> int:
    """Return the HTTP status that goes with `error`."""
    return _STATUS.get(error.code, 500)


def error_body(error: DiscoveryError) -> bytes:
    """Return `error` as JSON, details included."""
    return json.dumps(error_object(error), separators=(",", ":")).encode()


def error_object(error: DiscoveryError) -> Mapping[str, object]:
    """Return `error` as it stands in JSON, details included."""
    status = status_of(error)
    details = [
        {
            "type": detail.type_url.removeprefix(_TYPE_PREFIX),
            "value": base64.b64encode(detail.value).decode().rstrip("="),
        }
        for detail in status.details
    ]
    body: dict[str, object] = {"code": code_name(error.code), "message": status.message}
    return body | ({"details": details} if details else {})


def error_headers(error: DiscoveryError) -> Mapping[str, str]:
    """Return the headers that go with `error`: Retry-After, in whole seconds, where waiting helps."""
    if error.retry_after is None:
        return {}
    return {"retry-after": str(math.ceil(error.retry_after))}
