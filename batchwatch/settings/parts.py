"""What can be set by name: watches, endpoints and routes."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, SecretStr, Tag

from batchwatch.settings.events import EventPattern
from batchwatch.settings.kinds import Choice, Duration, Flag, ListOf, Location, Rate, Whole, Word
from batchwatch.settings.secrets import HeaderName, HeaderValue, Key, Keys, Login
from batchwatch.settings.signing import SigningSecret, SigningSecrets
from batchwatch.settings.urls import BaseUrl, EndpointUrl, Network, ProxyUrl, SecretUrl

LLAMA_CLOUD = "https://api.cloud.llamaindex.ai"

NAME = Word(
    r"[a-z0-9][a-z0-9_-]{0,62}",
    allowed="a name of at most 63 lower-case letters, digits, - and _, the first no - or _",
    fix="Choose another name.",
)
_ID = Word(
    r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}",
    allowed="an id of LlamaCloud, such as prj-… or a UUID",
    fix="Copy the id again from LlamaCloud.",
)
_NAMES = ListOf(
    Word(
        rf"\*|{NAME.form.pattern}",
        allowed="a name, or * for all",
        fix="Use names as they are configured.",
    )
)
UPSTREAM_KEY = Key(fix="Copy the key again from LlamaCloud's page of API keys.")
POLL_INTERVAL = Duration("100ms", "1d")
LOOKBACK = Duration("1s", "365d")
RETENTION = Duration("2d", "3650d")
KEPT = 90 * 86400.0  # seconds, unless it is set
SETTLE_DEADLINE = Duration("1m", "30d")
HINT_SECRETS = Keys(Key(minimum=16, fix="Make one with: openssl rand -hex 32"), least=0, most=10)
STUCK_AFTER = Duration("1s", "365d")
NETWORKS = ListOf(Network(), least=0)  # none, to take back what is set for all
TOKEN = Key(minimum=16, fix="Make one with: openssl rand -hex 32")
PATH_PREFIX = Word(
    r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,62}){1,8}",
    allowed="a path of letters, digits, - . _ ~ that begins with / and does not end with one",
    fix="Write it like /batchwatch.",
)
_STATUSES = ListOf(Whole(300, 599), least=0, most=100)
_RATE = Rate()
_RATE_MEANING = "How many deliveries may be begun in a time, evenly spread."
_RETRIES = ListOf(Duration("0s", "7d"), most=50)

# More and more patiently, over three days in all.
_RETRY_SCHEDULE = (
    5.0, 30.0, 5 * 60.0, 30 * 60.0,
    *(hours * 3600.0 for hours in (2, 5, 10, 14, 20, 24)),
)  # fmt: skip


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class WatchSettings(_Part):
    """One key and the batches that it can see."""

    base_url: Annotated[str, BaseUrl()] = Field(
        default=LLAMA_CLOUD,
        description="Where this watch finds LlamaCloud.",
    )
    api_key: Annotated[SecretStr, UPSTREAM_KEY] = Field(
        default=SecretStr(""),  # empty only when loaded with for_run=False
        description="The API key of this watch; a key is valid for one project and region.",
    )
    project_id: Annotated[str | None, _ID] = Field(
        default=None,
        description="Watch only this project; rarely needed, since a key belongs to one.",
    )
    organization_id: Annotated[str | None, _ID] = Field(
        default=None,
        description="The organisation to ask for; rarely needed.",
    )
    source_directory_id: Annotated[str | None, _ID] = Field(
        default=None,
        description="Watch only batches over this directory.",
    )
    poll_interval: Annotated[float, POLL_INTERVAL] = Field(
        default=15.0,
        description="How often this watch looks.",
    )
    lookback: Annotated[float, LOOKBACK] = Field(
        default=24 * 3600.0,
        description="How far back this watch looks the first time.",
    )
    notify_backlog: Annotated[bool, Flag()] = Field(
        default=False,
        description="Whether this watch notifies of what was over before its first look.",
    )
    settle_deadline: Annotated[float, SETTLE_DEADLINE] = Field(
        default=24 * 3600.0,
        description="How long after a batch's end this watch follows its jobs.",
    )
    file_names: Annotated[bool, Flag()] = Field(
        default=False,
        description="Whether this watch asks for the names of a batch's files.",
    )
    stuck_after_pending: Annotated[float, STUCK_AFTER] = Field(
        default=2 * 3600.0,
        description="How long a batch of this watch may be PENDING before it is stuck.",
    )
    stuck_after_throttled: Annotated[float, STUCK_AFTER] = Field(
        default=6 * 3600.0,
        description="How long a batch of this watch may be THROTTLED.",
    )
    stuck_after_running: Annotated[float, STUCK_AFTER] = Field(
        default=12 * 3600.0,
        description="How long a batch of this watch may be RUNNING.",
    )
    stuck_reminder: Annotated[float, STUCK_AFTER] = Field(
        default=12 * 3600.0,
        description="After how long this watch tells again that a batch is stuck.",
    )
    requests_per_minute: Annotated[int, Whole(1, 60_000)] = Field(
        default=1200,
        description="The most requests this watch may send; 20 is the limit of a free plan.",
    )
    hint_secret: Annotated[tuple[SecretStr, ...], HINT_SECRETS] = Field(
        default=(),
        description="The webhook_signing_secret of upstream webhooks for this watch.",
    )


_TYPE = Choice("webhook", "slack")
_TYPE_MEANING = "The kind of receiver; where it is left out, the host of the URL tells."
_FORMAT = Choice("standard", "cloudevents", "cloudevents-binary")
_ORIGIN = Word(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*",
    allowed="a DNS name, such as batchwatch.example.com",
    fix="Write it without a scheme, a port and a path.",
)
_CONCURRENCY = Whole(1, 256)
_CONCURRENCY_MEANING = "How many deliveries may be under way at once."


class _Endpoint(_Part):
    type: Annotated[str, _TYPE]
    url: Annotated[SecretUrl, EndpointUrl()] = Field(
        description="Where notifications are posted.",
    )
    timeout: Annotated[float, Duration("100ms", "5m")] = Field(
        default=15.0,
        description="How long one delivery may take in all; after a minute of silence it is over, "
        "too.",
    )
    retry_schedule: Annotated[tuple[float, ...], _RETRIES] = Field(
        default=_RETRY_SCHEDULE,
        description="The waits before each retry; the first try is at once, and after the last "
        "retry it is a dead letter.",
    )
    final_statuses: Annotated[tuple[int, ...], _STATUSES] = Field(
        default=(),
        description="The HTTP statuses after which a delivery is not tried again but a dead "
        "letter at once; 410 needs none, since it disables the endpoint.",
    )
    proxy: Annotated[SecretUrl | None, ProxyUrl()] = Field(
        default=None,
        description="The proxy to go through; it resolves the host's name, and must itself guard "
        "what may be reached.",
    )
    public_only: Annotated[bool, Flag()] = Field(
        default=False,
        description="Whether this endpoint may only be at a public address.",
    )
    allow_addresses: Annotated[tuple[IPv4Network | IPv6Network, ...], NETWORKS] = Field(
        default=(),
        description="Where this endpoint may be all the same.",
    )
    tls_ca: Annotated[Path | None, Location()] = Field(
        default=None,
        description="The file with the certificates, in PEM, of those who vouch for the receiver, "
        "in place of the system's.",
    )
    tls_verify: Annotated[bool, Flag()] = Field(
        default=True,
        description="Whether the receiver must prove who it is; false lets anybody on the way "
        "read along.",
    )


class WebhookSettings(_Endpoint):
    """A program that is notified by POST requests, signed if there is a secret."""

    type: Annotated[Literal["webhook"], _TYPE] = Field(default="webhook", description=_TYPE_MEANING)
    concurrency: Annotated[int, _CONCURRENCY] = Field(
        default=16,
        description=_CONCURRENCY_MEANING,
    )
    rate_limit: Annotated[float | None, _RATE] = Field(
        default=None,
        description=_RATE_MEANING,
    )
    secret: Annotated[tuple[SigningSecret, ...], SigningSecrets()] = Field(
        default=(),
        description="Signs each message by Standard Webhooks; of several, each that has not "
        "expired does. Without one, nothing is signed.",
    )
    format: Annotated[Literal["standard", "cloudevents", "cloudevents-binary"], _FORMAT] = Field(
        default="standard",
        description="How an event is written: the envelope of Standard Webhooks, or CloudEvents "
        "with all of it in the body or with its attributes in the headers.",
    )
    handshake: Annotated[bool, Flag()] = Field(
        default=False,
        description="Whether to ask the receiver by OPTIONS before the first message, as "
        "CloudEvents does, and to send nothing until it agrees.",
    )
    origin: Annotated[str, _ORIGIN] = Field(
        default="batchwatch",
        description="The DNS name that we go by in the handshake.",
    )
    headers: dict[Annotated[str, HeaderName()], Annotated[SecretStr, HeaderValue()]] = Field(
        default={},
        description="Extra headers by their names; in a variable's name, _ stands for a hyphen.",
    )
    basic_auth: Annotated[SecretStr | None, Login()] = Field(
        default=None,
        description="User and password that the receiver asks for.",
    )
    bearer_token: Annotated[
        SecretStr | None, Key(fix="Copy the token again from the receiver.")
    ] = Field(
        default=None,
        description="The token that the receiver asks for, as Authorization: Bearer.",
    )
    tls_certificate: Annotated[Path | None, Location()] = Field(
        default=None,
        description="The file with our own certificate, in PEM, for receivers that ask for one.",
    )
    tls_key: Annotated[Path | None, Location()] = Field(
        default=None,
        description="The file with that certificate's key, in PEM and without a passphrase, if it "
        "is not in the same file.",
    )


class SlackSettings(_Endpoint):
    """A Slack channel that is notified through its incoming webhook."""

    type: Annotated[Literal["slack"], _TYPE] = Field(default="slack", description=_TYPE_MEANING)
    # Slack lets about one message a second through, so more would only collect refusals.
    concurrency: Annotated[int, _CONCURRENCY] = Field(
        default=1,
        description=_CONCURRENCY_MEANING,
    )
    rate_limit: Annotated[float | None, _RATE] = Field(
        default=1.0,
        description=_RATE_MEANING,
    )


def _endpoint_type(given: object) -> str:
    """Say which of the endpoint models is meant, without judging anything else."""
    if isinstance(given, _Endpoint):
        return "slack" if isinstance(given, SlackSettings) else "webhook"
    if not isinstance(given, Mapping):
        return "webhook"
    if given.get("type"):
        return "slack" if str(given["type"]).strip().lower() == "slack" else "webhook"
    return "slack" if SecretUrl.of(given.get("url")).is_slack else "webhook"


EndpointSettings = Annotated[
    Annotated[WebhookSettings, Tag("webhook")] | Annotated[SlackSettings, Tag("slack")],
    Discriminator(_endpoint_type),
]


class RouteSettings(_Part):
    """Which events go where."""

    events: Annotated[tuple[str, ...], ListOf(EventPattern())] = Field(
        default=("*",),
        description="Types of events: batch.completed, all of a group as in batch.*, or *.",
    )
    watches: Annotated[tuple[str, ...], _NAMES] = Field(
        default=("*",),
        description="Names of watches whose events are meant, or * for all.",
    )
    endpoints: Annotated[tuple[str, ...], _NAMES] = Field(
        description="Names of endpoints that are notified, or * for all.",
    )
