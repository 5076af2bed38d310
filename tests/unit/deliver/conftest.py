"""A clock, a sender that talks to real sockets, and a store to deliver from."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

from batchwatch.deliver.sender import Sender, new_session
from tests.support.clock import ManualClock
from tests.support.receiver import Receiver
from tests.unit.deliver.authority import Authority
from tests.unit.deliver.outbox import HOOK, OTHER, Store, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def sender(clock: ManualClock) -> AsyncIterator[Sender]:
    async with new_session() as session:
        yield Sender(session, clock)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as open_receiver:
        yield open_receiver


@pytest.fixture
async def store(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    async with opened(f"sqlite+aiosqlite:///{tmp_path}/batchwatch.db", clock, HOOK) as open_store:
        yield open_store


@pytest.fixture
async def store_for_two(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    async with opened(
        f"sqlite+aiosqlite:///{tmp_path}/batchwatch.db", clock, HOOK, OTHER
    ) as open_store:
        yield open_store


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that nobody has vouched for, and its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed; it makes the certificate that must be refused")
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 "
        "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return both


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))
