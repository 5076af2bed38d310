"""Try receivers, and make the secrets that they verify with."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from batchwatch.cli.terminal import (
    Config,
    Json,
    fail,
    known_endpoint,
    print_json,
    read,
    say_finding,
    settings_of,
)

if TYPE_CHECKING:
    from batchwatch.settings.signing import SigningSecret


_SHOWN: Final = 500  # characters of a receiver's answer


def certify(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where the receiver takes messages.")],
    *,
    secret: Annotated[
        str | None,
        typer.Option(
            metavar="WHSEC",
            help="What it verifies with. Better: BATCHWATCH_WEBHOOK_SECRET, or the path of a file "
            "in BATCHWATCH_WEBHOOK_SECRET_FILE; others can see a command line.",
        ),
    ] = None,
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="How long each answer may take.")
    ] = "15s",
    as_json: Json = False,
) -> None:
    """Try a receiver, and tell what it does wrong.

    Sends what it will meet in life: good messages, repeats, forgeries, stale and large ones. Tells
    what it took and should have refused, and what it refused and should have taken, each with how
    to mend it. All are of the watch "certify", and of batches whose ids begin with bat-certify-.
    """
    from batchwatch import log  # noqa: PLC0415
    from batchwatch.certify import Verdict  # noqa: PLC0415
    from batchwatch.certify import certify as judge  # noqa: PLC0415
    from batchwatch.clock import Clock  # noqa: PLC0415
    from batchwatch.deliver.signing import key_of  # noqa: PLC0415
    from batchwatch.settings.kinds import Duration  # noqa: PLC0415
    from batchwatch.settings.urls import EndpointUrl  # noqa: PLC0415

    place = read("URL", EndpointUrl(), url)
    if place.is_slack:
        fail("URL: Slack takes its own messages and no others; there is nothing to certify", code=2)
    patience = read("--timeout", Duration("100ms", "5m"), timeout)
    keys = [key_of(one.text.get_secret_value(), one.expires_at) for one in _signing_secrets(secret)]
    log.configure(style="console", level="error")  # the report tells it all
    found: list[dict[str, Any]] = []

    async def report() -> None:
        async for one in judge(
            place.get_secret_value(), keys=keys, timeout=patience, clock=Clock()
        ):
            found.append(one.as_row())
            if not as_json:
                tables.print_certified(found[-1])

    if not as_json:
        from batchwatch import tables  # noqa: PLC0415

        tables.print_certified(None)
    asyncio.run(report())
    ok = all(one["verdict"] == Verdict.OK for one in found)
    if as_json:
        print_json({"ok": ok, "url": place.shown, "cases": found})
    else:
        tables.print_certificate(found)
    raise typer.Exit(0 if ok else 1)


def send_a_test(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Its name in the settings.")],
    config: Config = None,
    *,
    as_json: Json = False,
) -> None:
    """Send a test event to an endpoint, and tell what came back."""
    from batchwatch import log  # noqa: PLC0415
    from batchwatch.clock import Clock  # noqa: PLC0415
    from batchwatch.desk import send_test  # noqa: PLC0415
    from batchwatch.settings import SettingsError  # noqa: PLC0415

    settings = settings_of(config, for_run=False)
    known_endpoint(settings, endpoint)
    log.configure(style="console", level="error")
    try:
        attempt = asyncio.run(send_test(settings, endpoint, Clock()))
    except SettingsError as error:
        fail(str(error), code=2)
    ok = attempt.failure is None
    if as_json:
        print_json({
            "ok": ok,
            "status_code": attempt.status_code,
            "failure": attempt.failure,
            "detail": attempt.detail,
            "response": attempt.response,
            "duration_ms": round(attempt.duration * 1000, 1),
        })  # fmt: skip
    else:
        took = f"{attempt.duration * 1000:.0f} ms"
        said = f"HTTP {attempt.status_code}" if attempt.status_code else "no answer"
        say_finding("ok" if ok else "wrong", endpoint, attempt.detail or f"{said} in {took}")
        if attempt.response:
            typer.echo(_one_line(attempt.response))
    raise typer.Exit(0 if ok else 1)


def new(
    *,
    asymmetric: Annotated[
        bool,
        typer.Option(
            "--asymmetric", help="A pair, by Ed25519: one half signs, the other verifies."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Print a fresh secret that signs what goes to an endpoint.

    A whsec_ is for both sides. With --asymmetric, the first line is the whsk_ for the daemon and
    the second the whpk_ that its receivers verify with.
    """
    from batchwatch.deliver.signing import ExtraMissing, new_pair, new_secret  # noqa: PLC0415

    if not asymmetric:
        made = {"secret": new_secret()}
    else:
        try:
            private, public = new_pair()
        except ExtraMissing as error:
            fail(str(error))
        made = {"secret": private, "public_key": public}
    if as_json:
        print_json(made)
    else:
        typer.echo("\n".join(made.values()))


def _signing_secrets(given: str | None) -> tuple[SigningSecret, ...]:
    """The secrets of the option, of the environment, or of the file that the environment names."""
    from batchwatch.settings.files import UnreadableError, read_secret  # noqa: PLC0415
    from batchwatch.settings.kinds import Location  # noqa: PLC0415
    from batchwatch.settings.signing import SigningSecrets  # noqa: PLC0415

    name = "BATCHWATCH_WEBHOOK_SECRET"
    text = given or os.environ.get(name)
    if given:
        typer.echo(
            f"batchwatch: others can see a secret on the command line; set {name} instead", err=True
        )
        name = "--secret"
    elif not text and (file := os.environ.get(f"{name}_FILE")):
        try:
            text = read_secret(read(f"{name}_FILE", Location(), file))
        except UnreadableError as error:
            fail(f"{name}_FILE: {error}; {error.fix}", code=2)
    if not text:
        fail(f"without the receiver's secret there is nothing to certify; set {name}", code=2)
    return read(name, SigningSecrets(), text)


def _one_line(text: str) -> str:
    """The beginning of what a receiver said, with nothing that a terminal would obey."""
    line = " ".join(text.split())[:_SHOWN]
    return "".join(one if one.isprintable() else "?" for one in line)
