"""How wrong settings are told: all at once, in plain words, and never with a secret."""

from __future__ import annotations

import json
import logging
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from batchwatch.settings import SettingsError, load
from batchwatch.settings.kinds import Location
from batchwatch.settings.names import variable
from batchwatch.settings.review import describe, warnings
from batchwatch.settings.table import NAME
from batchwatch.settings.table import settings as all_settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from batchwatch.settings import Settings

ENOUGH = {
    "LLAMA_CLOUD_API_KEY": "llx-key",
    "BATCHWATCH_WEBHOOK_URL": "https://receiver.example/hook",
}


def the_error(environ: Mapping[str, str], config: Path | None = None) -> SettingsError:
    """What is wrong with ``environ``."""
    with pytest.raises(SettingsError) as caught:
        load(config, environ=environ)
    return caught.value


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    """Names, values, files, contradictions, and what is missing: one round of mending."""
    file = tmp_path / "batchwatch.yaml"
    file.write_text(
        "log_level: loud\nroutes:\n  r: {endpoints: [nobody], events: [batch.done]}\nbogus: 1\n"
    )
    error = the_error(
        {
            "BATCHWATCH_POLL_INTERVAL": "soon",
            "BATCHWATCH_LISTEN": "0.0.0.0:8080",
            "BATCHWATCH_WEBHOOK_SECRET": "secret",
            "BATCHWATCH_API_TOKEN_FILE": str(tmp_path / "absent"),
            "BATCHWATCH_LOOKBAK": "1h",
        },
        file,
    )

    assert {
        "BATCHWATCH_POLL_INTERVAL",
        "BATCHWATCH_LISTEN",
        "BATCHWATCH_WEBHOOK_SECRET",
        "BATCHWATCH_API_TOKEN_FILE",
        "BATCHWATCH_LOOKBAK",
        "BATCHWATCH_WEBHOOK_URL",
        "LLAMA_CLOUD_API_KEY",
        f"log_level ({file}, line 1)",
        f"routes.r.endpoints ({file}, line 3)",
        f"routes.r.events ({file}, line 3)",
        f"bogus ({file}, line 4)",
    } == {problem.name for problem in error.problems}


def test_an_error_reads_as_a_list_for_a_person() -> None:
    """Where, what was given, what is allowed, what to do."""
    error = the_error({**ENOUGH, "BATCHWATCH_POLL_INTERVAL": "soon", "BATCHWATCH_LOOKBAK": "1h"})

    assert """\
2 problems with the settings:

BATCHWATCH_LOOKBAK
  given    a name that is not a setting
  to do    Did you mean BATCHWATCH_LOOKBACK?

BATCHWATCH_POLL_INTERVAL
  given    'soon'
  allowed  a duration from 100ms to 1d
  to do    Write it like 500ms, 30s, 5m, 1h30m or 2d; a plain number is seconds.""" == str(error)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("BATCHWATCH_WEBHOK_URL", "Did you mean BATCHWATCH_WEBHOOK_URL?"),
        ("BATCHWATCH_SLACK_URL", "Did you mean BATCHWATCH_SLACK_WEBHOOK_URL?"),
        ("BATCHWATCH_LLAMA_CLOUD_API_KEY", "Did you mean LLAMA_CLOUD_API_KEY?"),
        ("BATCHWATCH_ENDPOINT__OPS__URL", "Did you mean BATCHWATCH_ENDPOINTS__OPS__URL?"),
        ("BATCHWATCH_ENDPOINTS__OPS__ULR", "Did you mean BATCHWATCH_ENDPOINTS__OPS__URL?"),
        ("BATCHWATCH_ENDPOINTS_OPS_URL", "Did you mean BATCHWATCH_ENDPOINTS__NAME__URL?"),
        ("BATCHWATCH_WATCHES__EU__KEY", "Did you mean BATCHWATCH_WATCHES__EU__API_KEY?"),
        ("BATCHWATCH_QQQ", "Remove it; docs/configuration.md lists all settings."),
    ],
)
def test_an_unknown_variable_is_told_with_the_nearest_right_name(name: str, fix: str) -> None:
    """A typing slip must not leave anybody without notifications."""
    [problem] = the_error({**ENOUGH, name: "https://a.example"}).problems

    assert (name, "a name that is not a setting", fix) == (problem.name, problem.given, problem.fix)


def test_a_whole_group_cannot_be_one_variable() -> None:
    """Nobody should have to write JSON into a variable."""
    [problem] = the_error({**ENOUGH, "BATCHWATCH_ENDPOINTS": '{"ops": {}}'}).problems

    assert problem.fix.startswith(
        "Name an entry and its setting, as in BATCHWATCH_ENDPOINTS__NAME__"
    )


@pytest.mark.parametrize(
    ("text", "name", "fix"),
    [
        ("pol_interval: 5s", "pol_interval", "Did you mean poll_interval?"),
        ("endpoint: {}", "endpoint", "Did you mean endpoints?"),
        ("endpoints: {a: {url: 'https://a.example', timout: 1}}", "endpoints.a.timout",
         "Did you mean timeout?"),
        ("Poll_Interval: 5s", "Poll_Interval", "Did you mean poll_interval?"),
        ("poll_interval_file: x", "poll_interval_file", "Did you mean poll_interval?"),
        ("zzz: {a: {b: c}}", "zzz", "Remove it; docs/configuration.md lists all settings."),
    ],
)  # fmt: skip
def test_an_unknown_key_is_told_with_its_line_and_the_nearest_right_name(
    tmp_path: Path, text: str, name: str, fix: str
) -> None:
    """As for variables."""
    file = tmp_path / "batchwatch.yaml"
    file.write_text(f"# a comment\n{text}\n")
    [problem] = the_error(ENOUGH, file).problems

    assert (f"{name} ({file}, line 2)", fix) == (problem.name, problem.fix)


@pytest.mark.parametrize(
    ("text", "name", "given"),
    [
        ("endpoints: [a]", "endpoints", "a list"),
        ("endpoints: {ops: https://a.example}", "endpoints.ops", "'https://a.example'"),
        ("watches: main", "watches", "'main'"),
        ("listen: {host: a}", "listen", "a map"),
        ("log_level: [info]", "log_level", "a list"),
        ("api_token: {a: b}", "api_token", "a map"),
        ("endpoints: {a: {url: 'https://a', headers: [x]}}", "endpoints.a.headers", "a list"),
    ],
)
def test_a_value_of_the_wrong_shape_is_told(
    tmp_path: Path, text: str, name: str, given: str
) -> None:
    """A map where a value belongs, or the other way round."""
    file = tmp_path / "batchwatch.yaml"
    file.write_text(text)
    [problem] = the_error(ENOUGH, file).problems

    assert (f"{name} ({file}, line 1)", given) == (problem.name, problem.given)


def test_one_mistake_reads_as_one(tmp_path: Path) -> None:
    """A misspelt URL is not also a missing one, nor a file that cannot be read a missing secret."""
    environ = {
        "LLAMA_CLOUD_API_KEY_FILE": str(tmp_path / "absent"),
        "BATCHWATCH_WEBHOOKURL": "https://a",
    }
    file = tmp_path / "batchwatch.yaml"
    file.write_text("endpoints: {ops: {ulr: 'https://a.example'}}")

    names = [problem.name for problem in the_error(environ, file).problems]
    assert [
        "BATCHWATCH_WEBHOOKURL", "LLAMA_CLOUD_API_KEY_FILE", f"endpoints.ops.ulr ({file}, line 1)",
    ] == sorted(names)  # fmt: skip


def test_a_mistake_that_many_watches_inherit_is_told_once() -> None:
    """It was made once."""
    watches = {f"BATCHWATCH_WATCHES__{name}__PROJECT_ID": "prj-1" for name in "ABC"}
    error = the_error({**ENOUGH, **watches, "BATCHWATCH_LOOKBACK": "x"})

    assert ["BATCHWATCH_LOOKBACK"] == [problem.name for problem in error.problems]


def test_a_long_value_is_told_by_its_length() -> None:
    """Somebody named the wrong file."""
    [problem] = the_error({**ENOUGH, "BATCHWATCH_LOOKBACK": "//" * 100_000}).problems

    assert "200000 characters" == problem.given


# ---------------------------------------------------------------------------------- secrets

SECRET = "hunter2hunter2"

# Each makes some setting wrong, and holds the secret in a place of its own.
WRONG = [
    SECRET, f" {SECRET}", f"{SECRET}\n", f"llx-{SECRET}", f"whsec_{SECRET}", f"xoxb-{SECRET}",
    f"https://user:{SECRET}@host/#x", f"https://user:{SECRET}@ho st", f"user:{SECRET}@host",
    f"https://host/{SECRET}#x", f"https://host/?token={SECRET}#x", f"ftp://host/{SECRET}",
    f"https://host:port/{SECRET}", f"postgresql://user:{SECRET}@host/db", f"Bearer {SECRET}\x00",
    f"postgresql://user:p@{SECRET}/@host/db", f"https://a/b:{SECRET}@c",
]  # fmt: skip

# A plain word in a place that is not secret is shown: that is how its author finds it. And almost
# any text is a path.
PLAIN = {SECRET, f" {SECRET}", f"{SECRET}\n"}


def everything_shown(environ: Mapping[str, str], config: Path | None = None) -> str:
    """All that anybody could see of a load, whether it goes well or not."""
    try:
        loaded: Settings = load(config, environ=environ)
    except SettingsError as error:
        return "\n".join([*traceback.format_exception(error), repr(error), repr(error.problems)])
    return "\n".join([repr(loaded), str(loaded), *map(str, describe(loaded)), *warnings(loaded)])


@pytest.mark.parametrize("path", all_settings(), ids=".".join)
def test_no_secret_is_ever_shown(path: tuple[str, ...], tmp_path: Path) -> None:
    """Not in errors, tracebacks, representations or listings; by variable and in YAML alike."""
    kind = all_settings()[path].kind
    concrete = tuple("ops" if step == NAME else step for step in path)
    file = tmp_path / "batchwatch.yaml"
    for text in WRONG:
        if not kind.secret and (text in PLAIN or isinstance(kind, Location)):
            continue
        tree: object = text
        for step in reversed(concrete):
            tree = {step: tree}
        file.write_text(json.dumps(tree))

        assert SECRET not in everything_shown({**ENOUGH, variable(concrete): text})
        assert SECRET not in everything_shown(ENOUGH, file)


@given(name=st.from_regex(r"[A-Z_]{1,20}", fullmatch=True), text=st.sampled_from(WRONG))
def test_the_value_of_an_unknown_variable_is_not_shown(name: str, text: str) -> None:
    """It may be a secret whose name was misspelt."""
    if "_FILE" not in name:
        assert SECRET not in everything_shown({**ENOUGH, f"BATCHWATCH_Z{name}": text})


def test_no_cause_carries_what_was_given() -> None:
    """Nothing of pydantic's stands behind the error, where a traceback would show it."""
    error = the_error({**ENOUGH, "BATCHWATCH_API_TOKEN": SECRET, "BATCHWATCH_LOOKBACK": "x"})

    assert (None, None) == (error.__cause__, error.__context__)
    assert (
        "pydantic" not in "".join(traceback.format_exception(error)).split("raise SettingsError")[0]
    )


def test_the_debug_log_of_pydantic_settings_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It logs what its sources hold, and ours hold secrets hidden."""
    monkeypatch.setenv("PYDANTIC_SETTINGS_DEBUG", "1")
    caplog.set_level(logging.DEBUG, logger="pydantic_settings")
    # The layer that is logged is the last, and only without a default one that is the environment.
    environ = {"BATCHWATCH_API_TOKEN": f"{SECRET}{SECRET}", "BATCHWATCH_DATA_DIR": "data"}
    load(environ={**ENOUGH, **environ})

    assert "api_token" in caplog.text
    assert SECRET not in caplog.text


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_any_text_is_yaml_or_told(tmp_path: Path, text: str) -> None:
    """Whatever stands in the file, `load` returns settings or says what is wrong."""
    file = tmp_path / "batchwatch.yaml"
    file.write_text(text, encoding="utf-8")
    with suppress(SettingsError):
        load(file, environ=ENOUGH)


@given(
    path=st.sampled_from(sorted(all_settings())),
    text=st.text(alphabet=st.characters(exclude_characters="\0")),  # bytes that are no text, too
)
def test_any_text_is_a_value_or_told(path: tuple[str, ...], text: str) -> None:
    """Whatever stands in a variable, `load` returns settings or says what is wrong."""
    concrete = tuple("ops" if step == NAME else step for step in path)
    assert everything_shown({**ENOUGH, variable(concrete): text}).encode()
