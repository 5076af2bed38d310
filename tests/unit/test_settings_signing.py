"""The secrets that sign: how they are written, which are refused, and that none is ever shown."""

from __future__ import annotations

import base64
import sys
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import jsonschema
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st

from batchwatch.settings import Settings, SettingsError, WebhookSettings, load
from batchwatch.settings.reference import json_schema
from batchwatch.settings.review import describe, expired, warnings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from batchwatch.settings import Problem
    from batchwatch.settings.signing import SigningSecret

NAME = "BATCHWATCH_WEBHOOK_SECRET"
ENOUGH = {
    "LLAMA_CLOUD_API_KEY": "llx-key",
    "BATCHWATCH_WEBHOOK_URL": "https://receiver.example/hook",
}
NEW = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD = "whsec_Y0GLoOkw8rlZGRYXo3yXQkSDcQ1nZUaV"
# The pair that Svix, where the standard comes from, tests its server with.
PRIVATE = (
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
)
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
SEED = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbc="
MANY = ["whsec_" + base64.b64encode(bytes([number]) * 24).decode() for number in range(11)]
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)


def of(given: Settings) -> tuple[SigningSecret, ...]:
    endpoint = given.endpoints["webhook"]
    assert isinstance(endpoint, WebhookSettings)
    return endpoint.secret


def read(text: str) -> list[tuple[str, datetime | None]]:
    """The secrets in this text, and when each expires."""
    found = of(load(environ={**ENOUGH, NAME: text}))
    return [(one.text.get_secret_value(), one.expires_at) for one in found]


def the_problem(text: str) -> Problem:
    with pytest.raises(SettingsError) as caught:
        load(environ={**ENOUGH, NAME: text})
    [problem] = caught.value.problems
    return problem


# ------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    "text",
    [f"{NEW} {OLD}", f"{NEW},{OLD}", f"{NEW}, {OLD}", f"\n{NEW}\n{OLD}\n", f"{NEW},\t,{OLD},"],
)
def test_several_secrets_are_one_text_with_spaces_or_commas_between(text: str) -> None:
    """So that a variable and a file can hold them, a line each; their order stays."""
    assert [(NEW, None), (OLD, None)] == read(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-12-01", DECEMBER),
        ("2026-12-01T00:00:00Z", DECEMBER),
        ("2026-12-01t00:00:00z", DECEMBER),
        ("2026-12-01T01:30:00+01:30", DECEMBER),
        ("2026-12-01T12:34:56.5Z", datetime(2026, 12, 1, 12, 34, 56, 500_000, UTC)),
    ],
)
def test_a_secret_ends_at_the_moment_behind_its_at(text: str, moment: datetime) -> None:
    """A date is the beginning of that day in UTC; a time says itself where it is counted."""
    assert [(NEW, None), (OLD, moment)] == read(f"{NEW} {OLD}@{text}")


@pytest.mark.parametrize("text", [PRIVATE, SEED])
def test_an_asymmetric_key_is_a_secret_as_well(text: str) -> None:
    """With its public half behind it, as libsodium writes it, or the seed alone."""
    assert [(text, DECEMBER), (NEW, None)] == read(f"{text}@2026-12-01 {NEW}")


def test_a_list_in_yaml_is_read_as_the_text_is(tmp_path: Path) -> None:
    """Each entry with its expiry; and the schema of the editors allows both."""
    file = tmp_path / "batchwatch.yaml"
    file.write_text(f"webhook_secret: [{NEW}, {OLD}@2026-12-01]\n")
    found = of(load(file, environ=ENOUGH))

    assert [(NEW, None), (OLD, DECEMBER)] == [
        (one.text.get_secret_value(), one.expires_at) for one in found
    ]
    for value in ([NEW, f"{OLD}@2026-12-01"], f"{NEW}, {PRIVATE}", f"{OLD}@2026-12-01T00:00:00Z"):
        jsonschema.validate({"webhook_secret": value}, json_schema(), jsonschema.Draft7Validator)
    for wrong in ([], MANY, "whsec_", f"{NEW}@", f"{NEW}@soon", PUBLIC):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"webhook_secret": wrong}, json_schema())


def test_a_file_holds_a_secret_a_line(tmp_path: Path) -> None:
    """As the rotation leaves it: the new one above the old."""
    file = tmp_path / "secret"
    file.write_text(f"{NEW}\n{OLD}@2026-12-01\n")
    found = of(load(environ={**ENOUGH, f"{NAME}_FILE": str(file)}))

    assert [NEW, OLD] == [one.text.get_secret_value() for one in found]


def test_there_may_be_ten(tmp_path: Path) -> None:
    """Receivers bound the size of a header, and nobody rotates more."""
    assert 10 == len(read(" ".join(MANY[:10])))
    problem = the_problem(" ".join(MANY))
    assert problem.given.endswith("with 11 secrets in it")
    assert "Remove the oldest." == problem.fix

    file = tmp_path / "batchwatch.yaml"
    file.write_text(f"webhook_secret: [{', '.join(MANY)}]\n")
    with pytest.raises(SettingsError, match="with 11 secrets in it"):
        load(file, environ=ENOUGH)


# ------------------------------------------------------------------------------------- refusing


def halves(first: str, second: str) -> str:
    """A key whose public half is another's."""
    return "whsk_" + base64.b64encode(first.encode() * 32 + second.encode() * 32).decode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("abc", "does not begin with whsec_"),
        ("whsec_!", "is no base64 after whsec_"),
        ("whsec_" + "A" * 88, "is 66 bytes after decoding"),
        ("whsk_!", "is no base64 after whsk_"),
        ("whsk_" + "A" * 24, "is 18 bytes after decoding"),
        (halves("a", "b"), "holds two halves that do not belong together"),
        (PUBLIC, "is a public key"),
        (f"{OLD}@", "has no date or time in UTC after its @"),
        (f"{OLD}@soon", "has no date or time in UTC after its @"),
        (f"{OLD}@2026-13-01", "has no date or time in UTC after its @"),
        (f"{OLD}@2026-12-01T12:00:00", "has no date or time in UTC after its @"),
        (f"{OLD}@20261201", "has no date or time in UTC after its @"),
        (f"{OLD}@0001-01-01T00:00:00+01:00", "has no date or time in UTC after its @"),
        (f"{OLD}@2026-12-01@2026-12-02", "has no date or time in UTC after its @"),
        (NEW, "is the same as secret 1"),
        (f"{NEW}@2026-12-01", "is the same as secret 1"),
    ],
)
def test_the_one_that_is_wrong_is_told_by_its_place(text: str, reason: str) -> None:
    """Never by its text; whoever set it can count."""
    given = f"{NEW} {text} {MANY[1]}"

    problem = the_problem(given)

    assert f"hidden ({len(given)} characters), whose secret 2 of 3 {reason}" == problem.given


def test_nothing_but_commas_is_no_secret() -> None:
    """It was meant to be one, so to send unsigned would be a surprise."""
    assert the_problem(" , ").given.endswith("which holds no secret")


@pytest.mark.parametrize("entries", ["[]", f"[{NEW}, [{OLD}]]", f"[{NEW}, {{a: {OLD}}}]", "{a: b}"])
def test_a_list_of_something_else_is_told(tmp_path: Path, entries: str) -> None:
    """With what is allowed, and without what was found."""
    file = tmp_path / "batchwatch.yaml"
    file.write_text(f"webhook_secret: {entries}\n")
    with pytest.raises(SettingsError) as caught:
        load(file, environ=ENOUGH)

    [problem] = caught.value.problems
    assert "whsec_ followed by 24 to 64 bytes" in problem.expected
    assert NEW[6:] not in str(caught.value)


def test_a_missing_package_is_told_with_the_extra_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At start, and only if there is an asymmetric key."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)

    problem = the_problem(PRIVATE)

    assert problem.given.endswith("which needs a package that is not installed")
    assert "Install it with: pip install cryptography" == problem.fix
    assert [(NEW, None)] == read(NEW)


# ---------------------------------------------------------------------------------- never shown


def everything_shown(environ: dict[str, str]) -> str:
    """All that anybody could see of a load, whether it goes well or not."""
    try:
        loaded = load(environ=environ)
    except SettingsError as error:
        return "\n".join([*traceback.format_exception(error), repr(error), repr(error.problems)])
    return "\n".join([repr(loaded), str(loaded), *map(str, describe(loaded)), *warnings(loaded)])


def secrets() -> st.SearchStrategy[str]:
    """Right ones of both kinds."""
    shared = st.binary(min_size=24, max_size=64)
    seeds = st.binary(min_size=32, max_size=32)
    return st.one_of(
        shared.map(lambda key: "whsec_" + base64.b64encode(key).decode()),
        seeds.map(lambda seed: "whsk_" + base64.b64encode(seed + public_half(seed)).decode()),
    )


def public_half(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def spoilt(secret: str) -> st.SearchStrategy[str]:
    """The secret, or what a slip makes of it."""
    return st.sampled_from([
        secret, secret[1:], secret[:-3], f"{secret}@", f"{secret}@2026-12-01", f"@{secret}",
        f"{secret}@2026-31-12", secret.replace("_", "-"), f"2026-12-01@{secret}", f"'{secret}'",
        secret.upper(), f"{secret}=", f"{secret}\x00", f"{secret}é", f"{secret}@{secret}",
    ])  # fmt: skip


def parts(texts: Iterable[str]) -> set[str]:
    """Every run of eight characters of what must not be shown."""
    bodies = [text.partition("_")[2].rstrip("=") for text in texts]
    return {body[at : at + 8] for body in bodies for at in range(len(body) - 7)}


@given(
    data=st.data(),
    known=st.lists(secrets(), min_size=1, max_size=12),
    separator=st.sampled_from([" ", ",", ", ", "\n", ";", "|", ""]),
)
def test_no_part_of_any_secret_is_ever_shown(
    data: st.DataObject, known: list[str], separator: str
) -> None:
    """Right or wrong, alone or with others, whatever stands between them."""
    text = separator.join(data.draw(spoilt(secret)) for secret in known)

    shown = everything_shown({**ENOUGH, NAME: text})

    assert not {part for part in parts(known) if part in shown}


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
@example("whsec_@")
@example("@@,@")
def test_any_text_is_secrets_or_told(text: str) -> None:
    """And whoever is told learns no more of it than how long it is."""
    try:
        load(environ={**ENOUGH, NAME: text})
    except SettingsError as error:
        [problem] = error.problems
        assert problem.given.startswith(("hidden (", "a value in quotes"))


# ------------------------------------------------------------------------------------- in force


def loaded(text: str) -> Settings:
    return load(environ={**ENOUGH, NAME: text})


def test_the_listing_says_how_many_sign_and_until_when() -> None:
    """What they are is hidden; that there are two is what an operator wants to see."""
    lines = [str(line) for line in describe(loaded(f"{PRIVATE},{OLD}@2026-12-01T12:00:00Z"))]

    shown = "hidden (v1a without end, v1 until 2026-12-01T12:00:00Z)"
    assert f"endpoints.webhook.secret = {shown} ({NAME})" in lines


def test_secrets_that_will_all_have_expired_are_warned_of() -> None:
    """While there is time to mend it."""
    assert () == warnings(loaded(f"{NEW} {OLD}@2026-12-01"))
    [warning] = warnings(loaded(f"{NEW}@2026-12-02 {OLD}@2026-12-01"))

    assert "no secret that stays: from 2026-12-02T00:00:00Z on, its messages fail" in warning


def test_secrets_that_have_all_expired_are_a_problem_by_the_name_that_set_them() -> None:
    """At the very moment of the last one."""
    given = loaded(f"{NEW}@2026-12-01 {OLD}@2026-11-01")

    assert [] == list(expired(given, now=datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)))
    [problem] = expired(given, now=DECEMBER)
    assert (NAME, "2 expired, the last at 2026-12-01T00:00:00Z") == (problem.name, problem.given)
    assert [] == list(expired(loaded(f"{NEW} {OLD}@2026-11-01"), now=DECEMBER))
    assert [] == list(expired(load(environ=ENOUGH), now=DECEMBER))
