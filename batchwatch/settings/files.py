"""Small text files: a secret, or the YAML file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 1024 * 1024  # bytes; nothing that is meant to be read here is larger


class UnreadableError(Exception):
    """A file cannot be used; ``str()`` says why and ``fix`` what to do."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.fix = fix


def read_text(path: Path) -> str:
    """Return what is in the file at ``path``; raise `UnreadableError` if it is no small text."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise UnreadableError("no such file", "Create it, or correct the path.") from None
    except IsADirectoryError:
        raise UnreadableError("a folder, not a file", "Give the path of a file.") from None
    except PermissionError:
        raise UnreadableError(
            "not readable by this user", "Let the user that runs batchwatch read it."
        ) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UnreadableError(reason, "Correct the path.") from None
    if len(content) > LARGEST:
        raise UnreadableError("larger than 1 MiB", "Give the path of the right file.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableError("not in UTF-8", "Save it in UTF-8.") from None


def read_secret(path: Path) -> str:
    """Return the secret in the file at ``path``, without the one line end that editors add.

    No more than that is taken away: the rest may belong to the secret.
    """
    text = read_text(path)
    for end in ("\r\n", "\n", " "):
        if text.endswith(end):
            text = text.removesuffix(end)
            break
    if not text:
        raise UnreadableError("an empty file", "Write the secret into it.")
    return text
