"""/api/v1/beta/directories: directories and the files that batches are made over."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import BodyPartReader, web

from batchwatch.simulator.api.disturb import TROUBLE
from batchwatch.simulator.api.forms import DirectoryForm, FileForm, filled_in
from batchwatch.simulator.api.pages import Paging
from batchwatch.simulator.api.query import Query
from batchwatch.simulator.api.refusal import Problems, Refusal, json_answer, not_found
from batchwatch.simulator.directory import Directory, DirectoryFile, DirectoryWish, FileWish

if TYPE_CHECKING:
    from batchwatch.simulator.world import World

_TYPES: Final = ("ephemeral", "index", "user")
_BASE: Final = "/v1/beta/directories"


class DirectoryRoutes:
    """The routes of directories and their files."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        files = f"{_BASE}/{{id}}/files"
        return [
            web.post(_BASE, self.create),
            web.get(_BASE, self.list),
            web.get(f"{_BASE}/{{id}}", self.get),
            web.post(f"{files}/upload", self.upload),
            web.post(files, self.add_file),
            web.get(files, self.list_files),
            web.get(f"{files}/{{file_id}}", self.get_file),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """Create an empty directory. A name is taken once in a project: 409 says by which."""
        form = await filled_in(request, DirectoryForm)
        for other in self._world.directories:
            if other.wish.name == form.name:
                detail = {"message": "The name is taken", "directory_id": other.id}
                raise Refusal(HTTPStatus.CONFLICT, detail)
        directory = self._world.make_directory(
            DirectoryWish(
                name=form.name,
                type=form.type,
                description=form.description,
                system_metadata=form.system_metadata,
            )
        )
        return json_answer(directory.encoded(directory.created))

    async def list(self, request: web.Request) -> web.Response:
        """The directories of a name or of some types."""
        trouble, query = request[TROUBLE], Query(request)
        paging, name = Paging(query, trouble), query.text("name")
        types = query.choices("types", _TYPES) + query.choices("type", _TYPES)
        query.refuse_if_wrong()

        def matches(directory: Directory) -> bool:
            wish = directory.wish
            return (name is None or wish.name == name) and (not types or wish.type in types)

        now = self._world.now()
        return paging.cut(self._world.directories, matches).answer(now, trouble)

    async def get(self, request: web.Request) -> web.Response:
        """One directory."""
        return json_answer(self._found(request).encoded(self._world.now()))

    async def upload(self, request: web.Request) -> web.Response:
        """Take a file from a multipart form; its content is counted and dropped."""
        directory = self._found(request)
        fields: dict[str, Any] = {}
        if request.content_type == "multipart/form-data":
            async for part in await request.multipart():
                if isinstance(part, BodyPartReader) and part.name == "upload_file":
                    fields["upload_file"] = part.filename or "upload"
                    await part.release()
                elif isinstance(part, BodyPartReader) and part.name:
                    fields[part.name] = await part.text()
        problems = Problems()
        if "upload_file" not in fields:
            problems.add("missing", ("body", "upload_file"), "Field required", None)
        metadata = _json_object(fields.get("metadata", "{}"))
        if metadata is None:
            where, given = ("body", "metadata"), fields["metadata"]
            problems.add("json_invalid", where, "Input should be a JSON object", given)
        problems.refuse()
        return self._add(
            directory,
            FileWish(
                display_name=fields.get("display_name") or fields["upload_file"],
                unique_id=fields.get("unique_id") or fields.get("external_file_id"),
                metadata=metadata or {},
            ),
        )

    async def add_file(self, request: web.Request) -> web.Response:
        """Add what another directory holds already."""
        directory = self._found(request)
        form = await filled_in(request, FileForm)
        held = (file for other in self._world.directories for file in other.files)
        known = next((file for file in held if file.file_id == form.file_id), None)
        if known is None:
            raise not_found("File", form.file_id)
        return self._add(
            directory,
            FileWish(
                display_name=form.display_name or known.wish.display_name,
                unique_id=form.unique_id,
                file_id=form.file_id,
                metadata=form.metadata or {},
            ),
        )

    def _add(self, directory: Directory, wish: FileWish) -> web.Response:
        taken = {file.unique_id for file in directory.files}
        if (wish.unique_id or wish.display_name) in taken:
            detail = f"A file {wish.unique_id or wish.display_name} is in the directory already"
            raise Refusal(HTTPStatus.CONFLICT, detail)
        now = self._world.now()
        return json_answer(directory.add(now, wish).encoded(now))

    async def list_files(self, request: web.Request) -> web.Response:
        """The files of a directory."""
        trouble, query = request[TROUBLE], Query(request)
        paging = Paging(query, trouble)
        names = ("display_name", "unique_id", "file_id")
        wanted = {name: query.text(name) for name in names if query.text(name) is not None}
        part = query.text("display_name_contains") or ""
        query.refuse_if_wrong()
        now = self._world.now()

        def matches(file: DirectoryFile) -> bool:
            picture = file.picture(now)
            same = all(picture[name] == value for name, value in wanted.items())
            return same and part in picture["display_name"]

        files = sorted(self._found(request).files, key=lambda file: file.key)
        return paging.cut(files, matches).answer(now, trouble)

    async def get_file(self, request: web.Request) -> web.Response:
        """One file of a directory."""
        file_id = request.match_info["file_id"]
        for file in self._found(request).files:
            if file.id == file_id:
                return json_answer(file.encoded(self._world.now()))
        raise not_found("Directory file", file_id)

    def _found(self, request: web.Request) -> Directory:
        directory_id = request.match_info["id"]
        directory = self._world.directory(directory_id)
        if directory is None:
            raise not_found("Directory", directory_id)
        return directory


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return None
