"""The bodies that clients may send, and the 422 for those they may not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import msgspec

from batchwatch.simulator.api.refusal import Problems

if TYPE_CHECKING:
    from aiohttp import web

_Form = TypeVar("_Form")

_MISSING: Final = re.compile(r"missing required field `(?P<name>[^`]+)`")
_PLACE: Final = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_STEP: Final = re.compile(r"\.(?P<name>\w+)|\[(?P<key>[^\]]*)\]")


class JobForm(msgspec.Struct):
    """The job that a batch makes of each file."""

    type: Literal["parse_v2", "extract_v2"]
    configuration_id: str


class ConfigForm(msgspec.Struct):
    """What a batch is to do."""

    job: JobForm


class WebhookForm(msgspec.Struct, frozen=True):
    """An endpoint that upstream itself notifies."""

    webhook_url: str | None = None
    webhook_events: list[str] | None = None  # None for all
    webhook_headers: dict[str, str] | None = None
    webhook_output_format: str | None = None  # what it changes is not documented; here nothing
    webhook_signing_secret: str | None = None


class BatchForm(msgspec.Struct):
    """A batch to be created."""

    config: ConfigForm
    source_directory_id: str
    webhook_configurations: list[WebhookForm] | None = None
    webhook_configuration_ids: list[str] | None = None


class DirectoryForm(msgspec.Struct):
    """A directory to be created."""

    name: str
    type: Literal["ephemeral", "user"] = "user"
    description: str | None = None
    system_metadata: dict[str, Any] | None = None
    connector_subscription_id: str | None = None


class FileForm(msgspec.Struct):
    """A stored file to be added to a directory."""

    file_id: str
    display_name: str | None = None
    unique_id: str | None = None
    metadata: dict[str, Any] | None = None


async def filled_in(request: web.Request, form: type[_Form]) -> _Form:
    """The body of a request; 422 names the first thing that is wrong with it."""
    raw, problems = await request.read(), Problems()
    try:
        return msgspec.json.decode(raw, type=form)
    except msgspec.ValidationError as error:
        _explain(str(error), problems)
    except msgspec.DecodeError as error:
        problems.add("json_invalid", ("body", 0), "JSON decode error", str(error))
    raise problems.refusal()


def _explain(message: str, problems: Problems) -> None:
    """Tell what msgspec says in the way of FastAPI."""
    place = _PLACE.search(message)
    steps = _STEP.finditer(place["path"]) if place else iter(())
    where = ["body", *(step["name"] or step["key"] for step in steps)]
    missing = _MISSING.search(message)
    if missing:
        problems.add("missing", (*where, missing["name"]), "Field required", None)
    else:
        problems.add("value_error", tuple(where), _PLACE.sub("", message), None)
