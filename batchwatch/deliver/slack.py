"""Tell people in Slack: one message that says what happened, to how much, and why."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from batchwatch.domain.delivery import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slack_sdk.models.blocks import Block

    from batchwatch.deliver.sender import Sender
    from batchwatch.domain.batch import EndpointName
    from batchwatch.domain.delivery import Attempt, Claimed

_WORD: Final = re.compile(r"[a-z_]{3,40}")  # how Slack says why: no_service, invalid_payload, …
_TORN: Final = re.compile(r"&[a-z]{0,3}$")  # an entity that a cut went through
FAILURES_SHOWN: Final = 5
GROUPS_SHOWN: Final = 5
STUCK_SHOWN: Final = 10
_REASON_SHOWN: Final = 160  # characters of a reason; Slack folds what is longer anyway
# Slack's own limits, in characters: https://docs.slack.dev/reference/block-kit/blocks
_HEADER_LIMIT: Final = 150
_SUMMARY_LIMIT: Final = 1_000
_REASON_LIMIT: Final = 2_000  # of a watch's trouble: it says what to do at its end
_ID_LIMIT: Final = 80

# Icon and words for each type; what is not here is said by its type.
_HEADLINES: Final = {
    "batch.discovered": ("🔎", "Batch discovered"),
    "batch.pending": ("🕓", "Batch waits"),
    "batch.throttled": ("🐢", "Batch is throttled"),
    "batch.running": ("▶️", "Batch runs"),
    "batch.completed": ("✅", "Batch completed"),
    "batch.failed": ("❌", "Batch failed"),
    "batch.cancelled": ("🚫", "Batch cancelled"),
    "batch.unknown": ("❔", "Batch has a status that batchwatch does not know"),
    "batch.settled": ("🏁", "Batch settled"),
    "batch.vanished": ("👻", "Batch vanished: LlamaCloud answers 404"),
    "batch.stuck": ("⏳", "Batch is stuck"),
    "batch.unstuck": ("🏃", "Batch moves again"),
    "watch.slow": ("🐌", "Many batches are stuck"),
    "watch.failing": ("🔥", "LlamaCloud cannot be watched"),
    "watch.gap": ("🕳️", "Batches may be unknown"),
    "watch.recovered": ("💚", "LlamaCloud is watched again"),
    "endpoint.failing": ("📵", "An endpoint takes nothing"),
    "endpoint.disabled": ("⛔", "An endpoint is disabled"),
    "endpoint.recovered": ("💚", "An endpoint takes messages again"),
    "daemon.heartbeat": ("💓", "batchwatch is alive"),
    "endpoint.test": ("🧪", "A test of batchwatch"),
}


@dataclass(frozen=True, slots=True)
class Slack:
    """A Slack channel, by incoming webhook: https://api.slack.com/messaging/webhooks."""

    name: EndpointName
    url: str = field(repr=False)  # whoever has it can post
    sender: Sender
    schedule: Sequence[float]
    timeout: float  # seconds
    concurrency: int
    rate: float | None = None  # a second
    final_statuses: frozenset[int] = frozenset()

    async def send(self, delivery: Claimed) -> Attempt:
        """POST the message; Slack's own words for "never" are final.

        It is taken when Slack says so. A proxy on the way answers 200 to
        anything, with a page to sign in on.
        """
        body = msgspec.json.encode(message(msgspec.json.decode(delivery.payload)))
        headers = {"Content-Type": "application/json"}
        attempt = await self.sender.post(self.url, body, headers, timeout=self.timeout)
        said = (attempt.response or "").strip()
        if attempt.failure is None:
            return attempt if said == "ok" else _judged(attempt, said)
        if not _WORD.fullmatch(said):
            return attempt
        attempt = replace(attempt, detail=f"{attempt.detail}: {said}")
        if attempt.status_code == 400 and said.startswith("invalid_"):
            # The message itself is refused; the same again would be refused again.
            return replace(attempt, failure=Failure.REFUSED)
        return attempt


class _Answer(msgspec.Struct):
    """How the newer of Slack's webhooks answer, and those of others that take its messages."""

    ok: bool
    error: str = ""


def _judged(attempt: Attempt, said: str) -> Attempt:
    """A try whose status is 2xx, by an answer that is not the usual ``ok``."""
    try:
        answer = msgspec.json.decode(said, type=_Answer)
    except msgspec.MsgspecError:
        detail = f"HTTP {attempt.status_code}, but what came back is not Slack's answer"
        return replace(attempt, failure=Failure.PROTOCOL, detail=detail)
    if answer.ok:
        return attempt
    detail = f"HTTP {attempt.status_code}, but not ok"
    if _WORD.fullmatch(answer.error):
        detail += f": {answer.error}"
    return replace(attempt, failure=Failure.CLIENT_ERROR, detail=detail)


def message(envelope: dict[str, Any]) -> dict[str, Any]:
    """The message for an event: ``blocks``, and ``text`` for notifications and old clients."""
    type_, data = envelope["type"], envelope["data"]
    headline = _headline(type_, data)
    batch, settled = data.get("batch"), data.get("settled")
    results = data.get("results") or {}
    lines = _batchs_lines(type_, data) if batch else _others_lines(type_, data)
    details = _groups(settled) if settled else _failures(results) or _list_of_stuck(data)
    sections = ["\n".join(line for line in lines if line), details]
    about = batch["id"] if batch else data.get("endpoint")
    summary = f"{headline}: {about}" if about else headline
    if files := _fates(settled) if settled else _files(results):
        summary += f" ({files})"
    return {
        "text": _escape(summary, limit=_SUMMARY_LIMIT),
        "blocks": [block.to_dict() for block in _blocks(headline, sections, _context(envelope))],
    }


def _headline(type_: str, data: dict[str, Any]) -> str:
    icon, words = _HEADLINES.get(type_, ("🔔", type_))
    settled = data.get("settled")
    counts = (data.get("results") or {}).get("counts") or {}
    if type_ == "batch.completed" and counts.get("failed"):
        icon = "⚠️"
    if settled and set(_others(settled)) - {"succeeded"}:
        icon = "⚠️"
    if type_ == "watch.recovered" and data.get("about") == "slow":
        words = "Batches move again"
    if reminder := (data.get("stuck") or data).get("reminder"):
        words += f" (reminder {reminder})"
    return f"{icon} {words}"


def _batchs_lines(type_: str, data: dict[str, Any]) -> list[str]:
    if data.get("settled"):
        return _settled_lines(data)
    return _stuck_lines(type_, data) if data.get("stuck") else _batch_lines(data)


def _others_lines(type_: str, data: dict[str, Any]) -> list[str]:
    reason = " ".join(str(data.get("reason") or "").split())
    if type_.endswith(".recovered"):
        return _all_clear(data, reason)
    if type_ == "watch.gap":
        return _gap_lines(data, reason)
    if type_ == "daemon.heartbeat":
        return _pulse_lines(data)
    return [_escape(reason, limit=_REASON_LIMIT)]


def _blocks(headline: str, sections: Sequence[str], context: str) -> list[Block]:
    """The blocks of a message; their models are imported with the first one that is made.

    What upstream says stands verbatim in them: it must neither wake a channel
    nor become a link.
    """
    from slack_sdk.models.blocks import (  # noqa: PLC0415  # 2 MB, and many a daemon says little
        ContextBlock,
        HeaderBlock,
        MarkdownTextObject,
        PlainTextObject,
        SectionBlock,
    )

    return [
        HeaderBlock(text=PlainTextObject(text=headline[:_HEADER_LIMIT], emoji=True)),
        *(
            SectionBlock(text=MarkdownTextObject(text=text, verbatim=True))
            for text in sections
            if text
        ),
        ContextBlock(elements=[MarkdownTextObject(text=context, verbatim=True)]),
    ]


def _batch_lines(data: dict[str, Any]) -> list[str]:
    batch = data["batch"]
    previous, status = data.get("previous_status"), batch["status"]
    lines = [f"*{_escape(batch['id'])}*"]
    moved = f"{_escape(previous)} → *{_escape(status)}*" if previous else f"*{_escape(status)}*"
    lasted = sum((data.get("durations") or {}).values())
    if lasted:
        moved += f", {duration(lasted)} after it was first seen"
    lines.append(moved)
    results = data.get("results") or {}
    if files := _files(results):
        lines.append(files)
    elif results.get("state") == "pending":
        lines.append("LlamaCloud has not given the results yet.")
    return lines


def _settled_lines(data: dict[str, Any]) -> list[str]:
    settled = data["settled"]
    lines = [f"*{_escape(data['batch']['id'])}*"]
    if settled["counts"] is None:
        return [*lines, "LlamaCloud never gave its results: what became of its files is not known."]
    lines.append(_fates(settled))
    if settled["state"] == "given_up":
        lines.append("What is unknown is no longer asked for.")
    again = len(settled["retry"]["source_directory_file_ids"])
    if again:
        more = " or more" if settled["retry"]["truncated"] else ""
        lines.append(f"{again}{more} to run again; their ids are in the webhook.")
    return lines


def _fates(settled: dict[str, Any]) -> str:
    """``10 files: 8 succeeded, 2 failed``."""
    counts = settled["counts"]
    if counts is None:
        return ""
    files = "1 file" if counts["files"] == 1 else f"{counts['files']} files"
    others = ", ".join(f"{count} {fate}" for fate, count in _others(settled).items())
    return f"{files}: {others}" if others else files


def _others(settled: dict[str, Any]) -> dict[str, int]:
    counts = settled["counts"] or {"unknown": 1}
    return {fate: count for fate, count in counts.items() if count and fate != "files"}


def _groups(settled: dict[str, Any]) -> str:
    """The largest groups of failures, each with its words and a few of its files."""
    lines = []
    for one in settled["groups"][:GROUPS_SHOWN]:
        words = _escape(_short(one["message"] or one["fate"]))
        names = ", ".join(
            f"`{_escape(file['name'] or file['source_directory_file_id'], limit=_ID_LIMIT)}`"
            for file in one["examples"]
        )
        more = ", …" if one["count"] > len(one["examples"]) else ""
        lines.append(f"• *{one['count']}* {words} ({names}{more})")
    others = len(settled["groups"]) - len(lines) + settled["more_groups"]
    if others:
        lines.append(f"… and {others} more reasons")
    return "\n".join(lines)


def _stuck_lines(type_: str, data: dict[str, Any]) -> list[str]:
    """Which rule fired and what was to be expected; and where it went, if it did."""
    batch, stuck, expected = data["batch"], data["stuck"], data.get("expected")
    by_history = stuck["rule"] == "history"
    lasted, limit = duration(stuck["lasted"]), duration(stuck["limit"])
    where = f"*{_escape(stuck['status'])}*"
    if type_ == "batch.unstuck":
        where = f"{_escape(stuck['status'])} → *{_escape(batch['status'])}*"
        lines = [
            f"{where}, {lasted} after its creation" if by_history else f"{where} after {lasted}"
        ]
    elif by_history:
        lines = [
            f"{where}, {lasted} after its creation",
            f"More than {limit} is far outside of what batches like it take.",
        ]
    else:
        lines = [f"{where} for {lasted}; {limit} are allowed"]
    if expected:
        low, high = duration(expected["low"]), duration(expected["high"])
        lines.append(
            f"{expected['samples']} like it took {duration(expected['median'])}, "
            f"most of them {low} to {high}."
        )
    return [f"*{_escape(batch['id'])}*", *lines]


def _list_of_stuck(data: dict[str, Any]) -> str:
    """The first of the batches that ``watch.slow`` lists."""
    found = data.get("batches") or []
    lines = [
        f"• `{_escape(one['id'], limit=_ID_LIMIT)}` {_escape(one['status'])} "
        f"since {_escape(one['since'][:16].replace('T', ' '))}"
        for one in found[:STUCK_SHOWN]
    ]
    more = data.get("count", 0) - len(lines)
    if lines and more > 0:
        lines.append(f"… and {more} more")
    return "\n".join(lines)


def _all_clear(data: dict[str, Any], reason: str) -> list[str]:
    """How long it lasted, and what it was, in words that are no alarm any more."""
    since, until = (datetime.fromisoformat(data[name]) for name in ("since", "observed_at"))
    lines = [f"It lasted {duration(max(0.0, (until - since).total_seconds()))}."]
    if reason:
        lines.append(_escape(f"It was: {reason}", limit=_REASON_LIMIT))
    return lines


def _gap_lines(data: dict[str, Any], reason: str) -> list[str]:
    """Which time it is about, why, and what somebody can do."""
    start, end = (f"{data[name][:19].replace('T', ' ')} UTC" for name in ("from", "to"))
    lines = [f"From {_escape(start)} to {_escape(end)} ({_escape(data['kind'])})."]
    return [*lines, _escape(reason, limit=_REASON_LIMIT), _escape(data["what_to_do"], limit=600)]


def _pulse_lines(data: dict[str, Any]) -> list[str]:
    """How much is followed; then what is not well, a line for each as far as there is room."""
    watches, endpoints = data["watches"], data["endpoints"]
    active = sum(one["active_batches"] for one in watches)
    owed = sum(one["owed"] for one in endpoints)
    followed = f"{active} active batches in {len(watches)} watches"
    lines = [f"{followed}, {owed} deliveries owed. Up for {duration(data['uptime'])}."]
    ailing = [f"{one['watch']}: {one['failing']}" for one in watches if one["failing"]]
    ailing += [f"{one['endpoint']}: {one['state']}" for one in endpoints if one["state"] != "well"]
    lines += [f"• {_escape(_short(one))}" for one in ailing[:FAILURES_SHOWN]]
    if len(ailing) > FAILURES_SHOWN:
        lines.append(f"… and {len(ailing) - FAILURES_SHOWN} more")
    return lines


def _files(results: dict[str, Any]) -> str:
    counts = results.get("counts")
    if not counts:
        return ""
    files = counts["files"]
    parts = [f"{files} file" if files == 1 else f"{files} files"]
    if counts["failed"]:
        parts.append(f"{counts['failed']} failed")
    if counts["without_job"]:
        parts.append(f"{counts['without_job']} without a job")
    if len(parts) == 1:
        parts.append("it has its job" if files == 1 else "each has its job")
    return ", ".join(parts)


def _failures(results: dict[str, Any]) -> str:
    failures = results.get("failures") or []
    lines = []
    for one in failures[:FAILURES_SHOWN]:
        file_id = _escape(one["source_directory_file_id"], limit=_ID_LIMIT)
        lines.append(f"• `{file_id}` {_escape(_short(one['error_message']))}")
    more = (results.get("counts") or {}).get("failed", 0) - len(lines)
    if lines and more > 0:
        lines.append(f"… and {more} more")
    return "\n".join(lines)


def _context(envelope: dict[str, Any]) -> str:
    data = envelope["data"]
    job = ((data.get("batch") or {}).get("config") or {}).get("job") or {}
    parts = [
        *(f"{one} *{_escape(data[one])}*" for one in ("watch", "endpoint") if one in data),
        " ".join(_escape(one) for one in (job.get("type"), job.get("configuration_id")) if one),
        _escape(envelope["timestamp"][:19].replace("T", " ") + " UTC"),
    ]
    return " · ".join(part for part in parts if part)


def _escape(text: str, *, limit: int = 300) -> str:
    """https://docs.slack.dev/messaging/formatting-message-text#escaping, to ``limit`` characters.

    Slack refuses a whole message for one text that is too long.
    """
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if len(text) <= limit:
        return text
    return _TORN.sub("", text[: limit - 1]) + "…"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _REASON_SHOWN else text[: _REASON_SHOWN - 1] + "…"


def duration(seconds: float) -> str:
    """``seconds`` for people, by their two largest units: ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, name in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{whole} s"
