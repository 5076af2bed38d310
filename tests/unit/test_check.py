"""``check``: a line for each part, right or with its remedy, and nothing is sent to anyone."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp.test_utils import unused_port

from batchwatch.check import Finding, Verdict, check
from batchwatch.deliver.signing import new_pair, new_secret
from batchwatch.domain.batch import COMPLETED, EndpointName
from batchwatch.domain.delivery import Attempt, Failure, Settled, State
from batchwatch.domain.routing import FOR_PROGRAMS, Router
from batchwatch.settings import SettingsError, load
from batchwatch.simulator import Simulator, Switch
from batchwatch.store import Batches, Database, Outbox, Watches
from batchwatch.store.leases import Leases
from batchwatch.store.migrations import upgrade
from batchwatch.store.schema import HEAD
from tests.support.builders import WATCH, a_recorder, a_sighting, at
from tests.support.clock import LeapClock, ManualClock
from tests.support.daemon import running
from tests.support.newer import make_newer
from tests.support.postgres import a_database
from tests.support.receiver import SECRET, Receiver
from tests.unit.llamacloud.upstream import a_batch, a_page, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HOOK = EndpointName("webhook")
PATH = "/services/T0001/B0002/path-s3cret"


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as open_receiver:
        yield open_receiver


@pytest.fixture
def environ(sim: Simulator, receiver: Receiver, tmp_path: Path) -> dict[str, str]:
    """Settings with which all is well."""
    return {
        "LLAMA_CLOUD_API_KEY": sim.api_key,
        "LLAMA_CLOUD_BASE_URL": sim.url,
        "BATCHWATCH_WEBHOOK_URL": f"{receiver.url}{PATH}?token=query-s3cret",
        "BATCHWATCH_WEBHOOK_SECRET": SECRET,
        "BATCHWATCH_DATA_DIR": str(tmp_path),
        "BATCHWATCH_LISTEN": "127.0.0.1:0",
    }


async def found(environ: dict[str, str], **more: str) -> list[Finding]:
    """Every line, with these settings."""
    settings = load(environ=environ | more, for_run=False)
    return [one async for one in check(settings, clock=LeapClock())]


def about(part: str, findings: list[Finding]) -> tuple[Verdict, str]:
    """The one line about this part."""
    (one,) = [finding for finding in findings if finding.part == part]
    return one.verdict, one.text


def made_in(folder: Path) -> list[str]:
    """What there is."""
    return [one.name for one in folder.iterdir()]


def wrong(findings: list[Finding]) -> list[str]:
    """The parts that are not right."""
    return [one.part for one in findings if one.verdict is Verdict.WRONG]


async def test_where_all_is_well_every_part_says_so(
    environ: dict[str, str], sim: Simulator, receiver: Receiver, tmp_path: Path
) -> None:
    """Settings, store, each watch, each endpoint, the address: and nobody was sent anything."""
    findings = await found(environ)

    assert {Verdict.OK} == {one.verdict for one in findings}
    parts = [one.part for one in findings if one.part != "settings"]
    assert ["store", "watch default", "endpoint webhook", "listen"] == parts
    store = f"{tmp_path}/batchwatch.db: not there yet; batchwatch run makes it"
    assert (store, []) == (about("store", findings)[1], made_in(tmp_path))
    watch = about("watch default", findings)[1]
    assert watch.startswith(
        f"{sim.url} accepts the key of LLAMA_CLOUD_API_KEY and sees no batch yet ("
    )
    expected = f"{receiver.url}/… (webhook) is at 127.0.0.1; 1 secret signs: v1 without end"
    assert expected == about("endpoint webhook", findings)[1]
    assert [] == receiver.received
    assert 1 == sim.requests.total()


async def test_a_store_of_another_version_is_told(environ: dict[str, str], tmp_path: Path) -> None:
    """An older one is brought up to date by itself; a newer one may be used, for a while."""
    url = f"sqlite+aiosqlite:///{tmp_path}/batchwatch.db"
    database = await Database.attach(url, lock=True, writes=True)
    async with database.write() as connection:
        await connection.run_sync(lambda sync: upgrade(sync, to="0004"))
    older = about("store", await found(environ))
    await database.close()
    database = await Database.open(url)
    async with database.write() as connection:
        await make_newer(connection, oldest=HEAD)
    await database.close()
    newer = [one for one in await found(environ) if one.part == "store"]

    assert Verdict.OK == older[0]
    assert "its schema is 0004; start the daemon once" in older[1]
    assert [Verdict.OK, Verdict.WARNING] == [one.verdict for one in newer]
    assert f"its schema is 9999, and this version knows {HEAD}: upgrade it" in newer[1].text


async def test_one_batch_is_asked_for_and_seen(environ: dict[str, str]) -> None:
    """One is enough to know that the key is of the right project, however many pages there are."""
    async with serving(a_page(a_batch(), token="more")) as upstream:
        findings = await found(environ, LLAMA_CLOUD_BASE_URL=upstream.url)

    assert "and sees batches (" in about("watch default", findings)[1]
    assert ["1"] == upstream.asked("page_size")


async def test_what_was_set_is_told_with_where_it_came_from(environ: dict[str, str]) -> None:
    """So that a variable that was meant for another daemon is found."""
    told = [one.text for one in await found(environ) if one.part == "settings"]

    assert "llama_cloud_api_key = hidden (LLAMA_CLOUD_API_KEY)" in told
    assert "listen = 127.0.0.1:0 (BATCHWATCH_LISTEN)" in told
    assert not any("(default)" in one for one in told)


async def test_of_each_watch_it_is_told_whether_hints_come_in(environ: dict[str, str]) -> None:
    """And where; the secret itself is nobody's business."""
    off = about("watch default", await found(environ))[1]
    findings = await found(environ, BATCHWATCH_HINT_SECRET="hint-s3cret-0123456789")

    assert off.endswith("; hints are off")
    text = about("watch default", findings)[1]
    assert text.endswith("; hints come in at /hooks/llamacloud/default")
    assert not any("hint-s3cret" in one.text for one in findings)


async def test_a_wrong_key_is_told_with_the_variable_that_holds_it(
    environ: dict[str, str],
) -> None:
    """At once, and the rest is looked at all the same."""
    findings = await found(environ, LLAMA_CLOUD_API_KEY="llx-wrong-s3cret")

    verdict, text = about("watch default", findings)
    assert (["watch default"], Verdict.WRONG) == (wrong(findings), verdict)
    assert "answered 401" in text
    assert "Check LLAMA_CLOUD_API_KEY" in text


async def test_a_watch_without_a_key_is_not_asked_for(
    environ: dict[str, str], sim: Simulator
) -> None:
    """The line names the variable to set."""
    del environ["LLAMA_CLOUD_API_KEY"]

    findings = await found(environ)

    expected = Verdict.WRONG, "it has no API key; set LLAMA_CLOUD_API_KEY"
    assert expected == about("watch default", findings)
    assert 0 == sim.requests.total()


async def test_a_key_with_a_letter_that_no_key_has_is_told(environ: dict[str, str]) -> None:
    """By the settings, and not by a traceback of whoever is to send it."""
    with pytest.raises(SettingsError, match="LLAMA_CLOUD_API_KEY"):
        await found(environ, LLAMA_CLOUD_API_KEY="llx-schl\u00fcssel")


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose DNS knows no name, only addresses; no test asks the real one."""
    resolve = socket.getaddrinfo

    def without_names(host: Any, *rest: Any, **more: Any) -> Any:
        if str(host).replace(".", "").isdigit():
            return resolve(host, *rest, **more)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", without_names)


@pytest.mark.usefixtures("no_names")
async def test_an_unknown_host_is_told_with_the_variable_that_names_it(
    environ: dict[str, str],
) -> None:
    """The spelling is what is wrong, most of the time."""
    findings = await found(environ, LLAMA_CLOUD_BASE_URL="https://api.cloud.llamaindx.test")

    verdict, text = about("watch default", findings)
    assert (["watch default"], Verdict.WRONG) == (wrong(findings), verdict)
    assert "the name api.cloud.llamaindx.test cannot be resolved" in text
    assert "LLAMA_CLOUD_BASE_URL" in text


@pytest.mark.parametrize(("status", "hint"), [(402, "credits"), (403, "plan"), (429, "slows down")])
async def test_an_upstream_that_refuses_is_quoted(
    status: int, hint: str, environ: dict[str, str], sim: Simulator
) -> None:
    """With what can be done about it."""
    sim.faults.switch_on(Switch(kind="status", status=status))

    findings = await found(environ)

    verdict, text = about("watch default", findings)
    assert (Verdict.WRONG, True, True) == (verdict, f"answered {status}" in text, hint in text)


@pytest.mark.usefixtures("no_names")
async def test_an_endpoint_that_cannot_be_resolved_is_told(
    environ: dict[str, str], receiver: Receiver
) -> None:
    """By the start of its URL; the rest may be a secret."""
    findings = await found(environ, BATCHWATCH_WEBHOOK_URL=f"https://hooks.slak.test{PATH}")

    assert ["endpoint webhook"] == wrong(findings)
    assert about("endpoint webhook", findings)[1] == (
        "https://hooks.slak.test/…: the name hooks.slak.test cannot be resolved "
        "(Name or service not known); check the URL and this machine's DNS"
    )
    assert [] == receiver.received


@pytest.mark.parametrize("host", ["hooks..example.com", f"{'a' * 64}.example.com"])
async def test_an_endpoint_that_is_no_name_at_all_is_told(
    host: str, environ: dict[str, str]
) -> None:
    """A dot too many is a slip like another."""
    findings = await found(environ, BATCHWATCH_WEBHOOK_URL=f"https://{host}/hook")

    assert ["endpoint webhook"] == wrong(findings)


async def test_without_an_endpoint_nobody_would_hear(environ: dict[str, str]) -> None:
    """The line names the variables that make one."""
    del environ["BATCHWATCH_WEBHOOK_URL"], environ["BATCHWATCH_WEBHOOK_SECRET"]

    findings = await found(environ)

    assert ["endpoints"] == wrong(findings)
    assert about("endpoints", findings)[1] == (
        "there is none; set BATCHWATCH_WEBHOOK_URL or BATCHWATCH_SLACK_WEBHOOK_URL"
    )


async def test_a_running_daemon_is_no_trouble(environ: dict[str, str]) -> None:
    """Its store is looked at beside it, and its port is rightly taken."""
    address = f"127.0.0.1:{unused_port()}"
    async with running(environ | {"BATCHWATCH_LISTEN": address}):
        async with aiohttp.ClientSession(f"http://{address}") as http:
            await until_it_answers(http)
        findings = await found(environ, BATCHWATCH_LISTEN=address)

    assert [] == wrong(findings)
    assert about("store", findings)[1].endswith(": 0 batches")
    assert f"it is running as process {os.getpid()}" in about("daemon", findings)[1]
    assert (Verdict.OK, f"{address} is held by the running daemon") == about("listen", findings)


async def until_it_answers(http: aiohttp.ClientSession) -> None:
    """A daemon opens its store before it listens."""
    while True:
        try:
            async with http.get("/livez"):
                return
        except aiohttp.ClientError:
            await asyncio.sleep(0.01)


async def test_a_port_that_another_has_is_told_beside_a_running_daemon(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """After its next start it would not listen."""
    daemon = await Database.open(f"sqlite+aiosqlite:///{tmp_path}/batchwatch.db")
    async with Receiver() as other:
        address = other.url.removeprefix("http://")
        findings = await found(environ, BATCHWATCH_LISTEN=address)
    await daemon.close()

    assert ["listen"] == wrong(findings)


async def test_batches_that_are_watched_no_longer_are_warned_of(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """A watch was renamed: nobody would hear of their end."""
    database = await Database.open(f"sqlite+aiosqlite:///{tmp_path}/batchwatch.db")
    outbox = Outbox(database, Router({HOOK: FOR_PROGRAMS}), ManualClock())
    await Watches(database, outbox).begin(WATCH, now=at(0))
    seen = [a_sighting(batch_id=f"bat-{n}") for n in range(3)]
    seen.append(a_sighting(COMPLETED, batch_id="bat-over"))
    await Batches(database, outbox).change(
        WATCH,
        {one.id for one in seen},
        lambda known: a_recorder().record(known, seen, now=at(0)),
    )
    await database.close()

    findings = await found(environ, BATCHWATCH_WATCHES__EUROPE__POLL_INTERVAL="5s")

    verdict, text = about("watch default", findings)
    assert (Verdict.WARNING, []) == (verdict, wrong(findings))
    assert text.startswith("3 batches of watch default are active and no longer watched")


async def test_a_folder_that_cannot_be_written_is_told_and_nothing_is_made(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """As the daemon would find it, without leaving anything that looks like a store."""
    (tmp_path / "file").write_text("in the way")

    findings = await found(environ, BATCHWATCH_DATA_DIR=str(tmp_path / "file" / "data"))

    assert ["store"] == wrong(findings)
    assert "BATCHWATCH_DATA_DIR" in about("store", findings)[1]


async def test_check_does_not_promise_to_go_on(environ: dict[str, str], sim: Simulator) -> None:
    """That is what the daemon does."""
    sim.faults.switch_on(Switch(kind="5xx"))

    text = about("watch default", await found(environ))[1]

    assert text.endswith("There is nothing to mend here.")


async def test_a_port_that_somebody_else_has_is_told(environ: dict[str, str]) -> None:
    """With the variable that chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        findings = await found(environ, BATCHWATCH_LISTEN=address)

    assert ["listen"] == wrong(findings)
    assert about("listen", findings)[1] == (
        f"{address}: {os.strerror(errno.EADDRINUSE)}; set BATCHWATCH_LISTEN to a free address"
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere..test"])
async def test_an_address_that_is_no_host_of_this_machine_is_told(
    host: str, environ: dict[str, str]
) -> None:
    """With the variable, as a port that is taken is."""
    token = {"BATCHWATCH_API_TOKEN": "token-0123456789abcdef"}

    findings = await found(environ, BATCHWATCH_LISTEN=f"{host}:8080", **token)

    assert ["listen"] == wrong(findings)
    assert "BATCHWATCH_LISTEN" in about("listen", findings)[1]


async def test_a_store_that_cannot_be_opened_is_told_and_the_rest_is_looked_at(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """One trouble must not hide the next."""
    (tmp_path / "batchwatch.db").write_bytes(b"Dear diary, " * 999)

    findings = await found(environ, LLAMA_CLOUD_API_KEY="llx-wrong")

    assert ["store", "watch default"] == wrong(findings)
    assert "not a database: name another file" in about("store", findings)[1]
    assert Verdict.OK is about("endpoint webhook", findings)[0]


async def test_a_store_of_several_is_opened_once_and_says_who_runs(
    environ: dict[str, str], postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is far away takes its time for each connection."""
    opened = []
    attach = Database.attach

    async def noted(url: str, *, lock: bool, writes: bool) -> Database:
        opened.append(url)
        return await attach(url, lock=lock, writes=writes)

    async for url in a_database(postgres, made=True):
        database = await Database.open(url)
        await Leases(database, ManualClock(), replica="r1").beat()
        await database.close()
        monkeypatch.setattr(Database, "attach", noted)
        findings = await found(environ, BATCHWATCH_DATABASE_URL=url)
        monkeypatch.undo()

    told = "running on this store: r1; what was changed counts once they restart"
    assert (Verdict.OK, told) == about("daemon", findings)
    assert (Verdict.OK, True) == (about("store", findings)[0], "0 batches" in str(findings))
    assert 1 == len(opened)


async def test_what_waits_for_an_endpoint_that_is_gone_is_warned_of(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """And what was given up: somebody should look at both, and neither keeps one from running."""
    database = await Database.open(f"sqlite+aiosqlite:///{tmp_path}/batchwatch.db")
    gone = EndpointName("gone")
    outbox = Outbox(database, Router(dict.fromkeys((HOOK, gone), FOR_PROGRAMS)), ManualClock())
    await Watches(database, outbox).begin(WATCH, now=at(0))
    seen = a_sighting()
    await Batches(database, outbox).change(
        WATCH, {seen.id}, lambda known: a_recorder().record(known, [seen], now=at(0))
    )
    (claimed,) = await outbox.claim(HOOK, limit=9)
    attempt = Attempt(at(0), 0.1, Failure.GONE)
    await outbox.settle([Settled(claimed, attempt, State.DEAD, reason="gone")])
    await database.close()

    findings = await found(environ)

    assert [] == wrong(findings)
    warned = {one.part: one.text for one in findings if one.verdict is Verdict.WARNING}
    assert "1 delivery was given up; see batchwatch show BATCH" == warned["endpoint webhook"]
    assert "pending for an endpoint that is not set" in warned["endpoint gone"]


async def test_no_line_holds_a_secret(environ: dict[str, str], sim: Simulator) -> None:
    """Neither where all is well nor where upstream repeats the key."""
    hidden = {
        "BATCHWATCH_SLACK_WEBHOOK_URL": f"http://user:login-s3cret@127.0.0.1:1{PATH}",
        "BATCHWATCH_API_TOKEN": "token-s3cret-0123456789",
        "BATCHWATCH_ENDPOINTS__OPS__URL": f"http://127.0.0.1:1{PATH}",
        "BATCHWATCH_ENDPOINTS__OPS__HEADERS__X_KEY": "header-s3cret",
        "LLAMA_CLOUD_API_KEY": "llx-key-s3cret",
    }
    right = await found(environ, **hidden)
    async with Simulator(api_key="llx-key-s3cret") as other:
        well = await found(environ, **hidden, LLAMA_CLOUD_BASE_URL=other.url)

    assert (["watch default"], []) == (wrong(right), wrong(well))
    text = "\n".join(one.text for one in (*right, *well))
    assert "s3cret" not in text
    assert SECRET.removeprefix("whsec_") not in text
    assert sim.api_key not in text


async def test_an_endpoint_where_nothing_may_be_sent_is_told_in_advance(
    environ: dict[str, str], receiver: Receiver
) -> None:
    """With the same words that a failed delivery would have, and before there is one."""
    refused = await found(environ, BATCHWATCH_WEBHOOK_URL="http://169.254.169.254/hook")
    not_public = await found(environ, BATCHWATCH_PUBLIC_ONLY="true")
    allowed = await found(
        environ, BATCHWATCH_PUBLIC_ONLY="true", BATCHWATCH_ALLOW_ADDRESSES="127.0.0.0/8"
    )

    assert about("endpoint webhook", refused) == (
        Verdict.WRONG,
        (
            "http://169.254.169.254/… (webhook): 169.254.169.254 is refused as cloud metadata; "
            "allow_addresses can name it"
        ),
    )
    verdict, text = about("endpoint webhook", not_public)
    assert Verdict.WRONG is verdict
    assert "127.0.0.1 is refused as loopback, since public_only is set" in text
    assert Verdict.OK is about("endpoint webhook", allowed)[0]
    assert [] == receiver.received


async def test_a_name_of_which_one_address_is_refused_is_warned_of(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others do, and somebody should know."""
    resolve = socket.getaddrinfo

    def two(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host != "hooks.test":
            return resolve(host, port, *rest, **more)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port))
            for one in ("127.0.0.1", "169.254.7.7")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    findings = await found(environ, BATCHWATCH_WEBHOOK_URL="http://hooks.test/hook")

    verdict, text = about("endpoint webhook", findings)
    assert Verdict.WARNING is verdict
    assert "is at 127.0.0.1, 169.254.7.7, of which 169.254.7.7 is refused as link-local" in text


@pytest.mark.usefixtures("no_names")
async def test_behind_a_proxy_it_is_the_proxy_that_is_looked_for(environ: dict[str, str]) -> None:
    """The receiver's name may be known there alone; an address is judged all the same."""
    proxy = {"BATCHWATCH_ENDPOINTS__OPS__PROXY": "http://ops:login-s3cret@127.0.0.1:3128"}
    url = "BATCHWATCH_ENDPOINTS__OPS__URL"

    well = about("endpoint ops", await found(environ, **proxy, **{url: "https://inside.test/hook"}))
    wrong = about("endpoint ops", await found(environ, **proxy, **{url: "http://169.254.7.7/"}))

    assert well == (
        Verdict.OK,
        (
            "https://inside.test/… (webhook) is reached by the proxy http://127.0.0.1:3128 "
            "at 127.0.0.1"
        ),
    )
    assert Verdict.WRONG is wrong[0]


async def test_files_of_tls_that_cannot_be_used_are_told(environ: dict[str, str]) -> None:
    """With the setting that names them."""
    tls = {
        "BATCHWATCH_ENDPOINTS__OPS__URL": "https://127.0.0.1:1/hook",
        "BATCHWATCH_ENDPOINTS__OPS__TLS_CA": "/nowhere/ca.pem",
        "BATCHWATCH_ENDPOINTS__OPS__TLS_VERIFY": "false",
    }
    findings = [one for one in await found(environ, **tls) if one.part == "settings"]

    assert [
        (
            "BATCHWATCH_ENDPOINTS__OPS__TLS_CA: '/nowhere/ca.pem', no such file; "
            "needed is a file with certificates in PEM. Create it, or correct the path."
        )
    ] == [one.text for one in findings if one.verdict is Verdict.WRONG]
    warned = [one.text for one in findings if one.verdict is Verdict.WARNING]
    assert any("endpoints.ops has tls_verify set to false" in one for one in warned)


async def test_the_secrets_that_sign_are_counted_and_told_when_they_end(
    environ: dict[str, str],
) -> None:
    """By the clock of the moment; what has expired is told to be of no use any more."""
    private, _ = new_pair()
    secrets = f"{private} {SECRET}@2026-12-01 {new_secret()}@2026-11-24T08:00:00Z"

    findings = await found(environ, BATCHWATCH_WEBHOOK_SECRET=secrets)

    assert about("endpoint webhook", findings)[1].endswith(
        "; 2 secrets sign: v1a without end, v1 until 2026-12-01T00:00:00Z; "
        "1 expired, and can be removed"
    )


async def test_secrets_that_have_all_expired_are_wrong(environ: dict[str, str]) -> None:
    """With what the daemon would not start with."""
    environ["BATCHWATCH_WEBHOOK_SECRET"] = f"{SECRET}@2026-11-24T08:00:00Z"

    findings = await found(environ)

    assert ["endpoint webhook"] == wrong(findings)
    assert (
        "every secret has expired; put a new one in front" in about("endpoint webhook", findings)[1]
    )


async def test_watches_that_list_the_same_batches_are_told(environ: dict[str, str]) -> None:
    """Their keys are two, and still they see the same project; a page of each shows it."""
    page = a_page(*(a_batch(f"bat-{number}") for number in range(3)), token="more")
    watches = {
        f"BATCHWATCH_WATCHES__{name}__API_KEY": f"llx-{name}" for name in ("one", "two", "three")
    }
    async with serving(page) as upstream, serving(a_page(a_batch("bat-9"))) as elsewhere:
        more = {"BATCHWATCH_WATCHES__three__BASE_URL": elsewhere.url}
        watches = {name.upper(): value for name, value in (watches | more).items()}
        findings = await found(environ, LLAMA_CLOUD_BASE_URL=upstream.url, **watches)

    told = [one for one in findings if one.verdict is Verdict.WARNING]
    assert ["watch two"] == [one.part for one in told]
    assert told[0].text.startswith("it and watch one see the same batches (3 of 3 of the last 3 d")
    assert 4 == len(upstream.requests)


async def test_watches_that_overlap_by_what_is_set_cost_no_request(
    environ: dict[str, str], sim: Simulator
) -> None:
    """The settings say it already."""
    watches = {f"BATCHWATCH_WATCHES__{name}__LOOKBACK": "1d" for name in ("A", "B")}
    findings = await found(environ, **watches)

    (told,) = [one for one in findings if one.verdict is Verdict.WARNING]
    assert "watches.a and watches.b see the same batches" in told.text
    assert 2 == sim.requests.total()


async def test_where_the_switch_is_is_told_and_nothing_is_sent(
    environ: dict[str, str], receiver: Receiver
) -> None:
    """By its host alone: its path is a secret."""
    url = f"{receiver.url}/ping/s3cret"
    findings = await found(environ, BATCHWATCH_HEARTBEAT_URL=url)
    gone = await found(environ, BATCHWATCH_HEARTBEAT_URL="https://nobody.invalid/s3cret")
    refused = await found(environ, BATCHWATCH_HEARTBEAT_URL="http://169.254.169.254/s3cret")

    where = (Verdict.OK, f"{receiver.url}/… is at 127.0.0.1; it is asked every 1m")
    assert where == about("heartbeat", findings)
    assert [] == receiver.received
    for one in (gone, refused):
        assert Verdict.WRONG is about("heartbeat", one)[0]
    assert "s3cret" not in f"{findings} {gone} {refused}"
