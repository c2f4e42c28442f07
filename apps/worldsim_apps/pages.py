"""The player page and what belongs to it, as a server hands it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from importlib.resources import files

from websockets.datastructures import Headers
from websockets.http11 import Response

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""Nothing from anywhere else, and no script that is not a file of this server. What it ends with can be added to."""


def player_pages(origins: Sequence[str] = ()) -> Mapping[str, Response]:
    """The answer to every path of the player page, "/" among them.

    Args:
        origins: pages of other servers that may show it inside them, as Door checked them.
    """
    folder, policy = files("worldsim_apps") / "web", " ".join((POLICY, *origins))
    found = {
        f"/{file.name}": answer(file.read_bytes(), TYPES[file.name[file.name.rindex(".") :]], policy)
        for file in folder.iterdir()
        if file.is_file()
    }
    return {"/": found["/index.html"], **found}


def answer(body: bytes, kind: str, policy: str = POLICY) -> Response:
    """An answer with that body of that media type, and what a browser may load for it."""
    headers = Headers()
    told = {
        "Content-Type": kind,
        "Content-Length": str(len(body)),
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
        "Connection": "close",
    }
    for name, value in told.items():
        headers[name] = value
    return Response(HTTPStatus.OK.value, HTTPStatus.OK.phrase, headers, body)
