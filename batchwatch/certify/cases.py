"""What receivers meet, as data: what is sent, what should come of it, why, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from batchwatch.certify import messages
from batchwatch.domain.event import FAILURES_LIMIT, ITEMS_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Expected(StrEnum):
    """What a receiver should do."""

    TAKEN = "taken"  # any 2xx
    REFUSED = "refused"  # any 4xx but 429, which says nothing of the message
    IN_TIME = "in time"


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that receivers meet, the rule for it, and how to keep that rule."""

    name: str  # stays, for programs
    sent: str
    expected: Expected
    rule: str
    mend: str
    # each is made when it is to be sent, so that its timestamp is right
    messages: Callable[[messages.Maker], Iterator[messages.Message]]


_VERIFY: Final = (
    "Verify with a library of Standard Webhooks, over the raw body, before anything else is done "
    "with it, and answer 401 to what it does not accept."
)

GOOD: Final = Case(
    "good",
    "a signed batch.completed",
    Expected.TAKEN,
    rule="Nearly every message is like it, and nothing can be judged before it is taken.",
    mend="Give the receiver the very secret that this command has, verify the raw body, not one "
    "that was parsed and written again, and see that both clocks are right. After a 404 or 405, "
    "correct the URL; after a 5xx, look into the receiver's log.",
    messages=messages.good,
)

IN_TIME: Final = Case(
    "in_time",
    "all of these",
    Expected.IN_TIME,
    rule="An answer that comes later than the timeout counts as none, and the message comes again.",
    mend="Write the message down, answer 2xx, and only then work; end the answer.",
    messages=lambda _: iter(()),
)

CASES: Final = (
    GOOD,
    Case(
        "repeat",
        "a message, and the same again",
        Expected.TAKEN,
        rule="Delivery is at least once: where an answer was lost, the message comes again under "
        "the same webhook-id, and again for three days if that is refused.",
        mend="Answer 2xx to a webhook-id that you have, and do nothing more.",
        messages=messages.repeat,
    ),
    Case(
        "out_of_order",
        "transitions 3, 2 and 1 of one batch",
        Expected.TAKEN,
        rule="batchwatch keeps the order; a queue or a relay on the way may not. Refused, a "
        "message would hold up the rest of its batch for three days.",
        mend="Answer 2xx, and leave a batch alone of which you have a higher data.transition.",
        messages=messages.out_of_order,
    ),
    Case(
        "without_batch",
        "watch.recovered, of no batch",
        Expected.TAKEN,
        rule="The troubles of a watch are told to webhooks unasked, and have no data.batch.",
        mend="Look at the type before you read data.batch, and answer 2xx to what you do not need.",
        messages=messages.without_batch,
    ),
    Case(
        "unknown_type",
        "a type of a later version",
        Expected.TAKEN,
        rule="New types come with new versions; refused, each is tried for three days in vain.",
        mend="Answer 2xx to types that you do not know, and leave them alone.",
        messages=messages.unknown_type,
    ),
    Case(
        "unknown_field",
        "fields of a later version",
        Expected.TAKEN,
        rule="New fields come with new versions; none goes away or changes its meaning.",
        mend="Read what you need and pass over the rest: no model that forbids extra fields.",
        messages=messages.unknown_field,
    ),
    Case(
        "rotation",
        "two signatures, the second right",
        Expected.TAKEN,
        rule="While a secret is exchanged there is a signature for each; one that holds is enough.",
        mend="Try each of the signatures in the header, which spaces part, as the libraries do.",
        messages=messages.rotation,
    ),
    Case(
        "large",
        f"{ITEMS_LIMIT} items and {FAILURES_LIMIT} failures",
        Expected.TAKEN,
        rule="It is as large as batchwatch makes them, some 550 kB, and would come again for "
        "three days.",
        mend="Allow bodies of 1 MiB, in the framework and in each proxy before it.",
        messages=messages.large,
    ),
    Case(
        "no_signature",
        "no webhook-signature",
        Expected.REFUSED,
        rule="Whoever finds the URL could tell the receiver anything.",
        mend=f"Do not take the header's absence for consent. {_VERIFY}",
        messages=messages.no_signature,
    ),
    Case(
        "bad_signature",
        "a signature with another secret",
        Expected.REFUSED,
        rule="Whoever finds the URL could tell the receiver anything.",
        mend=_VERIFY,
        messages=messages.bad_signature,
    ),
    Case(
        "garbled_signature",
        "a signature that is none",
        Expected.REFUSED,
        rule="Anybody can send it. As a 4xx it is refused; as a 5xx it rings alarms that are meant "
        "for real trouble.",
        mend=_VERIFY,
        messages=messages.garbled_signature,
    ),
    Case(
        "altered_body",
        "a body changed after signing",
        Expected.REFUSED,
        rule="The signature is of the body; who does not look at both has verified nothing.",
        mend=_VERIFY,
        messages=messages.altered_body,
    ),
    Case(
        "old_timestamp",
        "signed an hour ago",
        Expected.REFUSED,
        rule="A message that was caught on its way could be played back for ever.",
        mend=f"Refuse timestamps that are five minutes off, as the libraries do. {_VERIFY}",
        messages=messages.old_timestamp,
    ),
    Case(
        "future_timestamp",
        "signed an hour from now",
        Expected.REFUSED,
        rule="It would stay valid for longer than any tolerance, and be played back until then.",
        mend=f"Refuse timestamps that are five minutes off, as the libraries do. {_VERIFY}",
        messages=messages.future_timestamp,
    ),
)
