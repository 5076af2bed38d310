"""The YAML file as text all through, with the lines that its values stand on.

Values stay text because that is what variables are: a ``secret: 0123`` must
not become a number, nor a ``1:30`` ninety, nor a ``no`` false before the
setting that it belongs to has a say. The file is read as YAML's tree of
nodes, which knows the lines, and which tells keys that are there twice.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

    from batchwatch.settings.names import Path

_TAG = "tag:yaml.org,2002:"
_SCALARS = frozenset(
    f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "value")
)
_QUOTED = re.compile(r"'[^'<\s]{4,}'")


class MalformedError(Exception):
    """A file is no YAML that can be used; ``str()`` says why and where, without quoting from it."""

    def __init__(self, reason: str, mark: yaml.Mark | None = None) -> None:
        self.place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        super().__init__(f"{reason} at {self.place}" if mark else reason)


class Document:
    """One YAML file: ``tree`` holds maps, lists and text, and None for null."""

    tree: dict[str, object]

    def __init__(self, text: str) -> None:
        import yaml  # noqa: PLC0415 - only those who have a file pay for it

        try:
            loader = yaml.SafeLoader(text)
            self._root = loader.get_single_node()
            tree = _Reader(loader).value(self._root) if self._root else {}
        except yaml.MarkedYAMLError as error:
            # The parser quotes the names of aliases and tags, and a secret may look like one.
            reason = ": ".join(filter(None, (error.context, error.problem)))
            raise MalformedError(_QUOTED.sub("'…'", reason), error.problem_mark) from None
        except yaml.YAMLError:
            raise MalformedError("it holds characters that YAML does not allow") from None
        except RecursionError:
            raise MalformedError("its maps and lists are nested too deeply") from None
        if tree is not None and not isinstance(tree, dict):
            raise MalformedError("it holds no map of settings")
        self.tree = tree or {}

    def line(self, path: Path) -> int:
        """Return the line, from 1, on which the last known step of ``path`` stands."""
        node: Any = self._root
        line = 1
        for step in path:
            pairs = node.value if isinstance(getattr(node, "value", None), list) else []
            for key, value in (pair for pair in pairs if isinstance(pair, tuple)):
                if key.value == step:
                    node, line = value, key.start_mark.line + 1
                    break
            else:
                break
        return line


class _Reader:
    """Turns nodes into plain values, each node once: aliases may lead to it many times."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self._flatten = loader.flatten_mapping
        self._values: dict[int, object] = {}
        self._open: set[int] = set()

    def value(self, node: yaml.Node) -> object:
        """Return the plain value of ``node``."""
        if id(node) in self._open:
            raise MalformedError("an alias leads into itself", node.start_mark)
        if id(node) not in self._values:
            self._open.add(id(node))
            self._values[id(node)] = self._plain(node)
            self._open.remove(id(node))
        return self._values[id(node)]

    def _plain(self, node: Any) -> object:
        match node.id:
            case "mapping":
                return self._map(node)
            case "sequence":
                return [self.value(entry) for entry in node.value]
            case _ if node.tag not in _SCALARS:
                raise MalformedError("a tag, which settings do not know,", node.start_mark)
            case _:
                return None if node.tag == f"{_TAG}null" else node.value

    def _map(self, node: Any) -> dict[str, object]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if key.id != "scalar":
                raise MalformedError("a key that is no name", key.start_mark)
            if key.value in seen and key.tag != f"{_TAG}merge":
                reason = f"a key that is on line {seen[key.value]} already, it stands"
                raise MalformedError(reason, key.start_mark)
            seen[key.value] = key.start_mark.line + 1
        self._flatten(node)  # merges what <<: brings, before the keys that override it
        return {key.value: self.value(entry) for key, entry in node.value}
