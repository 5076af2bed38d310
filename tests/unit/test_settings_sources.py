"""Where settings come from: arguments, environment, files, secrets folder, YAML, in that order."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from batchwatch.settings import Settings, SettingsError, load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

KEY = {"LLAMA_CLOUD_API_KEY": "llx-key"}
ENOUGH = {**KEY, "BATCHWATCH_WEBHOOK_URL": "https://receiver.example/hook"}
SIGNING_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def with_yaml(tmp_path: Path, text: str, **variables: str) -> Settings:
    """Load what is enough, these variables, and a YAML file."""
    file = tmp_path / "batchwatch.yaml"
    file.write_text(text, encoding="utf-8")
    return load(file, environ={**ENOUGH, **variables})


def problems(
    environ: Mapping[str, str], config: Path | None = None, *, for_run: bool = True
) -> dict[str, tuple[str, str]]:
    """Load what cannot be loaded; each problem's name with what was given and what to do."""
    with pytest.raises(SettingsError) as caught:
        load(config, environ=environ, for_run=for_run)
    return {problem.name: (problem.given, problem.fix) for problem in caught.value.problems}


@contextmanager
def no_rights(path: Path) -> Iterator[None]:
    """Make ``path`` unreadable for us, even if the tests are run by root."""
    mode = path.stat().st_mode
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        path.chmod(mode)


# ------------------------------------------------------------------------------- environment


def test_a_key_and_a_webhook_are_enough() -> None:
    """Everything else has a default, and what was left to be understood is spelled out."""
    settings = load(environ=ENOUGH)

    assert ["default"] == list(settings.watches)
    assert "llx-key" == settings.watches["default"].api_key.get_secret_value()
    assert "https://api.cloud.llamaindex.ai" == settings.watches["default"].base_url
    assert ["webhook"] == list(settings.endpoints)


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("LLAMA_CLOUD_BASE_URL", "http://127.0.0.1:9", "llama_cloud_base_url", "http://127.0.0.1:9"),
        ("BATCHWATCH_DATABASE_URL", "sqlite:////x/b.db", "database_url", "sqlite+aiosqlite:////x/b.db"),
        ("BATCHWATCH_DATA_DIR", "/data", "data_dir", "/data"),
        ("BATCHWATCH_POLL_INTERVAL", "1m", "poll_interval", 60.0),
        ("BATCHWATCH_LOOKBACK", "2d", "lookback", 172_800.0),
        ("BATCHWATCH_NOTIFY_BACKLOG", "yes", "notify_backlog", True),
        ("BATCHWATCH_LISTEN", "[::1]:0", "listen", "[::1]:0"),
        ("BATCHWATCH_API_TOKEN", "0123456789abcdef", "api_token", "0123456789abcdef"),
        ("BATCHWATCH_LOG_FORMAT", "JSON", "log_format", "json"),
        ("BATCHWATCH_LOG_LEVEL", "Warning", "log_level", "warning"),
        ("BATCHWATCH_SHUTDOWN_GRACE", "5s", "shutdown_grace", 5.0),
        ("BATCHWATCH_WEBHOOK_URL", "https://a.example/b", "webhook_url", "https://a.example/b"),
        ("BATCHWATCH_SLACK_WEBHOOK_URL", "https://s.example/x", "slack_webhook_url", "https://s.example/x"),
    ],
)  # fmt: skip
def test_each_variable_sets_its_setting(name: str, text: str, field: str, value: object) -> None:
    """These names are a promise: they stand in other people's deployments."""
    found = getattr(load(environ={**ENOUGH, name: text}), field)

    shown = found.get_secret_value() if hasattr(found, "get_secret_value") else found
    assert value == (shown if isinstance(shown, float | bool | str) else str(shown))


def test_the_key_may_go_by_either_of_llamacloud_s_names() -> None:
    """As in LlamaCloud's own SDK, and the first one counts if both are set."""
    hook = {"BATCHWATCH_WEBHOOK_URL": "https://receiver.example/hook"}
    one = load(environ={**hook, "LLAMA_PARSE_API_KEY": "llx-parse"})
    both = load(environ={**hook, "LLAMA_PARSE_API_KEY": "llx-parse", **KEY})

    assert "llx-parse" == one.watches["default"].api_key.get_secret_value()
    assert "llx-key" == both.watches["default"].api_key.get_secret_value()


def test_names_are_made_by_variables() -> None:
    """Two underscores go one map down, and names arrive in lower case."""
    settings = load(
        environ={
            **KEY,
            "BATCHWATCH_WATCHES__EU__BASE_URL": "api.cloud.eu.llamaindex.ai",
            "BATCHWATCH_ENDPOINTS__OPS_TEAM__URL": "https://ops.example/hook",
            "BATCHWATCH_ENDPOINTS__OPS_TEAM__RETRY_SCHEDULE": "0s, 1m,1h",
            "BATCHWATCH_ENDPOINTS__OPS_TEAM__HEADERS__X_API_KEY": "a key",
            "BATCHWATCH_ROUTES__ALL__EVENTS": "batch.*, watch.failing",
            "BATCHWATCH_ROUTES__ALL__ENDPOINTS": "ops_team",
        }
    )
    endpoint = settings.endpoints["ops_team"]

    assert ["eu"] == list(settings.watches)
    assert (0.0, 60.0, 3_600.0) == endpoint.retry_schedule
    assert "webhook" == endpoint.type
    assert "a key" == endpoint.headers["x-api-key"].get_secret_value()
    assert ("batch.*", "watch.failing") == settings.routes["all"].events


def test_an_empty_variable_counts_as_unset() -> None:
    """Compose files and CI set variables that nobody filled."""
    empty = {
        "BATCHWATCH_POLL_INTERVAL": "",
        "BATCHWATCH_WEBHOOK_SECRET_FILE": "",
        "BATCHWATCH_X": "",
    }

    assert 15.0 == load(environ={**ENOUGH, **empty}).poll_interval


def test_a_variable_may_be_written_in_lower_case() -> None:
    """To pass it over in silence would be worse than to take it."""
    assert 1.0 == load(environ={**ENOUGH, "batchwatch_poll_interval": "1s"}).poll_interval


def test_two_spellings_of_one_variable_are_an_error() -> None:
    """Which one was meant, nobody can tell."""
    environ = {**ENOUGH, "BATCHWATCH_LOOKBACK": "1h", "batchwatch_lookback": "2h"}

    assert {"BATCHWATCH_LOOKBACK"} == problems(environ).keys()


def test_what_kubernetes_sets_for_a_service_is_passed_over() -> None:
    """Beside a service called batchwatch each pod finds these, and must start all the same."""
    links = {
        "BATCHWATCH_SERVICE_HOST": "10.0.0.7",
        "BATCHWATCH_SERVICE_PORT": "8080",
        "BATCHWATCH_SERVICE_PORT_HTTP": "8080",
        "BATCHWATCH_PORT": "tcp://10.0.0.7:8080",
        "BATCHWATCH_PORT_8080_TCP": "tcp://10.0.0.7:8080",
        "BATCHWATCH_PORT_8080_TCP_PROTO": "tcp",
        "BATCHWATCH_PORT_8080_TCP_PORT": "8080",
        "BATCHWATCH_PORT_8080_TCP_ADDR": "10.0.0.7",
        "BATCHWATCH_METRICS_SERVICE_HOST": "10.0.0.8",
    }

    assert load(environ={**ENOUGH, **links}) == load(environ=ENOUGH)


def test_what_only_looks_like_a_service_s_is_not_passed_over() -> None:
    """A setting is one whatever it ends with, and a port alone is a slip."""
    header = "BATCHWATCH_ENDPOINTS__OPS__HEADERS__X_SERVICE_HOST"
    url = "BATCHWATCH_ENDPOINTS__OPS__URL"
    endpoint = load(environ={**ENOUGH, url: "https://a.example", header: "b"}).endpoints["ops"]

    assert "webhook" == endpoint.type
    assert ["x-service-host"] == list(endpoint.headers)
    for name, text in {"BATCHWATCH_PORT": "8080", "BATCHWATCH_LISTEN": "tcp://0.0.0.0:80"}.items():
        assert [name] == list(problems({**ENOUGH, name: text}))


def test_the_tests_own_variable_is_passed_over() -> None:
    """It may be set where the daemon is started by tests."""
    environ = {**ENOUGH, "BATCHWATCH_TEST_POSTGRES": "postgresql://…"}

    assert load(environ=environ) == load(environ=ENOUGH)


def test_a_value_in_quotes_is_an_error() -> None:
    """Docker keeps the quotes of an env file in the value, and a key in quotes is a wrong key."""
    found = problems({**ENOUGH, "LLAMA_CLOUD_API_KEY": '"llx-key"'})

    assert {"LLAMA_CLOUD_API_KEY": ("a value in quotes", "Remove the quotes.")} == found


# ------------------------------------------------------------------------------- precedence


def test_the_highest_source_wins(tmp_path: Path) -> None:
    """Arguments, environment, secrets folder, YAML file, default."""
    (tmp_path / "batchwatch_poll_interval").write_text("3s\n")
    file = tmp_path / "batchwatch.yaml"
    file.write_text("poll_interval: 4s")
    folder = {"BATCHWATCH_SECRETS_DIR": str(tmp_path)}
    variable = {"BATCHWATCH_POLL_INTERVAL": "2s"}

    found = [
        load(file, environ={**ENOUGH, **folder, **variable}, poll_interval="1s"),
        load(file, environ={**ENOUGH, **folder, **variable}),
        load(file, environ={**ENOUGH, **folder}),
        load(file, environ=ENOUGH),
        load(environ=ENOUGH),
    ]
    assert [1.0, 2.0, 3.0, 4.0, 15.0] == [settings.poll_interval for settings in found]


def test_an_argument_that_is_none_was_not_given() -> None:
    """Options of a command line are None when they were left out."""
    assert "info" == load(environ=ENOUGH, log_level=None).log_level


def test_sources_are_merged_setting_by_setting(tmp_path: Path) -> None:
    """A secret from the environment joins the endpoint that the file describes."""
    text = "endpoints: {ops: {url: https://ops.example/hook, timeout: 5s}}"
    settings = with_yaml(tmp_path, text, BATCHWATCH_ENDPOINTS__OPS__TIMEOUT="9s")

    assert "https://ops.example/hook" == settings.endpoints["ops"].url.get_secret_value()
    assert 9.0 == settings.endpoints["ops"].timeout


def test_the_config_argument_wins_over_the_variable(tmp_path: Path) -> None:
    """``--config`` is what the person at the terminal wants now."""
    for name in ("one", "two"):
        (tmp_path / name).write_text("log_level: " + {"one": "error", "two": "debug"}[name])
    environ = {**ENOUGH, "BATCHWATCH_CONFIG": str(tmp_path / "one")}

    assert "error" == load(environ=environ).log_level
    assert "debug" == load(tmp_path / "two", environ=environ).log_level
    assert tmp_path / "two" == load(tmp_path / "two", environ=environ).config


# ------------------------------------------------------------------------------------ files


@pytest.mark.parametrize(
    ("content", "secret"),
    [("llx-file", "llx-file"), ("llx-file\n", "llx-file"), ("llx-file\r\n", "llx-file"),
     ("llx-file ", "llx-file"), ("\ufeffllx-file\n", "llx-file")],
)  # fmt: skip
def test_a_secret_is_read_from_the_file_that_name_file_names(
    tmp_path: Path, content: str, secret: str
) -> None:
    """Without the one line end or space that editors and ``echo`` add, and without their mark."""
    file = tmp_path / "key"
    file.write_bytes(content.encode())
    hook = {"BATCHWATCH_WEBHOOK_URL": "https://receiver.example/hook"}

    settings = load(environ={**hook, "LLAMA_CLOUD_API_KEY_FILE": str(file)})
    assert secret == settings.watches["default"].api_key.get_secret_value()


def test_no_more_than_one_line_end_is_taken_from_a_secret(tmp_path: Path) -> None:
    """A second one is no editor's doing, so the file is not what it should be."""
    file = tmp_path / "key"
    file.write_text("llx-key\n\n")
    hook = {"BATCHWATCH_WEBHOOK_URL": "https://receiver.example/hook"}

    found = problems({**hook, "LLAMA_CLOUD_API_KEY_FILE": str(file)})
    assert [f"LLAMA_CLOUD_API_KEY_FILE ({file})"] == list(found)


def test_nested_secrets_have_files_as_well(tmp_path: Path) -> None:
    """``BATCHWATCH_ENDPOINTS__OPS__SECRET_FILE``, and the like for headers and URLs."""
    (tmp_path / "secret").write_text(SIGNING_SECRET + "\n")
    (tmp_path / "token").write_text("Bearer abc\n")
    (tmp_path / "url").write_text("https://ops.example/hook?sig=abc\n")
    prefix = "BATCHWATCH_ENDPOINTS__OPS__"
    endpoint = load(
        environ={
            **KEY,
            f"{prefix}URL_FILE": str(tmp_path / "url"),
            f"{prefix}SECRET_FILE": str(tmp_path / "secret"),
            f"{prefix}HEADERS__AUTHORIZATION_FILE": str(tmp_path / "token"),
        }
    ).endpoints["ops"]

    assert "webhook" == endpoint.type
    assert [SIGNING_SECRET] == [one.text.get_secret_value() for one in endpoint.secret]
    assert "Bearer abc" == endpoint.headers["authorization"].get_secret_value()
    assert "https://ops.example/hook?sig=abc" == endpoint.url.get_secret_value()


def test_a_secret_and_its_file_are_an_error_together() -> None:
    """One of them is a leftover, and nobody can tell which."""
    name = "BATCHWATCH_WEBHOOK_SECRET"
    found = problems({**ENOUGH, name: SIGNING_SECRET, f"{name}_FILE": "/run/secret"})

    assert {name: (f"both {name} and {name}_FILE", "Remove one of them.")} == found


def test_only_secrets_have_files() -> None:
    """An interval in a file of its own is a slip."""
    found = problems({**ENOUGH, "BATCHWATCH_LOOKBACK_FILE": "/run/lookback"})

    assert ["BATCHWATCH_LOOKBACK_FILE"] == list(found)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"", "an empty file"),
        (b"\n", "an empty file"),
        ("schlüssel".encode("latin-1"), "not in UTF-8"),
        (bytes(1024 * 1024 + 1), "larger than 1 MiB"),
    ],
)
def test_a_secret_s_file_that_cannot_be_used_is_told_with_the_reason(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    """Under the variable that names the file."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    found = problems({**ENOUGH, "BATCHWATCH_API_TOKEN_FILE": str(file)})

    assert f"'{file}', {reason}" == found["BATCHWATCH_API_TOKEN_FILE"][0]


def test_a_folder_in_place_of_a_secret_s_file_is_told(tmp_path: Path) -> None:
    """Docker makes a folder of a file that is missing on the host."""
    found = problems({**ENOUGH, "BATCHWATCH_API_TOKEN_FILE": str(tmp_path)})

    given = f"'{tmp_path}', a folder, not a file"
    assert {"BATCHWATCH_API_TOKEN_FILE": (given, "Give the path of a file.")} == found


def test_a_secret_s_file_that_this_user_may_not_read_is_told(tmp_path: Path) -> None:
    """Secrets often belong to root, and we do not run as root."""
    file = tmp_path / "token"
    file.write_text("0123456789abcdef")
    with no_rights(file):
        found = problems({**ENOUGH, "BATCHWATCH_API_TOKEN_FILE": str(file)})

    fix = "Let the user that runs batchwatch read it."
    assert {"BATCHWATCH_API_TOKEN_FILE": (f"'{file}', not readable by this user", fix)} == found


# --------------------------------------------------------------------------- secrets folder


def test_a_secrets_folder_holds_one_file_for_each_variable(tmp_path: Path) -> None:
    """Named in any case; Kubernetes puts hidden folders beside them, and others their own files."""
    (tmp_path / "llama_cloud_api_key").write_text("llx-folder\n")
    (tmp_path / "BATCHWATCH_WEBHOOK_SECRET").write_text(SIGNING_SECRET)
    (tmp_path / "Batchwatch_Endpoints__Ops__Url").write_text("https://ops.example/hook")
    (tmp_path / "postgres_password").write_text("not ours")
    (tmp_path / "..data").mkdir()

    settings = load(
        environ={
            "BATCHWATCH_SECRETS_DIR": str(tmp_path),
            "BATCHWATCH_WEBHOOK_URL": "https://receiver.example/hook",
        }
    )
    assert "llx-folder" == settings.watches["default"].api_key.get_secret_value()
    assert ["webhook", "ops"] == list(settings.endpoints)
    assert settings.webhook_secret


def test_an_unknown_name_in_the_secrets_folder_is_an_error(tmp_path: Path) -> None:
    """If it carries our prefix, it was meant for us."""
    (tmp_path / "batchwatch_webhok_secret").write_text("x")
    found = problems({**ENOUGH, "BATCHWATCH_SECRETS_DIR": str(tmp_path)})

    fix = "Did you mean BATCHWATCH_WEBHOOK_SECRET?"
    assert {"BATCHWATCH_WEBHOK_SECRET": ("a name that is not a setting", fix)} == found


def test_a_secrets_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """And nothing is said of what may be missing, for it may be in there."""
    found = problems({"BATCHWATCH_SECRETS_DIR": str(tmp_path / "absent")})

    assert ["BATCHWATCH_SECRETS_DIR"] == list(found)


# ------------------------------------------------------------------------------------- YAML


def test_values_in_yaml_are_text_as_variables_are(tmp_path: Path) -> None:
    """YAML would make 4660 of 0x1234, 90 of 1:30, and false of a header that says no."""
    text = """
    poll_interval: 15
    notify_backlog: yes
    api_token: 0x1234567890abcdef
    endpoints:
      ops:
        url: https://ops.example/hook
        headers: {x-answer: no, x-number: 0123}
    """
    settings = with_yaml(tmp_path, text)
    endpoint = settings.endpoints["ops"]

    assert "webhook" == endpoint.type
    assert ["no", "0123"] == [value.get_secret_value() for value in endpoint.headers.values()]
    assert 15.0 == settings.poll_interval
    assert settings.notify_backlog is True
    assert settings.api_token
    assert "0x1234567890abcdef" == settings.api_token.get_secret_value()


def test_null_and_nothing_count_as_unset_in_yaml(tmp_path: Path) -> None:
    """But a watch exists by its name alone."""
    text = "poll_interval:\nlookback: ~\nroutes:\napi_token: ''\nwatches: {main: }"
    settings = with_yaml(tmp_path, text)

    assert (15.0, 86_400.0) == (settings.poll_interval, settings.lookback)
    assert settings.api_token is None
    assert ["main"] == list(settings.watches)


@pytest.mark.parametrize("text", ["", "---\n", "# nothing yet\n", "null"])
def test_an_empty_file_sets_nothing(tmp_path: Path, text: str) -> None:
    """Such as one whose every line is commented out."""
    assert 15.0 == with_yaml(tmp_path, text).poll_interval


def test_anchors_and_merges_work_in_yaml(tmp_path: Path) -> None:
    """And keys with x- at the top are a place for them."""
    text = """
    x-patient: &patient {timeout: 1m, retry_schedule: [0s, 1h]}
    endpoints:
      a: {<<: *patient, url: https://a.example}
      b: {<<: *patient, url: https://b.example, timeout: 2m}
    """
    endpoints = with_yaml(tmp_path, text).endpoints

    assert [60.0, 120.0] == [endpoints[name].timeout for name in "ab"]
    assert (0.0, 3_600.0) == endpoints["b"].retry_schedule


def test_a_secret_may_stand_in_a_file_of_its_own_in_yaml_too(tmp_path: Path) -> None:
    """So that the YAML file can be kept in version control."""
    (tmp_path / "secret").write_text(SIGNING_SECRET + "\n")
    text = f"endpoints: {{ops: {{url: https://ops.example, secret_file: {tmp_path}/secret}}}}"
    endpoint = with_yaml(tmp_path, text).endpoints["ops"]

    assert "webhook" == endpoint.type
    assert [SIGNING_SECRET] == [one.text.get_secret_value() for one in endpoint.secret]


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("- a\n- b", "it holds no map of settings"),
        ("poll_interval", "it holds no map of settings"),
        ("a: b: c", "mapping values are not allowed here at line 1, column 5"),
        ("listen: x\nlisten: y", "a key that is on line 1 already, it stands at line 2, column 1"),
        ("a: !secret x", "a tag, which settings do not know, at line 1, column 4"),
        ("a: &a {b: *a}", "an alias leads into itself at line 1, column 4"),
        ("? [a, b]\n: c", "a key that is no name at line 1, column 3"),
        ("a: \x07", "it holds characters that YAML does not allow"),
        ("a: " + "[" * 10_000, "its maps and lists are nested too deeply"),
        (
            "a: 'open",
            "while scanning a quoted scalar: found unexpected end of stream at line 1, column 9",
        ),
    ],
)
def test_a_malformed_file_is_told_with_line_and_column(
    tmp_path: Path, text: str, given: str
) -> None:
    """In words, and under the name of the file."""
    file = tmp_path / "batchwatch.yaml"
    file.write_text(text)
    found = problems(ENOUGH, file)

    assert [str(file)] == list(found)
    assert given == found[str(file)][0]


@pytest.mark.parametrize("text", ["endpoints: {ops: {url: x}", "a: 1\na: 2", "a: *b"])
def test_nothing_is_guessed_about_a_file_that_is_malformed(tmp_path: Path, text: str) -> None:
    """What a variable leaves to the file is not missing, and its routes name what is in there."""
    file = tmp_path / "batchwatch.yaml"
    file.write_text(text)
    environ = {
        "BATCHWATCH_ENDPOINTS__OPS__SECRET": SIGNING_SECRET,
        "BATCHWATCH_ROUTES__R__ENDPOINTS": "team",
    }

    assert [str(file)] == list(problems(environ, file))


def test_a_malformed_file_is_not_quoted(tmp_path: Path) -> None:
    """A secret that begins with a star or an exclamation mark is an alias or a tag to YAML."""
    file = tmp_path / "batchwatch.yaml"
    for text in ("api_token: *hunter2secret", "api_token: !hunter2secret!x y", "%hunter2secret\n"):
        file.write_text(text)
        assert "hunter2secret" not in str(problems(ENOUGH, file))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"a: \xfc", "not in UTF-8"),
        (b" " * 1024**2 + b"a", "larger than 1 MiB"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_under_what_named_it(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    """Nothing else is said then of what is missing: it may stand in there."""
    file = tmp_path / "batchwatch.yaml"
    if content is not None:
        file.write_bytes(content)

    assert {"--config": f"'{file}', {reason}"} == {
        name: given for name, (given, _) in problems({}, file).items()
    }
    assert ["BATCHWATCH_CONFIG"] == list(problems({"BATCHWATCH_CONFIG": str(file)}))


def test_what_says_where_the_sources_are_cannot_stand_in_the_file(tmp_path: Path) -> None:
    """It would have to be read before it is read."""
    file = tmp_path / "batchwatch.yaml"
    file.write_text("secrets_dir: /run/secrets")

    found = problems(ENOUGH, file)
    name = f"secrets_dir ({file}, line 1)"
    assert {name: ("'/run/secrets'", "Set BATCHWATCH_SECRETS_DIR instead.")} == found


def test_a_value_given_twice_in_the_file_is_an_error(tmp_path: Path) -> None:
    """As itself and as a file, or as a header in two spellings."""
    file = tmp_path / "batchwatch.yaml"
    (tmp_path / "token").write_text("0123456789abcdef")
    file.write_text(
        f"api_token: 0123456789abcdef\napi_token_file: {tmp_path}/token\n"
        "endpoints: {ops: {url: https://a.example, headers: {X-A: a, x-a: b}}}"
    )

    assert ["given twice", "given twice"] == [given for given, _ in problems(ENOUGH, file).values()]
