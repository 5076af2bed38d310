"""How requests are made: who we are, whom we trust, which way they go, and where they may lead."""

from __future__ import annotations

import ssl
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from batchwatch.deliver.guard import Guard
from batchwatch.parts import guard_of, headers_of
from batchwatch.settings import Settings, SettingsError, WebhookSettings, load
from batchwatch.settings.review import describe, warnings
from batchwatch.settings.tls import tls_contexts
from tests.unit.deliver.authority import Authority

if TYPE_CHECKING:
    from pathlib import Path

    from batchwatch.settings import Problem

ENOUGH = {
    "LLAMA_CLOUD_API_KEY": "llx-key",
    "BATCHWATCH_ENDPOINTS__OPS__URL": "https://receiver.example/hook",
    "BATCHWATCH_ENDPOINTS__OPS__SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}
DAMAGED = b"".join(
    b"-----BEGIN %b-----\nAAAA\n-----END %b-----\n" % (part, part)
    for part in (b"CERTIFICATE", b"PRIVATE KEY")
)


def settings(**variables: str) -> Settings:
    """With these settings of one endpoint; what begins with ALL is for all of them."""
    return load(
        environ=ENOUGH
        | {
            f"BATCHWATCH_{name.removeprefix('ALL_')}"
            if name.startswith("ALL_")
            else f"BATCHWATCH_ENDPOINTS__OPS__{name}": text
            for name, text in variables.items()
        }
    )


def ops(**variables: str) -> WebhookSettings:
    found = settings(**variables).endpoints["ops"]
    assert isinstance(found, WebhookSettings)
    return found


def the_problem(**variables: str) -> Problem:
    with pytest.raises(SettingsError) as caught:
        tls_contexts(settings(**variables))
    [problem] = caught.value.problems
    return problem


# ------------------------------------------------------------------------------- who we are


@pytest.mark.parametrize(
    ("name", "text", "header"),
    [
        ("BASIC_AUTH", "ops:pass:word", "Basic b3BzOnBhc3M6d29yZA=="),
        ("BASIC_AUTH", "ops:", "Basic b3BzOg=="),
        ("BASIC_AUTH", "ops:p\u00e4ss", "Basic b3BzOnDDpHNz"),
        ("BEARER_TOKEN", "abc.def", "Bearer abc.def"),
    ],
)
def test_what_the_receiver_asks_for_is_a_header(name: str, text: str, header: str) -> None:
    """RFC 7617 and RFC 6750; passwords in UTF-8."""
    given = ops(**{name: text})

    assert {"authorization": header} == headers_of(given)
    assert "pass" not in repr(given)


def test_what_the_receiver_asks_for_may_stand_in_a_file(tmp_path: Path) -> None:
    """As every secret may."""
    (tmp_path / "login").write_text("ops:password\n")
    (tmp_path / "proxy").write_text("http://ops:password@proxy.example:3128\n")

    given = ops(BASIC_AUTH_FILE=f"{tmp_path}/login", PROXY_FILE=f"{tmp_path}/proxy")

    assert given.basic_auth
    assert given.proxy
    assert "ops:password" == given.basic_auth.get_secret_value()
    assert "http://proxy.example:3128" == given.proxy.shown


@pytest.mark.parametrize("text", ["password", ":password", "ops:pass\nword", "ops:\udcff"])
def test_a_login_is_a_user_and_a_password(text: str) -> None:
    """And what is none is not shown."""
    problem = the_problem(BASIC_AUTH=text)

    assert "BATCHWATCH_ENDPOINTS__OPS__BASIC_AUTH" == problem.name
    assert problem.given.startswith(f"hidden ({len(text)} characters), w")


@pytest.mark.parametrize(
    "both",
    [
        {"BASIC_AUTH": "a:b", "BEARER_TOKEN": "c"},
        {"BASIC_AUTH": "a:b", "URL": "https://a:b@receiver.example/hook"},
        {"BEARER_TOKEN": "c", "HEADERS__AUTHORIZATION": "Bearer d"},
        {"HEADERS__AUTHORIZATION": "Bearer d", "URL": "https://a:b@receiver.example/hook"},
    ],
)
def test_there_is_one_way_to_say_who_we_are(both: dict[str, str]) -> None:
    """All of them make the same header, so one would silently replace the other."""
    assert "one way to say who we are" == the_problem(**both).expected


def test_a_trace_is_ours_to_name() -> None:
    """A fixed one would make all events one trace."""
    assert "which batchwatch sets itself" in the_problem(HEADERS__TRACEPARENT="00-1-1-01").given


# ------------------------------------------------------------------------ which way they go


@pytest.mark.parametrize(
    "text",
    ["https://proxy.example:3128", "socks5://proxy.example:1080", "proxy.example:3128",
     "http://proxy.example", "http://proxy.example:3128/x", "http://proxy.example:3128?x",
     "http://ops:\u2192@proxy.example:3128", "http://ops:%e2%86%92@proxy.example:3128"],
)  # fmt: skip
def test_a_proxy_is_a_host_and_a_port(text: str) -> None:
    """And its login may be a secret, so nothing of it is shown."""
    problem = the_problem(PROXY=text)

    assert "BATCHWATCH_ENDPOINTS__OPS__PROXY" == problem.name
    assert "hidden" in problem.given


def test_the_password_of_a_proxy_is_never_shown() -> None:
    """Neither where settings are listed nor where they are doubted."""
    given = settings(PROXY="http://ops:hunter2@proxy.example:3128", PUBLIC_ONLY="true")

    shown = "\n".join([repr(given), *map(str, describe(given)), *warnings(given)])
    assert "endpoints.ops.proxy = http://proxy.example:3128 (" in shown
    assert "hunter2" not in shown
    assert "endpoints.ops goes through a proxy, which resolves the name itself" in shown


# ------------------------------------------------------------------------ where they may lead


def test_what_is_set_for_all_endpoints_holds_for_those_that_set_nothing() -> None:
    """The short way's as well; and an empty list takes back what is set for all."""
    given = settings(
        ALL_PUBLIC_ONLY="true", ALL_ALLOW_ADDRESSES="10.1.0.0/16, 169.254.7.7",
        ALL_WEBHOOK_URL="https://a.example",
    ).endpoints  # fmt: skip
    allowed = (ip_network("10.1.0.0/16"), ip_network("169.254.7.7"))

    for name in ("ops", "webhook"):
        assert Guard(public_only=True, allowed=allowed) == guard_of(given[name])
    own = ops(ALL_PUBLIC_ONLY="true", PUBLIC_ONLY="false", ALLOW_ADDRESSES="fd12::/48")
    assert Guard(allowed=(ip_network("fd12::/48"),)) == guard_of(own)
    assert () == ops(ALL_ALLOW_ADDRESSES="10.1.0.0/16", ALLOW_ADDRESSES=",").allow_addresses


def test_where_it_is_said_is_told() -> None:
    """So that whoever wonders finds the line."""
    lines = [str(one) for one in describe(settings(ALL_ALLOW_ADDRESSES="10.1.0.0/16, ::1"))]

    assert "allow_addresses = 10.1.0.0/16, ::1 (BATCHWATCH_ALLOW_ADDRESSES)" in lines
    assert "endpoints.ops.allow_addresses = 10.1.0.0/16, ::1 (BATCHWATCH_ALLOW_ADDRESSES)" in lines


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("10.1.2.3/8", "Write 10.0.0.0/8, or one address."),
        ("::ffff:10.0.0.1", "Write it as IPv4."),
        ("fe80::1%eth0", "Remove what follows the %."),
        ("10.1.2", "Write an address, or a network as its first address and its length."),
        ("10.0.0.0/33", "Write an address, or a network as its first address and its length."),
        ("receiver.example", "Write an address, or a network as its first address and its length."),
    ],
)
def test_an_exception_is_an_address_or_a_network(text: str, fix: str) -> None:
    """A slip in a mask would let more through than was meant."""
    assert fix == the_problem(ALLOW_ADDRESSES=text).fix


@pytest.mark.parametrize(
    "host", ["2852039166", "127.1", "0x7f.1", "0xa9fea9fe", "0251.0376.0251.0376", "0177.0.0.1"]
)
def test_an_address_in_an_odd_spelling_is_refused_at_once(host: str) -> None:
    """Nobody means it well, and what reads it as a name would ask the DNS for it."""
    problem = the_problem(URL=f"http://{host}/hook")

    assert problem.given.endswith("whose host is an IPv4 address in an odd spelling")


# ---------------------------------------------------------------------------- whom we trust


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_most_endpoints_are_met_as_everybody_is() -> None:
    """With the system's authorities, in one context that all of them share."""
    assert {} == tls_contexts(settings())


def test_a_context_is_made_from_the_files(authority: Authority) -> None:
    """Of an authority of one's own, which takes the place of the system's."""
    client = str(authority.certificate("client"))
    context = tls_contexts(settings(TLS_CA=str(authority.file), TLS_CERTIFICATE=client))["ops"]

    (trusted,) = context.get_ca_certs()
    assert ((("commonName", "Test CA"),),) == trusted["subject"]
    assert (ssl.CERT_REQUIRED, True) == (context.verify_mode, context.check_hostname)


def test_a_key_may_stand_in_a_file_of_its_own(authority: Authority) -> None:
    """As most authorities hand them out."""
    authority.certificate("client")
    parts = {
        "TLS_CERTIFICATE": str(authority.folder / "client.crt"),
        "TLS_KEY": str(authority.folder / "client.key"),
    }

    assert "ops" in tls_contexts(settings(**parts))
    assert "TLS_KEY" in the_problem(TLS_KEY=parts["TLS_KEY"]).name
    alone = the_problem(TLS_CERTIFICATE=parts["TLS_CERTIFICATE"])
    assert "Set tls_key to the file of its key." == alone.fix


def test_only_by_its_name_is_nobody_asked_who_they_are() -> None:
    """And it is said wherever anybody could look."""
    given = settings(TLS_VERIFY="false")
    context = tls_contexts(given)["ops"]

    assert (ssl.CERT_NONE, False) == (context.verify_mode, context.check_hostname)
    (warning,) = warnings(given)
    assert warning.startswith("endpoints.ops has tls_verify set to false: ")


@pytest.mark.parametrize("name", ["TLS_CA", "TLS_CERTIFICATE", "TLS_KEY"])
@pytest.mark.parametrize(
    ("content", "given"),
    [
        (None, "no such file"),
        (b"", "in PEM"),
        (b"Dear diary", "in PEM"),
        (b"\xff\xfe", "not in UTF-8"),
        (DAMAGED, "a damaged "),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_the_setting_that_names_it(
    name: str, content: bytes | None, given: str, authority: Authority, tmp_path: Path
) -> None:
    """Before anything starts."""
    file = tmp_path / "file.pem"
    if content is not None:
        file.write_bytes(content)
    variables = {name: str(file)}
    if name == "TLS_KEY":
        variables["TLS_CERTIFICATE"] = str(authority.certificate("client"))

    problem = the_problem(**variables)

    assert f"BATCHWATCH_ENDPOINTS__OPS__{name}" == problem.name
    assert given in problem.given
    assert problem.given.startswith(repr(str(file)))


def test_a_key_that_cannot_be_used_is_told_by_the_reason(
    authority: Authority, tmp_path: Path
) -> None:
    """One with a passphrase would ask for it on the terminal."""
    certificate = str(authority.certificate("client"))
    authority.certificate("other")
    locked = tmp_path / "locked.key"
    authority.run("pkey", "-in", "client.key", "-aes256", "-passout", "pass:x", "-out", str(locked))

    problem = the_problem(TLS_CERTIFICATE=certificate, TLS_KEY=str(locked))
    assert problem.given.endswith(", a key with a passphrase")
    problem = the_problem(TLS_CERTIFICATE=certificate, TLS_KEY=str(authority.folder / "other.key"))
    assert problem.given.endswith(", the key of another certificate")


def test_all_that_is_wrong_with_files_is_told_at_once() -> None:
    """A restart for each would be tiresome."""
    more = {f"BATCHWATCH_ENDPOINTS__{one}__URL": "https://a.example" for one in ("A", "B")}
    more |= {f"BATCHWATCH_ENDPOINTS__{one}__TLS_CA": "/nowhere/ca.pem" for one in ("A", "B")}

    with pytest.raises(SettingsError) as caught:
        tls_contexts(load(environ=ENOUGH | more))

    assert 2 == len(caught.value.problems)
