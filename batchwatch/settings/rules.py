"""What must hold between settings, judged on what was given and not on what became of it.

A rule must not wait until every single value is right, or the user would mend
one mistake only to be told of the next. So these look at the raw values, and
pass over what another check refuses anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from batchwatch.settings.durations import format_duration
from batchwatch.settings.kinds import Flag, split_list
from batchwatch.settings.names import key, variable
from batchwatch.settings.parts import KEPT, LOOKBACK, RETENTION
from batchwatch.settings.problems import Invalid, Problem, nearest, shown
from batchwatch.settings.urls import Listen, SecretUrl

if TYPE_CHECKING:
    from collections.abc import Collection

    from batchwatch.settings.names import Path

Given = Mapping[str, object]

A_DAY: Final = 86400.0  # seconds
_SHORTCUTS = {"webhook": "webhook_url", "slack": "slack_webhook_url"}


def contradictions(given: Given) -> Iterator[Problem]:
    """Yield what cannot be meant together."""
    yield from _shortcuts(given)
    yield from _open_door(given)
    yield from _one_token_for_two(given)
    yield from _unknown_names(given)
    yield from _forgotten_too_soon(given)
    for name, endpoint in _map(given.get("endpoints")).items():
        yield from _two_logins(str(name), _map(endpoint))
        yield from _lone_key(str(name), _map(endpoint))


def unready(tried: Collection[Path]) -> Iterator[Problem]:
    """Yield what is missing to run, given the paths that somebody tried to set.

    A setting that was given wrongly counts as given: its own problem is told
    already, and one mistake should read as one.
    """
    if ("llama_cloud_api_key",) not in tried:
        yield from _keyless(tried)
    shortcuts = {(name,) for name in _SHORTCUTS.values()}
    if not any(path in shortcuts or path[0] == "endpoints" for path in tried):
        yield Problem(
            "BATCHWATCH_WEBHOOK_URL",
            given="nothing, and no other endpoint",
            expected="at least one endpoint to notify",
            fix="Set it, or BATCHWATCH_SLACK_WEBHOOK_URL, or BATCHWATCH_ENDPOINTS__NAME__URL.",
            path=("webhook_url",),
        )


def _keyless(tried: Collection[Path]) -> Iterator[Problem]:
    names = sorted({path[1] for path in tried if path[0] == "watches" and len(path) > 1})
    if names or ("watches",) in tried:
        fix = "Set it, or LLAMA_CLOUD_API_KEY for all watches that have none of their own."
        paths: list[Path] = [("watches", name, "api_key") for name in names]
    else:
        fix = "Set it, or LLAMA_PARSE_API_KEY, or LLAMA_CLOUD_API_KEY_FILE to a file that holds it."
        paths = [("llama_cloud_api_key",)]
    for path in paths:
        if path not in tried:
            expected = "an API key of LlamaCloud"
            yield Problem(variable(path), "nothing", expected, fix, path)


def _shortcuts(given: Given) -> Iterator[Problem]:
    endpoints = _map(given.get("endpoints"))
    for name, shortcut in _SHORTCUTS.items():
        if given.get(shortcut) and name in endpoints:
            yield Problem(
                variable((shortcut,)),
                given=f"an endpoint called {name}, and there is another one of that name",
                expected="one endpoint of a name",
                fix=f"Rename endpoints.{name}, or leave one of them out.",
                path=(shortcut,),
            )
    if SecretUrl.of(given.get("webhook_url")).is_slack:
        yield Problem(
            variable(("webhook_url",)),
            given="a URL of Slack",
            expected="the URL of a program that reads Standard Webhooks",
            fix=f"Use {variable(('slack_webhook_url',))} for it.",
            path=("webhook_url",),
        )


def _open_door(given: Given) -> Iterator[Problem]:
    try:
        address = Listen().parse(given.get("listen", "localhost:0"))
    except Invalid:
        return  # which its own check tells
    if not (address.is_loopback or _tokens(given) or _allows_anyone(given)):
        yield Problem(
            variable(("listen",)),
            given=f"{address}, and no {variable(('api_token',))}",
            expected="a loopback address such as 127.0.0.1:8080, unless a token guards the rest",
            fix=f"Set {variable(('api_token',))} or, for those who only look, "
            f"{variable(('read_token',))}; make one with: openssl rand -hex 32",
            path=("listen",),
        )


def _one_token_for_two(given: Given) -> Iterator[Problem]:
    """Whoever is given it to look would be able to do everything."""
    tokens = _tokens(given)
    if len(tokens) > len(set(tokens)):
        yield Problem(
            variable(("read_token",)),
            given=f"the same as {variable(('api_token',))}",
            expected="a token of its own",
            fix="Make another one with: openssl rand -hex 32",
            path=("read_token",),
        )


def _tokens(given: Given) -> list[str]:
    """What is set; whether it is any good is another check's."""
    found = (given.get(name) for name in ("api_token", "read_token"))
    return [
        one.get_secret_value() if isinstance(one, SecretStr) else str(one) for one in found if one
    ]


def _allows_anyone(given: Given) -> bool:
    try:
        return Flag().parse(given.get("allow_anyone", "false"))
    except Invalid:
        return True  # which its own check tells, and one mistake reads as one


def _unknown_names(given: Given) -> Iterator[Problem]:
    shortcuts = {name for name, shortcut in _SHORTCUTS.items() if given.get(shortcut)}
    known = {
        "watches": sorted(map(str, _map(given.get("watches")))) or ["default"],
        "endpoints": sorted({*map(str, _map(given.get("endpoints"))), *shortcuts}),
    }
    for route, raw in _map(given.get("routes")).items():
        for what, names in known.items():
            for name in _entries(_map(raw).get(what)):
                if name not in ("*", *names):
                    path = ("routes", str(route), what)
                    near = nearest(name, names)
                    yield Problem(
                        variable(path),
                        given=shown(name),
                        expected=f"one of the {what}: {', '.join(names) or 'there are none'}",
                        fix=f"Did you mean {near}?" if near else f"See {key((what,))}.",
                        path=path,
                    )


def _forgotten_too_soon(given: Given) -> Iterator[Problem]:
    """What was removed must not be listed again: a watch that begins anew would tell it anew."""
    try:
        retention = RETENTION.parse(given.get("retention", KEPT))
    except Invalid:
        return  # which its own check tells
    places: dict[Path, object] = {
        ("watches", str(name), "lookback"): _map(watch).get("lookback")
        for name, watch in _map(given.get("watches")).items()
    }
    for path, raw in ({("lookback",): given.get("lookback")} | places).items():
        try:
            lookback = 0.0 if raw is None else LOOKBACK.parse(raw)
        except Invalid:
            continue
        if retention < lookback + A_DAY:
            least = format_duration(lookback + A_DAY)
            yield Problem(
                variable(("retention",)),
                given=f"{format_duration(retention)}, and {variable(path)} is "
                f"{format_duration(lookback)}",
                expected="a day more than each lookback at least",
                fix=f"Keep for {least} or longer, or look back less far.",
                path=("retention",),
            )


def _two_logins(name: str, given: Mapping[object, object]) -> Iterator[Problem]:
    """All of them make the same header, so one would be sent in another's place."""
    ways = [way for way in ("basic_auth", "bearer_token") if given.get(way)]
    ways += [
        f"headers.{header}"
        for header in map(str, _map(given.get("headers")))
        if header.lower() == "authorization"
    ]
    ways += ["a login in the URL"] if SecretUrl.of(given.get("url")).has_login else []
    if len(ways) > 1:
        path = ("endpoints", name, *(ways[0].split(".")))
        yield Problem(
            variable(path),
            given=" and ".join(ways),
            expected="one way to say who we are",
            fix="Remove the others.",
            path=path,
        )


def _lone_key(name: str, given: Mapping[object, object]) -> Iterator[Problem]:
    if given.get("tls_key") and not given.get("tls_certificate"):
        path = ("endpoints", name, "tls_key")
        yield Problem(
            variable(path),
            given="a key, and no tls_certificate",
            expected="a key beside the certificate that it belongs to",
            fix=f"Set {variable((*path[:2], 'tls_certificate'))}, or remove it.",
            path=path,
        )


def _map(raw: object) -> Mapping[object, object]:
    return raw if isinstance(raw, Mapping) else {}


def _entries(raw: object) -> list[str]:
    if isinstance(raw, str):
        return split_list(raw)
    return (
        [entry for entry in raw if isinstance(entry, str)] if isinstance(raw, list | tuple) else []
    )
