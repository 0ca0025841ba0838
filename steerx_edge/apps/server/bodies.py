"""The body of a request: read, limited and decoded."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from steerx_edge.apps.server.errors import RequestError

MOST_BYTES = 4 << 20
MOST_SECONDS = 30.0
MOST_DEPTH = 64


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object in a body; see `read_value`."""
    value = await read_value(request)
    if not isinstance(value, dict):
        raise RequestError(400, "The body is not a JSON object.")
    return {name: each for name, each in value.items() if each is not None}


async def read_value(request: Request) -> Any:
    """The JSON in a body.

    Raises:
        RequestError: the body is too large, comes too slowly, or is not JSON that can be used.
    """
    try:
        data = await asyncio.wait_for(_read(request), MOST_SECONDS)
    except asyncio.TimeoutError:
        raise RequestError(408, f"The body did not arrive in {MOST_SECONDS:g} seconds.") from None
    except ClientDisconnect:
        raise RequestError(400, "The client has gone.") from None
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
        _check(value)
    except RecursionError:
        raise RequestError(400, f"The body is nested more than {MOST_DEPTH} deep.") from None
    except ValueError as error:
        where = f" (at byte {error.pos})" if isinstance(error, json.JSONDecodeError) else ""
        raise RequestError(400, f"The body is not JSON in UTF-8{where}.") from None
    return value


async def _read(request: Request) -> bytes:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > MOST_BYTES:
            raise RequestError(413, f"The body is larger than {MOST_BYTES >> 20} MiB.")
    return bytes(data)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are not JSON


def _check(value: Any) -> None:
    """Refuse what is nested too deeply, and strings that are half a character."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MOST_DEPTH:
            raise RecursionError
        below: list[Any] = []
        for each in level:
            if isinstance(each, str):
                each.encode()
            elif isinstance(each, dict):
                below += each.keys()
                below += each.values()
            elif isinstance(each, list):
                below += each
        level = below
