"""An authority of our own that vouches for whom a test wants, by the openssl command."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


class Authority:
    """Makes certificates in a folder: ``ca.pem``, and for each name ``name.pem`` with its key."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed; it makes the certificates")
        self.folder = folder
        self.run("req", "-x509", *_KEY, "-days", "2", "-subj", "/CN=Test CA",
                  "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip

    @property
    def file(self) -> Path:
        """What to trust so as to trust all that this authority vouches for."""
        return self.folder / "ca.pem"

    def certificate(self, name: str, *, of: str = "IP:127.0.0.1", days: int = 1) -> Path:
        """A certificate and its key in one file; with ``days`` below zero it is over already."""
        both = self.folder / f"{name}.pem"
        if not both.exists():
            subject = ("-subj", f"/CN={name}", "-addext", f"subjectAltName={of}")
            wish = ("-keyout", f"{name}.key", "-out", f"{name}.csr")
            self.run("req", *_KEY, "-new", *subject, *wish)
            vouched = ("-CA", "ca.pem", "-CAkey", "ca.key", "-copy_extensions", "copy")
            made = ("-days", str(days), "-out", f"{name}.crt")
            self.run("x509", "-req", "-in", f"{name}.csr", *vouched, *made)
            parts = [self.folder / f"{name}.{part}" for part in ("crt", "key")]
            both.write_text("".join(part.read_text() for part in parts))
        return both

    def server(self, name: str = "server", *, of: str = "IP:127.0.0.1", days: int = 1,
               asks: bool = False) -> ssl.SSLContext:  # fmt: skip
        """What a receiver shows; with ``asks`` it wants to see one of this authority's, too."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate(name, of=of, days=days))
        if asks:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.file)
        return context

    def client(self) -> ssl.SSLContext:
        """Trusts this authority alone."""
        return ssl.create_default_context(cafile=self.file)

    def run(self, *command: str) -> None:
        """The openssl command, in the folder."""
        subprocess.run(["openssl", *command], cwd=self.folder, check=True, capture_output=True)  # noqa: S607  # wherever it is


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
