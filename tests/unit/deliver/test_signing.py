"""Signatures, judged by the standard's own library: whoever uses that can verify what we send."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from batchwatch.clock import Clock
from batchwatch.deliver.signing import key_of, signed_headers

IDS = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=80)
BODIES = st.text(max_size=300).map(str.encode)
KEYS = st.binary(min_size=24, max_size=64)  # as long as the standard recommends


def a_secret(key: bytes) -> str:
    return f"whsec_{base64.b64encode(key).decode()}"


def now() -> int:
    """The true time: the library refuses what is five minutes old."""
    return int(Clock().now().timestamp())


@given(message_id=IDS, body=BODIES, key=KEYS)
def test_what_is_signed_verifies_with_any_library_of_the_standard(
    message_id: str, body: bytes, key: bytes
) -> None:
    """Whatever the id, the body and the secret are."""
    secret = a_secret(key)

    headers = signed_headers(message_id, body, keys=[key_of(secret)], timestamp=now())

    Webhook(secret).verify(body, headers, json_parse=False)


@given(body=BODIES, keys=st.lists(KEYS, min_size=2, max_size=4, unique=True), stranger=KEYS)
def test_with_several_keys_each_verifies_and_no_other(
    body: bytes, keys: list[bytes], stranger: bytes
) -> None:
    """So that a receiver can change its secret at its leisure."""
    headers = signed_headers("evt_1", body, keys=keys, timestamp=now())

    for key in keys:
        Webhook(a_secret(key)).verify(body, headers, json_parse=False)
    if stranger not in keys:
        with pytest.raises(WebhookVerificationError, match="No matching signature"):
            Webhook(a_secret(stranger)).verify(body, headers, json_parse=False)


@given(body=st.text(min_size=1, max_size=50).map(str.encode), other=BODIES, key=KEYS)
def test_a_signature_is_for_one_body_one_id_and_one_moment(
    body: bytes, other: bytes, key: bytes
) -> None:
    """Nothing of a message can be exchanged for that of another."""
    moment = now()
    headers = signed_headers("evt_1", body, keys=[key], timestamp=moment)
    forged = [(body, headers | {"webhook-id": "evt_2"})]
    forged += [(body, headers | {"webhook-timestamp": str(moment + 1)})]
    forged += [(other, headers)] if other != body else []

    for wrong_body, wrong_headers in forged:
        with pytest.raises(WebhookVerificationError, match="No matching signature"):
            Webhook(a_secret(key)).verify(wrong_body, wrong_headers, json_parse=False)


def test_the_known_example_comes_out_as_everywhere() -> None:
    """The vector that the standard's libraries share in their tests."""
    headers = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        b'{"test": 2432232314}',
        keys=[key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
        timestamp=1614265330,
    )

    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_without_a_key_there_is_an_id_and_no_signature() -> None:
    """The receiver cannot verify, and can still deduplicate; an empty signature would be worse."""
    headers = signed_headers("evt_1", b"{}", keys=[], timestamp=1614265330)

    assert {"webhook-id": "evt_1", "webhook-timestamp": "1614265330"} == headers


@given(key=KEYS)
def test_the_key_is_what_is_behind_the_prefix(key: bytes) -> None:
    """With or without it, as the standard's libraries take it."""
    secret = a_secret(key)

    assert [key, key] == [key_of(secret), key_of(secret.removeprefix("whsec_"))]


@pytest.mark.parametrize("secret", ["whsec_not base64!", "whsec_QUJD=QUJD", "whsec_QUI"])
def test_a_secret_that_is_no_base64_is_an_error(secret: str) -> None:
    """Never a key of what happened to be readable of it."""
    with pytest.raises(ValueError, match=r"(?i)base64|padding"):
        key_of(secret)
