"""The command line: what it says of itself, what it refuses, and that it keeps secrets."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from batchwatch import __version__
from batchwatch.clock import Clock
from batchwatch.deliver.signing import key_of
from batchwatch.settings import load
from batchwatch.simulator import SCENARIO_NAMES, Simulator, Switch, a_life
from tests.support.daemon import environment
from tests.support.receiver import SECRET, Receiver, says
from tests.unit.commands import called, started

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from typer.testing import Result

COMMANDS = (
    *(
        "run",
        "check",
        "certify",
        "demo",
        "simulate",
        "ls",
        "show",
        "wait",
        "tail",
        "prove",
        "audit",
    ),
    *("deliveries", "replay", "test", "endpoints", "enable", "disable"),
    *("replicas", "backup", "migrate", "copy", "version", "secret"),
)
PATH = "/services/T0001/B0002/path-s3cret"


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as open_receiver:
        yield open_receiver


def test_help_lists_every_command_with_what_it_does() -> None:
    """In the order in which one needs them."""
    result = called("--help")

    told = re.findall(r"^  ([a-z]+) +[A-Z]\w+", result.stdout, re.MULTILINE)
    assert (0, list(COMMANDS)) == (result.exit_code, told)


def test_help_says_each_in_a_whole_sentence() -> None:
    """What comes after the dots was the point: check sends nothing to anyone."""
    assert "..." not in called("--help").stdout.partition("Commands:")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    """With what it takes."""
    result = called(command, "--help")

    assert (0, True) == (result.exit_code, f"batchwatch {command}" in result.stdout)


def test_without_a_command_the_help_is_shown() -> None:
    """And the exit code says that nothing was done."""
    result = called()

    assert (2, True) == (result.exit_code, "Commands:" in result.output)


def test_an_unknown_command_is_refused() -> None:
    """As a wrong option is."""
    assert [2, 2] == [called("rum").exit_code, called("run", "--confg").exit_code]


def test_the_version_is_told_for_people_and_for_programs() -> None:
    """One line, or one object."""
    assert f"batchwatch {__version__}\n" == called("version").stdout == called("--version").stdout
    assert {"version": __version__} == json.loads(called("version", "--json").stdout)


def test_a_fresh_secret_is_a_line_that_a_variable_can_hold() -> None:
    """Alone on stdout, so that a shell can put it where it belongs."""
    first, second = (called("secret", "new") for _ in range(2))

    assert (0, "", 1) == (first.exit_code, first.stderr, first.stdout.count("\n"))
    assert first.stdout != second.stdout
    settings = load(environ={"BATCHWATCH_WEBHOOK_SECRET": first.stdout.strip()}, for_run=False)
    assert 1 == len(settings.webhook_secret)
    assert {"secret"} == json.loads(called("secret", "new", "--json").stdout).keys()


def test_a_fresh_pair_is_two_lines() -> None:
    """The daemon's, and what its receivers may know of it."""
    private, public = called("secret", "new", "--asymmetric").stdout.split()
    made = json.loads(called("secret", "new", "--asymmetric", "--json").stdout)

    assert public == key_of(private).public
    assert made["public_key"] == key_of(made["secret"]).public
    assert private != made["secret"]


def test_a_pair_without_the_package_for_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In one line, and a symmetric one is made all the same."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    result = called("secret", "new", "--asymmetric")

    assert (1, "") == (result.exit_code, result.stdout)
    assert "pip install cryptography" in result.stderr
    assert 0 == called("secret", "new").exit_code


def test_secrets_that_have_all_expired_keep_the_daemon_from_starting(tmp_path: Path) -> None:
    """As any wrong setting, by the name that set it, before anything is opened."""
    result = called(
        "run",
        environ={
            "LLAMA_CLOUD_API_KEY": "llx-key",
            "BATCHWATCH_WEBHOOK_URL": "http://127.0.0.1:1/hook",
            "BATCHWATCH_WEBHOOK_SECRET": f"{SECRET}@2020-01-01",
            "BATCHWATCH_DATA_DIR": str(tmp_path),
        },
    )

    assert (2, "") == (result.exit_code, result.stdout)
    assert (
        "BATCHWATCH_WEBHOOK_SECRET\n  given    1 expired, the last at 2020-01-01" in result.stderr
    )
    assert SECRET not in result.stderr
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["run", "check", "ls"])
def test_wrong_settings_are_named_and_nothing_starts(command: str, tmp_path: Path) -> None:
    """Exit code 2, with the variable, what was given and what is allowed."""
    result = called(
        command,
        environ={"BATCHWATCH_DATA_DIR": str(tmp_path), "BATCHWATCH_POLL_INTERVALL": "1s"},
    )

    assert (2, "") == (result.exit_code, result.stdout)
    assert "BATCHWATCH_POLL_INTERVALL" in result.stderr
    assert "BATCHWATCH_POLL_INTERVAL" in result.stderr.replace("INTERVALL", "")
    assert [] == list(tmp_path.iterdir())


def test_run_without_settings_names_the_two_that_it_needs(tmp_path: Path) -> None:
    """A key and an endpoint, and nothing else."""
    result = called("run", environ={"BATCHWATCH_DATA_DIR": str(tmp_path)})

    named = re.findall(r"^[A-Z_]+$", result.stderr, re.MULTILINE)
    assert (2, ["LLAMA_CLOUD_API_KEY", "BATCHWATCH_WEBHOOK_URL"]) == (result.exit_code, named)


def test_an_unknown_scenario_is_refused_with_those_that_there_are() -> None:
    """Exit code 2, before anything listens."""
    result = called("simulate", "--scenario", "clam")

    assert (2, "") == (result.exit_code, result.stdout)
    assert "there is no scenario 'clam'" in result.stderr
    assert all(name in result.stderr for name in SCENARIO_NAMES)


def test_a_scenario_without_batches_cannot_be_shown() -> None:
    """Ten seconds of nothing would prove nothing; exit code 2, with what it is good for."""
    result = called("demo", "--scenario", "calm")

    assert (2, "") == (result.exit_code, result.stdout)
    assert "batchwatch simulate --scenario calm" in result.stderr


def test_the_scenarios_are_listed_for_who_asks() -> None:
    """One a line, with what happens in it."""
    result = called("simulate", "--scenario", "help")

    assert 0 == result.exit_code
    assert [*SCENARIO_NAMES] == [line.split()[0] for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    "arguments", [["--port", "65536"], ["--port", "-1"], ["--speed", "0"], ["--seed", "x"]]
)
def test_an_option_out_of_its_range_is_refused(arguments: list[str]) -> None:
    """Exit code 2, as for any wrong command."""
    result = called("simulate", *arguments)

    assert (2, True) == (result.exit_code, arguments[0] in result.stderr)


async def checked(environ: Mapping[str, str], *arguments: str) -> Result:
    """``check`` beside the loop that its upstream and its receivers live in."""
    return await asyncio.to_thread(called, "check", *arguments, environ=environ)


async def test_check_tells_each_part_and_ends_well_where_all_is_well(
    sim: Simulator, receiver: Receiver, tmp_path: Path
) -> None:
    """A line for each with a mark before it; nobody is sent anything."""
    result = await checked(environment(sim, receiver, tmp_path))

    lines = result.stdout.splitlines()
    assert 0 == result.exit_code
    assert "All is well: batchwatch run will work." == lines[-1]
    assert {"✓"} == {line[0] for line in lines[:-2]}
    assert [] == receiver.received


async def test_check_for_programs_is_one_object(
    sim: Simulator, receiver: Receiver, tmp_path: Path
) -> None:
    """Whether all is well, and each finding with its verdict, part and text."""
    result = await checked(environment(sim, receiver, tmp_path), "--json")

    report = json.loads(result.stdout)
    assert (0, {"ok", "findings"}, True) == (result.exit_code, set(report), report["ok"])
    assert {("verdict", "part", "text")} == {tuple(one) for one in report["findings"]}
    assert {"ok"} == {one["verdict"] for one in report["findings"]}
    assert [] == receiver.received


@pytest.mark.parametrize("form", [[], ["--json"]])
async def test_check_fails_where_something_is_wrong(
    form: list[str], sim: Simulator, receiver: Receiver, tmp_path: Path
) -> None:
    """Exit code 1, and the number of what is to be mended."""
    environ = environment(sim, receiver, tmp_path, LLAMA_CLOUD_API_KEY="llx-wrong")

    result = await checked(environ, *form)

    assert 1 == result.exit_code
    if form:
        report = json.loads(result.stdout)
        wrong = [one["part"] for one in report["findings"] if one["verdict"] == "wrong"]
        assert (False, ["watch default"]) == (report["ok"], wrong)
    else:
        assert "1 to mend." == result.stdout.splitlines()[-1]
        assert 1 == sum(line.startswith("✗ watch default") for line in result.stdout.splitlines())
    assert [] == receiver.received


async def test_check_calls_missing_settings_wrong_settings_as_run_does(tmp_path: Path) -> None:
    """Exit code 2, with the whole report all the same."""
    result = await checked({"BATCHWATCH_DATA_DIR": str(tmp_path / "data")})

    wrong = [line.split("  ")[0] for line in result.stdout.splitlines() if line[:1] == "✗"]
    assert (2, ["✗ watch default", "✗ endpoints"]) == (result.exit_code, wrong)
    assert not (tmp_path / "data").exists()


async def test_check_beside_a_running_daemon_does_not_promise_that_run_will_work(
    sim: Simulator, receiver: Receiver, tmp_path: Path
) -> None:
    """It would find the store in use."""
    environ = environment(sim, receiver, tmp_path)
    async with started(environ, "run") as daemon:
        await daemon.says("daemon.started")
        result = await checked(environ)

    assert (0, True) == (result.exit_code, f"process {daemon.process.pid};" in result.stdout)
    assert "All is well, and the daemon is running." == result.stdout.splitlines()[-1]


async def test_check_says_nothing_on_stdout_but_its_report(
    sim: Simulator, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when upstream has to be asked several times."""

    async def at_once(_clock: Clock, _seconds: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(Clock, "sleep", at_once)
    sim.faults.switch_on(Switch(kind="5xx"))

    result = await checked(environment(sim, receiver, tmp_path), "--json")

    assert "{" == result.stdout[:1]
    assert False is json.loads(result.stdout)["ok"]


async def test_no_command_says_a_secret(sim: Simulator, receiver: Receiver, tmp_path: Path) -> None:
    """Neither key nor token, neither signing secret nor the path of a webhook."""
    receiver.always = says(404, "no_service")
    environ = environment(
        sim,
        receiver,
        tmp_path,
        BATCHWATCH_API_TOKEN="token-s3cret-0123456789",
        BATCHWATCH_ENDPOINTS__HOOK__URL=f"{receiver.url}{PATH}?token=query-s3cret",
        BATCHWATCH_ENDPOINTS__HOOK__HEADERS__X_KEY="header-s3cret",
        BATCHWATCH_ENDPOINTS__CHAT__URL=f"{receiver.url}{PATH}",
        BATCHWATCH_ENDPOINTS__CHAT__TYPE="slack",
        BATCHWATCH_ROUTES__ALL__ENDPOINTS="*",
    )
    batch = sim.world.plant(a_life(("RUNNING", 0.0)))
    async with started(environ, "run") as daemon:
        await receiver.until(lambda got: {True, False} == {"blocks" in one.event for one in got})
        daemon.is_sent(signal.SIGTERM)
        code, log = await daemon.ends()

    commands = [["check"], ["ls"], ["show", batch.id]]
    results = [
        await asyncio.to_thread(called, *command, *form, environ=environ)
        for command in commands
        for form in ([], ["--json"])
    ]
    assert all("HTTP 404" in one.output for one in results[-2:])
    wrong = environ | {"BATCHWATCH_LISTEN": "nonsense", "BATCHWATCH_ENDPOINTS__HOOK__TIMEOUT": "?"}
    results.append(await asyncio.to_thread(called, "run", environ=wrong))

    assert 0 == code
    text = "\n".join([log, *(one.output for one in results)])
    for secret in ("s3cret", sim.api_key, SECRET.removeprefix("whsec_"), "/services/"):
        assert secret not in text
