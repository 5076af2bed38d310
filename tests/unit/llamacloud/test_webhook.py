"""Upstream's webhooks: which are truly from there, and what they are about."""

from __future__ import annotations

import hashlib
import hmac
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchwatch.llamacloud.webhook import is_signed, read_hint
from batchwatch.llamacloud.wire import Unreadable
from tests.support.clock import EPOCH
from tests.support.hints import HINT_SECRET, a_body, an_envelope, signature, signed

SECRETS = [HINT_SECRET.encode()]
BODY = a_body()
GOOD = signed(BODY)["LC-Signature"]
DIGEST = GOOD.removeprefix("sha256=")


@given(st.binary(max_size=300), st.text(min_size=1, max_size=200))
@settings(deadline=None)
def test_the_judge_of_signatures_is_right(body: bytes, secret: str) -> None:
    """Our own computation of an HMAC agrees with the library's, for keys of any length."""
    secret = secret.encode(errors="replace").decode()
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    assert expected == signature(body, secret)


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_what_is_signed_with_the_secret_is_believed_to_be_from_upstream(body: bytes) -> None:
    """Whatever it is."""
    assert is_signed(body, f"sha256={signature(body)}", SECRETS)


def test_while_a_secret_is_changed_both_are_good() -> None:
    """And a third is not."""
    secrets = [b"new-s3cret-0123456789", b"old-s3cret-0123456789"]
    signatures = [signed(BODY, one.decode())["LC-Signature"] for one in secrets]

    assert [True, True, False] == [is_signed(BODY, one, secrets) for one in (*signatures, GOOD)]


@pytest.mark.parametrize(
    "given",
    [
        "",
        "sha256=",
        DIGEST,
        f"sha1={DIGEST}",
        f"sha256={DIGEST[:-1]}",
        f"sha256={DIGEST}0",
        f"sha256={signature(BODY + b' ')}",
        f"sha256={signature(BODY, HINT_SECRET + 'x')}",
        "sha256=\udcff",
        "sha256=\u00e9",
        f"{GOOD},{GOOD}",
    ],
)
def test_any_other_signature_is_wrong(given: str) -> None:
    """A part of it, another hash, another body, another secret, or none at all."""
    assert not is_signed(BODY, given, SECRETS)


def test_without_a_secret_nothing_is_signed() -> None:
    """Not even with an empty one."""
    assert not is_signed(BODY, f"sha256={signature(BODY, '')}", [])


def test_hex_is_read_in_any_case() -> None:
    """The documentation has none in capitals, and nobody promises it."""
    assert is_signed(BODY, GOOD.upper(), SECRETS)


ID = "bat-0a1b"
ABOUT: dict[str, Any] = {
    "its id": {"id": ID},
    "a batch_id": {"batch_id": ID},
    "a batch_id beside another id": {"id": "evt-1", "batch_id": ID},
    "a batch": {"batch": {"id": ID, "status": "RUNNING"}},
    "a batch beside another id": {"id": "evt-1", "batch": {"id": ID}},
    "the id of a batch": {"batch": ID},
}


@pytest.mark.parametrize("data", ABOUT.values(), ids=list(ABOUT))
@pytest.mark.parametrize("form", ["json", "string", "all of it a string"])
def test_the_batch_is_found_wherever_it_stands(data: dict[str, Any], form: str) -> None:
    """In either output format: the shape of the data is documented nowhere."""
    envelope = an_envelope(data=json.dumps(data) if form == "string" else data)
    text = json.dumps(envelope)
    hint = read_hint((json.dumps(text) if form == "all of it a string" else text).encode())

    assert (ID, "batch.success") == (hint.batch_id, hint.type)
    assert EPOCH == hint.sent_at


def test_what_is_about_no_batch_is_told_apart() -> None:
    """A webhook of a single job, for whoever uses one address for all."""
    assert read_hint(a_body("parse.success", data={"id": "pjb-1"})).batch_id is None


@pytest.mark.parametrize("stamp", [None, True, {}, [1], "soon", -1, 1e300, 10**400])
def test_a_time_that_is_none_is_no_time(stamp: object) -> None:
    """The hint is good all the same: its id tells a repeat."""
    hint = read_hint(a_body(timestamp=stamp))
    assert (None, "bat-1") == (hint.sent_at, hint.batch_id)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b"", '"event_id"'),
        (b"[]", '"event_id"'),
        (b"\xff\xfe", '"event_id"'),
        (b"[" * 60_000, '"event_id"'),
        (b'{"data":' * 8_000, '"event_id"'),
        (json.dumps('"' * 9).encode(), '"event_id"'),
        (a_body(event_id=None), '"event_id"'),
        (a_body(event_id=""), '"event_id"'),
        (a_body(event_id="a\x00b"), '"event_id"'),
        (a_body(event_id="x" * 201), '"event_id"'),
        (a_body(event_type=7), '"event_type"'),
        (a_body(data=None), "keys are: none"),
        (a_body(data="not json"), "keys are: none"),
        (a_body(data={"id": "a b", "\n": 1, "status": "x"}), "keys are: id, status"),
        (a_body(batch_id=".."), "keys are: id, status"),
        (a_body(batch_id="a\ud800"), '"event_id"'),
    ],
)
def test_what_cannot_be_read_is_told_with_what_was_expected(body: bytes, wanted: str) -> None:
    """No id that the store or a URL could not carry gets through."""
    with pytest.raises(Unreadable, match=wanted):
        read_hint(body)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "batch", "batch_id", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
ENVELOPES = st.fixed_dictionaries(
    {},
    optional={
        "event_id": st.just("evt-1") | ANYTHING,
        "event_type": st.just("batch.success") | ANYTHING,
        "timestamp": ANYTHING,
        "data": ANYTHING | ANYTHING.map(json.dumps),
    },
)


@given(st.binary(max_size=80) | (ENVELOPES | ANYTHING).map(json.dumps).map(str.encode))
@settings(deadline=None)
def test_no_body_raises_anything_but_unreadable(body: bytes) -> None:
    """And what is read can be asked for."""
    with suppress(Unreadable):
        hint = read_hint(body)
        assert hint.event_id
        assert hint.batch_id is None or hint.batch_id.isascii()
