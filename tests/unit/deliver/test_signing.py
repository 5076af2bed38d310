"""Signatures, judged by the standard's own library: whoever uses that can verify what we send."""

from __future__ import annotations

import base64
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from batchwatch.clock import Clock
from batchwatch.deliver.signing import (
    ExtraMissing,
    Key,
    key_of,
    new_pair,
    new_secret,
    signed_headers,
)
from tests.support.builders import at
from tests.support.daemon import ROOT

IDS = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=80)
BODIES = st.text(max_size=300).map(str.encode)
KEYS = st.binary(min_size=24, max_size=64)  # as long as the standard recommends
SEEDS = st.binary(min_size=32, max_size=32)
EXAMPLE = ("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}')


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


@given(body=BODIES, keys=st.lists(KEYS, min_size=2, max_size=10, unique=True), stranger=KEYS)
def test_with_several_keys_each_verifies_and_no_other(
    body: bytes, keys: list[bytes], stranger: bytes
) -> None:
    """So that a receiver can change its secret at its leisure."""
    signing = [key_of(a_secret(key)) for key in keys]
    headers = signed_headers("evt_1", body, keys=signing, timestamp=now())

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
    headers = signed_headers("evt_1", body, keys=[key_of(a_secret(key))], timestamp=moment)
    forged = [(body, headers | {"webhook-id": "evt_2"})]
    forged += [(body, headers | {"webhook-timestamp": str(moment + 1)})]
    forged += [(other, headers)] if other != body else []

    for wrong_body, wrong_headers in forged:
        with pytest.raises(WebhookVerificationError, match="No matching signature"):
            Webhook(a_secret(key)).verify(wrong_body, wrong_headers, json_parse=False)


def test_the_known_example_comes_out_as_everywhere() -> None:
    """The vector that the standard's libraries share in their tests."""
    headers = signed_headers(
        *EXAMPLE,
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
    forms = [key_of(secret), key_of(secret.removeprefix("whsec_"))]

    assert 1 == len({form.sign(b"body") for form in forms})
    Webhook(secret).verify(b"{}", signed_headers("evt_1", b"{}", keys=forms, timestamp=now()))


@pytest.mark.parametrize("secret", ["whsec_not base64!", "whsec_QUJD=QUJD", "whsec_QUI"])
def test_a_secret_that_is_no_base64_is_an_error(secret: str) -> None:
    """Never a key of what happened to be readable of it."""
    with pytest.raises(ValueError, match=r"(?i)base64|padding"):
        key_of(secret)


# ------------------------------------------------------------------------------------ asymmetric


def verify(public: str, body: bytes, headers: dict[str, str]) -> None:
    """As the standard says it, and not as we do: any v1a signature of the list may be the one."""
    assert public.startswith("whpk_")
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("whpk_")))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    for one in headers["webhook-signature"].split(" "):
        version, _, signature = one.partition(",")
        if version == "v1a":
            try:
                key.verify(base64.b64decode(signature, validate=True), signed)
            except InvalidSignature:
                continue
            return
    raise InvalidSignature


def an_asymmetric(seed: bytes) -> Key:
    return key_of("whsk_" + base64.b64encode(seed).decode())


@given(message_id=IDS, body=BODIES, seed=SEEDS, stranger=SEEDS)
def test_an_asymmetric_signature_verifies_with_the_public_key_and_no_other(
    message_id: str, body: bytes, seed: bytes, stranger: bytes
) -> None:
    """A receiver needs no secret, and cannot forge."""
    key = an_asymmetric(seed)
    headers = signed_headers(message_id, body, keys=[key], timestamp=now())

    verify(str(key.public), body, headers)
    forged = [(str(key.public), body + b" ")]
    forged += [(str(an_asymmetric(stranger).public), body)] if stranger != seed else []
    for public, wrong in forged:
        with pytest.raises(InvalidSignature):
            verify(public, wrong, headers)


@pytest.mark.parametrize(
    "secret",
    [
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==",
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbc=",
    ],
    ids=["both halves", "seed"],
)
def test_the_asymmetric_example_comes_out_as_everywhere(secret: str) -> None:
    """Ed25519 is deterministic: the signature in the standard's text, by the key behind it.

    The text shows the signature alone. Key and message are those of the test
    of Svix's server, ``test_asymmetric_key_signing``.
    """
    key = key_of(secret)
    headers = signed_headers(*EXAMPLE, keys=[key], timestamp=1614265330)

    assert "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=" == key.public
    assert (
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
        == headers["webhook-signature"]
    )


@given(body=BODIES, shared=KEYS, seed=SEEDS)
def test_both_kinds_sign_side_by_side(body: bytes, shared: bytes, seed: bytes) -> None:
    """So that a receiver can go from one to the other; a library of v1 passes over v1a."""
    secret, asymmetric = a_secret(shared), an_asymmetric(seed)
    headers = signed_headers("evt_1", body, keys=[asymmetric, key_of(secret)], timestamp=now())

    assert ["v1a", "v1"] == [one[:3].strip(",") for one in headers["webhook-signature"].split(" ")]
    Webhook(secret).verify(body, headers, json_parse=False)
    verify(str(asymmetric.public), body, headers)


@pytest.mark.parametrize("secret", ["whsk_not base64!", "whsk_QUJD", "whsk_" + "A" * 64])
def test_a_private_key_of_another_length_is_an_error(secret: str) -> None:
    """Never a key of what happened to be readable of it."""
    with pytest.raises(ValueError, match=r"(?i)base64|an Ed25519 key has 32 or 64 bytes"):
        key_of(secret)


def test_a_key_signs_until_it_expires() -> None:
    """At the very moment it does not; one without an expiry goes on for good."""
    secret = new_secret()
    second, end = timedelta(seconds=1), at(60)

    assert [True, False, False] == [
        key_of(secret, end).signs_at(now) for now in (end - second, end, end + second)
    ]
    assert key_of(secret).signs_at(datetime.max.replace(tzinfo=UTC))


def test_a_key_shows_nothing_that_is_secret() -> None:
    """Neither in a log nor in a traceback; its public half may be seen."""
    private, public = new_pair()
    shown = repr([key_of(new_secret(), at(0)), key_of(private)])

    assert public in shown
    assert "partial" not in shown
    assert "sign=" not in shown


# ------------------------------------------------------------------------------------- making


def test_what_is_made_is_fresh_and_signs() -> None:
    """Each time another; the pair in the form that the standard's libraries exchange."""
    secret, (private, public) = new_secret(), new_pair()
    headers = signed_headers("e", b"{}", keys=[key_of(secret), key_of(private)], timestamp=now())

    Webhook(secret).verify(b"{}", headers)
    verify(public, b"{}", headers)
    half = base64.b64decode(private.removeprefix("whsk_"))
    assert (64, base64.b64decode(public.removeprefix("whpk_"))) == (len(half), half[32:])
    assert 32 == len(base64.b64decode(secret.removeprefix("whsec_")))
    assert secret != new_secret()
    assert private != new_pair()[0]


def test_without_the_package_for_it_an_asymmetric_key_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And all the rest works."""
    private, _ = new_pair()
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)

    for ask in (new_pair, lambda: key_of(private)):
        with pytest.raises(ExtraMissing, match="pip install cryptography"):
            ask()
    assert "v1" == key_of(new_secret()).version


def test_who_has_no_asymmetric_key_does_not_pay_for_it() -> None:
    """The daemon imports nothing of it, nor what writes CloudEvents."""
    code = """
import sys
from batchwatch import daemon, parts
from batchwatch.settings import load
given = load(environ={
    "LLAMA_CLOUD_API_KEY": "llx-key",
    "BATCHWATCH_WEBHOOK_URL": "https://receiver.example/hook",
    "BATCHWATCH_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
})
parts.endpoint_of("webhook", given.endpoints["webhook"], None, None)
print([one for one in ("cryptography", "batchwatch.deliver.cloudevents") if one in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert "[]" == done.stdout.strip()
