"""The style, the script and the mark of the pages, under an address that changes with them."""

from __future__ import annotations

import hashlib
from functools import cached_property
from importlib import resources
from typing import TYPE_CHECKING, Final

from aiohttp import web

from batchwatch.web.problem import Problem
from batchwatch.web.route import Role, Route

if TYPE_CHECKING:
    from collections.abc import Mapping

PATH: Final = "/static/{version}/{name}"
_KINDS: Final = {
    "dashboard.css": "text/css",
    "dashboard.js": "text/javascript",
    "mark.svg": "image/svg+xml",
}
_FOREVER: Final = "public, max-age=31536000, immutable"


class Static:
    """What browsers keep for a year; open to everybody, for the log-in page needs it, too."""

    def route(self) -> Route:
        """What is to be served."""
        return Route("GET", PATH, self.file, Role.NONE)

    @cached_property
    def version(self) -> str:
        """Of all files together."""
        found = hashlib.blake2b(digest_size=6)
        for name, body in self._files.items():
            found.update(name.encode() + body)
        return found.hexdigest()

    async def file(self, request: web.Request) -> web.Response:
        """One of the files, as it is now."""
        name = request.match_info["name"]
        if name not in self._files or request.match_info["version"] != self.version:
            raise Problem(404, "there is no such file; load the page anew")
        return web.Response(
            body=self._files[name],
            content_type=_KINDS[name],
            charset="utf-8",
            headers={"Cache-Control": _FOREVER},
        )

    @cached_property
    def _files(self) -> Mapping[str, bytes]:
        folder = resources.files("batchwatch.web.dashboard") / "static"
        return {name: (folder / name).read_bytes() for name in _KINDS}
