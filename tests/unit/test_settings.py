"""What settings mean: which values they take, what follows from them, and what contradicts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from batchwatch.settings import (
    Address,
    SecretUrl,
    Settings,
    SettingsError,
    SlackSettings,
    WebhookSettings,
    load,
)
from batchwatch.settings.problems import Invalid
from batchwatch.settings.urls import Database

if TYPE_CHECKING:
    from batchwatch.settings import EndpointSettings, Problem

KEY = {"LLAMA_CLOUD_API_KEY": "llx-key"}
ENOUGH = {**KEY, "BATCHWATCH_WEBHOOK_URL": "https://receiver.example/hook"}
SIGNING_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SLACK_URL = "https://hooks.slack.com/services/T00/B00/abc"


def settings(**variables: str) -> Settings:
    """Load what is enough and these variables, without their prefix."""
    return load(
        environ={**ENOUGH, **{f"BATCHWATCH_{name}": text for name, text in variables.items()}}
    )


def the_problem(**variables: str) -> Problem:
    """The one thing that is wrong with these variables."""
    with pytest.raises(SettingsError) as caught:
        settings(**variables)
    [problem] = caught.value.problems
    return problem


def ops(**variables: str) -> EndpointSettings:
    """An endpoint of that name, with these settings."""
    return settings(
        **{f"ENDPOINTS__OPS__{name}": text for name, text in variables.items()}
    ).endpoints["ops"]


# ---------------------------------------------------------------------------------- watches


def test_a_watch_takes_what_it_does_not_set_from_the_settings_for_all() -> None:
    """So that two regions differ in key and URL, and in nothing else."""
    given = load(
        environ={
            **ENOUGH,
            "LLAMA_CLOUD_BASE_URL": "https://llama.example/",
            "BATCHWATCH_POLL_INTERVAL": "5s",
            "BATCHWATCH_LOOKBACK": "1h",
            "BATCHWATCH_NOTIFY_BACKLOG": "true",
            "BATCHWATCH_STUCK_REMINDER": "1d",
            "BATCHWATCH_WATCHES__OWN__STUCK_AFTER_PENDING": "30m",
            "BATCHWATCH_WATCHES__OWN__BASE_URL": "api.cloud.eu.llamaindex.ai",
            "BATCHWATCH_WATCHES__OWN__API_KEY": "llx-own",
            "BATCHWATCH_WATCHES__OWN__POLL_INTERVAL": "15s",
            "BATCHWATCH_WATCHES__OWN__LOOKBACK": "24h",
            "BATCHWATCH_WATCHES__OWN__NOTIFY_BACKLOG": "false",
            "BATCHWATCH_WATCHES__LIKE_ALL__PROJECT_ID": "prj-1",
        }
    )
    own, like_all = given.watches["own"], given.watches["like_all"]

    assert ("https://api.cloud.eu.llamaindex.ai", "llx-own", 15.0, 86_400.0, False) == (
        own.base_url, own.api_key.get_secret_value(), own.poll_interval, own.lookback,
        own.notify_backlog,
    )  # fmt: skip
    assert ("https://llama.example", "llx-key", 5.0, 3_600.0, True, "prj-1") == (
        like_all.base_url, like_all.api_key.get_secret_value(), like_all.poll_interval,
        like_all.lookback, like_all.notify_backlog, like_all.project_id,
    )  # fmt: skip
    assert [(1_800.0, 43_200.0, 86_400.0), (7_200.0, 43_200.0, 86_400.0)] == [
        (one.stuck_after_pending, one.stuck_after_running, one.stuck_reminder)
        for one in (own, like_all)
    ]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://api.cloud.eu.llamaindex.ai", "https://api.cloud.eu.llamaindex.ai"),
        ("https://api.cloud.eu.llamaindex.ai/", "https://api.cloud.eu.llamaindex.ai"),
        ("api.cloud.eu.llamaindex.ai", "https://api.cloud.eu.llamaindex.ai"),
        ("HTTPS://Llama.Example:8443/prefix//", "https://llama.example:8443/prefix"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("  https://llama.example\n", "https://llama.example"),
    ],
)
def test_a_base_url_is_made_whole(text: str, url: str) -> None:
    """LlamaCloud's own page gives the European one without its scheme."""
    assert url == load(environ={**ENOUGH, "LLAMA_CLOUD_BASE_URL": text}).llama_cloud_base_url


@pytest.mark.parametrize(
    "text",
    ["ftp://llama.example", "https://", "https://h:port", "https://h:70000", "https://a b",
     "https://user:pw@llama.example", "user:pw@llama.example", "https://llama.example?a=b",
     "https://llama.example#a", "https://[::1", "https://a\tb"],
)  # fmt: skip
def test_a_base_url_holds_nothing_but_the_way(text: str) -> None:
    """A key is sent there: no login, no query, nothing that a slip put there."""
    with pytest.raises(SettingsError) as caught:
        load(environ={**ENOUGH, "LLAMA_CLOUD_BASE_URL": text})

    assert ["LLAMA_CLOUD_BASE_URL"] == [problem.name for problem in caught.value.problems]
    assert "pw" not in str(caught.value)


# -------------------------------------------------------------------------------- endpoints


def test_the_shortcuts_make_endpoints_of_their_names() -> None:
    """One webhook and one Slack channel need no names."""
    given = settings(WEBHOOK_SECRET=SIGNING_SECRET, SLACK_WEBHOOK_URL="https://slack.example/x")
    webhook, slack = given.endpoints["webhook"], given.endpoints["slack"]

    assert isinstance(webhook, WebhookSettings)
    assert isinstance(slack, SlackSettings)
    assert webhook.secret == given.webhook_secret
    assert (16, 1) == (webhook.concurrency, slack.concurrency)


@pytest.mark.parametrize(
    ("variables", "type_"),
    [
        ({"URL": SLACK_URL}, "slack"),
        ({"URL": SLACK_URL.upper()}, "slack"),
        ({"URL": "https://hooks.slack-gov.com/services/x"}, "slack"),
        ({"URL": "https://hooks.slack.com.evil.example/x"}, "webhook"),
        ({"URL": "https://receiver.example/hooks.slack.com"}, "webhook"),
        ({"URL": SLACK_URL, "TYPE": "webhook"}, "webhook"),
        ({"URL": "http://127.0.0.1:1/stand-in", "TYPE": "Slack"}, "slack"),
    ],
)
def test_the_host_of_the_url_tells_the_type_unless_it_is_given(
    variables: dict[str, str], type_: str
) -> None:
    """Slack reads nothing but its own format, so a URL of Slack's means it."""
    assert type_ == ops(**variables).type


@pytest.mark.parametrize(
    ("variables", "given"),
    [
        ({"RETENTION": "7d", "LOOKBACK": "6d1s"}, "7d, and BATCHWATCH_LOOKBACK is 144h1s"),
        ({"LOOKBACK": "90d"}, "90d, and BATCHWATCH_LOOKBACK is 90d"),
        (
            {"RETENTION": "7d", "WATCHES__EU__LOOKBACK": "7d", "WATCHES__EU__API_KEY": "llx-eu"},
            "7d, and BATCHWATCH_WATCHES__EU__LOOKBACK is 7d",
        ),
    ],
)
def test_nothing_is_kept_for_less_than_a_watch_may_look_back(
    variables: dict[str, str], given: str
) -> None:
    """One that begins anew would list what was removed, and tell it as news."""
    problem = the_problem(**variables)

    assert ("BATCHWATCH_RETENTION", given) == (problem.name, problem.given)
    assert "a day more than each lookback at least" == problem.expected


def test_a_day_more_than_the_lookback_is_enough() -> None:
    """And a retention that is none is told once, by its own check."""
    assert 7 * 86_400 == settings(RETENTION="7d", LOOKBACK="6d").retention
    assert "a duration from 2d to 3650d" == the_problem(RETENTION="1d").expected


def test_an_unknown_type_of_endpoint_names_those_there_are() -> None:
    """Mail and others come another day."""
    problem = the_problem(ENDPOINTS__OPS__URL="https://a.example", ENDPOINTS__OPS__TYPE="teams")

    assert ("BATCHWATCH_ENDPOINTS__OPS__TYPE", "webhook or slack") == (
        problem.name,
        problem.expected,
    )


def test_a_setting_of_another_type_is_told() -> None:
    """Slack signs nothing, so a secret for it is a misunderstanding."""
    problem = the_problem(ENDPOINTS__OPS__URL=SLACK_URL, ENDPOINTS__OPS__SECRET=SIGNING_SECRET)

    assert "BATCHWATCH_ENDPOINTS__OPS__SECRET" == problem.name
    assert "a setting that this type of endpoint does not have" == problem.given


def test_an_endpoint_without_a_url_is_told() -> None:
    """It was named, so it was meant."""
    problem = the_problem(ENDPOINTS__OPS__TIMEOUT="5s")

    made = "nothing, while BATCHWATCH_ENDPOINTS__OPS__TIMEOUT makes the endpoint ops"
    assert ("BATCHWATCH_ENDPOINTS__OPS__URL", made) == (problem.name, problem.given)


def test_a_slip_in_the_name_of_an_endpoint_is_told_with_the_one_there_is() -> None:
    """It is no unknown setting: it makes another endpoint, which lacks its URL."""
    problem = the_problem(ENDPOINTS__OPS__URL="https://a.example", ENDPOINTS__OPSS__TIMEOUT="5s")

    assert "BATCHWATCH_ENDPOINTS__OPSS__TIMEOUT makes the endpoint opss" in problem.given
    assert "Did you mean ops? If not, set it." == problem.fix


@pytest.mark.parametrize("name", ["webhook", "slack"])
def test_a_shortcut_and_an_endpoint_of_its_name_contradict(name: str) -> None:
    """One would silently replace the other."""
    shortcut = {"webhook": "WEBHOOK_URL", "slack": "SLACK_WEBHOOK_URL"}[name]
    problem = the_problem(
        **{
            shortcut: "https://one.example",
            f"ENDPOINTS__{name.upper()}__URL": "https://two.example",
        }
    )

    assert f"BATCHWATCH_{shortcut}" == problem.name
    assert f"an endpoint called {name}, and there is another one of that name" == problem.given


def test_a_slack_url_in_the_webhook_s_place_is_told() -> None:
    """Slack would refuse every message."""
    problem = the_problem(WEBHOOK_URL=SLACK_URL)

    assert "Use BATCHWATCH_SLACK_WEBHOOK_URL for it." == problem.fix


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin with whsec_"),
        ("whsec_", "is 0 bytes after decoding"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS=", "is 23 bytes after decoding"),
        ("whsec_" + "A" * 88, "is 66 bytes after decoding"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "is no base64 after whsec_"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2La-_Sw", "is no base64 after whsec_"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LäLaSw", "is no base64 after whsec_"),
    ],
)
def test_a_signing_secret_is_one_that_every_library_reads(secret: str, reason: str) -> None:
    """Standard Webhooks: whsec_, then 24 to 64 bytes in base64 with its padding."""
    problem = the_problem(WEBHOOK_SECRET=secret)

    assert f"hidden ({len(secret)} characters), which {reason}" == problem.given


def test_the_url_of_an_endpoint_shows_scheme_and_host_alone() -> None:
    """Whoever knows the rest can post with it; login, path and query stay hidden everywhere."""
    hidden = "https://user:pw@receiver.example:8443/hook/token?sig=abc"
    url = settings(WEBHOOK_URL=hidden).endpoints["webhook"].url

    assert "https://receiver.example:8443/…" == url.shown == str(url) == f"{url}"
    assert "SecretUrl('https://receiver.example:8443/…')" == repr(url)
    assert hidden == url.get_secret_value()
    assert "https://receiver.example" == SecretUrl("https://receiver.example/").shown


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("receiver.example/hook", "without http:// or https:// before it"),
        ("localhost:9000/hook", "without http:// or https:// before it"),
        ("ftp://receiver.example", "whose scheme is neither http nor https"),
        ("https://receiver.example:99999/", "with a port that is no number up to 65535"),
        ("https://receiver.example:hook/", "with a port that is no number up to 65535"),
        ("https://[receiver.example/", "with a host that is none"),
        ("https://", "without a host"),
        ("https://a#b", "with a fragment"),
        ("https://a b", "with white space or a control character in it"),
    ],
)
def test_the_url_of_an_endpoint_is_a_url(url: str, reason: str) -> None:
    """With its scheme: whether a hook may travel unencrypted is not for us to guess.

    The reason shows nothing of it.
    """
    problem = the_problem(WEBHOOK_URL=url)

    assert "BATCHWATCH_WEBHOOK_URL" == problem.name
    assert f"hidden ({len(url)} characters), {reason}" == problem.given


@pytest.mark.parametrize("name", ["CONTENT_TYPE", "HOST", "WEBHOOK_ID", "WEBHOOK_SIGNATURE"])
def test_a_header_that_is_ours_cannot_be_set(name: str) -> None:
    """A receiver must be able to trust them."""
    problem = the_problem(
        **{"ENDPOINTS__OPS__URL": "https://a.example", f"ENDPOINTS__OPS__HEADERS__{name}": "x"}
    )

    assert f"BATCHWATCH_ENDPOINTS__OPS__HEADERS__{name}" == problem.name
    assert problem.given.endswith("which batchwatch sets itself")


@pytest.mark.parametrize("text", ["a\r\nx-evil: b", "a\nb", "a\x00b", "a\x7fb", "a\x85b", "a→b"])
@pytest.mark.parametrize("name", ["ENDPOINTS__OPS__HEADERS__X_KEY", "API_TOKEN"])
def test_what_no_header_can_carry_is_refused(name: str, text: str) -> None:
    """A line break in a value would smuggle in a header of its own."""
    url = {"ENDPOINTS__OPS__URL": "https://a.example"}

    problem = the_problem(**{**url, name: text + "0123456789abcdef"})
    assert f"BATCHWATCH_{name}" == problem.name
    assert problem.given.startswith(f"hidden ({len(text) + 16} characters), with ")


def test_white_space_in_a_key_is_refused() -> None:
    """It is a slip in copying, which LlamaCloud would answer with a puzzling 401."""
    with pytest.raises(SettingsError, match=r"hidden \(8 characters\), with white space in it"):
        load(environ={**ENOUGH, "LLAMA_CLOUD_API_KEY": "llx-key "})


# ----------------------------------------------------------------------------------- routes


def test_without_routes_there_are_none() -> None:
    """What an endpoint without a route hears of depends on its kind, and is not decided here."""
    assert {} == settings(ENDPOINTS__OPS__URL="https://a.example").routes


def test_a_star_among_endpoints_is_all_of_them() -> None:
    """Spelled out, so that nobody after us has to."""
    given = settings(ENDPOINTS__OPS__URL="https://a.example", ROUTES__R__ENDPOINTS="*")

    assert ("webhook", "ops") == given.routes["r"].endpoints


@pytest.mark.parametrize("pattern", ["batch.completed", "batch.*", "watch.*", "*", "batch.unknown"])
def test_events_are_chosen_by_type_by_group_or_all(pattern: str) -> None:
    """Whatever matches at least one type there is."""
    given = settings(ROUTES__R__ENDPOINTS="webhook", ROUTES__R__EVENTS=pattern)

    assert (pattern,) == given.routes["r"].events


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("batch.complete", "batch.completed"),
        ("batches.*", "batch.*"),
        ("Batch.failed", "batch.failed"),
        ("batch.succeeded", None),
        ("batch", None),
        ("*.failed", None),
    ],
)
def test_a_pattern_that_matches_nothing_is_told(pattern: str, near: str | None) -> None:
    """Such a route would be silent for ever."""
    problem = the_problem(
        ROUTES__R__ENDPOINTS="webhook", ROUTES__R__EVENTS=f"batch.failed,{pattern}"
    )

    assert f"'{pattern}' as entry 2" == problem.given
    if near:
        assert f"Did you mean {near}?" == problem.fix


def test_a_route_can_only_name_what_there_is() -> None:
    """Watches and endpoints, those of the shortcuts included."""
    given = settings(ROUTES__R__ENDPOINTS="webhook", ROUTES__R__WATCHES="default")
    problem = the_problem(ROUTES__R__ENDPOINTS="webhok")

    assert (("default",), ("webhook",)) == (given.routes["r"].watches, given.routes["r"].endpoints)
    assert ("'webhok'", "one of the endpoints: webhook", "Did you mean webhook?") == (
        problem.given, problem.expected, problem.fix,
    )  # fmt: skip
    assert (
        "BATCHWATCH_ROUTES__R__WATCHES"
        == the_problem(ROUTES__R__ENDPOINTS="*", ROUTES__R__WATCHES="main").name
    )


def test_a_route_without_endpoints_is_told() -> None:
    """It leads nowhere."""
    assert "BATCHWATCH_ROUTES__R__ENDPOINTS" == the_problem(ROUTES__R__EVENTS="*").name


@pytest.mark.parametrize("name", ["Ops", "-ops", "_ops", "o p s", "ö", "o" * 64, "ops!"])
def test_names_are_plain(tmp_path: Path, name: str) -> None:
    """They stand in URLs, metrics and logs."""
    file = tmp_path / "batchwatch.yaml"
    file.write_text(f"endpoints: {{'{name}': {{url: https://a.example}}}}", encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load(file, environ=ENOUGH)

    assert [f"endpoints.{name} ({file}, line 1)"] == [
        problem.name for problem in caught.value.problems
    ]


# ------------------------------------------------------------------------------ the daemon


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:8080", Address("::1", 8080)),
        ("127.9.9.9:65535", Address("127.9.9.9", 65535)),
    ],
)
def test_loopback_needs_no_token(text: str, address: Address) -> None:
    """Only this machine can reach it; port 0 lets the system choose."""
    assert address == settings(LISTEN=text).listen
    assert text == str(address)


@pytest.mark.parametrize(
    "text", ["0.0.0.0:8080", "[::]:8080", "10.0.0.7:80", "batchwatch.example:80"]
)
def test_the_open_needs_a_token(text: str) -> None:
    """Or anybody could read, and replay."""
    problem = the_problem(LISTEN=text)

    assert f"{text}, and no BATCHWATCH_API_TOKEN" == problem.given
    assert text == str(settings(LISTEN=text, API_TOKEN="0123456789abcdef").listen)


def test_the_open_is_as_good_with_a_token_of_those_who_only_look() -> None:
    """Then the others may nothing at all."""
    found = settings(LISTEN="0.0.0.0:8080", READ_TOKEN="0123456789abcdef")

    assert (None, True) == (found.api_token, found.read_token is not None)


def test_the_open_is_had_without_a_token_by_name_only() -> None:
    """Nobody sets that by accident; and a wrong word there is told as one mistake."""
    assert settings(LISTEN="0.0.0.0:8080", ALLOW_ANYONE="true").allow_anyone
    assert "BATCHWATCH_LISTEN" == the_problem(LISTEN="0.0.0.0:8080", ALLOW_ANYONE="no").name
    assert "BATCHWATCH_ALLOW_ANYONE" == the_problem(LISTEN="0.0.0.0:1", ALLOW_ANYONE="maybe").name


def test_one_token_is_not_for_both() -> None:
    """Or whoever is given it to look could do everything; and neither is shown."""
    problem = the_problem(API_TOKEN="0123456789abcdef", READ_TOKEN="0123456789abcdef")

    assert ("BATCHWATCH_READ_TOKEN", "the same as BATCHWATCH_API_TOKEN") == (
        problem.name,
        problem.given,
    )


@pytest.mark.parametrize("text", ["/batchwatch", "/tools/batch-watch", "/a.b/~c"])
def test_a_path_prefix_is_a_plain_path(text: str) -> None:
    """It ends up in links, redirects and a cookie, as it stands."""
    assert text == settings(PATH_PREFIX=text).path_prefix


@pytest.mark.parametrize(
    "text",
    [
        "/",
        "batchwatch",
        "/b/",
        "//b",
        "/b//c",
        "/..",
        "/b/../c",
        "/.",
        "/b c",
        "/b;x",
        "/%62",
        "/ä",
    ],
)
def test_what_is_no_plain_path_is_no_prefix(text: str) -> None:
    """With the form that it has."""
    assert "/batchwatch" in the_problem(PATH_PREFIX=text).fix


@pytest.mark.parametrize(
    "text",
    ["8080", ":8080", "::1:8080", "[::1]", "127.0.0.1", "h:99999", "[h]:1", "http://h:1", "h:-1"],
)
def test_what_is_no_address_is_refused_with_examples(text: str) -> None:
    """Host and port, both."""
    assert "[::1]:8080" in the_problem(LISTEN=text).fix


def test_a_token_that_can_be_guessed_is_refused() -> None:
    """Sixteen characters are the least."""
    given = "hidden (15 characters), which is too short"
    assert given == the_problem(API_TOKEN="0123456789abcde").given


def test_the_database_is_a_file_in_the_data_folder() -> None:
    """Unless it is said to be elsewhere."""
    url = settings(DATA_DIR="/data").database_url

    assert "sqlite+aiosqlite:////data/batchwatch.db" == url.get_secret_value()
    assert "sqlite:////data/batchwatch.db" == url.shown


def test_any_data_folder_makes_a_url_that_leads_there() -> None:
    """SQLAlchemy cuts a path at its question mark, and reads %20 as a space, unless quoted."""
    from sqlalchemy import make_url  # noqa: PLC0415 - the judge

    url = settings(DATA_DIR="/my data/50%20?#é").database_url

    assert "/my data/50%20?#é/batchwatch.db" == make_url(url.get_secret_value()).database


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("sqlite:///here.db", "sqlite+aiosqlite:///here.db"),
        ("sqlite:////data/b.db", "sqlite+aiosqlite:////data/b.db"),
        ("SQLITE+aiosqlite:////data/b.db", "sqlite+aiosqlite:////data/b.db"),
        ("sqlite:///~/b.db", f"sqlite+aiosqlite:///{Path.home()}/b.db"),
    ],
)
def test_the_plain_url_of_a_database_gets_its_driver(text: str, url: str) -> None:
    """Which driver we use is no concern of the user's."""
    assert url == settings(DATABASE_URL=text).database_url.get_secret_value()


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("postgresql://u:hunter2@h/db", "postgresql+asyncpg://u:hunter2@h/db"),
        (
            "postgres://u:hunter2@h:5433/db?ssl=require",
            "postgresql+asyncpg://u:hunter2@h:5433/db?ssl=require",
        ),
        ("postgresql+asyncpg://u@/db?host=/run/pg", "postgresql+asyncpg://u@/db?host=/run/pg"),
        (
            "postgresql://u:hunter2@h1:5432,[::1]:5433/db?sslmode=require",
            "postgresql+asyncpg://u:hunter2@/db?host=h1%3A5432%2C%5B%3A%3A1%5D%3A5433&sslmode=require",
        ),
        ("postgresql://u:hunter2?#@h/db", "postgresql+asyncpg://u:hunter2%3F%23@h/db"),
        ("postgresql://h:1/db?options=x@y", "postgresql+asyncpg://h:1/db?options=x%40y"),
    ],
)
def test_a_database_may_be_postgresqls(text: str, url: str) -> None:
    """Its password is shown to nobody."""
    found = settings(DATABASE_URL=text).database_url

    assert url == found.get_secret_value()
    assert "hunter2" not in found.shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://u:hunter2@h:5433/db?ssl=require", "postgresql://h:5433/db"),
        ("postgresql://u:hunter2@h1:5432,[::1]/db", "postgresql://h1:5432,[::1]/db"),
        ("postgresql://u:hunter2@/db?host=/run/pg", "postgresql:///db"),
    ],
)
def test_of_a_database_its_hosts_and_its_name_are_shown(text: str, shown: str) -> None:
    """That is enough to recognise it, and no login is in it."""
    assert shown == settings(DATABASE_URL=text).database_url.shown


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("postgresql://u:hunter2@h1:5432,[::1]:5433/db", ("h1", "::1")),
        ("postgresql:///db?host=/run/pg:1,h2:5432", ("/run/pg:1", "h2")),
        ("postgresql://%2Frun%2Fpg/db", ("/run/pg",)),
        ("postgresql:///db", ()),
        ("sqlite:///host/db", ()),
    ],
)
def test_the_hosts_of_a_database_are_known(text: str, hosts: tuple[str, ...]) -> None:
    """However they are written; without their ports."""
    assert hosts == settings(DATABASE_URL=text).database_url.hosts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("postgresql://u:hunter2@[::1/db", "a host that is none"),
        ("postgresql://u:hunter2@[hunter2]/db", "a host that is none"),
        ("postgresql://u:hunter2@h1,/db", "a host that is none"),
        ("postgresql://u:hunter2@/db?host=a:b:c", "a host that is none"),
        ("postgresql://u:hunter2@h/db?host=other", "hosts in two places"),
        ("postgresql://u:hunter2@h:/db", "a port that is no number"),
        ("postgresql://u:hunter2@h:x/db", "a port that is no number"),
        ("postgresql://u:hunter2@h:65536/db", "a port that is no number"),
        ("postgresql://u:hunter2@h/db?port=5432,x", "a port that is no number"),
        ("postgresql://u:hunter2/2@h/db", "a /, @ or # in a place where it means something"),
        ("postgresql://u:hunter2@2@h/db", "a /, @ or # in a place where it means something"),
        ("postgresql://u:hunter2@h/d%00b", "a control character in it"),
    ],
)
def test_a_server_that_cannot_be_meant_is_refused(text: str, said: str) -> None:
    """By what is wrong with it, for the drivers would end in a traceback with the password."""
    problem = the_problem(DATABASE_URL=text)

    assert f"'postgresql://…', with {said}" in problem.given
    assert "hunter2" not in str(problem)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:hunter2@2/2@h/db",
        "postgresql://u:hunter2/2@h/db",
        "postgresql://u:hunter2@2@h/db",
        "postgresql://u:hunter2/2?@h/db",
    ],
)
def test_a_password_that_cuts_its_url_is_to_be_percent_encoded(text: str) -> None:
    """Whatever the rest was then taken for."""
    problem = the_problem(DATABASE_URL=text)

    assert "In user and password, percent-encode @ as %40, / as %2F, : as %3A." == problem.fix
    assert "hunter2" not in str(problem)


@pytest.mark.parametrize("path", ["/data/batchwatch.db", "old.sqlite", "~/b.db"])
def test_the_plain_path_of_a_database_is_answered_with_its_url(path: str) -> None:
    """It is shown, for it is no secret."""
    problem = the_problem(DATABASE_URL=path)

    assert (repr(path), f"Did you mean sqlite:///{path}?") == (problem.given, problem.fix)


def test_a_file_that_is_there_is_no_secret_whatever_it_is_called(tmp_path: Path) -> None:
    """Anything else that is no URL may be one, and is not shown."""
    path = tmp_path / "store"
    secret = the_problem(DATABASE_URL=str(path))
    path.touch()

    assert f"Did you mean sqlite:///{path}?" == the_problem(DATABASE_URL=str(path)).fix
    assert f"hidden ({len(str(path))} characters)" == secret.given


_PIECES = (
    *(
        "h",
        "1",
        "é",
        "\u2100",
        "\uff11",
        "::1",
        "[::1]",
        "[",
        "]",
        ":",
        ":5432",
        "@",
        "/",
        "?",
        "#",
    ),
    *("%", "%2F", "%40", "%00", ",", "&", "=", " ", "host=", "port=", "sslmode=", "/db"),
)
_ODD = st.lists(st.sampled_from(_PIECES), max_size=7).map("".join)


@given(_ODD, _ODD)
@example("h:", "")  # an empty port
@example("h1:5432,h2:5432", "")
@example("u:1@[x]", "")
def test_whatever_url_of_a_server_is_let_through_can_be_used(place: str, more: str) -> None:
    """By SQLAlchemy, which opens the store, and then by the driver, which takes it apart anew."""
    from sqlalchemy import make_url  # noqa: PLC0415 - the judge

    try:
        found = Database().read(f"postgresql://{place}/db{more}")
    except Invalid:
        return
    url = make_url(found.get_secret_value())

    urlsplit(url.render_as_string(hide_password=False)).port  # noqa: B018 - raises for one that is none
    assert url.host or url.query.get("host") or not found.hosts
    assert not url.password or f":{url.password}@" not in found.shown


@pytest.mark.parametrize("text", ["postgresql://h", "postgresql://h/", "postgresql://h/a/b"])
def test_a_server_without_a_database_is_refused(text: str) -> None:
    """Each daemon that shares it must name the same one."""
    assert "name" in the_problem(DATABASE_URL=text).fix


@pytest.mark.parametrize(
    "text",
    ["/data/b.db", "sqlite://", "sqlite:///", "sqlite://b.db", "sqlite:///:memory:", "mysql://u:hunter2@h",
     "sqlite:///file::memory:?uri=true"],
)  # fmt: skip
def test_a_database_that_is_no_file_is_refused(text: str) -> None:
    """What is only in memory would be lost with the process."""
    problem = the_problem(DATABASE_URL=text)

    assert "BATCHWATCH_DATABASE_URL" == problem.name
    assert "hunter2" not in str(problem)


def test_state_lies_where_xdg_wants_it() -> None:
    """``$XDG_STATE_HOME``, or ``~/.local/state``; a relative one is invalid by that standard."""
    home = {**ENOUGH, "HOME": "/home/me"}
    found = [
        load(environ=home | more).data_dir
        for more in ({}, {"XDG_STATE_HOME": "/state"}, {"XDG_STATE_HOME": "state"})
    ]

    usual = Path("/home/me/.local/state/batchwatch")
    assert [usual, Path("/state/batchwatch"), usual] == found


def test_without_a_home_folder_the_data_folder_must_be_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some containers run under a user id that no user has."""

    def no_home(_: type[Path]) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(Path, "home", classmethod(no_home))

    assert "Set BATCHWATCH_DATA_DIR." == the_problem().fix
    assert Path("/data") == settings(DATA_DIR="/data").data_dir


@pytest.mark.parametrize(
    ("name", "text", "given"),
    [
        ("POLL_INTERVAL", "99ms", "'99ms', which is less than 100ms"),
        ("POLL_INTERVAL", "25h", "'25h', which is more than 24h"),
        ("SHUTDOWN_GRACE", "-1s", "'-1s'"),
        ("LOOKBACK", "for ever", "'for ever'"),
        ("NOTIFY_BACKLOG", "maybe", "'maybe'"),
        ("LOG_LEVEL", "verbose", "'verbose'"),
        ("WATCHES__A__REQUESTS_PER_MINUTE", "0", "'0', which is less than 1"),
        ("WATCHES__A__REQUESTS_PER_MINUTE", "1_000", "'1_000'"),
        ("WATCHES__A__REQUESTS_PER_MINUTE", "1.5", "'1.5'"),
        ("WATCHES__A__PROJECT_ID", "prj/../x", "'prj/../x'"),
        ("ENDPOINTS__WEB__CONCURRENCY", "257", "'257', which is more than 256"),
        ("ENDPOINTS__WEB__RETRY_SCHEDULE", "0s,soon", "'soon' as entry 2"),
        ("ENDPOINTS__WEB__RETRY_SCHEDULE", ",", "a list of 0 entries"),
        ("ENDPOINTS__WEB__RETRY_SCHEDULE", "1s," * 51, "a list of 51 entries"),
        ("ENDPOINTS__WEB__TIMEOUT", "0s", "'0s', which is less than 100ms"),
    ],
)
def test_a_value_out_of_bounds_is_told_as_it_was_given(name: str, text: str, given: str) -> None:
    """Under the variable that holds it."""
    problem = the_problem(**{"ENDPOINTS__WEB__URL": "https://a.example", name: text})

    assert (f"BATCHWATCH_{name}", given) == (problem.name, problem.given)


def test_a_plain_number_below_the_least_is_asked_about_with_a_unit() -> None:
    """``90`` of what is kept for days is no 90 seconds; where no unit helps, none is named."""
    days = the_problem(RETENTION="90")

    assert "'90', which is less than 2d" == days.given
    assert "Did you mean 90d? A plain number is seconds." == days.fix
    assert "Did you mean" not in the_problem(RETENTION="1").fix
    assert "Did you mean" not in the_problem(RETENTION="90s").fix


# ------------------------------------------------------------------------------ as a whole


def test_to_run_takes_a_key_and_an_endpoint() -> None:
    """Commands that only look do without."""
    with pytest.raises(SettingsError) as caught:
        load(environ={})
    looking = load(environ={}, for_run=False)

    names = [problem.name for problem in caught.value.problems]
    assert ["LLAMA_CLOUD_API_KEY", "BATCHWATCH_WEBHOOK_URL"] == names
    assert not looking.watches["default"].api_key
    assert {} == looking.endpoints


def test_to_run_each_watch_takes_a_key() -> None:
    """Its own, or the one for all."""
    environ = {
        "BATCHWATCH_WEBHOOK_URL": "https://receiver.example/hook",
        "BATCHWATCH_WATCHES__A__API_KEY": "llx-a",
        "BATCHWATCH_WATCHES__B__PROJECT_ID": "prj-b",
    }
    with pytest.raises(SettingsError) as caught:
        load(environ=environ)

    assert ["BATCHWATCH_WATCHES__B__API_KEY"] == [problem.name for problem in caught.value.problems]
    b = load(environ={**environ, **KEY}).watches["b"]
    assert "llx-key" == b.api_key.get_secret_value()


def test_settings_can_be_made_without_reading_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """``Settings(...)`` is its arguments and nothing else, and as strict as `load`."""
    monkeypatch.setenv("BATCHWATCH_POLL_INTERVAL", "1s")
    monkeypatch.setenv("POLL_INTERVAL", "1s")

    assert 15.0 == Settings().poll_interval
    with pytest.raises(SettingsError, match="BATCHWATCH_LISTEN"):
        Settings(listen=Address("0.0.0.0", 80))  # noqa: S104 - what is refused here


def test_settings_are_frozen() -> None:
    """What was checked stays as it was checked."""
    given = settings()

    with pytest.raises(ValidationError):
        given.poll_interval = 1.0
    with pytest.raises(ValidationError):
        given.watches["default"].poll_interval = 1.0
