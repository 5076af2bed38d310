"""Who hears of what."""

from __future__ import annotations

from batchwatch.domain.batch import EndpointName, EventId, WatchName
from batchwatch.domain.event import EVENT_TYPES, Event
from batchwatch.domain.routing import FOR_PEOPLE, FOR_PROGRAMS, Route, Router
from tests.support.builders import at

HOOK, CHAT, OPS = EndpointName("hook"), EndpointName("chat"), EndpointName("ops")
DEFAULTS = {HOOK: FOR_PROGRAMS, CHAT: FOR_PEOPLE, OPS: FOR_PROGRAMS}


def an_event(type_: str, watch: str = "default") -> Event:
    return Event(
        id=EventId("evt_1"), type=type_, watch=WatchName(watch), occurred_at=at(0), data={}
    )


def test_a_program_hears_of_each_transition_once() -> None:
    """The discovery says the same as the first status, and goes only to those who ask."""
    router = Router(DEFAULTS)

    assert () == router.endpoints_for(an_event("batch.discovered"))
    assert (HOOK, OPS) == router.endpoints_for(an_event("batch.running"))


def test_people_hear_of_ends_and_troubles() -> None:
    """Not of each step on the way."""
    router = Router(DEFAULTS)

    assert (HOOK, CHAT, OPS) == router.endpoints_for(an_event("batch.completed"))
    assert (HOOK, CHAT, OPS) == router.endpoints_for(an_event("watch.failing"))


def test_an_endpoint_that_a_route_names_gets_what_its_routes_send() -> None:
    """And nothing else; the others keep their defaults."""
    routes = [
        Route([OPS], events=["watch.*"]),
        Route([OPS, HOOK], events=["batch.discovered"], watches=["eu-*"]),
    ]
    router = Router(DEFAULTS, routes)

    assert (CHAT, OPS) == router.endpoints_for(an_event("watch.failing"))
    assert (CHAT,) == router.endpoints_for(an_event("batch.completed"))
    assert (HOOK, OPS) == router.endpoints_for(an_event("batch.discovered", "eu-1"))
    assert () == router.endpoints_for(an_event("batch.discovered", "us"))


def test_every_default_is_a_type_that_exists() -> None:
    """A type that is renamed must not silently go missing here."""
    assert FOR_PEOPLE < FOR_PROGRAMS < set(EVENT_TYPES)
