"""What surrounds every page: its links, its assets, who looks at it, and how it is rendered."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from aiohttp import web

from batchwatch import __version__
from batchwatch.web.access import VISITOR
from batchwatch.web.dashboard import charts, wording
from batchwatch.web.dashboard.static import Static
from batchwatch.web.route import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Environment

    from batchwatch.clock import Clock

THEME: Final = "batchwatch_theme"  # the cookie that says dark or light
THEMES: Final = frozenset({"dark", "light"})
# What was done before a page is shown, by the code in its address: never anybody's own text.
DONE: Final[Mapping[str, tuple[str, str]]] = {
    "replayed": ("good", "{n} sent again, under the same id."),
    "left": ("mild", "Nothing was sent again: what is still being tried is left alone."),
    "more": ("mild", "{n} sent again. More are left: ask once more for the next ones."),
    "enabled": ("good", "Enabled. What it is owed is sent first."),
    "disabled": ("good", "Disabled. What it is owed waits."),
    "same": ("mild", "That is how it was already; nothing was changed."),
    "polling": ("good", "It is looked at now, within the watch's budget."),
}
_LARGEST: Final = 1_000_000  # a number in an address that is believed


class Frame:
    """Makes pages. Jinja2 is imported, and templates are read, when the first is asked for."""

    def __init__(self, clock: Clock, *, prefix: str = "", shared: bool = False) -> None:
        """``prefix`` is the path that a proxy serves all under.

        ``shared`` is whether there can be replicas, and so a page of them.
        """
        self.prefix = prefix
        self._shared = shared
        self.static = Static()
        self._clock = clock

    def link(self, *segments: object, **query: object) -> str:
        """The address of what lies below the root, each segment quoted; what is None is left out.

        A first segment that begins with a slash is a path as it is.
        """
        path = "/".join(
            str(one).lstrip("/") if place == 0 and str(one).startswith("/") else quoted(one)
            for place, one in enumerate(segments)
        )
        given = {name: value for name, value in query.items() if value is not None}
        return f"{self.prefix}/{path}" + (f"?{urlencode(given)}" if given else "")

    def asset(self, name: str) -> str:
        """The address of a file of ours; it changes with the file."""
        return self.link(f"/static/{self.static.version}/{name}")

    def page(
        self, request: web.Request, template: str, *, status: int = 200, **context: Any
    ) -> web.Response:
        """A page for whoever asks."""
        visitor = request.get(VISITOR)
        theme = request.cookies.get(THEME)
        text = self._environment.get_template(template).render(
            link=self.link,
            asset=self.asset,
            prefix=self.prefix,
            theme=theme if theme in THEMES else "",
            path=self._below(request.rel_url.raw_path),
            address=self._below(request.rel_url.raw_path_qs),
            may_act=visitor is not None and visitor.role >= Role.ADMIN,
            may_read=visitor is not None and visitor.role >= Role.READ,
            signed_in=getattr(visitor, "signed_in", False),
            csrf=context.pop("csrf", None) or getattr(visitor, "csrf", ""),
            done=_done(request),
            now=context.pop("now", None) or self._clock.now(),
            shared=self._shared,
            version=__version__,
            **context,
        )
        response = web.Response(text=text, status=status, content_type="text/html")
        response.headers["Cache-Control"] = "no-store"
        response.headers["Vary"] = "Accept, Cookie"
        return response

    def _below(self, path: str) -> str:
        """A path without the prefix, whether or not the proxy has taken it away already."""
        if self.prefix and (path + "/").startswith(f"{self.prefix}/"):
            path = path.removeprefix(self.prefix)
        return "/" + path.lstrip("/")  # two slashes would lead to another host

    @cached_property
    def _environment(self) -> Environment:
        from jinja2 import (  # noqa: PLC0415  # see above
            Environment,
            PackageLoader,
            StrictUndefined,
            pass_context,
        )

        environment = Environment(
            loader=PackageLoader("batchwatch.web.dashboard"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        environment.filters |= {
            "span": wording.span,
            "briefly": wording.briefly,
            "number": wording.number,
            "share": wording.share,
            "moment": wording.moment,
            "in_field": wording.in_field,
            "ago": pass_context(lambda context, at: wording.ago(at, context["now"])),
            "so_far": pass_context(lambda context, at: wording.so_far(at, context["now"])),
        }
        environment.globals |= {"plural": wording.plural, "charts": charts, "tone": tone}
        return environment


def quoted(segment: object) -> str:
    """One segment of a path, whatever is in it."""
    return quote(str(segment), safe="")


def tone(word: str | None) -> str:
    """Which of the tones a status, a state or a fate has; its word is always said beside it."""
    return _TONES.get(word or "", "other")


_TONES: Final[Mapping[str, str]] = {
    "PENDING": "waiting", "THROTTLED": "held", "RUNNING": "running",
    "COMPLETED": "good", "FAILED": "bad", "CANCELLED": "ended",
    "waiting": "waiting", "pending": "waiting", "in_flight": "running",
    "delivered": "good", "dead": "bad", "cancelled": "ended",
    "alive": "good", "gone": "ended", "nobody": "bad",
    "well": "good", "failing": "held", "disabled": "bad", "not set": "ended",
    "open": "running", "succeeded": "good", "failed": "bad", "unmapped": "bad",
    "jobless": "held", "unknown": "other",
}  # fmt: skip


def _done(request: web.Request) -> tuple[str, str] | None:
    """What was just done, to be said above the page."""
    found = DONE.get(request.query.get("done", ""))
    if found is None:
        return None
    given = request.query.get("n", "0")
    count = int(given) if given.isascii() and given.isdigit() and len(given) < 8 else 0
    return found[0], found[1].format(n=wording.number(min(count, _LARGEST)))
