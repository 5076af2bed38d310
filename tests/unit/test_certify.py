"""``certify``: whatever a receiver does wrong is found and named, and nothing else is."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from jsonschema import Draft202012Validator
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from batchwatch.certify import Finding, Verdict, certify
from batchwatch.certify.cases import CASES, IN_TIME
from batchwatch.clock import Clock
from batchwatch.deliver.signing import key_of
from tests.support.receiver import SECRET
from tests.unit.commands import called
from tests.unit.deliver.sockets import Then, a_closed_port, saying

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from typer.testing import Result

ROOT = Path(__file__).parents[2]
PATIENCE = 10.0  # seconds; what answers at all does so long before
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n"
FORGERIES = {
    "no_signature", "bad_signature", "garbled_signature", "altered_body",
    "old_timestamp", "future_timestamp",
}  # fmt: skip

Answer = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(answer: Answer, *, largest: int = 2**20) -> AsyncIterator[str]:
    """The URL of a receiver that answers so."""

    async def take(request: web.Request) -> web.StreamResponse:
        return await answer(request, await request.read())

    app = web.Application(client_max_size=largest)
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    finally:
        await runner.cleanup()


def holds(headers: Mapping[str, str], body: bytes) -> bool:
    """Whether the signature does, by somebody else's library."""
    try:
        Webhook(SECRET).verify(body, dict(headers))
    except (WebhookVerificationError, ValueError):
        return False
    return True


async def careful(request: web.Request, body: bytes) -> web.StreamResponse:
    """As a receiver should: no other of these is right."""
    return web.Response(status=204 if holds(request.headers, body) else 401)


async def found(url: str, *, timeout: float = PATIENCE) -> list[Finding]:  # noqa: ASYNC109  # told to certify
    """All that is found about the receiver at ``url``."""
    return [
        one async for one in certify(url, keys=[key_of(SECRET)], timeout=timeout, clock=Clock())
    ]


def wrong(findings: list[Finding]) -> dict[str, str]:
    """What was wrong, and what happened instead."""
    return {one.case.name: one.happened for one in findings if one.verdict is Verdict.WRONG}


def mend(name: str, findings: list[Finding]) -> str:
    """The cure for one case."""
    (told,) = [one.mend for one in findings if one.case.name == name]
    assert told is not None
    return told


async def test_a_receiver_that_does_as_it_should_is_found_right_in_every_case() -> None:
    """Each case once, in the order of the list, and punctuality at the end."""
    async with answering(careful) as url:
        findings = await found(url)

    assert [*CASES, IN_TIME] == [one.case for one in findings]
    assert {Verdict.OK} == {one.verdict for one in findings}
    assert {None} == {one.mend for one in findings}


# ---------------------------------------------------------------------- what is wrong in one way


async def credulous(_request: web.Request, _body: bytes) -> web.StreamResponse:
    """It takes whatever comes, as a page does that is only there."""
    return web.Response(text="<html>welcome</html>", content_type="text/html")


async def trusting_the_unsigned(request: web.Request, body: bytes) -> web.StreamResponse:
    """It verifies a signature only if there is one."""
    if "webhook-signature" not in request.headers:
        return web.Response(status=204)
    return await careful(request, body)


async def timeless(request: web.Request, body: bytes) -> web.StreamResponse:
    """It verifies by hand, and forgets the timestamp."""
    headers = request.headers
    at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), tz=UTC)
    right = Webhook(SECRET).sign(headers["webhook-id"], at, body.decode())
    given = headers.get("webhook-signature", "").split()
    return web.Response(status=204 if right in given else 401)


async def open_to_the_future(request: web.Request, body: bytes) -> web.StreamResponse:
    """It asks only whether a message is too old."""
    if int(request.headers["webhook-timestamp"]) > datetime.now(UTC).timestamp():
        return await timeless(request, body)
    return await careful(request, body)


async def blind_to_the_body(request: web.Request, body: bytes) -> web.StreamResponse:
    """It verifies a body of its own making."""
    return await careful(request, body.replace(b'"CANCELLED"', b'"COMPLETED"'))


async def one_secret_only(request: web.Request, body: bytes) -> web.StreamResponse:
    """It looks at the first signature and no other."""
    first = request.headers.get("webhook-signature", "").partition(" ")[0]
    return web.Response(
        status=204 if holds({**request.headers, "webhook-signature": first}, body) else 401
    )


async def closed_to_new_types(request: web.Request, body: bytes) -> web.StreamResponse:
    """It refuses what it does not know."""
    if json.loads(body)["type"] not in ("batch.completed", "batch.running", "batch.pending",
                                        "watch.recovered"):  # fmt: skip
        return web.Response(status=400)
    return await careful(request, body)


async def closed_to_new_fields(request: web.Request, body: bytes) -> web.StreamResponse:
    """Its model forbids what it does not name."""
    event = json.loads(body)
    if {*event} != {"type", "timestamp", "data"}:
        return web.Response(status=422)
    return await careful(request, body)


async def never_without_a_batch(request: web.Request, body: bytes) -> web.StreamResponse:
    """It reads the batch of every event."""
    if holds(request.headers, body) and "batch" not in json.loads(body)["data"]:
        return web.Response(status=500)
    return await careful(request, body)


async def breaking_on_nonsense(request: web.Request, body: bytes) -> web.StreamResponse:
    """It catches one error of its library, and not the others."""
    if request.headers.get("webhook-signature") == "v1":
        return web.Response(status=500)
    return await careful(request, body)


def a_bouncer() -> Answer:
    """It refuses repeats with 409."""
    seen: set[str] = set()

    async def answer(request: web.Request, body: bytes) -> web.StreamResponse:
        one = request.headers["webhook-id"]
        if one in seen:
            return web.Response(status=409)
        seen.add(one)
        return await careful(request, body)

    return answer


def a_pedant() -> Answer:
    """It refuses a transition after a later one."""
    last: dict[str, int] = {}

    async def answer(request: web.Request, body: bytes) -> web.StreamResponse:
        data = json.loads(body)["data"]
        if holds(request.headers, body) and "batch" in data:
            key, number = data["batch"]["id"], data["transition"]
            if number < last.get(key, 0):
                return web.Response(status=409)
            last[key] = number
        return await careful(request, body)

    return answer


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (credulous, dict.fromkeys(FORGERIES, "taken: 200")),
        (trusting_the_unsigned, {"no_signature": "taken: 204"}),
        (timeless, {"old_timestamp": "taken: 204", "future_timestamp": "taken: 204"}),
        (open_to_the_future, {"future_timestamp": "taken: 204"}),
        (blind_to_the_body, {"altered_body": "taken: 204"}),
        (one_secret_only, {"rotation": "refused: 401"}),
        (closed_to_new_types, {"unknown_type": "refused: 400"}),
        (closed_to_new_fields, {"unknown_field": "refused: 422"}),
        (never_without_a_batch, {"without_batch": "failed: 500"}),
        (breaking_on_nonsense, {"garbled_signature": "failed: 500"}),
        (a_bouncer(), {"repeat": "refused: 409 (message 2)"}),
        (a_pedant(), {"out_of_order": "refused: 409 (message 2)"}),
    ],
    ids=[
        "takes everything", "takes the unsigned", "knows no time", "takes the future",
        "does not look at the body", "tries one signature", "refuses unknown types",
        "refuses unknown fields", "needs a batch", "breaks on nonsense", "refuses repeats",
        "refuses what is out of order",
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named_and_nothing_else(
    answer: Answer, named: dict[str, str]
) -> None:
    """Each of these does one thing wrong."""
    async with answering(answer) as url:
        findings = await found(url)

    assert named == wrong(findings)
    assert all(one.mend for one in findings if one.verdict is Verdict.WRONG)


@pytest.mark.parametrize("largest", [100 * 1024, 512 * 1024], ids=["express", "half a MiB"])
async def test_a_limit_on_bodies_that_is_too_low_is_named(largest: int) -> None:
    """100 kB is what Express allows unasked."""
    async with answering(careful, largest=largest) as url:
        findings = await found(url)

    assert {"large": "refused: 413"} == wrong(findings)
    assert "1 MiB" in mend("large", findings)


async def test_a_refusal_that_looks_like_trouble_is_told_apart_from_one_that_takes() -> None:
    """The forgery was not taken; the cure is another."""
    async with answering(breaking_on_nonsense) as url:
        findings = await found(url)

    assert "Catch all" in mend("garbled_signature", findings)


async def test_a_receiver_that_is_slow_with_one_message_is_named_twice() -> None:
    """Once for the message, and once for the time."""
    hang = asyncio.Event()

    async def slow(request: web.Request, body: bytes) -> web.StreamResponse:
        if len(body) > 100_000:
            await hang.wait()
        return await careful(request, body)

    async with answering(slow) as url:
        findings = await found(url, timeout=1.0)
        hang.set()

    assert {"large", "in_time"} == set(wrong(findings))
    assert "no whole answer within 1 s" == wrong(findings)["large"]
    assert "only then work" in mend("large", findings)


# --------------------------------------------------------------------- what cannot be gone on with


@pytest.mark.parametrize(
    ("status", "happened", "cure"),
    [
        (302, "redirected: 302", "Use the URL that it leads to"),
        (401, "refused: 401", "the very secret"),
        (404, "refused: 404", "correct the URL"),
        (410, "refused for ever: 410", "correct the URL"),
        (429, "put off: 429", "Lift the limit"),
        (503, "failed: 503", "the receiver's log"),
    ],
)
async def test_after_a_good_message_that_is_not_taken_nothing_more_is_sent(
    status: int, happened: str, cure: str
) -> None:
    """What refuses everything would seem to refuse forgeries, too."""
    came = []

    async def refusing(request: web.Request, _: bytes) -> web.StreamResponse:
        came.append(request.headers["webhook-id"])
        return web.Response(status=status, headers={"Location": "/login"})

    async with answering(refusing) as url:
        findings = await found(url)

    assert {"good": happened} == wrong(findings)
    assert cure in mend("good", findings)
    assert 1 == len(came)
    skipped = {one.case.name for one in findings if one.verdict is Verdict.SKIPPED}
    assert {case.name for case in CASES[1:]} == skipped


async def test_a_body_that_is_verified_after_it_was_parsed_is_named() -> None:
    """The commonest mistake there is: the bytes are other ones by then."""

    async def parsing(request: web.Request, body: bytes) -> web.StreamResponse:
        return await careful(request, json.dumps(json.loads(body)).encode())

    async with answering(parsing) as url:
        findings = await found(url)

    assert {"good": "refused: 401"} == wrong(findings)
    assert "raw body" in mend("good", findings)


@pytest.mark.parametrize(
    ("said", "then", "happened"),
    [
        (b"", "hang", "no whole answer within 0.5 s"),
        (ENDLESS, "hang", "no whole answer within 0.5 s"),
        (ENDLESS, "drip", "no whole answer within 0.5 s"),
        (b"", "close", "the connection broke before an answer came"),
        (b"", "reset", "the connection broke before an answer came"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "close", "what came back is not HTTP"),
    ],
    ids=["hangs", "hangs in the answer", "drips", "closes", "resets", "speaks no HTTP"],
)
async def test_a_receiver_that_gives_no_answer_is_named_with_what_it_did(
    said: bytes, then: Then, happened: str
) -> None:
    """In time, and without an error of our own."""
    async with saying(said, then=then) as line:
        findings = await found(line.url, timeout=0.5)
        if then in ("hang", "drip"):
            await line.hung_up.wait()

    named = wrong(findings)
    assert named["good"].endswith(happened)
    assert ("no whole answer" in happened) == ("in_time" in named)


async def test_where_nobody_listens_it_is_said() -> None:
    """With what to do."""
    findings = await found(await a_closed_port())

    assert {"good": "no connection: Connection refused"} == wrong(findings)
    assert "Start the receiver" in mend("good", findings)
    assert Verdict.SKIPPED is findings[-1].verdict


async def test_an_answer_without_end_is_cut_and_counts_by_its_status() -> None:
    """As in life: its start is read, and no more."""
    async with saying(ENDLESS, then="flood") as line:
        findings = await found(line.url)
        await line.hung_up.wait()

    assert dict.fromkeys(FORGERIES, "taken: 200") == wrong(findings)


# -------------------------------------------------------------------------------- what is sent


async def came(count: int = 1) -> list[tuple[dict[str, str], bytes]]:
    """What a right receiver is sent in ``count`` runs."""
    arrived = []

    async def noting(request: web.Request, body: bytes) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        arrived.append((headers, body))
        return await careful(request, body)

    async with answering(noting) as url:
        for _ in range(count):
            await found(url)
    return arrived


async def test_every_message_says_that_it_is_a_test() -> None:
    """By the watch, which all have, and by the batch, where there is one."""
    for _, body in await came():
        data = json.loads(body)["data"]
        assert "certify" == data["watch"]
        assert data.get("batch", {"id": "bat-certify-"})["id"].startswith("bat-certify-")


async def test_the_good_messages_are_as_the_published_schemas_say() -> None:
    """They are made by what makes the real ones."""
    types = set()
    for headers, body in await came():
        event = json.loads(body)
        if holds(headers, body) and "later_version" not in body.decode():
            schema = json.loads((ROOT / "docs" / "schemas" / f"{event['type']}.json").read_text())
            Draft202012Validator(schema).validate(event)
            types.add(event["type"])

    assert {"batch.completed", "batch.running", "batch.pending", "watch.recovered"} == types


async def test_the_large_message_is_as_large_as_batchwatch_makes_them() -> None:
    """Lists full, texts at their limit and in four bytes to the character; yet below 1 MiB."""
    large = max((body for _, body in await came()), key=len)

    results = json.loads(large)["data"]["results"]
    assert (200, 50, True) == (
        len(results["items"]), len(results["failures"]), results["truncated"],
    )  # fmt: skip
    assert {500} == {len(one["error_message"]) for one in results["items"] + results["failures"]}
    assert 500_000 < len(large) < 2**20


async def test_a_second_run_repeats_no_id_of_the_first() -> None:
    """A receiver that deduplicates would otherwise be certified for sleeping."""
    ids = [headers["webhook-id"] for headers, _ in await came(2)]

    half = len(ids) // 2
    assert set() == set(ids[:half]) & set(ids[half:])
    assert half - 1 == len(set(ids[:half]))  # the repeat is the only one within a run


# ---------------------------------------------------------------------------- the command line


async def told(url: str, *arguments: str, **environ: str) -> Result:
    """``certify`` beside the loop that its receiver lives in."""
    environ = {"BATCHWATCH_WEBHOOK_SECRET": SECRET} | environ
    return await asyncio.to_thread(called, "certify", url, *arguments, environ=environ)


async def test_a_line_for_each_case_and_a_summary_and_exit_code_0() -> None:
    """Where all is as it should be."""
    async with answering(careful) as url:
        result = await told(url)

    head, *lines = result.stdout.splitlines()
    assert (0, "") == (result.exit_code, result.stderr)
    assert ["case", "sent", "should", "be", "was"] == head.split()
    assert [f"✓ {case.name}" for case in (*CASES, IN_TIME)] == [
        " ".join(line.split()[:2]) for line in lines[: len(CASES) + 1]
    ]
    assert "All 15 cases are as they should be." == lines[-1]


async def test_what_is_wrong_is_told_with_the_reason_and_the_cure_and_exit_code_1() -> None:
    """So that one need not read up."""
    async with answering(a_bouncer()) as url:
        result = await told(url)

    (case,) = [case for case in CASES if case.name == "repeat"]
    said = re.sub(r"\s+", " ", result.stdout)
    assert 1 == result.exit_code
    assert "✗ repeat" in result.stdout
    assert f"1 of 15 cases to mend: {case.name} should be taken, was refused: 409" in said
    assert f"why {case.rule} mend {case.mend}" in said


async def test_programs_get_one_object() -> None:
    """With every case, its rule, and what came back."""
    async with answering(timeless) as url:
        result = await told(f"{url}?token=query-s3cret", "--json")

    report: dict[str, Any] = json.loads(result.stdout)
    assert (1, False) == (result.exit_code, report["ok"])
    assert f"{url.removesuffix('/hook')}/…" == report["url"]
    assert [case.name for case in (*CASES, IN_TIME)] == [one["case"] for one in report["cases"]]
    (old,) = [one for one in report["cases"] if one["case"] == "old_timestamp"]
    assert ("wrong", "refused", "taken: 204") == (old["verdict"], old["expected"], old["happened"])
    assert [(204, None)] == [(one["status_code"], one["failure"]) for one in old["answers"]]


@pytest.mark.parametrize("arguments", [[], ["--json"]], ids=["people", "programs"])
async def test_no_secret_is_told_even_if_the_receiver_tells_it(arguments: list[str]) -> None:
    """Neither that which signs, nor what the URL carries."""

    async def telling(request: web.Request, _: bytes) -> web.StreamResponse:
        raise web.HTTPFound(f"/{SECRET}", text=f"{SECRET} {request.path_qs}")

    async with answering(telling) as url:
        given = url.replace("http://", "http://user:login-s3cret@") + "?token=query-s3cret"
        result = await told(given, *arguments)

    assert 1 == result.exit_code
    for secret in (SECRET, SECRET[6:], "query-s3cret", "login-s3cret"):
        assert secret not in result.output


async def test_a_secret_on_the_command_line_works_and_is_warned_of() -> None:
    """Everybody on the machine can read it there."""
    async with answering(careful) as url:
        result = await told(
            url, "--json", "--secret", SECRET, BATCHWATCH_WEBHOOK_SECRET="whsec_another"
        )

    assert (0, True) == (result.exit_code, json.loads(result.stdout)["ok"])
    assert "others can see a secret on the command line" in result.stderr
    assert SECRET not in result.output


async def test_the_secret_may_be_in_a_file(tmp_path: Path) -> None:
    """As with every secret."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    async with answering(careful) as url:
        result = await told(
            url,
            BATCHWATCH_WEBHOOK_SECRET="",
            BATCHWATCH_WEBHOOK_SECRET_FILE=str(tmp_path / "secret"),
        )

    assert 0 == result.exit_code


@pytest.mark.parametrize(
    ("arguments", "environ", "complaint"),
    [
        (["http://127.0.0.1:9/"], {"BATCHWATCH_WEBHOOK_SECRET": ""}, "set BATCHWATCH_WEBHOOK_SEC"),
        (["http://127.0.0.1:9/"], {"BATCHWATCH_WEBHOOK_SECRET": "s3cret"}, "whsec_ followed by"),
        (["http://127.0.0.1:9/", "--secret", "s3cret"], {}, "--secret"),
        (
            ["http://127.0.0.1:9/"],
            {"BATCHWATCH_WEBHOOK_SECRET": "", "BATCHWATCH_WEBHOOK_SECRET_FILE": "/nowhere/s"},
            "BATCHWATCH_WEBHOOK_SECRET_FILE: no such file",
        ),
        (["ftp://127.0.0.1/s3cret"], {}, "an http:// or https:// URL"),
        (["http://[/s3cret"], {}, "an http:// or https:// URL"),
        (["https://hooks.slack.com/services/s3cret"], {}, "Slack"),
        (["http://127.0.0.1:9/", "--timeout", "0"], {}, "a duration from 100ms to 5m"),
        (["http://127.0.0.1:9/", "--timeout", "nan"], {}, "--timeout"),
        ([], {}, "URL"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_sent(
    arguments: list[str], environ: dict[str, str], complaint: str
) -> None:
    """Exit code 2, with what is allowed, and without what was given."""
    result = called("certify", *arguments, environ={"BATCHWATCH_WEBHOOK_SECRET": SECRET} | environ)

    assert (2, "") == (result.exit_code, result.stdout)
    assert complaint in result.stderr
    assert "s3cret" not in result.stderr
