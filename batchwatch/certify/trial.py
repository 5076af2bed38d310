"""Go through the cases with one receiver, and judge each answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from batchwatch.certify.cases import CASES, GOOD, IN_TIME, Expected
from batchwatch.certify.messages import Maker
from batchwatch.deliver.sender import Sender, new_session
from batchwatch.domain.delivery import Failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from batchwatch.certify.cases import Case
    from batchwatch.clock import Clock
    from batchwatch.deliver.signing import Key
    from batchwatch.domain.delivery import Attempt


class Verdict(StrEnum):
    """How a case went."""

    OK = "ok"
    WRONG = "wrong"
    SKIPPED = "skipped"  # it could not be judged


@dataclass(frozen=True, slots=True)
class Finding:
    """What a receiver did in one case."""

    case: Case
    verdict: Verdict
    happened: str  # one line; never a secret
    mend: str | None = None  # None unless it is wrong
    attempts: tuple[Attempt, ...] = ()

    def as_row(self) -> dict[str, Any]:
        """All of it as plain values, for tables and for JSON."""
        return {
            "case": self.case.name,
            "verdict": self.verdict.value,
            "sent": self.case.sent,
            "expected": self.case.expected.value,
            "happened": self.happened,
            "rule": self.case.rule,
            "mend": self.mend,
            "answers": [
                {
                    "status_code": one.status_code,
                    "failure": one.failure and one.failure.value,
                    "duration_ms": round(one.duration * 1000, 1),
                }
                for one in self.attempts
            ],
        }


async def certify(
    url: str,
    *,
    keys: Sequence[Key],
    timeout: float,  # noqa: ASYNC109  # seconds for each answer, told to the sender
    clock: Clock,
) -> AsyncIterator[Finding]:
    """Go through `CASES` one after the other, and then judge how long the answers took.

    A receiver that does not take the good message is sent nothing more: what
    refuses everything would seem to refuse forgeries, too. Whatever it does
    is told, not raised.
    """
    maker = Maker(keys, clock)
    attempts: list[Attempt] = []
    goes_on = True
    async with new_session() as session:
        sender = Sender(session, clock)
        for case in CASES:
            if not goes_on:
                yield Finding(case, Verdict.SKIPPED, "not sent")
                continue
            tried: list[Attempt] = []
            for message in case.messages(maker):
                tried.append(await sender.post(url, message.body, message.headers, timeout=timeout))
                if not _is_right(case, tried[-1]):
                    break
            attempts += tried
            finding = _judged(case, tried)
            if case is GOOD:
                goes_on = finding.verdict is Verdict.OK
            yield finding
    yield _punctuality(attempts)


def _is_right(case: Case, attempt: Attempt) -> bool:
    if case.expected is Expected.TAKEN:
        return attempt.failure is None
    return attempt.failure in (Failure.CLIENT_ERROR, Failure.GONE)


def _judged(case: Case, tried: Sequence[Attempt]) -> Finding:
    last = tried[-1]
    happened = _told(last)
    if _is_right(case, last):
        return Finding(case, Verdict.OK, happened, attempts=tuple(tried))
    if len(tried) > 1:
        happened = f"{happened} (message {len(tried)})"
    return Finding(case, Verdict.WRONG, happened, _mend(case, last.failure), tuple(tried))


def _mend(case: Case, failure: Failure | None) -> str:
    if failure is Failure.SERVER_ERROR and case.expected is Expected.REFUSED:
        return _CATCH
    return case.mend if failure is None else _MENDS.get(failure, case.mend)


def _told(attempt: Attempt) -> str:
    did = _DID.get(attempt.failure)
    if did is None or attempt.status_code is None:
        return attempt.detail or "no answer"
    return f"{did}: {attempt.status_code}"


def _punctuality(attempts: Sequence[Attempt]) -> Finding:
    """Judge how long the answers took: the only case that needs no message of its own."""
    slowest = max(attempts, key=lambda one: one.duration)
    happened = f"{slowest.duration:.3f} s at most"
    if any(one.failure is Failure.TIMEOUT for one in attempts):
        return Finding(IN_TIME, Verdict.WRONG, happened, IN_TIME.mend)
    if all(one.status_code is None for one in attempts):
        return Finding(IN_TIME, Verdict.SKIPPED, "no answer")
    return Finding(IN_TIME, Verdict.OK, happened)


_DID: Final[Mapping[Failure | None, str]] = {
    None: "taken",
    Failure.CLIENT_ERROR: "refused",
    Failure.GONE: "refused for ever",
    Failure.RATE_LIMITED: "put off",
    Failure.REDIRECT: "redirected",
    Failure.SERVER_ERROR: "failed",
}
# What goes wrong in the same way whatever was sent; all else is for the case to say.
_MENDS: Final[Mapping[Failure, str]] = {
    Failure.DNS: "Correct the host in the URL, or this machine's DNS.",
    Failure.CONNECT: "Start the receiver, and see that host and port of the URL are its own.",
    Failure.TLS: "Give the receiver a certificate for this host that this machine trusts.",
    Failure.PROTOCOL: "Let the URL lead to a server of HTTP; https:// and http:// may be mixed up.",
    Failure.TIMEOUT: IN_TIME.mend,
    Failure.RESET: "Read the whole body, up to 1 MiB of it, and answer before you close.",
    Failure.UNUSABLE: "Correct the URL.",
    Failure.REDIRECT: "Use the URL that it leads to; batchwatch follows none, for what is signed "
    "must not be pointed elsewhere.",
    Failure.RATE_LIMITED: "Lift the limit for the test; a 429 says nothing of the message.",
}
_CATCH: Final = (
    "Catch all that the library raises, its own mistakes among it, and answer 401: a 5xx is for "
    "trouble of your own and brings the message back."
)
