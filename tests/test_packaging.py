"""What the project is installed from: its locks, its wheel, its image and the targets of make."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from aiohttp import web
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from batchwatch.settings import load, parse_duration
from batchwatch.settings.review import warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
LOCKS = ("run", "build", "dev")
SHIPPED = ("ed25519", "otel", "postgres")  # extras that the image has, for it cannot be added to


# ------------------------------------------------------------------------------------- locks


def entries(lock: str) -> list[str]:
    """The requirements of a lock, each in one line, without comments."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    code = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    return code.replace("\\\n", " ").splitlines()


def pins(lock: str) -> dict[str, str]:
    """The version that a lock pins, by the canonical name of the package."""
    return dict(re.findall(r"^(\S+?)==(\S+)", "\n".join(entries(lock)), flags=re.MULTILINE))


def group(name: str) -> Iterator[Requirement]:
    """The requirements of a dependency group, those of the groups it includes among them."""
    for entry in PYPROJECT["dependency-groups"][name]:
        if isinstance(entry, str):
            yield Requirement(entry)
        else:
            yield from group(entry["include-group"])


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_each_package_by_version_and_hash_and_says_nothing_else(lock: str) -> None:
    """It installs the same bytes from whichever index the machine is set up for, and names none."""
    whole = re.compile(r"[a-z0-9-]+==[^\s;]+( ; [^-]+)?(\s+--hash=sha256:[0-9a-f]{64})+")

    strangers = [entry for entry in entries(lock) if not whole.fullmatch(entry)]

    assert [] == strangers


@pytest.mark.parametrize("lock", LOCKS)
def test_the_comments_of_a_lock_name_no_index_and_no_machine(lock: str) -> None:
    """A lock is public: it must not tell where it was made."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()

    assert [] == re.findall(r"\S+://\S+|(?<!\S)/\S+", text)


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("run", [Requirement(line) for line in PYPROJECT["project"]["dependencies"]]),
        ("run", [Requirement(line) for extra in SHIPPED for line in EXTRAS[extra]]),
        ("build", [Requirement(line) for line in PYPROJECT["build-system"]["requires"]]),
        ("build", list(group("build"))),
        ("dev", list(group("dev"))),
    ],
    ids=["run", "extras", "build-system", "build", "dev"],
)
def test_a_lock_answers_what_pyproject_asks(lock: str, wanted: list[Requirement]) -> None:
    """Whoever changes a requirement and forgets `make lock` hears of it here."""
    pinned = pins(lock)

    unanswered = [
        str(requirement)
        for requirement in wanted
        if not requirement.specifier.contains(pinned.get(canonicalize_name(requirement.name), "0"))
    ]

    assert [] == unanswered


@pytest.mark.parametrize("lock", ["run", "build"])
def test_what_ships_is_what_was_tested(lock: str) -> None:
    """Each package is pinned to one version in all locks."""
    tested = pins("dev")

    assert {name: tested.get(name) for name in pins(lock)} == pins(lock)


def test_the_package_imports_only_what_it_declares() -> None:
    """A package that is there because another needs it may be gone with that one's next release."""
    project = PYPROJECT["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    declared: set[str] = {
        canonicalize_name(Requirement(x).name) for x in project["dependencies"] + extras
    }
    providers = packages_distributions()
    # pydantic_core is pydantic's other half.
    known = sys.stdlib_module_names | {"batchwatch", "pydantic_core"}

    undeclared = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in (ROOT / "batchwatch").rglob("*.py")
        for module in imported(path) - known
        if declared.isdisjoint(canonicalize_name(name) for name in providers.get(module, []))
    }

    assert set() == undeclared


def imported(path: Path) -> set[str]:
    """The top-level names of the modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


# ------------------------------------------------------------------------------------- wheel


def test_the_wheel_holds_the_whole_package(tmp_path: Path) -> None:
    """Templates, migrations and the typing marker are files; a line in .gitignore drops them."""
    build = f"{sys.executable} -m hatchling build --target wheel --directory {tmp_path}"
    subprocess.run(build.split(), cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")

    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert "batchwatch/py.typed" in packed
    assert {
        str(path.relative_to(ROOT))
        for path in (ROOT / "batchwatch").rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    } == packed


# ------------------------------------------------------------------------------------- image


def instructions(*, stage: int) -> list[tuple[str, str]]:
    """The instructions of one stage of the Dockerfile, as (name, arguments)."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    steps = [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]
    starts = [at for at, (name, _) in enumerate(steps) if name == "FROM"]
    return steps[starts[stage] : [*starts, len(steps)][stage + 1] if stage >= 0 else None]


def test_the_image_runs_as_a_numbered_user_that_is_not_root() -> None:
    """An orchestrator that refuses root can only tell from a number."""
    (user,) = [rest for name, rest in instructions(stage=-1) if name == "USER"]

    assert all(int(part) > 0 for part in user.split(":"))


def test_the_image_is_made_from_nothing_but_what_the_dockerignore_lets_through() -> None:
    """The list names what goes in, not what stays out: a new secret file is kept out unasked."""
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {
        source.rstrip("/")
        for name, rest in instructions(stage=0)
        if name == "COPY"
        for source in rest.split()[:-1]
    }

    assert "*" == next(rule for rule in rules if not rule.startswith("#"))
    assert copied == {rule[1:] for rule in rules if rule.startswith("!")}
    assert [] == [source for source in copied if not (ROOT / source).exists()]


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [(200, 0), (503, 1)],
    ids=["alive", "not alive"],
)
async def test_the_health_check_of_the_image_asks_the_daemon_where_it_listens(
    status: int, exit_code: int
) -> None:
    """The very command that the Dockerfile names, against a server that answers."""

    async def livez(_: web.Request) -> web.Response:
        return web.Response(status=status)

    app = web.Application()
    app.router.add_get("/livez", livez)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]

        assert exit_code == await health_check(f"{host}:{port}")
    finally:
        await runner.cleanup()


async def test_the_health_check_of_the_image_fails_when_nobody_listens(
    unused_tcp_port: int,
) -> None:
    """A daemon that is gone is not healthy."""
    assert 0 != await health_check(f"127.0.0.1:{unused_tcp_port}")


async def health_check(listen: str) -> int:
    """The exit code of the image's health check for a daemon that listens at ``listen``."""
    (arguments,) = [rest for name, rest in instructions(stage=-1) if name == "HEALTHCHECK"]
    python, *rest = json.loads(arguments.partition("CMD ")[2])
    assert "python" == python
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *rest,
        env={**os.environ, "BATCHWATCH_LISTEN": listen},
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await process.wait()


# ------------------------------------------------------------------------------------ deploy


COMPOSE_FILES = ("compose.yaml", "compose.live.yaml", "compose.replicas.yaml")


def compose(file: str) -> dict[str, Any]:
    """A compose file in deploy/, merges resolved."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / file).read_text())
    return loaded


def in_the_guide(language: str) -> list[str]:
    """What stands in deploy/README.md to be copied."""
    text = (ROOT / "deploy" / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "text",
    [*((ROOT / "deploy" / file).read_text() for file in COMPOSE_FILES), *in_the_guide("yaml")],
)
def test_what_compose_is_given_fits_its_schema(text: str, tmp_path: Path) -> None:
    """Whole files, and those that the guide shows."""
    file = tmp_path / "compose.yaml"
    file.write_text(text)
    checker = Path(sys.executable).parent / "check-jsonschema"
    done = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", file],
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stdout


@pytest.mark.parametrize("file", COMPOSE_FILES)
def test_every_secret_of_a_service_is_one_of_the_file(file: str) -> None:
    """Compose refuses others, and what is at the top alone reaches nobody."""
    given = compose(file)
    used = {one for service in given["services"].values() for one in service.get("secrets", ())}

    assert set(given["secrets"]) == used
    assert {f"secrets/{name}" for name in used} == {
        one["file"] for one in given["secrets"].values()
    }


def test_what_is_simulated_has_a_store_of_its_own() -> None:
    """The real LlamaCloud would not know its batches, and people would hear that they vanished."""
    assert len(COMPOSE_FILES) == len({compose(file)["name"] for file in COMPOSE_FILES})


def test_the_files_and_commands_of_the_guide_exist() -> None:
    """Whoever follows it is not left standing."""
    known = (ROOT / "docs" / "cli.md").read_text()
    commands = "".join(in_the_guide("sh"))

    for command in re.findall(r"(?:run --rm batchwatch|batchwatch batchwatch) (\w+)", commands):
        assert f"### `batchwatch {command}`" in known
    for file in re.findall(r"deploy/[\w.]+\.(?:yaml|service)", commands):
        assert (ROOT / file).exists()


@pytest.mark.parametrize(
    ("file", "service"),
    [(file, service) for file in COMPOSE_FILES for service in sorted(compose(file)["services"])],
)
def test_every_service_of_a_compose_file_can_change_nothing_but_its_data(
    file: str, service: str
) -> None:
    """A hole in what faces the network stays small."""
    given = compose(file)["services"][service]

    assert True is given["read_only"]
    assert ["ALL"] == given["cap_drop"]
    assert ["no-new-privileges:true"] == given["security_opt"]


def composed(file: str, secrets: Path) -> tuple[dict[str, str], str]:
    """The daemon's environment under Compose, and how long it is given to stop."""
    (of_the_image,) = [rest for name, rest in instructions(stage=-1) if name == "ENV"]
    daemon = compose(file)["services"]["batchwatch"]
    given = dict(pair.split("=", 1) for pair in of_the_image.split()) | daemon["environment"]
    environ = {
        name: re.sub(r"\$\{\w+:[-?].*\}", "", value).replace("/run/secrets", str(secrets))
        for name, value in given.items()
    }
    return environ, daemon["stop_grace_period"]


def under_systemd(_: str, secrets: Path) -> tuple[dict[str, str], str]:
    """The daemon's environment as a unit, and how long it is given to stop.

    https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html#Credentials: what is
    loaded from a folder is called by the id of that folder, and the name of the file.
    """
    unit = (ROOT / "deploy" / "batchwatch.service").read_text()
    pairs = " ".join(re.findall(r"^Environment=(.*)$", unit, flags=re.MULTILINE)).split()
    (patience,) = re.findall(r"^TimeoutStopSec=(.*)$", unit, flags=re.MULTILINE)
    credentials = secrets / "credentials"
    credentials.mkdir()
    for name, source in re.findall(r"^LoadCredential=(.*):(.*)$", unit, flags=re.MULTILINE):
        for secret in secrets.glob("*") if source == "/etc/batchwatch/secrets" else ():
            if secret.is_file() and secret.name != "llama_cloud_api_key":
                shutil.copy(secret, credentials / f"{name}_{secret.name}")
        if source == "/etc/batchwatch/llama_cloud_api_key":
            shutil.copy(secrets / "llama_cloud_api_key", credentials / name)
    environ = dict(pair.split("=", 1) for pair in pairs)
    return {
        name: value.replace("%d", str(credentials)).replace("%S", "/var/lib")
        for name, value in environ.items()
    }, patience


@pytest.mark.parametrize(
    ("deployed", "file"),
    [*((composed, file) for file in COMPOSE_FILES), (under_systemd, "")],
)
def test_a_deployment_with_its_secrets_and_a_url_is_all_that_the_daemon_needs(
    deployed: Callable[[str, Path], tuple[dict[str, str], str]], file: str, tmp_path: Path
) -> None:
    """It starts without a complaint about any setting, and may drain before it is killed."""
    for secret in ("llama_cloud_api_key", "webhook_secret"):
        (tmp_path / secret).write_text(f"whsec_{'A' * 44}\n")
    if file == "compose.replicas.yaml":
        url = "postgresql://batchwatch:password@postgres/batchwatch\n"
        (tmp_path / "database_url").write_text(url)
    environ, patience = deployed(file, tmp_path)

    settings = load(environ=environ | {"BATCHWATCH_WEBHOOK_URL": "https://receiver.example/"})

    assert parse_duration(patience) > settings.shutdown_grace
    # Between two containers of one network there is no TLS; the way out has it.
    nearby = [one for one in ("http://simulator", "/database_url") if one in str(environ)]
    assert len(nearby) == len(warnings(settings))


def test_a_unit_for_slack_alone_needs_no_secret_of_a_webhook(tmp_path: Path) -> None:
    """What is not in the folder is not missed."""
    (tmp_path / "llama_cloud_api_key").write_text("llx-key")
    (tmp_path / "slack_webhook_url").write_text("https://hooks.slack.com/services/T0/B0/x")

    environ, _ = under_systemd("", tmp_path)

    assert ["slack"] == list(load(environ=environ).endpoints)


# -------------------------------------------------------------------------------------- make


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run make as from a fresh shell, not as from the make that runs the tests."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def test_make_alone_lists_every_target() -> None:
    """What a newcomer types first."""
    targets = re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)

    assert targets == re.findall(r"^  (\S+)  +\S", make().stdout, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("python", "advice"),
    [
        (None, "apt install python3 python3-venv"),
        ('case "$*" in *version_info*) exit 1 ;; -V) echo Python 3.9.2 ;; esac', "make PYTHON="),
        ('case "$*" in *ensurepip*) exit 1 ;; esac', "apt install python3-venv"),
    ],
    ids=["no Python", "an old Python", "no venv module"],
)
def test_make_says_what_a_machine_lacks(tmp_path: Path, python: str | None, advice: str) -> None:
    """One line that names the way out, before anything is made."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "dev.txt").touch()
    if python is not None:
        (tmp_path / "python").write_text(f"#!/bin/sh\n{python}\n")
        (tmp_path / "python").chmod(0o700)

    done = make("setup", "PYTHON=./python", cwd=tmp_path)

    assert 2 == done.returncode
    assert advice in done.stderr
    assert not (tmp_path / ".venv").exists()
