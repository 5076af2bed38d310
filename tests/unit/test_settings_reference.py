"""What is made from the settings: documentation, schema, examples, and the review of `check`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from batchwatch.settings import EVENT_TYPES, Settings, load
from batchwatch.settings.names import variables
from batchwatch.settings.reference import json_schema, render_env, render_table
from batchwatch.settings.review import describe, warnings
from batchwatch.settings.table import GROUPS, NAME, ONLY_VARIABLES
from batchwatch.settings.table import settings as all_settings

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "config" / "batchwatch.example.yaml"
ENOUGH = {
    "LLAMA_CLOUD_API_KEY": "llx-key",
    "BATCHWATCH_WEBHOOK_URL": "https://receiver.example/hook",
}


def uncommented(text: str) -> str:
    """The example with every setting in it, also those that only show a default."""
    head, _, settings = text.partition("\n\n")
    commented = re.compile(r"^( *)# ((?: {2})?[a-z_-]+:(?: |$))", re.MULTILINE)
    return "\n\n".join((head, commented.sub(r"\1\2", settings)))


# ------------------------------------------------------------------------------- generated


def test_what_is_generated_is_up_to_date() -> None:
    """If this fails: make docs."""
    command = [sys.executable, "docs/generate.py", "--check"]
    done = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": "."}, capture_output=True, text=True, check=False
    )

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def test_the_table_names_every_setting_with_what_it_means() -> None:
    """By variable and by key, and the meaning is a sentence."""
    table = render_table()

    for path, setting in all_settings().items():
        for name in variables(path):
            assert f"`{name.replace(NAME, 'NAME')}`" in table
        assert re.fullmatch(r"[A-Z].*\.", setting.field.description or "")


def test_the_environment_example_sets_defaults_alone() -> None:
    """With every line in force, it says what no line would."""
    text = render_env().replace("__NAME__", "__WEB__")
    lines = re.sub(r"^#(?=[A-Z])", "", text, flags=re.MULTILINE).splitlines()
    shown = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    needed = {
        **ENOUGH,
        "BATCHWATCH_WATCHES__WEB__PROJECT_ID": "prj-1",
        "BATCHWATCH_ENDPOINTS__WEB__URL": "https://receiver.example/hook",
        "BATCHWATCH_ROUTES__WEB__ENDPOINTS": "web",
    }

    assert load(environ=needed).model_dump() == load(environ={**shown, **needed}).model_dump()


# --------------------------------------------------------------------------------- example


def test_the_example_can_be_used_as_it_is() -> None:
    """Someone will."""
    settings = load(EXAMPLE, environ={"LLAMA_CLOUD_API_KEY": "llx-key"})

    assert ["production", "europe"] == list(settings.watches)
    assert [1200, 20] == [watch.requests_per_minute for watch in settings.watches.values()]
    assert ["webhook", "webhook", "slack"] == [
        endpoint.type for endpoint in settings.endpoints.values()
    ]
    assert ("pipeline",) == settings.routes["everything"].endpoints


def test_the_example_shows_every_setting(tmp_path: Path) -> None:
    """Those that are commented out as well; and all of them can be used."""
    file = tmp_path / "batchwatch.yaml"
    text = uncommented(EXAMPLE.read_text(encoding="utf-8"))
    file.write_text(re.sub(r"^.*_file: .*\n", "", text, flags=re.MULTILINE), encoding="utf-8")
    settings = load(file, environ={})

    shown = {
        tuple(NAME if depth in {1, 3} else step for depth, step in enumerate(path))
        for path in settings.origins
    }
    assert set(all_settings()) - ONLY_VARIABLES == shown - ONLY_VARIABLES


def test_the_example_shows_the_defaults(tmp_path: Path) -> None:
    """What is commented out there and has a default shows that one."""
    file = tmp_path / "batchwatch.yaml"
    text = uncommented(EXAMPLE.read_text(encoding="utf-8"))
    general = text.partition("\nwatches:")[0]
    file.write_text(general, encoding="utf-8")
    shown, default = load(file, environ={}), Settings()

    invented = {
        "llama_cloud_api_key", "webhook_url", "webhook_secret", "slack_webhook_url", "api_token",
        "read_token", "path_prefix", "database_url", "data_dir", "config", "heartbeat_url",
        "hint_secret", *GROUPS,
    }  # fmt: skip
    for name in Settings.model_fields.keys() - invented:
        assert getattr(default, name) == getattr(shown, name), name


def test_the_example_fits_the_schema_that_editors_check_it_with() -> None:
    """As it stands and with everything in it."""
    schema = json.loads((ROOT / "config" / "settings.schema.json").read_text(encoding="utf-8"))
    text = EXAMPLE.read_text(encoding="utf-8")

    assert text.startswith("# yaml-language-server: $schema=settings.schema.json\n")
    jsonschema.Draft7Validator.check_schema(schema)
    for version in (text, uncommented(text)):
        jsonschema.validate(yaml.safe_load(version), schema, jsonschema.Draft7Validator)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pol_interval": "5s"},
        {"poll_interval": "soon"},
        {"log_level": "loud"},
        {"endpoints": {"ops": {}}},
        {"endpoints": {"Ops": {"url": "https://a.example"}}},
        {"endpoints": {"ops": {"url": "https://a.example", "concurrency": 0}}},
        {"routes": {"r": {"events": ["*"]}}},
        {"config": "x.yaml"},
    ],
)
def test_the_schema_refuses_what_load_refuses(wrong: dict[str, object]) -> None:
    """So that an editor tells before the daemon does."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, json_schema(), jsonschema.Draft7Validator)


# ---------------------------------------------------------------------------------- review


def test_each_setting_is_listed_with_its_origin(tmp_path: Path) -> None:
    """It answers why the daemon does what it does."""
    file = tmp_path / "batchwatch.yaml"
    file.write_text("lookback: 2h\nwatches:\n  eu: {lookback: 3h}\n")
    settings = load(
        file,
        environ={
            "LLAMA_PARSE_API_KEY": "llx-key",
            "BATCHWATCH_WEBHOOK_URL": "https://receiver.example/hook",
            "BATCHWATCH_DATA_DIR": "/data",
        },
        log_level="debug",
    )
    lines = [str(line) for line in describe(settings)]

    for line in (
        "log_level = debug (--log-level)",
        "poll_interval = 15s (default)",
        "listen = 127.0.0.1:8080 (default)",
        "data_dir = /data (BATCHWATCH_DATA_DIR)",
        "database_url = sqlite:////data/batchwatch.db (default)",
        f"lookback = 2h ({file}, line 1)",
        "api_token = not set (default)",
        "watches.eu.api_key = hidden (LLAMA_PARSE_API_KEY)",
        f"watches.eu.lookback = 3h ({file}, line 3)",
        "watches.eu.poll_interval = 15s (default)",
        "endpoints.webhook.url = https://receiver.example/… (BATCHWATCH_WEBHOOK_URL)",
        "endpoints.webhook.secret = not set (default)",
        "endpoints.webhook.concurrency = 16 (default)",
    ):
        assert line in lines


def test_what_is_probably_not_meant_is_warned_of() -> None:
    """All of it is allowed, and each says the way out."""
    settings = load(
        environ={
            "LLAMA_CLOUD_API_KEY": "llx-key",
            "BATCHWATCH_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "BATCHWATCH_WATCHES__A__BASE_URL": "http://10.0.0.7:8000",
            "BATCHWATCH_WATCHES__B__BASE_URL": "http://localhost:8000",
            "BATCHWATCH_ENDPOINTS__A__URL": "http://ops.example/hook/secret",
            "BATCHWATCH_ENDPOINTS__B__URL": "https://ops.example/hook/secret",
            "BATCHWATCH_ENDPOINTS__B__SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "BATCHWATCH_ROUTES__R__WATCHES": "a",
            "BATCHWATCH_ROUTES__R__ENDPOINTS": "*",
        }
    )

    beginnings = [
        "watches.a sends its API key unencrypted to http://10.0.0.7:8000.",
        "No route takes the events of watches.b.",
        "endpoints.a is notified unencrypted at http://ops.example/….",
        "endpoints.a has no secret",
        "BATCHWATCH_WEBHOOK_SECRET has no effect without BATCHWATCH_WEBHOOK_URL",
    ]
    for beginning, warning in zip(beginnings, warnings(settings), strict=True):
        assert warning.startswith(beginning)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"ALLOW_ANYONE": "true"}, "whoever reaches 127.0.0.1:8080 may read everything"),
        (
            {"ALLOW_ANYONE": "true", "LISTEN": "[::]:80"},
            "whoever reaches [::]:80 may read everythi",
        ),
        (
            {"ALLOW_ANYONE": "true", "READ_TOKEN": "0123456789abcdef"},
            "BATCHWATCH_ALLOW_ANYONE has no effect beside a token",
        ),
        ({"TRUSTED_PROXIES": "10.0.0.1, ::/0"}, "BATCHWATCH_TRUSTED_PROXIES has every address"),
    ],
)
def test_doors_that_stand_open_are_warned_of(more: dict[str, str], said: str) -> None:
    """At each start and by check, for it is allowed."""
    secret = {"BATCHWATCH_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
    named = {f"BATCHWATCH_{name}": value for name, value in more.items()}

    [warning] = warnings(load(environ={**ENOUGH, **secret, **named}))

    assert said in warning


@pytest.mark.parametrize(
    ("text", "environment", "named"),
    [
        ("u:hunter2@db.example/b", "", "db.example proves itself"),
        ("u:hunter2@db.example/b?sslmode=require", "", "db.example proves itself"),
        ("u:hunter2@db.example/b?sslmode=require", "verify-full", "db.example proves itself"),
        ("u:hunter2@[::1],10.0.0.7:5432/b", "prefer", "10.0.0.7 proves itself"),
        ("u:hunter2@/b?host=db1:5432,db2", "", "db1, db2 prove themselves"),
        ("u:hunter2@db.example/b?sslmode=verify-full", "", None),
        ("u:hunter2@db.example/b?sslmode=verify-ca", "", None),
        ("u:hunter2@db.example/b", "verify-full", None),
        ("u:hunter2@127.0.0.1,localhost/b", "", None),
        ("u:hunter2@/b?host=/run/postgresql", "", None),
        ("u:hunter2@/b", "", None),
    ],
)
def test_a_server_that_need_not_prove_itself_is_warned_of(
    text: str, environment: str, named: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it is on this machine: the password goes to it, and all that is stored."""
    monkeypatch.setenv("PGSSLMODE", environment)
    given = {"WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
    given["DATABASE_URL"] = f"postgresql://{text}"
    environ = {**ENOUGH, **{f"BATCHWATCH_{name}": value for name, value in given.items()}}
    told = warnings(load(environ=environ))

    assert (0 if named is None else 1) == len(told)
    assert (named or "") in "".join(told)
    assert "hunter2" not in "".join(told)


def test_a_plain_set_up_is_warned_of_nothing_but_its_missing_signature() -> None:
    """Two variables are enough, and a third makes it safe."""
    secret = {"BATCHWATCH_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}

    assert 1 == len(warnings(load(environ=ENOUGH)))
    assert () == warnings(load(environ={**ENOUGH, **secret}))


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("webhook_url: https://a.example", "BATCHWATCH_WEBHOOK_SECRET"),
        ("endpoints: {webhook: {url: https://a.example}}", "BATCHWATCH_ENDPOINTS__WEBHOOK__SECRET"),
        ("endpoints: {my-ops: {url: https://a.example}}", "endpoints.my-ops.secret"),
    ],
)
def test_a_missing_signature_is_cured_where_the_endpoint_is_set(
    text: str, secret: str, tmp_path: Path
) -> None:
    """By the setting of that very endpoint; no shell sets a variable with a hyphen."""
    file = tmp_path / "batchwatch.yaml"
    file.write_text(text)
    [warning] = warnings(load(file, environ={"LLAMA_CLOUD_API_KEY": "llx-key"}))

    assert warning.endswith(f"Set {secret}.")


def test_what_was_set_is_told_apart_from_what_is_inherited(tmp_path: Path) -> None:
    """Each once, however many stand on one line of a file."""
    file = tmp_path / "batchwatch.yaml"
    file.write_text(
        "{llama_cloud_api_key: llx-k, webhook_url: https://a.example, lookback: 2h, "
        "watches: {a: {}, b: {lookback: 2h}}}"
    )
    settings = load(file, environ={"BATCHWATCH_DATA_DIR": "/data"})

    assert [
        "llama_cloud_api_key", "webhook_url", "lookback",
        "data_dir", "config", "watches.b.lookback",
    ] == [line.key for line in describe(settings) if line.was_set]  # fmt: skip


# ------------------------------------------------------------------------------------ cost


def test_importing_the_settings_imports_nothing_that_is_rarely_needed() -> None:
    """The daemon looks for batches within 0.8 s of its start."""
    rarely = ["yaml", "difflib", "rich", "typer", "sqlalchemy", "aiohttp", "cryptography"]
    code = f"""
import sys
from batchwatch.settings import load
load(environ={ENOUGH!r})
print([name for name in {rarely!r} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "[]" == done.stdout.strip()


def test_event_types_are_told_apart() -> None:
    """Each has one group and one name, and none is there twice."""
    assert len(EVENT_TYPES) == len(set(EVENT_TYPES))
    assert all(re.fullmatch(r"[a-z]+\.[a-z]+", event) for event in EVENT_TYPES)


DIRECTORY = {"source_directory_id": "dir-1"}
PROJECT = {"project_id": "prj-1"}


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ({}, {}, True),
        ({}, DIRECTORY, True),
        (DIRECTORY, {}, True),
        (DIRECTORY, {"source_directory_id": "dir-2"}, False),
        (PROJECT, {}, True),
        (PROJECT, {"project_id": "prj-2"}, False),
        (PROJECT, DIRECTORY, False),
        ({"api_key": "llx-a"}, {"api_key": "llx-b"}, False),
        ({"api_key": "llx-a", **PROJECT}, {"api_key": "llx-b", **PROJECT, **DIRECTORY}, True),
        ({}, {"base_url": "https://api.cloud.eu.llamaindex.ai"}, False),
    ],
)
def test_watches_that_see_the_same_batches_are_warned_of(
    one: dict[str, str], other: dict[str, str], *, overlap: bool
) -> None:
    """By what is set: the same key or project, and one asks for a part of what the other does."""
    names = {
        f"BATCHWATCH_WATCHES__{name}__{key.upper()}": value
        for name, given in (("A", {**one, "lookback": "1d"}), ("B", {**other, "lookback": "1d"}))
        for key, value in given.items()
    }
    told = [one for one in warnings(load(environ={**ENOUGH, **names})) if "same batches" in one]

    assert overlap == bool(told)
    if told:
        assert told[0].startswith("watches.a and watches.b see the same batches")


def test_of_many_that_overlap_each_is_warned_of_once() -> None:
    """Not for each pair of them."""
    names = {f"BATCHWATCH_WATCHES__W{number}__LOOKBACK": "1d" for number in range(9)}
    told = [one for one in warnings(load(environ={**ENOUGH, **names})) if "same batches" in one]

    assert 8 == len(told)


def test_a_switch_that_is_asked_in_the_open_is_warned_of() -> None:
    """And its path is not shown."""
    url = {"BATCHWATCH_HEARTBEAT_URL": "http://hc.example/ping/s3cret"}
    *_, told = warnings(load(environ={**ENOUGH, **url}))

    assert told.startswith("heartbeat_url is asked unencrypted at http://hc.example/…")
