"""Directories and the files in them, which batches take their work from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from batchwatch.simulator.project import Row
from batchwatch.simulator.timeline import SECOND

if TYPE_CHECKING:
    from batchwatch.simulator.project import Origin, Project
    from batchwatch.simulator.timeline import Micros

EPHEMERAL_FOR: Final = 24 * 3_600 * SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryWish:
    """What the maker of a directory says of it."""

    name: str
    type: str = "user"  # or ephemeral
    description: str | None = None
    system_metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileWish:
    """What the maker of a directory's file says of it."""

    display_name: str
    unique_id: str | None = None  # the display name, unless given
    file_id: str | None = None  # of what is stored already; something new, unless given
    metadata: dict[str, Any] = field(default_factory=dict)


class Directory(Row):
    """A directory. Files are added to it, never taken away.

    The first ``furnished`` of them make themselves when somebody looks, so that a storm of 10,000
    batches does not cost 20,000 files at its start.
    """

    __slots__ = ("_files", "_furnished", "origin", "project", "wish")

    def __init__(
        self,
        project: Project,
        origin: Origin,
        created: Micros,
        wish: DirectoryWish,
        *,
        furnished: int = 0,
    ) -> None:
        super().__init__(project.name("dir", "directory", *origin), created)
        self.project = project
        self.origin = origin
        self.wish = wish
        self._files: list[DirectoryFile] = []
        self._furnished = furnished

    @property
    def files(self) -> list[DirectoryFile]:
        """Its files, in the order in which they came."""
        while self._furnished > len(self._files):
            nth = len(self._files)
            wish = FileWish(display_name=f"{self.wish.name}-{nth + 1:04d}.pdf")
            self._files.append(DirectoryFile(self, nth, self.created, wish))
        return self._files

    @property
    def size(self) -> int:
        """How many files are in it."""
        return max(self._furnished, len(self._files))

    def add(self, created: Micros, wish: FileWish) -> DirectoryFile:
        """Put a file into it."""
        file = DirectoryFile(self, self.size, created, wish)
        self.files.append(file)
        return file

    def picture(self, at: Micros) -> dict[str, Any]:
        """The directory, which stays as it was made."""
        del at
        shown = self.project.timeline.shown
        ephemeral = self.wish.type == "ephemeral"
        return {
            "id": self.id,
            "name": self.wish.name,
            "project_id": self.project.id,
            "connector_subscription_id": None,
            "created_at": shown(self.created),
            "deleted_at": None,
            "description": self.wish.description,
            "expires_at": shown(self.created + EPHEMERAL_FOR) if ephemeral else None,
            "system_metadata": self.wish.system_metadata,
            "type": self.wish.type,
            "updated_at": shown(self.created),
        }


class DirectoryFile(Row):
    """A file, as one directory knows it."""

    __slots__ = ("directory", "file_id", "unique_id", "wish")

    def __init__(self, directory: Directory, nth: int, created: Micros, wish: FileWish) -> None:
        project, name = directory.project, (*directory.origin, nth)
        super().__init__(project.name("dfl", "file", *name), created)
        self.directory = directory
        self.wish = wish
        self.unique_id = wish.unique_id or wish.display_name
        self.file_id = wish.file_id or project.name("fil", "stored", *name)

    def picture(self, at: Micros) -> dict[str, Any]:
        """The file, which stays as it was added."""
        del at
        created = self.directory.project.timeline.shown(self.created)
        return {
            "id": self.id,
            "directory_id": self.directory.id,
            "display_name": self.wish.display_name,
            "project_id": self.directory.project.id,
            "unique_id": self.unique_id,
            "created_at": created,
            "deleted_at": None,
            "download_url": None,
            "file_id": self.file_id,
            "metadata": self.wish.metadata,
            "updated_at": created,
        }
