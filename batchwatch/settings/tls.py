"""Whom an endpoint's TLS trusts and what it shows of itself, made from its files once at start."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from batchwatch.settings.files import UnreadableError, read_text
from batchwatch.settings.names import variable
from batchwatch.settings.parts import WebhookSettings
from batchwatch.settings.problems import Problem, SettingsError, shown

if TYPE_CHECKING:
    from pathlib import Path

    from batchwatch.settings.model import Settings
    from batchwatch.settings.parts import EndpointSettings


def tls_contexts(given: Settings) -> dict[str, ssl.SSLContext]:
    """Return a context for each endpoint that must not be met as everybody is.

    Files are read here and not again: whoever renews a certificate restarts
    the daemon. Raises `SettingsError` with all that is wrong with them.
    """
    contexts: dict[str, ssl.SSLContext] = {}
    problems: list[Problem] = []
    for name, endpoint in given.endpoints.items():
        try:
            context = _context(endpoint)
        except _UnusableError as error:
            path = ("endpoints", name, error.setting)
            problems.append(
                Problem(
                    str(given.origins.get(path, variable(path))),
                    f"{shown(str(error.file))}, {error}",
                    error.expected,
                    error.fix,
                    path,
                )
            )
        else:
            if context is not None:
                contexts[name] = context
    if problems:
        raise SettingsError(problems)
    return contexts


class _UnusableError(Exception):
    """``setting`` names ``file``, which cannot be used; ``str()`` says why."""

    def __init__(self, setting: str, file: Path, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.setting = setting
        self.file = file
        self.fix = fix
        self.expected = {
            "tls_ca": "a file with certificates in PEM",
            "tls_certificate": "a file with a certificate in PEM",
            "tls_key": "a file with that certificate's key in PEM, without a passphrase",
        }[setting]


def _context(given: EndpointSettings) -> ssl.SSLContext | None:
    certificate = key = None
    if isinstance(given, WebhookSettings):
        certificate, key = given.tls_certificate, given.tls_key
    if given.tls_verify and not given.tls_ca and not certificate:
        return None
    context = _trusting(given.tls_ca) if given.tls_ca else ssl.create_default_context()
    context.set_alpn_protocols(("http/1.1",))  # as aiohttp's own
    if not given.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        _show(context, certificate, key)
    return context


def _trusting(authorities: Path) -> ssl.SSLContext:
    _read("tls_ca", authorities, "CERTIFICATE")
    try:
        return ssl.create_default_context(cafile=authorities)
    except ssl.SSLError:
        fix = "Make the file again."
        raise _UnusableError("tls_ca", authorities, "a damaged certificate", fix) from None


def _show(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    """Let ``context`` show our own certificate to whoever asks."""
    _read("tls_certificate", certificate, "CERTIFICATE")
    if key is None:
        _read("tls_certificate", certificate, "PRIVATE KEY", "Set tls_key to the file of its key.")
    else:
        _read("tls_key", key, "PRIVATE KEY")
    setting, file = ("tls_key", key) if key else ("tls_certificate", certificate)
    asked = False

    def passphrase() -> str:
        nonlocal asked
        asked = True
        return ""  # instead of a question on the terminal

    try:
        context.load_cert_chain(certificate, key, password=passphrase)
    except (ssl.SSLError, ValueError) as error:
        if asked:
            fix = "Take the passphrase off: openssl pkey -in KEY -out NEW"
            raise _UnusableError(setting, file, "a key with a passphrase", fix) from None
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            fix = "Give the key that the certificate was made with."
            raise _UnusableError(setting, file, "the key of another certificate", fix) from None
        fix = "Make the files again; one of them is damaged."
        raise _UnusableError(setting, file, "a damaged file", fix) from None


def _read(
    setting: str, file: Path, part: str, fix: str = "Give the path of the right file."
) -> None:
    """Refuse a ``file`` that cannot be read, or that holds no ``part`` in PEM."""
    try:
        text = read_text(file)
    except UnreadableError as error:
        raise _UnusableError(setting, file, str(error), error.fix) from None
    if f"{part}-----" not in text:
        raise _UnusableError(setting, file, f"which holds no {part.lower()} in PEM", fix)
