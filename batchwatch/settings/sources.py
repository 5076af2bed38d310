"""Where settings come from, highest first: arguments, environment, secrets folder, YAML file.

pydantic-settings merges the layers that are made here. It could read the
environment, too, but passes over a name that it does not know, stops at the
first trouble, and has no ``NAME_FILE``; here every name is looked up in the
table of settings, everything that is wrong is kept for one report, and it is
known of each value where it came from. Secrets are hidden as they are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from batchwatch.settings.files import UnreadableError, read_secret, read_text
from batchwatch.settings.kinds import Location
from batchwatch.settings.model import default_data_dir
from batchwatch.settings.names import PREFIX, Origin, key, path_of, variable, variables
from batchwatch.settings.problems import Invalid, Problem, nearest, shown, without_secrets
from batchwatch.settings.table import (
    GROUPS,
    ONLY_VARIABLES,
    is_map,
    nearest_path,
    nearest_variable,
    setting_at,
)
from batchwatch.settings.yaml_file import Document, MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from batchwatch.settings.names import Path as SettingPath
    from batchwatch.settings.table import Setting

_FILE = "_FILE"
_REMOVE = "Remove it; docs/configuration.md lists all settings."

# The tests' own; it names the PostgreSQL server that they may use.
_NOT_OURS = frozenset({"BATCHWATCH_TEST_POSTGRES"})

# Kubernetes describes each service to all pods around it: beside one called `batchwatch`, a pod
# finds BATCHWATCH_SERVICE_HOST, BATCHWATCH_PORT_8080_TCP_ADDR, BATCHWATCH_PORT=tcp://… and others.
_SERVICE_LINK = re.compile(
    r"BATCHWATCH_(?:\w+_)?(?:"
    r"SERVICE_HOST=.*|SERVICE_PORT(?:_\w+)?=.*|PORT=(?:tcp|udp|sctp)://.*"
    r"|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?=.*)"
)


class Reading:
    """What the sources hold, and everything that is wrong with them.

    ``layers`` are trees of raw values, the highest first. ``is_whole`` is
    False when a source could not be read, so that nobody knows what is
    missing.
    """

    def __init__(self) -> None:
        self.layers: list[dict[str, Any]] = []
        self.origins: dict[SettingPath, Origin] = {}
        self.problems: list[Problem] = []
        self.is_whole = True
        self._told: set[SettingPath] = set()  # what is wrong with them is among the problems
        self._entries: dict[SettingPath, Origin] = {}  # watches, endpoints and routes, if in a map
        self._file_name = ""

    @property
    def tried(self) -> set[SettingPath]:
        """The paths that somebody meant to set, rightly or not."""
        return {*self.origins, *self._told, *self._entries}

    # ------------------------------------------------------------------------------- sources

    def read_all(self, environ: Mapping[str, str], arguments: Mapping[str, object]) -> None:
        """Read every source there is; the higher ones say where the lower ones are."""
        self.read_arguments(arguments)
        self.read_environment(environ)
        if folder := self._location("secrets_dir"):
            self.read_folder(folder)
        if file := self._location("config"):
            self.read_yaml(file)
        if ("data_dir",) not in self.tried:
            self._read_default(environ)

    def read_arguments(self, arguments: Mapping[str, object]) -> None:
        """Read what the program itself was told, such as options of the command line."""
        self.layers.append({})
        self._walk((), arguments, lambda path: Origin(f"--{key(path).replace('_', '-')}"))

    def read_environment(self, environ: Mapping[str, str]) -> None:
        """Read the variables of ``environ`` that are ours."""
        given = {name: text for name, text in environ.items() if text and _is_ours(name, text)}
        self._read_variables(given, self._unquoted, lambda _: "")

    def read_folder(self, folder: Path) -> None:
        """Read the secrets in ``folder``: one a file, named as its variable in any case.

        Other files may lie there, too: such a folder often serves several programs.
        """
        try:
            files = {file.name: str(file) for file in sorted(folder.iterdir()) if file.is_file()}
        except OSError as error:
            self.is_whole = False
            self._report(
                self._name(("secrets_dir",)),
                f"{shown(str(folder))}, {error.strerror}",
                "a folder that this user can read",
                "Correct the path or the rights.",
            )
            return
        self._read_variables(files, self._secret, files.__getitem__)

    def read_yaml(self, file: Path) -> None:
        """Read the YAML file."""
        name = str(file)
        try:
            document = Document(read_text(file))
        except UnreadableError as error:
            self.is_whole = False
            given = f"{shown(name)}, {error}"
            self._report(self._name(("config",)), given, "a YAML file", error.fix)
            return
        except MalformedError as error:
            self.is_whole = False
            self._report(name, str(error), "YAML with a map of settings", "Correct the file.")
            return
        self._file_name = name
        self.layers.append({})
        self._walk((), document.tree, lambda path: self._line(document, path))

    def _read_default(self, environ: Mapping[str, str]) -> None:
        """Add the one default that depends on the environment."""
        try:
            default = default_data_dir(environ)
        except RuntimeError:  # no HOME, and a user id that no user has: some containers run so
            default = Path()  # never used, but the model would look for a home again
            name = variable(("data_dir",))
            fix = f"Set {name}."
            self._report(name, "nothing, and no home folder is known", "a folder", fix)
        self.layers.append({"data_dir": default})

    def _location(self, name: str) -> Path | None:
        given = next((layer[name] for layer in self.layers if name in layer), None)
        try:
            return Location().parse(given) if given is not None else None
        except Invalid:
            return None  # the model tells

    # ----------------------------------------------------------------------------- variables

    def _read_variables(
        self,
        given: Mapping[str, str],
        read: Callable[[str, str, SettingPath], str | None],
        place: Callable[[str], str],
    ) -> None:
        """Add a layer of what is ``given`` by the names of variables; ``read`` gives the text."""
        self.layers.append({})
        spellings: dict[str, str] = {}
        for spelling in given:
            name = spelling.upper()
            if spellings.setdefault(name, spelling) != spelling:
                both = f"{spellings[name]} and {spelling}"
                self._report(name, both, "one spelling", "Remove one of them.")
        for name, spelling in spellings.items():
            setting, base = _named(name)
            path = path_of(base)
            if setting is None or path is None:
                if name.startswith(PREFIX):
                    self._unknown_variable(name)
            elif _is_outdone(base, path, spellings):
                continue
            elif name != base and base in spellings:
                self._report(
                    base,
                    f"both {base} and {name}",
                    "one of them",
                    "Remove one of them.",
                    path,
                )
            else:
                origin = Origin(name, place(spelling))
                text = read(str(origin), given[spelling], path)
                if text and name != base:
                    origin = Origin(name, text)
                    text = self._secret(name, text, path)
                if text:
                    self._put(path, text, setting, origin)

    def _unquoted(self, name: str, text: str, path: SettingPath) -> str | None:
        """Refuse a text in quotes, which ``docker --env-file`` leaves in the value."""
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
            self._report(name, "a value in quotes", "the value alone", "Remove the quotes.", path)
            return None
        return text

    def _secret(self, name: str, file: str, path: SettingPath) -> str | None:
        """Return the secret in ``file``, or None once it is told why there is none."""
        try:
            return read_secret(Location().parse(file))
        except Invalid as invalid:
            given, fix = invalid.given, invalid.fix
        except UnreadableError as error:
            given, fix = f"{shown(file)}, {error}", error.fix
        self._report(name, given, "a file with a secret", fix, path)
        return None

    def _unknown_variable(self, name: str) -> None:
        near = nearest_variable(name)
        if near and (path := path_of(near)):
            self._told.add(path)
        parts = path_of(name) or ()
        if parts[0] in GROUPS and len(parts) < 3:
            fix = f"Name an entry and its setting, as in {near}." if near else ""
        else:
            fix = f"Did you mean {near}?" if near else _REMOVE
        self._report(name, "a name that is not a setting", "", fix)

    # ------------------------------------------------------------------------------- mappings

    def _walk(
        self, path: SettingPath, value: object, origin: Callable[[SettingPath], Origin]
    ) -> None:
        """Add what a tree of settings holds at ``path`` to the lowest layer."""
        if not is_map(path):
            self._leaf(path, value, origin)
            return
        if len(path) == 2:  # the name of a watch, an endpoint or a route
            self._place(path)  # which exists even if it has no settings of its own
            self._entries[path] = origin(path)
        if isinstance(value, Mapping):
            for step, inner in value.items():
                if path or not step.startswith("x-"):  # a place for what anchors are put on
                    self._walk((*path, step), inner, origin)
        elif value not in (None, ""):
            self._report(
                str(origin(path)), shown(value), "a map", "Name its settings below it.", path
            )

    def _leaf(
        self, path: SettingPath, value: object, origin: Callable[[SettingPath], Origin]
    ) -> None:
        if value is None or value == "":
            return
        where = origin(path)
        setting = setting_at(path)
        if setting and path in ONLY_VARIABLES and self._file_name:
            self._report(str(where), shown(value), "", f"Set {variable(path)} instead.", path)
        elif setting:
            self._put_once(path, value, setting, where)
        else:
            base = (*path[:-1], path[-1].removesuffix("_file"))
            setting = setting_at(base)
            if setting and setting.kind.secret and isinstance(value, str):
                text = self._secret(str(where), value, base)
                if text:
                    self._put_once(
                        base, text, setting, Origin(where.name, f"{where.place}, {value}")
                    )
            else:
                self._unknown_key(path, where)

    def _unknown_key(self, path: SettingPath, where: Origin) -> None:
        near = nearest_path(path)
        if near:
            self._told.add(near)
        fix = f"Did you mean {near[-1]}?" if near else _REMOVE
        name = without_secrets(str(where))  # such as a value whose key was forgotten
        self._report(name, "a name that is not a setting", "", fix)

    def _put_once(self, path: SettingPath, value: object, setting: Setting, origin: Origin) -> None:
        """Put a value that a map may hold twice: as a text and as a file, or in another case."""
        if path[2:3] == ("headers",):
            path = (*path[:-1], path[-1].lower())
        if path[-1] in self._place(path[:-1]):
            self._report(str(origin), "given twice", "one of them", "Remove one of them.", path)
        else:
            self._put(path, value, setting, origin)

    # ------------------------------------------------------------------------------ bookkeeping

    def _place(self, path: SettingPath) -> dict[str, Any]:
        """Return the map at ``path`` in the lowest layer so far."""
        node = self.layers[-1]
        for step in path:
            node = node.setdefault(step, {})
        return node

    def _put(self, path: SettingPath, value: object, setting: Setting, origin: Origin) -> None:
        self.origins.setdefault(path, origin)
        self._place(path[:-1])[path[-1]] = _hidden(value) if setting.kind.secret else value

    def _report(
        self, name: str, given: str, expected: str, fix: str, path: SettingPath = ()
    ) -> None:
        self.problems.append(Problem(name, given, expected, fix, path))
        if path:
            self._told.add(path)

    def _line(self, document: Document, path: SettingPath) -> Origin:
        return Origin(key(path), f"{self._file_name}, line {document.line(path)}")

    def _name(self, path: SettingPath) -> str:
        """Return how the user knows the setting at ``path``, which may not have been set."""
        if path in self.origins:
            return str(self.origins[path])
        if entry := self._entries.get(path[:2]):
            return str(Origin(key(path), entry.place))  # where the rest of it stands
        return variable(path)

    def named(self, problems: Iterable[Problem]) -> Iterator[Problem]:
        """Yield ``problems`` under the names that the user gave, without what is told already."""
        told = self._told - self.origins.keys()
        for problem in problems:
            # An entry that is wrong as a whole lacks all its settings, which goes without saying.
            if problem.path not in told and problem.path[:2] not in told:
                yield replace(self._explained(problem), name=self._name(problem.path))

    def _explained(self, problem: Problem) -> Problem:
        """Say of what an entry lacks which variable made that entry, and what it may have meant.

        A slip in a name is no unknown setting: it makes another entry.
        """
        path = problem.path
        if problem.given != "nothing" or len(path) != 3 or path[0] not in GROUPS:
            return problem
        makers = [one for made, one in self.origins.items() if made[:2] == path[:2]]
        if not makers or any(one.place.startswith(f"{self._file_name}, ") for one in makers):
            return problem  # it stands in the file in full, where a slip is seen
        others = {one[1] for one in self.tried if len(one) > 2 and one[0] == path[0]} - {path[1]}
        near = nearest(path[1], sorted(others))
        kind = path[0].removesuffix("es" if path[0] == "watches" else "s")
        return replace(
            problem,
            given=f"nothing, while {makers[0]} makes the {kind} {path[1]}",
            fix=f"Did you mean {near}? If not, set it." if near else problem.fix,
        )


def _hidden(value: object) -> object:
    """Return ``value`` with all text in it hidden."""
    if isinstance(value, list):
        return [_hidden(entry) for entry in value]
    return SecretStr(value) if isinstance(value, str) else value


def _is_ours(name: str, text: str) -> bool:
    """Whether a variable is meant for us: a setting, or a slip that carries our prefix."""
    name = name.upper()
    if _named(name)[0]:
        return True
    is_link = _SERVICE_LINK.fullmatch(f"{name}={text}")
    return name.startswith(PREFIX) and name not in _NOT_OURS and not is_link


def _named(name: str) -> tuple[Setting | None, str]:
    """Return the setting that a variable sets, and the variable that it stands for.

    They differ for ``NAME_FILE``, which stands for NAME if that is a secret.
    It is tried first, since the name of a header may end with _FILE, too.
    """
    for base in (name.removesuffix(_FILE), name):
        path = path_of(base)
        setting = setting_at(path) if path else None
        if setting and (base == name or setting.kind.secret):
            return setting, base
    return None, name


def _is_outdone(base: str, path: SettingPath, given: Mapping[str, str]) -> bool:
    """Whether a variable that counts more sets the same path in the same source."""
    names = variables(path)
    before = names[: names.index(base)] if base in names else ()
    return any(name in given or name + _FILE in given for name in before)
