"""What can be set: every setting with its kind, its default and its meaning.

These models are what the daemon is given. They are frozen, and complete: a
watch has its key and its interval, whether they were set for it or for all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import quote

from pydantic import Field, PrivateAttr, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from batchwatch.settings.kinds import Choice, Duration, Flag, Location
from batchwatch.settings.names import Origin
from batchwatch.settings.parts import (
    HINT_SECRETS,
    KEPT,
    LLAMA_CLOUD,
    LOOKBACK,
    NAME,
    NETWORKS,
    PATH_PREFIX,
    POLL_INTERVAL,
    RETENTION,
    SETTLE_DEADLINE,
    STUCK_AFTER,
    TOKEN,
    UPSTREAM_KEY,
    EndpointSettings,
    RouteSettings,
    SlackSettings,
    WatchSettings,
    WebhookSettings,
)
from batchwatch.settings.problems import SettingsError, problems_in
from batchwatch.settings.rules import contradictions
from batchwatch.settings.signing import SigningSecret, SigningSecrets
from batchwatch.settings.urls import (
    Address,
    BaseUrl,
    Database,
    DatabaseUrl,
    EndpointUrl,
    Listen,
    SecretUrl,
)

if TYPE_CHECKING:
    from pydantic import BaseModel, ModelWrapValidatorHandler

# What a watch or an endpoint takes from the settings for all where it has none of its own.
INHERITED: Mapping[str, Mapping[str, str]] = {
    "watches": {
        "api_key": "llama_cloud_api_key",
        "base_url": "llama_cloud_base_url",
        "poll_interval": "poll_interval",
        "lookback": "lookback",
        "notify_backlog": "notify_backlog",
        "settle_deadline": "settle_deadline",
        "file_names": "file_names",
        "hint_secret": "hint_secret",
        "stuck_after_pending": "stuck_after_pending",
        "stuck_after_throttled": "stuck_after_throttled",
        "stuck_after_running": "stuck_after_running",
        "stuck_reminder": "stuck_reminder",
    },
    "endpoints": {
        "public_only": "public_only",
        "allow_addresses": "allow_addresses",
    },
}


# What `Settings.from_layers` hands to pydantic-settings, which asks for sources by a class method.
_LAYERS: ContextVar[tuple[Mapping[str, object], ...]] = ContextVar("layers", default=())


class Settings(BaseSettings):
    """Everything that can be set.

    ``Settings(...)`` takes its arguments and nothing else; it is `load` that
    reads the environment and the files. Either raises `SettingsError` with
    all that is wrong.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    llama_cloud_api_key: Annotated[SecretStr | None, UPSTREAM_KEY] = Field(
        default=None,
        description="The API key of LlamaCloud, for all watches that have none of their own.",
    )
    llama_cloud_base_url: Annotated[str, BaseUrl()] = Field(
        default=LLAMA_CLOUD,
        description=(
            "Where LlamaCloud is; https://api.cloud.eu.llamaindex.ai for keys of the EU region."
        ),
    )
    webhook_url: Annotated[SecretUrl | None, EndpointUrl()] = Field(
        default=None,
        description="The short way to one webhook: the URL of an endpoint called webhook.",
    )
    webhook_secret: Annotated[tuple[SigningSecret, ...], SigningSecrets()] = Field(
        default=(),
        description="The secret that signs what goes to webhook_url, or several of them.",
    )
    slack_webhook_url: Annotated[SecretUrl | None, EndpointUrl()] = Field(
        default=None,
        description="The short way to one Slack channel: the incoming webhook of an endpoint "
        "called slack.",
    )
    poll_interval: Annotated[float, POLL_INTERVAL] = Field(
        default=15.0,
        description="How often to look while batches are active. While none is, it is four times "
        "as long, but not longer than a minute unless this is.",
    )
    lookback: Annotated[float, LOOKBACK] = Field(
        default=24 * 3600.0,
        description="How far back to look for batches at the very first start.",
    )
    notify_backlog: Annotated[bool, Flag()] = Field(
        default=False,
        description="Whether to notify of batches that were over before the very first start.",
    )
    settle_deadline: Annotated[float, SETTLE_DEADLINE] = Field(
        default=24 * 3600.0,
        description="How long after a batch's end its jobs are followed; then batch.settled tells "
        "what is known of them.",
    )
    file_names: Annotated[bool, Flag()] = Field(
        default=False,
        description="Whether to ask for the names of a batch's files, with one more request for "
        "each directory, so that failures can be told by name.",
    )
    hint_secret: Annotated[tuple[SecretStr, ...], HINT_SECRETS] = Field(
        default=(),
        description="The webhook_signing_secret that batches are created with, so that "
        "LlamaCloud's own webhooks have them looked at at once; while one is changed, both.",
    )
    stuck_after_pending: Annotated[float, STUCK_AFTER] = Field(
        default=2 * 3600.0,
        description="How long a batch may be PENDING before it is told of as stuck. One that takes "
        "far longer than batches like it is told of in any case.",
    )
    stuck_after_throttled: Annotated[float, STUCK_AFTER] = Field(
        default=6 * 3600.0,
        description="How long a batch may be THROTTLED.",
    )
    stuck_after_running: Annotated[float, STUCK_AFTER] = Field(
        default=12 * 3600.0,
        description="How long a batch may be RUNNING, or have a status that has no name here.",
    )
    stuck_reminder: Annotated[float, STUCK_AFTER] = Field(
        default=12 * 3600.0,
        description="After how long it is told again that a batch is stuck.",
    )
    public_only: Annotated[bool, Flag()] = Field(
        default=False,
        description="Whether endpoints may only be at public addresses; metadata services and the "
        "like are refused anyway.",
    )
    allow_addresses: Annotated[tuple[IPv4Network | IPv6Network, ...], NETWORKS] = Field(
        default=(),
        description="Where endpoints may be all the same; what is always refused needs an entry "
        "for the single address.",
    )
    data_dir: Annotated[Path, Location()] = Field(
        default_factory=lambda: default_data_dir(os.environ),
        description="The folder of everything that must survive a restart.",
    )
    database_url: Annotated[DatabaseUrl, Database()] = Field(
        default_factory=lambda data: _database_in(data["data_dir"]),
        description="Where the store is, if not in the data folder.",
    )
    retention: Annotated[float, RETENTION] = Field(
        default=KEPT,
        description="How long batches are kept after their end, with their events and deliveries; "
        "what is still active or owed stays. A day longer than each lookback at least.",
    )
    listen: Annotated[Address, Listen()] = Field(
        default=Address("127.0.0.1", 8080),
        description="Where pages, API, health and metrics are served; port 0 takes any free one. "
        "Anything but loopback needs an api_token or a read_token.",
    )
    api_token: Annotated[SecretStr | None, TOKEN] = Field(
        default=None,
        description="The token of those who may do everything: for programs as a bearer token, for "
        "people at the login page.",
    )
    read_token: Annotated[SecretStr | None, TOKEN] = Field(
        default=None,
        description="The token of those who may only look. Where it alone is set, nobody may more.",
    )
    allow_anyone: Annotated[bool, Flag()] = Field(
        default=False,
        description="Whether, where no token is set, whoever reaches listen may do everything, "
        "wherever that is and by whatever name it is asked for.",
    )
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NETWORKS] = Field(
        default=(),
        description="Where reverse proxies are whose X-Forwarded-For, -Proto and -Host are "
        "believed.",
    )
    path_prefix: Annotated[str | None, PATH_PREFIX] = Field(
        default=None,
        description="The path under which a reverse proxy serves batchwatch, such as /batchwatch; "
        "whether the proxy takes it off or leaves it makes no difference.",
    )
    log_format: Annotated[Literal["auto", "console", "json"], Choice("auto", "console", "json")] = (
        Field(
            default="auto",
            description="How logs are written; auto is console on a terminal and json elsewhere.",
        )
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Choice("debug", "info", "warning", "error")
    ] = Field(
        default="info",
        description="The least important events that are logged.",
    )
    shutdown_grace: Annotated[float, Duration("100ms", "10m")] = Field(
        default=20.0,
        description="How long deliveries under way may go on after SIGTERM.",
    )
    heartbeat_interval: Annotated[float, Duration("1m", "1d")] = Field(
        default=3600.0,
        description="How often daemon.heartbeat is told to those whose route names it.",
    )
    heartbeat_url: Annotated[SecretUrl | None, EndpointUrl()] = Field(
        default=None,
        description="A dead man's switch, such as the ping URL of Healthchecks.io: asked by GET as "
        "long as the daemon does its work.",
    )
    heartbeat_ping_interval: Annotated[float, Duration("10s", "1d")] = Field(
        default=60.0,
        description="How often heartbeat_url is asked.",
    )
    config: Annotated[Path | None, Location()] = Field(
        default=None,
        description="The YAML file to read.",
    )
    secrets_dir: Annotated[Path | None, Location()] = Field(
        default=None,
        description="A folder with one file for each secret, named as its variable in any case.",
    )
    watches: dict[Annotated[str, NAME], WatchSettings] = {}
    endpoints: dict[Annotated[str, NAME], EndpointSettings] = {}
    routes: dict[Annotated[str, NAME], RouteSettings] = {}

    _origins: Mapping[tuple[str, ...], Origin] = PrivateAttr(default_factory=dict)

    @property
    def origins(self) -> Mapping[tuple[str, ...], Origin]:
        """Where each value came from, by its path; what is not in it has its default."""
        return self._origins

    @classmethod
    def from_layers(
        cls,
        layers: Iterable[Mapping[str, object]],
        origins: Mapping[tuple[str, ...], Origin],
    ) -> Self:
        """Return the settings that ``layers`` make together, the first one counting most."""
        token = _LAYERS.set(tuple(layers))
        try:
            settings = cls()
        finally:
            _LAYERS.reset(token)
        settings._origins = dict(origins)
        return settings

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Merge our own layers only.

        The library's sources for the environment and for files pass over
        names that they do not know and stop at the first trouble; see
        `sources` for what ours do.
        """
        del env_settings, dotenv_settings, file_secret_settings
        layers = (InitSettingsSource(settings_cls, dict(layer)) for layer in _LAYERS.get())
        return (init_settings, *layers)

    @model_validator(mode="wrap")
    @classmethod
    def _report_together(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Tell what is wrong between settings along with what is wrong in them."""
        problems = list(contradictions(given)) if isinstance(given, Mapping) else []
        try:
            settings = handler(given)
        except ValidationError as error:
            problems += problems_in(error)
        if problems:  # outside of the handler: no traceback must show what pydantic was given
            raise SettingsError(problems)
        return settings

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Spell out what was left to be understood."""
        watches = {
            name: watch.model_copy(update=self._for_all(watch, "watches"))
            for name, watch in (self.watches or {"default": WatchSettings()}).items()
        }
        endpoints: dict[str, WebhookSettings | SlackSettings] = {}
        if self.webhook_url:
            endpoints["webhook"] = WebhookSettings(url=self.webhook_url, secret=self.webhook_secret)
        if self.slack_webhook_url:
            endpoints["slack"] = SlackSettings(url=self.slack_webhook_url)
        endpoints = {
            name: endpoint.model_copy(update=self._for_all(endpoint, "endpoints"))
            for name, endpoint in (endpoints | self.endpoints).items()
        }
        everywhere = {"endpoints": tuple(endpoints)}
        routes = {
            name: route.model_copy(update=everywhere) if "*" in route.endpoints else route
            for name, route in self.routes.items()
        }
        # The one moment at which they are not frozen yet: nobody else has seen them.
        self.__dict__.update(watches=watches, endpoints=endpoints, routes=routes)
        return self

    def _for_all(self, part: BaseModel, group: str) -> dict[str, object]:
        """Return what ``part``, one of ``group``, takes from the settings for all."""
        return {
            own: value
            for own, general in INHERITED[group].items()
            if own not in part.model_fields_set and (value := getattr(self, general)) is not None
        }


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """Return the folder for state that outlives a program, by the XDG base directory rules."""
    state = environ.get("XDG_STATE_HOME", "")
    # "If an implementation encounters a relative path, it should consider the path invalid."
    if state.startswith("/"):
        return Path(state) / "batchwatch"
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    return home / ".local" / "state" / "batchwatch"


def _database_in(data_dir: Path) -> DatabaseUrl:
    # SQLAlchemy unquotes the path of a database, so that a ? in it can be told from a query.
    return DatabaseUrl(f"sqlite+aiosqlite:///{quote(str(data_dir / 'batchwatch.db'))}")
